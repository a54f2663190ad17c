"""The part of the journal port that keeps snapshots of open executions: a cache of their events, never the truth (K2).

1. A snapshot is of the state after an event. It has parts, numbered from 1, and a head, which is written last and
   without which there is no snapshot. Both are opaque bytes. Writing the same number again replaces what was there.
2. Each part, and the head, is kept with a checksum chained over the checksum of that event, which covers all events
   up to it. What does not fit the journal raises `SnapshotDamaged`: another event, another execution, or damage.
   The caller reads the events instead.
3. `drop_some` deletes the parts of all other snapshots of an execution, a bounded number at a time. Deleting an
   execution (`ports/deletions`) deletes its snapshots. Backups have them, and `plait store salvage` leaves them out.
"""

from __future__ import annotations

import hashlib
from typing import Final, NamedTuple, Protocol

from plait_server.ports.journal import CHECKSUM_BYTES

HEAD: Final = 0
"""The number of the head."""


class SnapshotDamaged(Exception):
    """A part of a snapshot is damaged, missing, or of other events."""


class StoredSnapshot(NamedTuple):
    """The newest snapshot of an execution."""

    sequence: int
    """The event after which it was taken."""
    head: bytes


class Snapshots(Protocol):
    """Keeps the snapshots of a journal."""

    async def write(
        self, namespace: str, execution_id: str, *, sequence: int, number: int, content: bytes
    ) -> bool:
        """Write a part of a snapshot, or its head; return whether there is such an event.

        Raises:
            JournalFull: The disk is full; nothing was written.
            JournalUnavailable: The store does not answer.
        """
        ...

    async def find(self, namespace: str, execution_id: str) -> StoredSnapshot | None:
        """Return the newest snapshot of an execution; None if it has none.

        Raises:
            SnapshotDamaged: Its head does not fit the journal.
            JournalUnavailable: The store does not answer.
        """
        ...

    async def read(self, namespace: str, execution_id: str, *, sequence: int, number: int) -> bytes:
        """Read a part.

        Raises:
            SnapshotDamaged: It is missing, or does not fit the journal.
            JournalUnavailable: The store does not answer.
        """
        ...

    async def drop_some(self, namespace: str, execution_id: str, *, keep: int, limit: int) -> bool:
        """Delete some parts of the snapshots of an execution, except those of one; return whether none is left.

        Args:
            namespace: The namespace of the execution.
            execution_id: The execution; nothing is left of one that does not exist.
            keep: The sequence of the snapshot to keep; 0 keeps none.
            limit: The most parts to delete.

        Raises:
            JournalFull: The disk is full; nothing was deleted.
            JournalUnavailable: The store does not answer.
        """
        ...


def checksum_of_part(event_checksum: bytes, number: int, content: bytes) -> bytes:
    """Return the checksum of a part of the snapshot taken after the event that has a checksum."""
    whole = hashlib.blake2b(digest_size=CHECKSUM_BYTES, key=event_checksum, person=b"plait snapshot")
    whole.update(b"%d:" % number)
    whole.update(content)
    return whole.digest()
