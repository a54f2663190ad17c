"""A SQLite store as one namespace sees it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from plait_server.adapters.journals.sqlite_rows import Stored, stored_of
from plait_server.adapters.journals.verification import (
    checksum_of_content_key,
    damaged_content,
    damaged_row,
    verify_content,
)
from plait_server.ports.journal import (
    AuditRecord,
    DamagedRow,
    EventPage,
    ListedExecution,
    RequestRecord,
)

if TYPE_CHECKING:
    from plait_server.adapters.journals.sqlite import SqliteJournal

# Above every position: `before` of a list that begins at the newest.
_POSITION_MAX: Final = 2**63 - 1


class SqliteNamespaceJournal:
    """A `NamespaceJournal` of a `SqliteJournal`."""

    def __init__(self, journal: SqliteJournal, namespace: str) -> None:
        self._journal = journal
        self._namespace = namespace

    @property
    def namespace(self) -> str:
        """The namespace it is bound to."""
        return self._namespace

    async def read(self, execution_id: str, *, after: int, events_max: int, bytes_max: int) -> EventPage:
        """Read events after a sequence, as the port says."""
        return self._journal.read(
            lambda: self._journal.read_events(
                self._namespace, execution_id, after=after, events_max=events_max, bytes_max=bytes_max
            )
        )

    async def read_row(self, execution_id: str) -> ListedExecution | None:
        """Read the row of an execution; None if there is none in this namespace."""
        found = self._journal.read(lambda: self._journal.find_execution(self._namespace, execution_id))
        if isinstance(found, DamagedRow):
            raise damaged_row(execution_id)
        return found and found.listed()

    async def list_rows(self, *, before: int | None, limit: int) -> Sequence[ListedExecution | DamagedRow]:
        """List executions newest first, from below the position `before` on."""
        bound = _POSITION_MAX if before is None else before
        rows = self._journal.read(
            lambda: [
                stored_of(row) for row in self._journal.execute("list_rows", self._namespace, bound, limit)
            ]
        )
        return [stored.listed() if isinstance(stored, Stored) else stored for stored in rows]

    async def find_request(self, method: str, request_id: str) -> RequestRecord | None:
        """Find what a request id stands for; None if it is free."""
        return self._journal.read(lambda: self._journal.find_record(self._namespace, method, request_id))

    async def read_content(self, digest: str) -> bytes | None:
        """Read a content by its digest; None if this namespace keeps none."""
        match self._journal.read(lambda: self._journal.execute("find_content", self._namespace, digest)):
            case [] if not self._journal.is_doubted:
                return None
            case [(bytes(checksum), bytes(content))] if checksum == checksum_of_content_key(
                self._namespace, digest
            ):
                return verify_content(digest, content)
            case _:
                raise damaged_content(digest)

    async def read_audit(self, execution_id: str, *, limit: int) -> Sequence[AuditRecord]:
        """Read the audit of an execution, oldest first."""
        return self._journal.read(
            lambda: self._journal.read_audit(self._namespace, execution_id, limit=limit)
        )
