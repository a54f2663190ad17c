"""The snapshots in a store in memory."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from plait_server.ports.snapshots import HEAD, SnapshotDamaged, StoredSnapshot, checksum_of_part

if TYPE_CHECKING:
    from plait_server.adapters.journals.memory import MemoryJournal


class MemorySnapshots:
    """The `Snapshots` of a `MemoryJournal`."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal

    async def write(
        self, namespace: str, execution_id: str, *, sequence: int, number: int, content: bytes
    ) -> bool:
        """Write a part of a snapshot, or its head; see the port."""
        execution = self._journal.require_store().executions.get((namespace, execution_id))
        if execution is None or not 0 < sequence <= len(execution.events):
            return False
        checksum = checksum_of_part(execution.checksums[sequence - 1], number, content)
        execution.snapshots[sequence, number] = content, checksum
        return True

    async def find(self, namespace: str, execution_id: str) -> StoredSnapshot | None:
        """Return the newest snapshot of an execution; see the port."""
        execution = self._journal.require_store().executions.get((namespace, execution_id))
        heads = [] if execution is None else [key for key in execution.snapshots if key[1] == HEAD]
        if not heads:
            return None
        sequence, _ = max(heads)
        head = await self.read(namespace, execution_id, sequence=sequence, number=HEAD)
        return StoredSnapshot(sequence, head)

    async def read(self, namespace: str, execution_id: str, *, sequence: int, number: int) -> bytes:
        """Read a part; see the port."""
        execution = self._journal.require_store().executions.get((namespace, execution_id))
        if execution is not None and 0 < sequence <= len(execution.events):
            content, checksum = execution.snapshots.get((sequence, number), (b"", b""))
            if checksum_of_part(execution.checksums[sequence - 1], number, content) == checksum:
                return content
        raise SnapshotDamaged

    async def drop_some(self, namespace: str, execution_id: str, *, keep: int, limit: int) -> bool:
        """Delete some parts of the snapshots of an execution, except those of one; see the port."""
        execution = self._journal.require_store().executions.get((namespace, execution_id))
        if execution is None:
            return True
        old = list(islice((key for key in execution.snapshots if key[0] != keep), limit))
        for key in old:
            del execution.snapshots[key]
        return len(old) < limit
