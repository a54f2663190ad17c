"""Checks what a server writes of its handlers' logs: each line at most once, in order (A6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from plait_server.ports.log_lines import KeptLines, Key, LogLine, LogLines
from plait_server.testing.simulation.world import SimulationFailure


class WrittenLines:
    """What was written of logs, over all starts of a server."""

    def __init__(self) -> None:
        self._last: dict[Key, int] = {}
        """Execution -> the number of its last line."""
        self._seen: set[tuple[str, str, int, str]] = set()
        """Execution id, node path, attempt and text. A handler of a simulation says nothing twice."""

    def take(self, lines: Mapping[Key, Sequence[LogLine]]) -> None:
        """Take lines that are written.

        Raises:
            SimulationFailure: One was written before, or has no number of its own.
        """
        for key, each in lines.items():
            for line in each:
                said = key[1], line.node_path, line.attempt, line.text
                if line.sequence <= self._last.get(key, 0):
                    raise SimulationFailure("A6", f"line {line.sequence} comes after a later one", key[1])
                if said in self._seen:
                    raise SimulationFailure("A6", f"{line!r} is written a second time", key[1])
                self._last[key] = line.sequence
                self._seen.add(said)


class TappedLogLines:
    """The `LogLines` of a `TappedJournal`."""

    def __init__(self, inner: LogLines, written: WrittenLines) -> None:
        self._inner = inner
        self._written = written

    async def write(self, lines: Mapping[Key, Sequence[LogLine]]) -> None:
        """Write lines of several executions."""
        await self._inner.write(lines)
        self._written.take(lines)

    async def measure(self, namespace: str, execution_id: str) -> KeptLines:
        """Return how much is kept of an execution."""
        return await self._inner.measure(namespace, execution_id)

    async def drop_oldest(self, namespace: str, execution_id: str, *, limit: int) -> KeptLines:
        """Drop the oldest lines of an execution."""
        return await self._inner.drop_oldest(namespace, execution_id, limit=limit)

    async def read(self, namespace: str, execution_id: str, *, after: int, limit: int) -> Sequence[LogLine]:
        """Read the lines of an execution after a sequence, in order."""
        return await self._inner.read(namespace, execution_id, after=after, limit=limit)
