"""The journal in memory: the reference implementation, and the store of simulations.

The data lives in a `MemoryStore`, which outlives the journals that open it. Each start of a server opens it: the
previous journal is dead from then on, as after `crash`, and the new one claims its open executions. In
`MemoryStore.on_append` a simulation makes an append fail or the server die, before or after the append took effect.
Memory is never damaged by itself; tests of the detection of damage call `damage_event` and `damage_row`.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Final

from plait_server.adapters.journals.conditions import Head, find_conflict, require_small, require_well_formed
from plait_server.adapters.journals.memory_deletions import MemoryDeletions
from plait_server.adapters.journals.memory_lists import count_rows, list_changes, list_rows
from plait_server.adapters.journals.memory_log_lines import MemoryLogLines
from plait_server.adapters.journals.memory_snapshots import MemorySnapshots
from plait_server.adapters.journals.memory_store import AppendPoint, MemoryStore, StoredExecution
from plait_server.adapters.journals.verification import (
    damaged_row,
    digest_of_listing,
    verify_content,
    verify_page,
    verify_scope_page,
)
from plait_server.core.lists.filters import Filter, ListOrder
from plait_server.errors import ExecutionNotFound, InvariantViolated, JournalUnavailable
from plait_server.ports.audit import ActionRecord, AuditEntry, AuditRecord
from plait_server.ports.deletions import REQUESTS_KEPT_S
from plait_server.ports.journal import (
    SETTINGS_MAX,
    Appended,
    AppendItem,
    AppendResult,
    Claim,
    DamagedRow,
    EventPage,
    ExecutionDamaged,
    JournalStatistics,
    ListedExecution,
    RequestConflict,
    RequestRecord,
    ScopePage,
    SettingResult,
    SettingsFull,
    SettingWritten,
    Verification,
    chain,
    chain_start,
)
from plait_server.ports.lists import ChangePage, ListCursor, RowPage


class MemoryJournal:
    """A `Journal` over a `MemoryStore`.

    Args:
        store: The store to open; the journal that had it open is dead from now on.
        owner: The name of this opening; unique to each start of a server.
    """

    kind = "memory"

    def __init__(self, store: MemoryStore, *, owner: str) -> None:
        store.generation += 1
        store.last_arrival = max(store.audit, default=0)
        self._store = store
        self._owner = owner
        self._generation = store.generation
        self._is_closed = False
        self._claimed_position = self._verified_position = 0
        self.deletions: Final = MemoryDeletions(self)
        self.snapshots: Final = MemorySnapshots(self)
        self.log_lines: Final = MemoryLogLines(self)
        self._appends = self._items = self._events = self._event_bytes = 0

    def __repr__(self) -> str:
        state = "closed" if self._is_closed else "open" if self._is_owner() else "dead"
        return f"<MemoryJournal of {self._owner}: {state}, {self._store!r}>"

    @property
    def owner(self) -> str:
        """The name of the opening."""
        return self._owner

    def namespace(self, name: str) -> MemoryNamespaceJournal:
        """Return the handle bound to a namespace."""
        return MemoryNamespaceJournal(self, name)

    async def append_many(self, items: Sequence[AppendItem]) -> Sequence[AppendResult]:
        """Make the items durable together; see the port."""
        store = self.require_store()
        require_well_formed(items)
        if store.on_append is not None:
            store.on_append(AppendPoint.BEFORE_COMMIT)
        results = [self._append(item) for item in items]
        self._appends += bool(items)
        if store.on_append is not None:
            store.on_append(AppendPoint.AFTER_COMMIT)
        return results

    async def claim(self, *, limit: int) -> Sequence[Claim | DamagedRow]:
        """Claim open executions of earlier openings, oldest first."""
        taken: list[Claim | DamagedRow] = []
        left = (
            execution
            for execution in self.require_store().executions.values()
            if execution.head.is_open
            and execution.head.owner != self._generation
            and execution.head.position > self._claimed_position
        )
        for execution in islice(left, limit):
            head = execution.head
            self._claimed_position = head.position
            if execution.is_damaged:
                taken.append(execution.damaged_row())
            else:
                execution.head = head._replace(owner_epoch=head.owner_epoch + 1, owner=self._generation)
                taken.append(execution.claim())
        return taken

    async def verify(self, *, limit: int) -> Verification:
        """Verify the next rows of executions."""
        executions = self.require_store().executions.values()
        left = (each for each in executions if each.head.position > self._verified_position)
        stretch = list(islice(left, limit))
        if stretch:
            self._verified_position = stretch[-1].head.position
        return Verification(
            damaged=[execution.damaged_row() for execution in stretch if execution.is_damaged],
            is_done=len(stretch) < limit,
        )

    async def renew(self) -> bool:
        """Return whether this journal is still the newest that opened the store."""
        return self._is_owner()

    async def list_due(self, *, now_s: float, limit: int) -> Sequence[Claim]:
        """List sleeping executions of this owner whose due time has come, the earliest first."""
        due = [
            (execution.row.due_time_s, execution.head.position, execution)
            for execution in self.require_store().executions.values()
            if execution.head.is_open
            and not execution.is_damaged
            and execution.head.owner == self._generation
            and execution.row.due_time_s is not None
            and execution.row.due_time_s <= now_s
        ]
        return [execution.claim() for _, _, execution in sorted(due, key=lambda entry: entry[:2])[:limit]]

    async def read_settings(self) -> Mapping[tuple[str, str], bytes]:
        """Read all settings, by namespace and name."""
        return dict(sorted(self.require_store().settings.items()))

    async def write_setting(
        self,
        namespace: str,
        name: str,
        value: bytes | None,
        audit: ActionRecord,
        request: RequestRecord | None,
    ) -> SettingResult:
        """Set or remove a setting, together with its action and request record."""
        store = self.require_store()
        require_small(name, value)
        request_key = (namespace, request.method, request.request_id) if request is not None else None
        if request_key is not None and request_key in store.requests:
            return RequestConflict(record=store.requests[request_key])
        is_new = (namespace, name) not in store.settings
        if value is not None and is_new and len(store.settings) >= SETTINGS_MAX:
            return SettingsFull()
        if request is not None and request_key is not None:
            store.requests[request_key] = request
            store.forget_times_s[request_key] = audit.time_s + REQUESTS_KEPT_S
        if value is None:
            store.settings.pop((namespace, name), None)
        else:
            store.settings[namespace, name] = value
        store.add_entry(namespace, audit.execution_id, audit)
        return SettingWritten()

    async def write_actions(self, actions: Sequence[tuple[str, ActionRecord]]) -> None:
        """Record actions that changed nothing."""
        store = self.require_store()
        for namespace, action in actions:
            store.add_entry(namespace, action.execution_id, action)

    async def key(self) -> bytes:
        """Return the store's secret."""
        return self.require_store().key

    def statistics(self) -> JournalStatistics:
        """Take a snapshot of the counters."""
        return JournalStatistics(
            appends=self._appends, items=self._items, events=self._events, event_bytes=self._event_bytes
        )

    async def aclose(self) -> None:
        """Close the journal; the store keeps its data."""
        self._is_closed = True

    def crash(self) -> None:
        """Drop the journal as kill -9 would: from now on it can neither read nor write."""
        self._is_closed = True

    def require_store(self) -> MemoryStore:
        """Return the store.

        Raises:
            JournalUnavailable: This journal was closed or has crashed, or another journal opened the store.
        """
        if self._is_closed or not self._is_owner():
            raise JournalUnavailable("the store is closed, or another server opened it", nothing_written=True)
        return self._store

    def _is_owner(self) -> bool:
        return not self._is_closed and self._generation == self._store.generation

    def _append(self, item: AppendItem) -> AppendResult:
        store = self._store
        execution = store.executions.get((item.namespace, item.execution_id))
        request = item.request
        request_key = None if request is None else (item.namespace, request.method, request.request_id)
        if execution is not None and execution.is_damaged:
            return ExecutionDamaged()
        conflict = find_conflict(
            item,
            head=None if execution is None else execution.head,
            record=None if request_key is None else store.requests.get(request_key),
            owner=self._generation,
        )
        if conflict is not None:
            return conflict

        if execution is None:
            execution = self._make_execution(item)
        head = execution.head
        checksum = head.last_checksum
        for event in item.events:
            checksum = chain(checksum, event)
            execution.events.append(event)
            execution.checksums.append(checksum)
        if item.action is not None:
            store.add_entry(item.namespace, item.action.execution_id, item.action)
        for record in item.audit:
            execution.audit.append(record)
            execution.arrivals.append(store.add_entry(item.namespace, item.execution_id, record))
        for entry in item.scope_entries:
            execution.scopes.setdefault(entry.scope_path, array("q")).extend(entry.sequences)
        execution.head = head._replace(
            last_sequence=len(execution.events), last_checksum=checksum, audit_count=len(execution.audit)
        )
        if item.row is not None:
            listed = digest_of_listing(item.row.listing)
            store.last_change += listed != head.listing_digest
            execution.row = item.row
            execution.head = execution.head._replace(
                owner=self._generation,
                is_open=item.row.is_open,
                listing_digest=listed,
                change=store.last_change if listed != head.listing_digest else head.change,
            )
        if request_key is not None and request is not None:
            store.requests[request_key] = request
        for digest, content in item.contents.items():
            store.contents.setdefault((item.namespace, digest), content)
            store.uses.setdefault((item.namespace, digest), {})[execution.head.position] = None
            execution.uses[digest] = None

        self._items += 1
        self._events += len(item.events)
        self._event_bytes += sum(map(len, item.events))
        return Appended(last_sequence=execution.head.last_sequence)

    def _make_execution(self, item: AppendItem) -> StoredExecution:
        if item.row is None:
            raise InvariantViolated  # `require_well_formed` has checked it.
        executions = self._store.executions
        self._store.last_position += 1
        identity = chain_start(item.namespace, item.execution_id)
        head = Head(
            position=self._store.last_position,
            last_sequence=0,
            last_checksum=identity,
            owner_epoch=item.owner_epoch,
            owner=self._generation,
            is_open=item.row.is_open,
            audit_count=0,
            identity=identity,
            row_digest=b"",
            listing_digest=b"",
            change=0,
        )
        execution = StoredExecution(item.namespace, item.execution_id, head, item.row)
        executions[item.namespace, item.execution_id] = execution
        return execution


