"""WatchExecutions: the changes of a namespace's executions as a stream that can be resumed anywhere (A3).

A watcher reads the journal behind its token, a page at a time, so it costs a page of memory and slows nobody. The
number in the token is that of a change: each execution has the number of its newest change, so a watcher that was away
gets each execution once, as it is, whatever happened meanwhile; and `include_initial` is a watch from before the first
change. Deletions leave tombstones with numbers of the same series; a token from before tombstones that were dropped is
refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final

import trio

from plait.v1 import execution_pb2, execution_service_pb2
from plait_server.api.call import Send, send_in_time
from plait_server.api.checks import Checks
from plait_server.api.lists import digest_of_filter
from plait_server.api.pages import PageTokens
from plait_server.api.watching import FRAME_BYTES_MAX
from plait_server.core.lists.filters import Filter, matches, may_have_matched
from plait_server.core.lists.parsing import parse_filter
from plait_server.errors import InvalidPageToken, InvalidWatchToken, WatchTokenExpired
from plait_server.ports.journal import DamagedRow, Journal, ListedExecution
from plait_server.ports.lists import Change, Tombstone
from plait_server.runtime.changes import Changes
from plait_server.runtime.pacing import Gate

BOOKMARK_S: Final = 15.0
"""Proxies commonly drop a stream that is silent for 60 s."""
PACE_S: Final = 0.1
"""Seconds between pages of a watcher that has caught up, so that a busy namespace costs it ten a second."""
CHANGES_READ_MAX: Final = 50
"""A page is read in parts, because a thousand of the largest rows take 70 MB."""

Pb = execution_service_pb2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Watch:
    namespace: str
    condition: Filter | None
    initial_until: int
    """Up to this change the watcher knows no execution, so that none can leave it."""


class ExecutionsWatching:
    """Serves watchers of namespaces.

    Args:
        journal: Where the executions are.
        changes: Wakes watchers.
        tokens: Seals watch tokens.
        describe_row: Returns a row as lists show it.
    """

    def __init__(
        self,
        journal: Journal,
        changes: Changes,
        tokens: PageTokens,
        describe_row: Callable[[str, ListedExecution | DamagedRow], execution_pb2.Execution],
    ) -> None:
        self._journal = journal
        self._changes = changes
        self._tokens = tokens
        self._describe_row = describe_row
        self._gate = Gate()

    async def watch(self, request: Pb.WatchExecutionsRequest, send: Send) -> None:
        """Stream changes until the watcher leaves.

        Raises:
            InvalidRequest: A field is malformed.
            InvalidWatchToken: The token is not one of this namespace and filter.
            WatchTokenExpired: Deletions after the token may be missing, or it is of another state of the store.
            SlowConsumer: The watcher took no frame for 60 s.
        """
        checks = Checks()
        namespace = checks.namespace(request.namespace)
        if request.include_initial and request.watch_token:
            checks.add("include_initial", "goes without a watch_token; leave one of them out")
        checks.finish()
        condition = parse_filter(request.filter)
        of_watch = ("WatchExecutions", namespace, digest_of_filter(request.filter))
        page = await self._journal.namespace(namespace).list_changes(after=2**62, limit=1)
        after = 0 if request.include_initial else page.last_change
        if request.watch_token:
            try:
                after = int(self._tokens.read(request.watch_token, *of_watch) or 0)
            except InvalidPageToken as error:
                raise InvalidWatchToken from error
            if not page.floor <= after <= page.last_change:
                raise WatchTokenExpired
        initial_until = page.last_change if request.include_initial else 0
        watch = _Watch(namespace=namespace, condition=condition, initial_until=initial_until)
        await self._follow(watch, after, send, lambda change: self._tokens.make(str(change), *of_watch))

    async def _follow(self, watch: _Watch, after: int, send: Send, token_of: Callable[[int], str]) -> None:
        is_due = True
        while True:
            # First, so that a change between the read and the wait is not missed.
            changed = self._changes.next(watch.namespace)
            async with self._gate.passing():
                page = await self._journal.namespace(watch.namespace).list_changes(
                    after=after, limit=CHANGES_READ_MAX
                )
                is_whole = len(page.changes) < CHANGES_READ_MAX
                response = Pb.WatchExecutionsResponse()
                size = 0
                for number, change in self._shown(watch, page.changes):
                    if change is not None:
                        size += change.ByteSize()
                        if response.changes and size > FRAME_BYTES_MAX:
                            response.watch_token = token_of(after)
                            await send_in_time(send, response)
                            response, size = Pb.WatchExecutionsResponse(), change.ByteSize()
                        response.changes.append(change)
                    after = number
                if is_whole:
                    after = page.last_change
                    response.caught_up = True
                if response.changes or (is_whole and is_due):
                    response.watch_token = token_of(after)
                    await send_in_time(send, response)
                    is_due = False
            if is_whole:
                with trio.move_on_after(BOOKMARK_S) as waited:
                    await changed.wait()
                is_due = waited.cancelled_caught
                if not is_due:
                    await trio.sleep(PACE_S)

    def _shown(
        self, watch: _Watch, changes: Iterable[Change]
    ) -> Iterator[tuple[int, Pb.ExecutionChange | None]]:
        """Yield the number of each change, and what the watcher sees of it."""
        for number, row in changes:
            is_known = number > watch.initial_until
            shown: Pb.ExecutionChange | None = None
            if isinstance(row, Tombstone):
                if is_known:
                    shown = _change(Pb.EXECUTION_CHANGE_TYPE_DELETED, row.execution_id)
            elif (
                watch.condition is None
                or isinstance(row, DamagedRow)
                or matches(watch.condition, row.row.listing)
            ):
                shown = _change(Pb.EXECUTION_CHANGE_TYPE_UPDATED, row.execution_id)
                shown.execution.CopyFrom(self._describe_row(watch.namespace, row))
            elif is_known and may_have_matched(watch.condition, row.row.listing):
                shown = _change(Pb.EXECUTION_CHANGE_TYPE_LEFT, row.execution_id)
            yield number, shown


def _change(kind: Pb.ExecutionChangeType, execution_id: str) -> Pb.ExecutionChange:
    return Pb.ExecutionChange(type=kind, execution_id=execution_id)
