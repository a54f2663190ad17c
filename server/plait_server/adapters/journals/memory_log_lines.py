"""The lines of handlers in a store in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from plait_server.ports.log_lines import KeptLines, Key, LogLine, size_of

if TYPE_CHECKING:
    from plait_server.adapters.journals.memory import MemoryJournal


class MemoryLogLines:
    """The `LogLines` of a `MemoryJournal`."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal

    async def write(self, lines: Mapping[Key, Sequence[LogLine]]) -> None:
        """Write lines of several executions; see the port."""
        store = self._journal.require_store()
        for key, each in lines.items():
            execution = store.executions.get(key)
            if execution is not None:
                execution.log_lines.extend(each)

    async def measure(self, namespace: str, execution_id: str) -> KeptLines:
        """Return how much is kept of an execution."""
        lines = self._lines(namespace, execution_id)
        return KeptLines(lines[-1].sequence if lines else 0, len(lines), sum(map(size_of, lines)))

    async def drop_oldest(self, namespace: str, execution_id: str, *, limit: int) -> KeptLines:
        """Drop the oldest lines of an execution; see the port."""
        del self._lines(namespace, execution_id)[:limit]
        return await self.measure(namespace, execution_id)

    async def read(self, namespace: str, execution_id: str, *, after: int, limit: int) -> Sequence[LogLine]:
        """Read the lines of an execution after a sequence, in order."""
        lines = self._lines(namespace, execution_id)
        return list(islice((line for line in lines if line.sequence > after), limit))

    def _lines(self, namespace: str, execution_id: str) -> list[LogLine]:
        execution = self._journal.require_store().executions.get((namespace, execution_id))
        return execution.log_lines if execution is not None else []
