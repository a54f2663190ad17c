"""The journal port: where events become durable.

The contract, which `plait_server.testing.check_journal` proves of every implementation:

1. An execution is a list of events numbered 1, 2, 3 without gaps. `append_many` takes any number of items of
   different executions, at most one an execution, and makes them durable together: when it returns,
   everything that has an `Appended` result survives a power cut. One transaction, one flush.
2. An item is all or nothing: its events, its row, its contents, its request record and its audit records are
   there together or not at all. A conflict fails its item and leaves the others alone.
3. An item is refused if the execution does not end at `expected_sequence`, or if its `owner_epoch` is not the
   execution's. `expected_sequence` 0 makes the execution, owned by the journal's `owner` from then on, with
   the epoch of the item. The check and the write are one transaction: a former owner can never write
   (fencing). An open execution of another owner refuses every item until it is claimed, also one that guessed
   its epoch; an ended one belongs to nobody: its epoch is enough, and an item with a row makes the writer its
   owner. Where several conflicts apply, the request's is reported first, then the epoch's; but where an
   execution is to be made and exists, or is to go on and is missing, only the request's comes before the sequence's.
   Within one call, earlier items count.
4. If `append_many` raises `JournalUnavailable` or `JournalFull`, it is unknown whether anything became
   durable, unless the error says `nothing_written`; the caller must read back before it goes on.
5. Events are opaque bytes to the journal, kept and returned unchanged. Each is stored with a checksum chained
   over the one before (`chain`), the first over the execution's namespace and id (`chain_start`); `read`
   verifies the chain and raises `EventDamaged` at the first event that does not fit.
   The index by scope (`AppendItem.scope_entries`) is derived from the events: `read_scope` verifies
   each event by the checksum of the one before it, and each entry of the index by its own checksum. The journal does
   not notice that an entry is missing; the caller knows what a scope must contain. `plait store salvage` rebuilds it.
6. Contents are kept by digest within a namespace; writing one twice is the same as once. An execution uses the contents
   of its items, which are kept until the last execution that uses them is deleted (`ports/deletions`).
7. Whatever is returned was verified against its key, so that damage never answers for another key. A damaged
   row of an execution is reported as that execution's damage: by id as `EventDamaged`, in lists and claims as a
   `DamagedRow`, in an append as `ExecutionDamaged`. It is never claimed. Damage that cannot be attributed to one
   execution raises `StoreDamaged`, and the server must stop. `verify` finds damage in rows that nobody reads.
8. Every query is made through a handle bound to a namespace: no execution, request or content of another can
   be named, and an id that exists elsewhere looks as one that exists nowhere.
9. A cancelled `append_many` has either happened whole or not at all; the caller shields it.
10. Settings are opaque values by namespace and name, and actions say who did what. Both are durable when the call that
   writes them returns. An action is written together with what it did, or not at all. Actions and the audit records of
   executions have positions that grow in the order in which they were written.
11. Each row has a change number: a new one, greater than all before it in the store, when the execution is made and
   when an append changes its listing. `list_changes` reads them in that order. A deletion leaves a tombstone with a
   change number of its own for a bounded time; `ChangePage.floor` tells which tombstones are gone.

Methods are async because some stores are far away. An implementation for which a call is quick may do it in
place. Prior art: etcd/raft's Storage, Temporal's ExecutionManager (conditions checked in the transaction).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from plait_server.core.lists.filters import Filter, ListOrder
from plait_server.core.lists.listing import Listing
from plait_server.core.run.scope_index import ScopeEntry
from plait_server.ports.audit import ActionRecord, AuditEntry, AuditRecord
from plait_server.ports.lists import ChangePage, ListCursor, RowPage

if TYPE_CHECKING:
    from plait_server.ports.deletions import Deletions
    from plait_server.ports.log_lines import LogLines
    from plait_server.ports.snapshots import Snapshots

CHECKSUM_BYTES: Final = 16

SETTING_BYTES_MAX: Final = 16 * 1024
"""The largest value of a setting."""

SETTINGS_MAX: Final = 10_000
"""How many settings a store holds."""


def chain_start(namespace: str, execution_id: str) -> bytes:
    """Return what the first event of an execution is chained to; no two executions have the same."""
    # The length keeps `a` in `bc` apart from `ab` in `c`.
    name = f"{len(namespace)}:{namespace}{execution_id}".encode()
    return hashlib.blake2b(name, digest_size=CHECKSUM_BYTES, person=b"plait execution").digest()


def chain(previous: bytes, event: bytes) -> bytes:
    """Return the checksum of an event that follows one whose checksum is `previous`: BLAKE2b, 16 bytes."""
    return hashlib.blake2b(event, digest_size=CHECKSUM_BYTES, key=previous).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRow:
    """The part of an execution that lists and recovery need, kept beside its events."""

    summary: bytes
    """plait.v1.Execution in binary form, as lists show it."""
    is_open: bool
    """Whether it has not ended and must be carried on after a restart."""
    due_time_s: float | None = None
    """Wall time (seconds since 1970) at which a sleeping execution has something to do; None: at once if open."""
    listing: Listing = field(default_factory=Listing)
    """The fields of the summary that lists filter and order by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """The result of a mutation with a request id (K3)."""

    method: str
    """The gRPC method's short name, such as `SubmitGraph`."""
    request_id: str
    fingerprint: bytes
    """Digest of the request's content; another one under the same id is refused."""
    execution_id: str
    """What the request made or changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendItem:
    """What one execution adds to the journal in one step. May have no events (audit alone)."""

    namespace: str
    execution_id: str
    expected_sequence: int
    """Number of the newest event so far; 0 makes the execution."""
    owner_epoch: int
    events: Sequence[bytes] = ()
    row: ExecutionRow | None = None
    """None leaves the row as it is. Required with `expected_sequence` 0, as is an event."""
    contents: Mapping[str, bytes] = field(default_factory=dict[str, bytes])
    """SHA-256 in lower-case hexadecimal -> content."""
    request: RequestRecord | None = None
    audit: Sequence[AuditRecord] = ()
    scope_entries: Sequence[ScopeEntry] = ()
    """Events, up to the last of these, that are about nested scopes; each stands in one entry of a scope."""
    action: ActionRecord | None = None
    """The mutation that caused the item, if one did."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Appended:
    """The item is durable."""

    last_sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceConflict:
    """The execution does not end where the item expects: it exists already, is missing, or someone else wrote."""

    last_sequence: int
    """Where it ends; 0 if there is no such execution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochConflict:
    """The execution belongs to another owner or epoch; the writer must drop it."""

    owner_epoch: int
    """The epoch it has now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestConflict:
    """The request id is taken; the caller compares fingerprints and answers from the record."""

    record: RequestRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionDamaged:
    """The execution exists, and its row is damaged: nothing is appended to it."""