class MemoryNamespaceJournal:
    """A `NamespaceJournal` of a `MemoryJournal`."""

    def __init__(self, journal: MemoryJournal, namespace: str) -> None:
        self._journal = journal
        self._namespace = namespace

    @property
    def namespace(self) -> str:
        """The namespace it is bound to."""
        return self._namespace

    async def read(self, execution_id: str, *, after: int, events_max: int, bytes_max: int) -> EventPage:
        """Read events after a sequence; see the port."""
        execution = self._find(execution_id)
        if execution is None:
            raise ExecutionNotFound(execution_id=execution_id)
        first = max(after, 1)
        return verify_page(
            zip(
                range(first, len(execution.events) + 1),
                islice(execution.events, first - 1, None),
                islice(execution.checksums, first - 1, None),
                strict=True,
            ),
            execution_id=execution_id,
            head=execution.head,
            after=after,
            events_max=events_max,
            bytes_max=bytes_max,
        )

    async def read_scope(
        self, execution_id: str, scope_path: str, *, after: int, events_max: int, bytes_max: int
    ) -> ScopePage:
        """Read events of a nested scope after a sequence; see the port."""
        execution = self._find(execution_id)
        if execution is None:
            raise ExecutionNotFound(execution_id=execution_id)
        events, checksums = execution.events, execution.checksums

        def find_event(sequence: int) -> tuple[bytes, bytes, bytes]:
            previous = checksums[sequence - 2] if sequence > 1 else execution.head.identity
            return previous, events[sequence - 1], checksums[sequence - 1]

        sequences = execution.scopes.get(scope_path, ())
        return verify_scope_page(
            islice(sequences, bisect_right(sequences, after), None),
            find_event,
            execution_id=execution_id,
            after=after,
            events_max=events_max,
            bytes_max=bytes_max,
        )

    async def read_row(self, execution_id: str) -> ListedExecution | None:
        """Read the row of an execution; None if there is none in this namespace."""
        execution = self._find(execution_id)
        return None if execution is None else execution.listed()

    async def list_rows(
        self,
        *,
        limit: int,
        after: ListCursor | None = None,
        condition: Filter | None = None,
        order: ListOrder = ListOrder.NEWEST_FIRST,
    ) -> RowPage:
        """List executions; see the port."""
        return list_rows(self._journal.require_store(), self._namespace, limit, after, condition, order)

    async def count_rows(self, condition: Filter | None = None) -> int:
        """Count the executions that match a filter."""
        return count_rows(self._journal.require_store(), self._namespace, condition)

    async def list_changes(self, *, after: int, limit: int) -> ChangePage:
        """List changes of listings; see the port."""
        return list_changes(self._journal.require_store(), self._namespace, after, limit)

    async def find_request(self, method: str, request_id: str) -> RequestRecord | None:
        """Return the record of a request id; None if it is free."""
        return self._journal.require_store().requests.get((self._namespace, method, request_id))

    async def read_content(self, digest: str) -> bytes | None:
        """Read a content by its digest; None if this namespace keeps none."""
        content = self._journal.require_store().contents.get((self._namespace, digest))
        return None if content is None else verify_content(digest, content)

    async def read_audit(self, execution_id: str, *, limit: int) -> Sequence[AuditRecord]:
        """Read the audit of an execution, oldest first."""
        execution = self._find(execution_id)
        return [] if execution is None else execution.audit[:limit]

    async def list_audit(
        self, *, execution_id: str | None, before: int | None, limit: int
    ) -> Sequence[AuditEntry]:
        """List actions and audit records newest first, from below the position `before` on."""
        entries = (
            entry
            for namespace, entry in reversed(self._journal.require_store().audit.values())
            if namespace == self._namespace
            and (before is None or entry.position < before)
            and (execution_id is None or entry.execution_id == execution_id)
        )
        return list(islice(entries, limit))

    def _find(self, execution_id: str) -> StoredExecution | None:
        execution = self._journal.require_store().executions.get((self._namespace, execution_id))
        if execution is not None and (
            execution.is_damaged or execution.head.identity != chain_start(self._namespace, execution_id)
        ):
            raise damaged_row(execution_id)
        return execution
