"""Group commit: everything that executions decide in one round of the scheduler becomes durable in one append.

The bound of the queue is the number of live executions and calls: each waits for its own item.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final

import trio

from plait_server.errors import JournalFull, JournalUnavailable, ShuttingDown
from plait_server.ports.journal import AppendItem, AppendResult, Journal
from plait_server.runtime.changes import Changes
from plait_server.runtime.durations import Durations
from plait_server.runtime.gathering import Gathering

logger = logging.getLogger(__name__)

FULL_RETRY_S: Final = 1.0
"""Seconds between retries while the disk is full, because it takes a person to free space."""


class _Pending:
    __slots__ = ("begin_s", "done", "error", "item", "result")

    def __init__(self, item: AppendItem) -> None:
        self.item = item
        self.begin_s = trio.current_time()
        self.done = trio.Event()
        self.result: AppendResult | None = None
        self.error: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitterStatistics:
    """A snapshot of what a committer has done."""

    appends: int
    """Appends, each of which made all of its items durable together."""
    items: int
    wait_p50_s: float
    """Half of the items were durable within this time after they were queued."""
    wait_p99_s: float
    """99 % of the items were durable within this time after they were queued."""


class Committer:
    """Appends items together. `run` is started once, by the server's nursery."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self.gathering: Final = Gathering()
        """Checked by the executions before each step."""
        self.changes: Final = Changes()
        """Told of each namespace in which a row of an execution became durable."""
        self._queue: list[_Pending] = []
        self._wake = trio.Event()
        self._is_closed = False
        self._appends = 0
        self._waits = Durations()

    def statistics(self) -> CommitterStatistics:
        """Take a snapshot."""
        return CommitterStatistics(
            appends=self._appends,
            items=self._waits.count,
            wait_p50_s=self._waits.quantile(0.5),
            wait_p99_s=self._waits.quantile(0.99),
        )

    async def append(self, item: AppendItem) -> AppendResult:
        """Make an item durable.

        Once queued, the item is appended even if the caller is cancelled, who then does not learn the result.

        Raises:
            JournalFull: Nothing was written.
            JournalUnavailable: It is unknown whether the item was written.
            ShuttingDown: Nothing was written.
        """
        if self._is_closed:
            raise ShuttingDown
        pending = _Pending(item)
        self._queue.append(pending)
        self._wake.set()
        await pending.done.wait()
        if pending.error is not None:
            raise pending.error
        assert pending.result is not None  # set together with `done`
        return pending.result

    async def append_when_there_is_room(self, item: AppendItem) -> AppendResult:
        """Make an item durable, waiting for as long as the disk is full.

        Raises:
            JournalUnavailable: It is unknown whether the item was written.
        """
        while True:
            try:
                return await self.append(item)
            except JournalFull:
                await trio.sleep(FULL_RETRY_S)
            except ShuttingDown:
                # The server's own tasks are stopped too, some steps later, so this is not an error.
                await trio.sleep_forever()

    async def run(self) -> None:
        """Append until cancelled; then refuse the queued items, so that no caller waits for ever.

        Raises:
            JournalUnavailable, StoreDamaged: The store failed. It is unknown how much of the last append it kept,
                so the server must stop and read the store again.
        """
        try:
            while True:
                await self._wake.wait()
                # Executions that are about to step in this round join the append.
                await trio.lowlevel.checkpoint()
                batch = self._take_batch()
                with trio.CancelScope(shield=True):
                    await self._append(batch)
        finally:
            self._is_closed = True
            for pending in self._queue:
                pending.error = ShuttingDown()
                pending.done.set()

    def _take_batch(self) -> list[_Pending]:
        """Take the queued items, only the first for each execution (rule 1 of the journal); the rest waits a round."""
        self._wake = trio.Event()
        first: dict[tuple[str, str], _Pending] = {}
        later: list[_Pending] = []
        for pending in self._queue:
            key = pending.item.namespace, pending.item.execution_id
            if first.setdefault(key, pending) is not pending:
                later.append(pending)
        self._queue = later
        if later:
            self._wake.set()
        return list(first.values())

    async def _append(self, batch: list[_Pending]) -> None:
        try:
            results = await self._journal.append_many([pending.item for pending in batch])
        except JournalFull as error:
            logger.error(  # noqa: TRY400 # the environment's fault; a traceback would not help
                "the store refused an append of %d items: %s", len(batch), error
            )
            _fail(batch, error)
        except BaseException as error:
            # Some waiting callers are shielded; they must get the error before it ends the server.
            _fail(batch, error if isinstance(error, JournalUnavailable) else JournalUnavailable(str(error)))
            raise
        else:
            self._appends += 1
            now_s = trio.current_time()
            for pending, result in zip(batch, results, strict=True):
                self._waits.add(now_s - pending.begin_s)
                pending.result = result
                pending.done.set()
                if pending.item.row is not None:
                    self.changes.note(pending.item.namespace)


def _fail(batch: list[_Pending], error: Exception) -> None:
    for pending in batch:
        pending.error = error
        pending.done.set()