AppendResult: TypeAlias = Appended | SequenceConflict | EpochConflict | RequestConflict | ExecutionDamaged


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingWritten:
    """The setting is durable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsFull:
    """The store holds `SETTINGS_MAX` settings; nothing was written."""


SettingResult: TypeAlias = SettingWritten | RequestConflict | SettingsFull


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """A stretch of an execution's events."""

    events: Sequence[bytes]
    """In order; the first has the number `after + 1`."""
    last_sequence: int
    """Number of the newest event of the execution at the time of reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopePage:
    """A stretch of the events of a nested scope."""

    events: Sequence[bytes]
    """In order."""
    after: int
    """Number of the last of them, behind which the next page begins."""
    is_last: bool
    """Whether the index has no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedExecution:
    """A row of a list."""

    execution_id: str
    position: int
    """Grows with every execution made in the store; pages go on before it."""
    last_sequence: int
    """Number of its newest event."""
    owner_epoch: int
    """The epoch it has now."""
    row: ExecutionRow


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedRow:
    """A row of an execution of which only the key can be trusted (K4)."""

    namespace: str
    execution_id: str
    position: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What one stretch of `verify` found."""

    damaged: Sequence[DamagedRow]
    is_done: bool
    """Whether everything was verified once since the store was opened."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An open execution that this owner holds from now on."""

    namespace: str
    execution_id: str
    owner_epoch: int
    last_sequence: int
    row: ExecutionRow


@dataclass(frozen=True, slots=True, kw_only=True)
class JournalStatistics:
    """A snapshot of what a journal has done since it was opened."""

    appends: int
    """Calls of `append_many`: one flush each."""
    items: int
    events: int
    event_bytes: int


class NamespaceJournal(Protocol):
    """A journal's view of one namespace."""

    @property
    def namespace(self) -> str:
        """The namespace it is bound to."""
        ...

    async def read(self, execution_id: str, *, after: int, events_max: int, bytes_max: int) -> EventPage:
        """Read events after a sequence, at least one if there is one, else within both bounds.

        Raises:
            ExecutionNotFound: no such execution in this namespace.
            EventDamaged: an event in the stretch does not fit the chain.
            JournalUnavailable: the store does not answer.
        """
        ...

    async def read_scope(
        self, execution_id: str, scope_path: str, *, after: int, events_max: int, bytes_max: int
    ) -> ScopePage:
        """Read events of a nested scope after a sequence, by the index; bounds are those of `read`.

        Only events in the index are found, and a scope that has not ended may have none there. The cost depends on the
        events returned, not on how many the execution has.

        Raises:
            ExecutionNotFound: no such execution in this namespace.
            EventDamaged: an event, or an entry of the index, is damaged.
            JournalUnavailable: the store does not answer.
        """
        ...

    async def read_row(self, execution_id: str) -> ListedExecution | None:
        """Read the row of an execution; None if there is none in this namespace.

        Raises:
            EventDamaged: the row is damaged.
        """
        ...

    async def list_rows(
        self,
        *,
        limit: int,
        after: ListCursor | None = None,
        condition: Filter | None = None,
        order: ListOrder = ListOrder.NEWEST_FIRST,
    ) -> RowPage:
        """List executions, from behind a cursor on (None: from the beginning).

        A damaged row is filtered and ordered by what its listing seems to be.

        Raises:
            Overloaded: the filter took too long, or too many lists and counts wait.
        """
        ...

    async def count_rows(self, condition: Filter | None = None) -> int:
        """Count the executions that match a filter.

        Raises:
            Overloaded: as for `list_rows`.
        """
        ...

    async def list_changes(self, *, after: int, limit: int) -> ChangePage:
        """List the newest changes of executions whose number is greater than `after`, in their order.

        The cost depends on the changes returned, not on how many executions there are.
        """
        ...

    async def find_request(self, method: str, request_id: str) -> RequestRecord | None:
        """Find what a request id stands for; None if it is free."""
        ...

    async def read_content(self, digest: str) -> bytes | None:
        """Read a content by its digest; None if this namespace keeps none.

        Raises:
            EventDamaged: the content does not have the digest.
        """
        ...

    async def read_audit(self, execution_id: str, *, limit: int) -> Sequence[AuditRecord]:
        """Read the audit of an execution, oldest first.

        Raises:
            EventDamaged: a record is damaged or missing.
        """
        ...

    async def list_audit(
        self, *, execution_id: str | None, before: int | None, limit: int
    ) -> Sequence[AuditEntry]:
        """List actions and audit records newest first, from below the position `before` on (None: from the newest).

        Args:
            execution_id: List those about this execution; None lists all of the namespace.
            before: The position of the last entry of the page before.
            limit: The most entries to return.
        """
        ...


