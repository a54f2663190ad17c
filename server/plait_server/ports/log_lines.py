"""The part of the journal port that keeps what handlers log and report: beside the journal, at most once (A6).

1. The lines of an execution are numbered from 1, by the caller. A number without a line is one that was dropped.
2. `write` and `drop` are durable together with whatever is written next; nothing waits for them. Lines of an execution
   that does not exist are passed over.
3. Deleting an execution (`ports/deletions`) deletes its lines.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol, TypeAlias

Key: TypeAlias = tuple[str, str]
"""Namespace and execution id."""


class LogLine(NamedTuple):
    """A line that a handler logged, or progress that it reported."""

    sequence: int
    time_s: float
    """Wall time at which it was received, seconds since 1970."""
    level: str
    """The name of the level; `progress` for progress."""
    node_path: str
    attempt: int
    branch: str
    text: str


class KeptLines(NamedTuple):
    """How much is kept of an execution."""

    last_sequence: int
    """0 if there is nothing."""
    line_count: int
    size_bytes: int


class LogLines(Protocol):
    """Keeps the lines of executions."""

    async def write(self, lines: Mapping[Key, Sequence[LogLine]]) -> None:
        """Write lines of several executions.

        Raises:
            JournalFull: The disk is full; nothing was written.
            JournalUnavailable: The store does not answer.
        """
        ...

    async def measure(self, namespace: str, execution_id: str) -> KeptLines:
        """Return how much is kept of an execution.

        Raises:
            JournalUnavailable: The store does not answer.
        """
        ...

    async def drop_oldest(self, namespace: str, execution_id: str, *, limit: int) -> KeptLines:
        """Drop the oldest lines of an execution, at most `limit`; return how much is kept now.

        Raises:
            JournalFull: The disk is full; nothing was dropped.
            JournalUnavailable: The store does not answer.
        """
        ...

    async def read(self, namespace: str, execution_id: str, *, after: int, limit: int) -> Sequence[LogLine]:
        """Read the lines of an execution after a sequence, in order.

        Raises:
            JournalUnavailable: The store does not answer.
        """
        ...


def size_of(line: LogLine) -> int:
    """Return about how many bytes a line takes."""
    return 64 + len(line.text.encode()) + len(line.node_path)
