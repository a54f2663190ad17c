"""The lines of handlers in a SQLite store. They have no checksums of their own; the pages have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

from plait_server.errors import EventDamaged, ExecutionNotFound
from plait_server.ports.log_lines import KeptLines, Key, LogLine, size_of

if TYPE_CHECKING:
    from plait_server.adapters.journals.sqlite import SqliteJournal
    from plait_server.adapters.journals.sqlite_batch import Batch


class SqliteLogLines:
    """The `LogLines` of a `SqliteJournal`."""

    def __init__(self, journal: SqliteJournal) -> None:
        self._journal = journal

    async def write(self, lines: Mapping[Key, Sequence[LogLine]]) -> None:
        """Write lines of several executions; see the port."""

        def write(_: Batch) -> None:
            for key, each in lines.items():
                position = self._find_position(*key)
                if position is not None:
                    for line in each:
                        self._journal.execute("insert_log_line", position, *line, size_of(line))

        self._journal.make_durable(write)

    async def measure(self, namespace: str, execution_id: str) -> KeptLines:
        """Return how much is kept of an execution."""
        return self._journal.read(lambda: self._measure(self._find_position(namespace, execution_id)))

    async def drop_oldest(self, namespace: str, execution_id: str, *, limit: int) -> KeptLines:
        """Drop the oldest lines of an execution; see the port."""

        def drop(_: Batch) -> KeptLines:
            position = self._find_position(namespace, execution_id)
            if position is not None:
                self._journal.execute("drop_log_lines", position, limit)
            return self._measure(position)

        return self._journal.make_durable(drop)

    async def read(self, namespace: str, execution_id: str, *, after: int, limit: int) -> Sequence[LogLine]:
        """Read the lines of an execution after a sequence, in order."""

        def read() -> list[LogLine]:
            position = self._find_position(namespace, execution_id)
            if position is None:
                return []
            rows = self._journal.execute("list_log_lines", position, after, limit)
            return [_line_of(*row) for row in rows]

        return self._journal.read(read)

    def _measure(self, position: int | None) -> KeptLines:
        rows = self._journal.execute("measure_log_lines", position) if position is not None else []
        for row in rows:
            return KeptLines(*cast("tuple[int, int, int]", row))
        return KeptLines(0, 0, 0)

    def _find_position(self, namespace: str, execution_id: str) -> int | None:
        try:
            return self._journal.require_head(namespace, execution_id).position
        except (ExecutionNotFound, EventDamaged):
            return None


def _line_of(*row: object) -> LogLine:
    sequence, time_s, level, node_path, attempt, branch, text = cast(
        "tuple[int, float, bytes, bytes, int, bytes, bytes]", row
    )
    # What is damaged is shown as it is.
    decoded = [each.decode(errors="replace") for each in (level, node_path, branch, text)]
    return LogLine(sequence, time_s, decoded[0], decoded[1], attempt, decoded[2], decoded[3])
