"""A SQLite store as one namespace sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from plait_server.adapters.journals.conditions import Head
from plait_server.adapters.journals.sqlite_lookup import find_execution, find_record
from plait_server.adapters.journals.sqlite_rows import (
    Stored,
    UnexpectedRow,
    Value,
    audit_of,
    entry_of_action,
    entry_of_audit,
    floor_of,
    sequences_of,
    stored_of,
    tombstone_of,
)
from plait_server.adapters.journals.verification import (
    checksum_of_content_key,
    damaged_content,
    damaged_row,
    verify_audit,
    verify_content,
    verify_page,
    verify_scope_page,
)
from plait_server.core.lists.filters import Filter, ListOrder, matches
from plait_server.errors import ExecutionNotFound
from plait_server.ports.audit import AuditEntry, AuditRecord
from plait_server.ports.journal import (
    DamagedRow,
    EventPage,
    ListedExecution,
    RequestRecord,
    ScopePage,
)
from plait_server.ports.lists import Change, ChangePage, ListCursor, RowPage

if TYPE_CHECKING:
    from plait_server.adapters.journals.sqlite import SqliteJournal


# Above every position: the `before` of a list that begins with the newest.
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
        """Read events after a sequence; see the port."""

        def read() -> EventPage:
            head = self._journal.require_head(self._namespace, execution_id)
            with self._journal.rows("list_events", head.position, after) as rows:
                return verify_page(
                    cast("Iterable[tuple[int, bytes | None, bytes | None]]", rows),
                    execution_id=execution_id,
                    head=head,
                    after=after,
                    events_max=events_max,
                    bytes_max=bytes_max,
                )

        return self._journal.read(read)

    async def read_scope(
        self, execution_id: str, scope_path: str, *, after: int, events_max: int, bytes_max: int
    ) -> ScopePage:
        """Read events of a nested scope after a sequence; see the port."""

        def read() -> ScopePage:
            head = self._journal.require_head(self._namespace, execution_id)
            with self._journal.rows("list_scope_entries", head.position, scope_path, after) as rows:
                return verify_scope_page(
                    sequences_of(rows, head.identity, execution_id, scope_path, after=after),
                    lambda sequence: self._find_event(head, sequence),
                    execution_id=execution_id,
                    after=after,
                    events_max=events_max,
                    bytes_max=bytes_max,
                )

        return self._journal.read(read)

    async def read_row(self, execution_id: str) -> ListedExecution | None:
        """Read the row of an execution; None if there is none in this namespace."""
        found = self._journal.read(
            lambda: find_execution(self._journal.connection, self._namespace, execution_id)
        )
        if isinstance(found, DamagedRow):
            raise damaged_row(execution_id)
        return found and found.listed()

    async def list_rows(
        self,
        *,
        limit: int,
        after: ListCursor | None = None,
        condition: Filter | None = None,
        order: ListOrder = ListOrder.NEWEST_FIRST,
    ) -> RowPage:
        """List executions; see the port."""
        found = await self._journal.finder.find(self._namespace, condition, order, after=after, limit=limit)
        rows: list[ListedExecution | DamagedRow] = []
        cursors: list[ListCursor] = []
        for cursor in found.cursors:
            row = self._journal.read(partial(self._find_row, cursor.position))
            # It was found a moment ago, in a thread; meanwhile it may have changed, or have been deleted.
            if isinstance(row, ListedExecution) and condition and not matches(condition, row.row.listing):
                row = None
            if row is not None:
                rows.append(row)
                cursors.append(cursor)
        return RowPage(rows=rows, cursors=cursors, end=found.end)

    async def count_rows(self, condition: Filter | None = None) -> int:
        """Count the executions that match a filter."""
        return await self._journal.finder.count(self._namespace, condition)

    async def list_changes(self, *, after: int, limit: int) -> ChangePage:
        """List changes of listings; see the port."""
        return self._journal.read(lambda: self._list_changes(after, limit))

    async def find_request(self, method: str, request_id: str) -> RequestRecord | None:
        """Return the record of a request id; None if it is free."""
        return self._journal.read(
            lambda: find_record(self._journal.connection, self._namespace, method, request_id)
        )

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

        def read() -> list[AuditRecord]:
            try:
                head = self._journal.require_head(self._namespace, execution_id)
            except ExecutionNotFound:
                return []
            records = [audit_of(row) for row in self._journal.execute("list_audit", head.position, limit)]
            return verify_audit(records, execution_id=execution_id, head=head, limit=limit)

        return self._journal.read(read)

    async def list_audit(
        self, *, execution_id: str | None, before: int | None, limit: int
    ) -> Sequence[AuditEntry]:
        """List actions and audit records newest first, from below the position `before` on."""
        bound = _POSITION_MAX if before is None else before
        if execution_id is None:
            queries, key = ("list_actions", "list_namespace_audit"), [self._namespace]
        else:
            queries = ("list_actions_of_execution", "list_execution_audit")
            key = [self._namespace, execution_id]

        def read() -> list[AuditEntry]:
            actions, records = (self._journal.execute(query, *key, bound, limit) for query in queries)
            entries = [entry_of_action(row, self._namespace) for row in actions]
            entries.extend(map(entry_of_audit, records))
            return sorted(entries, key=lambda entry: -entry.position)[:limit]

        return self._journal.read(read)

    def _find_row(self, position: int) -> ListedExecution | DamagedRow | None:
        for row in self._journal.execute("find_by_position", position):
            found = stored_of(row)
            if found.namespace != self._namespace:
                raise UnexpectedRow(f"the namespace of execution number {position}")
            return found.listed() if isinstance(found, Stored) else found
        return None

    def _list_changes(self, after: int, limit: int) -> ChangePage:
        changes: list[Change] = []
        for row in self._journal.execute("list_changed", self._namespace, after, limit):
            found = stored_of(row)
            shown = found.listed() if isinstance(found, Stored) else found
            changes.append(Change(cast("int", row[-2]), shown))
        for row in self._journal.execute("list_tombstones", self._namespace, after, limit):
            tombstone = tombstone_of(self._namespace, row)
            changes.append(Change(tombstone.change, tombstone))
        changes.sort(key=lambda change: change.number)
        return ChangePage(
            changes=changes[:limit],
            last_change=self._journal.last_change,
            floor=floor_of(self._journal.execute("find_floor")),
        )

    def _find_event(self, head: Head, sequence: int) -> tuple[Value, Value, Value]:
        """Return the checksum before an event, the event, and its own checksum; None for what is missing."""
        match self._journal.execute("find_event", sequence, head.position):
            case [(_, _, previous), (_, event, checksum)]:
                return previous, event, checksum
            case [(1, event, checksum)]:
                return head.identity, event, checksum
            case _:
                return None, None, None
