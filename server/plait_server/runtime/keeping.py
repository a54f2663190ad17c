"""Deletes executions: those that callers delete, and ended ones whose time is over (K1).

A deletion takes the execution out of the store at once; what is left of it is deleted by the task of `run`, a few rows
in each of many short transactions, so that nothing waits for the deletion of a large execution. While the disk is full
nothing is deleted, because a deletion has to be written too.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import Final, assert_never

import trio

from plait_server.errors import ExecutionNotEnded, ExecutionNotFound, JournalFull, JournalUnavailable
from plait_server.ports.audit import ActionRecord
from plait_server.ports.deletions import DeletionBegun, ExecutionMissing, ExecutionOpen
from plait_server.ports.journal import RequestConflict, RequestRecord
from plait_server.runtime.admission import Queued
from plait_server.runtime.environment import Environment
from plait_server.runtime.intake import check_fingerprint, find_request
from plait_server.runtime.locations import Asleep, Damaged, Key, Live, Loading, Locations, Unread
from plait_server.runtime.resting import Resting

logger = logging.getLogger(__name__)

LOOK_S: Final = 60.0
"""Seconds between two looks for executions whose time is over."""
PAUSE_S: Final = 0.02
"""Seconds between two slices."""
ROWS_MAX: Final = 100
BYTES_MAX: Final = 512 * 1024
"""The bounds of a slice, which takes 1 to 3 ms (a content of 16 MiB, the largest, takes 20 ms)."""
EXPIRED_MAX: Final = 20
"""Executions that are taken out in one slice."""
LEAVING_S: Final = 0.1
"""Seconds between two looks whether the attempts of an ended execution have left their workers."""
ACTIONS_KEPT_S: Final = 90 * 86_400.0
"""Seconds for which the audit shows who did what."""


class Keeping:
    """Deletes executions. `run` is started once, by the supervisor's nursery."""

    def __init__(self, environment: Environment, locations: Locations, resting: Resting) -> None:
        self._environment = environment
        self._deletions = environment.journal.deletions
        self._locations = locations
        self._resting = resting
        self._begun = trio.Event()
        self._fault: JournalUnavailable | None = None
        """Why the server must stop, if it must."""

    def __repr__(self) -> str:
        return f"<Keeping, deletes now: {self._begun.is_set()}>"

    async def delete(
        self, namespace: str, execution_id: str, request: RequestRecord | None, action: ActionRecord
    ) -> None:
        """Delete an ended or damaged execution; when this returns it is gone.

        Raises:
            ExecutionNotFound: No execution has this id in this namespace.
            ExecutionNotEnded: It is open; nothing was deleted.
            RequestIdReused: The request id was used with other content.
            JournalFull: Nothing was deleted.
            JournalUnavailable: It is unknown whether it was deleted.
        """
        key = namespace, execution_id
        if request is not None:
            known = await find_request(self._environment.journal.namespace(namespace), request)
            if known is not None:
                return
        await self._wait_ended(key)
        with trio.CancelScope(shield=True):
            try:
                result = await self._deletions.begin(
                    namespace,
                    execution_id,
                    now_s=self._environment.seams.now_s(),
                    is_corrupt=isinstance(self._locations.get(key), Damaged),
                    action=action,
                    request=request,
                )
            except JournalUnavailable as error:
                # It may be gone, so nothing in memory may show it, and the store must be read anew.
                self._resting.drop(key)
                self._fault = error
                self._begun.set()
                raise
            match result:
                case DeletionBegun():
                    self._forget(key)
                case ExecutionOpen():
                    raise ExecutionNotEnded(execution_id=execution_id)
                case ExecutionMissing():
                    raise ExecutionNotFound(execution_id=execution_id)
                case RequestConflict(record=record):
                    check_fingerprint(record, request)
                case _:
                    assert_never(result)

    async def run(self) -> None:
        """Delete what callers have deleted and what has been kept long enough, until cancelled.

        Raises:
            JournalUnavailable, StoreDamaged: The store failed; the server must stop.
        """
        while self._fault is None:
            self._begun = trio.Event()
            try:
                await self._delete_rows()
                await self._expire()
                await self._forget_records()
            except JournalFull:
                logger.warning("nothing is deleted while the disk is full")
            with trio.move_on_after(LOOK_S):
                await self._begun.wait()
        raise self._fault

    async def _wait_ended(self, key: Key) -> None:
        """Wait until no executor runs an ended execution.

        Raises:
            ExecutionNotEnded: It is open.
        """
        while True:
            location = self._locations.get(key)
            match location:
                case Live(executor=executor):
                    await executor.wait_durable()
                    if not executor.execution.is_ended:
                        raise ExecutionNotEnded(execution_id=key[1])
                    await trio.sleep(LEAVING_S)
                case Loading(moved=moved):
                    await moved.wait()
                case Queued() | Asleep() | Unread():
                    raise ExecutionNotEnded(execution_id=key[1])
                case Damaged() | None:
                    return
                case _:
                    assert_never(location)

    async def _expire(self) -> None:
        for namespace in await self._deletions.list_namespaces():
            while True:
                now_s = self._environment.seams.now_s()
                kept_s = self._environment.namespaces.of(namespace).retention_s
                expired = await self._deletions.begin_expired(
                    namespace,
                    ended_before_s=now_s - kept_s,
                    now_s=now_s,
                    limit=EXPIRED_MAX,
                    is_busy=partial(self._is_busy, namespace),
                )
                if not expired:
                    break
                for execution_id in expired:
                    self._forget((namespace, execution_id))
                await trio.sleep(PAUSE_S)
                await self._delete_rows()
            await trio.lowlevel.checkpoint()

    def _is_busy(self, namespace: str, execution_id: str) -> bool:
        """Whether an execution that has ended is still run, or is quarantined (K4)."""
        return self._locations.get((namespace, execution_id)) is not None

    async def _delete_rows(self) -> None:
        is_done = False
        while not is_done:
            is_done = await self._deletions.delete_some(rows_max=ROWS_MAX, bytes_max=BYTES_MAX)
            await trio.sleep(0 if is_done else PAUSE_S)

    async def _forget_records(self) -> None:
        now_s = self._environment.seams.now_s()
        is_done = False
        while not is_done:
            is_done = await self._deletions.forget_some(
                now_s=now_s, actions_before_s=now_s - ACTIONS_KEPT_S, limit=ROWS_MAX
            )
            await trio.sleep(0 if is_done else PAUSE_S)

    def _forget(self, key: Key) -> None:
        """Let nothing in memory show an execution that was taken out of the store."""
        self._environment.committer.changes.note(key[0])
        self._resting.forget(key)
        if isinstance(self._locations.get(key), Damaged):
            self._locations.remove(key)
        self._begun.set()
