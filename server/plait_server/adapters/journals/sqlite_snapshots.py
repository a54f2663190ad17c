"""The snapshots in a SQLite store."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait_server.errors import EventDamaged, ExecutionNotFound
from plait_server.ports.journal import CHECKSUM_BYTES
from plait_server.ports.snapshots import HEAD, SnapshotDamaged, StoredSnapshot, checksum_of_part

if TYPE_CHECKING:
    from plait_server.adapters.journals.sqlite import SqliteJournal
    from plait_server.adapters.journals.sqlite_batch import Batch


class SqliteSnapshots:
    """The `Snapshots` of a `SqliteJournal`."""

    def __init__(self, journal: SqliteJournal) -> None:
        self._journal = journal

    async def write(
        self, namespace: str, execution_id: str, *, sequence: int, number: int, content: bytes
    ) -> bool:
        """Write a part of a snapshot, or its head; see the port."""

        def write(_: Batch) -> bool:
            position = self._find_position(namespace, execution_id)
            checksum = self._find_checksum(position, sequence) if position is not None else None
            if position is None or checksum is None:
                return False
            part_checksum = checksum_of_part(checksum, number, content)
            self._journal.execute("write_snapshot", position, sequence, number, content, part_checksum)
            return True

        return self._journal.make_durable(write)

    async def find(self, namespace: str, execution_id: str) -> StoredSnapshot | None:
        """Return the newest snapshot of an execution; see the port."""

        def find() -> int | None:
            position = self._find_position(namespace, execution_id)
            if position is None:
                return None
            match self._journal.execute("find_snapshot", position):
                case []:
                    return None
                case [(int(sequence),)]:
                    return sequence
                case _:
                    raise SnapshotDamaged

        sequence = self._journal.read(find)
        if sequence is None:
            return None
        head = await self.read(namespace, execution_id, sequence=sequence, number=HEAD)
        return StoredSnapshot(sequence, head)

    async def read(self, namespace: str, execution_id: str, *, sequence: int, number: int) -> bytes:
        """Read a part; see the port."""

        def read() -> bytes:
            position = self._find_position(namespace, execution_id)
            if position is not None:
                event_checksum = self._find_checksum(position, sequence)
                match self._journal.execute("read_snapshot", position, sequence, number):
                    case [(bytes(content), bytes(checksum))] if event_checksum is not None:
                        if checksum_of_part(event_checksum, number, content) == checksum:
                            return content
                    case _:
                        pass
            raise SnapshotDamaged

        return self._journal.read(read)

    async def drop_some(self, namespace: str, execution_id: str, *, keep: int, limit: int) -> bool:
        """Delete some parts of the snapshots of an execution, except those of one; see the port."""

        def find() -> list[int]:
            position = self._find_position(namespace, execution_id)
            if position is None:
                return []
            rows = self._journal.execute("list_old_snapshots", position, keep, limit)
            return [arrival for (arrival,) in rows if isinstance(arrival, int)]

        old = self._journal.read(find)
        if not old:
            return True

        def drop(_: Batch) -> None:
            for arrival in old:
                self._journal.execute("delete_snapshot", arrival)

        self._journal.make_durable(drop)
        return len(old) < limit

    def _find_position(self, namespace: str, execution_id: str) -> int | None:
        try:
            return self._journal.require_head(namespace, execution_id).position
        except (ExecutionNotFound, EventDamaged):
            return None

    def _find_checksum(self, position: int, sequence: int) -> bytes | None:
        match self._journal.execute("find_event_checksum", position, sequence):
            case [(bytes(checksum),)] if len(checksum) == CHECKSUM_BYTES:
                return checksum
            case _:
                return None