class Journal(Protocol):
    """A store of executions, opened by one owner."""

    @property
    def kind(self) -> str:
        """The kind of store, such as `sqlite`."""
        ...

    @property
    def owner(self) -> str:
        """The id of the opening, unique to each start of a server."""
        ...

    def namespace(self, name: str) -> NamespaceJournal:
        """Return the handle bound to a namespace. Namespaces need not be made."""
        ...

    async def append_many(self, items: Sequence[AppendItem]) -> Sequence[AppendResult]:
        """Make the items durable together; one result an item, in order.

        Raises:
            JournalFull: the disk is full; nothing was written.
            JournalUnavailable: the store failed; see rule 4.
            StoreLost: the store was deleted or replaced; nothing of it may be acknowledged.
            StoreDamaged: the store's structure is damaged; nothing was written.
            InvariantViolated: an execution stands twice in the items, is made without a row or an event, or an
                entry of the index names events that it has not.
        """
        ...

    async def claim(self, *, limit: int) -> Sequence[Claim | DamagedRow]:
        """Take over open executions that belong to nobody alive: their epoch grows by one, oldest first.

        A damaged one stays as it is, and is reported once per opening. An empty result means that there are no more.
        """
        ...

    async def renew(self) -> bool:
        """Stay the owner of what was claimed; False when ownership was lost and everything must be dropped.

        Raises:
            JournalUnavailable: the store has failed for good.
            StoreDamaged: the store's structure is damaged.
        """
        ...

    async def verify(self, *, limit: int) -> Verification:
        """Verify the next rows, at most `limit`, whether or not anyone asks for them.

        Raises:
            StoreDamaged: a row is damaged that cannot be attributed to one execution.
        """
        ...

    async def list_due(self, *, now_s: float, limit: int) -> Sequence[Claim]:
        """List open executions of this owner whose due time has come, the earliest first.

        Those without a due time are awake, or were to be woken when they were claimed; they are not listed.
        """
        ...

    async def read_settings(self) -> Mapping[tuple[str, str], bytes]:
        """Read all settings, by namespace and name; the namespace of the server's own is empty.

        Raises:
            StoreDamaged: one is damaged.
        """
        ...

    async def write_setting(
        self,
        namespace: str,
        name: str,
        value: bytes | None,
        audit: ActionRecord,
        request: RequestRecord | None,
    ) -> SettingResult:
        """Set or remove a setting durably, together with its action and request record.

        Args:
            namespace: The namespace it belongs to; empty for the server's own.
            name: Its name in the namespace.
            value: At most `SETTING_BYTES_MAX` bytes; None removes it, whether or not it was there.
            audit: Who did it.
            request: Its request record, kept in the same namespace.

        Raises:
            InvariantViolated: the value is too large.
            JournalFull: the disk is full; nothing was written.
            JournalUnavailable: the store failed; see rule 4.
        """
        ...

    async def write_actions(self, actions: Sequence[tuple[str, ActionRecord]]) -> None:
        """Record actions that changed nothing, each in a namespace, durably.

        Raises:
            JournalFull: the disk is full; nothing was written.
            JournalUnavailable: the store failed; see rule 4.
        """
        ...

    @property
    def deletions(self) -> Deletions:
        """Deletes executions."""
        ...

    @property
    def snapshots(self) -> Snapshots:
        """Keeps snapshots of open executions."""
        ...

    @property
    def log_lines(self) -> LogLines:
        """Keeps what handlers log and report."""
        ...

    async def key(self) -> bytes:
        """Return the store's own secret of 32 bytes, made with the store; attempt tokens are signed with it."""
        ...

    def statistics(self) -> JournalStatistics:
        """Take a snapshot of the counters."""
        ...

    async def aclose(self) -> None:
        """Close the store. Idempotent."""
        ...
