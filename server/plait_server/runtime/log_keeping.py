"""Keeps what handlers log and report, in the store beside the journal: at most once, and bounded (A6).

Lines are gathered in memory and written together, twice a second, so that they cost no flush of their own and delay no
step. What is in memory is lost in a crash. If the store is full, they are dropped: their numbers are missing then.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final

import trio

from plait_server.core.run.events import Event
from plait_server.core.run.execution import Execution
from plait_server.errors import JournalFull, JournalUnavailable
from plait_server.ports.journal import Journal
from plait_server.ports.log_lines import KeptLines, Key, LogLine, size_of
from plait_server.ports.workers import Assignment

logger = logging.getLogger(__name__)

LINES_MAX: Final = 10_000
"""Lines kept of an execution."""
BYTES_MAX: Final = 4 * 1024 * 1024
"""Bytes kept of an execution."""
PERIOD_S: Final = 0.5
"""How long a line may stay in memory alone."""
GATHERED_MAX: Final = 20_000
"""Lines in memory; those beyond are dropped. Workers may report 10,000 at once."""
LINES_AT_ONCE: Final = 500
"""Lines of one write, which takes some milliseconds."""
DROPPED_AT_ONCE: Final = 500
KNOWN_MAX: Final = 10_000
"""Executions whose numbers are in memory; those of others are read again."""


class LogKeeping:
    """Keeps the lines of a server's handlers, as an observer of workers. `run` is started once.

    Args:
        journal: Where they are kept.
        now_s: Returns the wall time.
    """

    def __init__(self, journal: Journal, now_s: Callable[[], float]) -> None:
        self._store = journal.log_lines
        self._now_s = now_s
        self._gathered: dict[Key, list[LogLine]] = {}
        """Lines without their numbers."""
        self._writing: dict[Key, list[LogLine]] = {}
        self._count = 0
        self._known: OrderedDict[Key, KeptLines] = OrderedDict()
        self._has_lines = trio.Event()
        self._written = trio.Event()

    def __repr__(self) -> str:
        return f"<LogKeeping {self._count} lines in memory>"

    def events_durable(self, namespace: str, execution: Execution, events: Sequence[Event]) -> None:
        """Do nothing: events are in the journal."""

    def worker_said(self, assignment: Assignment, kind: str, text: str) -> None:
        """Keep a log line or a progress report; heartbeats are not kept."""
        if kind == "heartbeat":
            return
        attempt = assignment.key
        lines = self._gathered.setdefault((attempt.namespace, attempt.execution_id), [])
        if self._count >= GATHERED_MAX:
            return
        self._count += 1
        lines.append(
            LogLine(0, self._now_s(), kind, attempt.node_path, attempt.attempt, assignment.branch, text)
        )
        self._has_lines.set()

    def has_unwritten(self, namespace: str, execution_id: str) -> bool:
        """Return whether lines of an execution are in memory alone."""
        key = namespace, execution_id
        return key in self._gathered or key in self._writing

    def next_write(self) -> trio.Event:
        """Return the event that is set when lines are written next."""
        return self._written

    async def run(self) -> None:
        """Write lines until cancelled, and then those that are left."""
        try:
            while True:
                await self._has_lines.wait()
                await trio.sleep(PERIOD_S)
                await self._write()
        finally:
            with trio.CancelScope(shield=True):
                await self._write()

    async def _write(self) -> None:
        self._has_lines = trio.Event()
        gathered = self._writing = self._gathered
        self._gathered, self._count = {}, 0
        try:
            batch: dict[Key, list[LogLine]] = {}
            size = 0
            for key, lines in gathered.items():
                for begin in range(0, len(lines), LINES_AT_ONCE):
                    part = await self._numbered(key, lines[begin : begin + LINES_AT_ONCE])
                    batch.setdefault(key, []).extend(part)
                    size += len(part)
                    if size >= LINES_AT_ONCE:
                        await self._store.write(batch)
                        batch, size = {}, 0
                        await trio.lowlevel.checkpoint()
            if batch:
                await self._store.write(batch)
            for key in gathered:
                await self._bound(key)
        except JournalFull:
            logger.debug("the store is full: lines of handlers are dropped")
        except JournalUnavailable:
            pass  # Whoever appends next ends the server.
        finally:
            self._writing = {}
            written, self._written = self._written, trio.Event()
            written.set()

    async def _numbered(self, key: Key, lines: Sequence[LogLine]) -> list[LogLine]:
        kept = self._known.get(key)
        if kept is None:
            kept = await self._store.measure(*key)
        size = kept.size_bytes + sum(map(size_of, lines))
        self._known[key] = KeptLines(kept.last_sequence + len(lines), kept.line_count + len(lines), size)
        self._known.move_to_end(key)
        if len(self._known) > KNOWN_MAX:
            self._known.popitem(last=False)
        return [
            line._replace(sequence=sequence) for sequence, line in enumerate(lines, kept.last_sequence + 1)
        ]

    async def _bound(self, key: Key) -> None:
        while (kept := self._known.get(key)) is not None:
            if kept.line_count <= LINES_MAX and kept.size_bytes <= BYTES_MAX:
                return
            # As many as are too many, or as take about as many bytes as are too many.
            by_size = (kept.size_bytes - BYTES_MAX) * kept.line_count // kept.size_bytes
            limit = min(DROPPED_AT_ONCE, max(kept.line_count - LINES_MAX, by_size, 1))
            left = await self._store.drop_oldest(*key, limit=limit)
            # The number goes on, even if nothing is left.
            self._known[key] = left._replace(last_sequence=kept.last_sequence)
            await trio.lowlevel.checkpoint()
