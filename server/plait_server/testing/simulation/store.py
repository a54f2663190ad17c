"""The stores of a simulation, a tap on what became durable, and the places where a server dies or its disk fails.

The tap is what every check of A2 asks: an event is durable from the moment in which the store's `append_many`
has done its work, whether or not the server has been told.
"""

from __future__ import annotations

import enum
import hashlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import trio

from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.core.definition.compiled import compile_graph
from plait_server.core.definition.graph import Graph
from plait_server.core.lists.filters import Filter, ListOrder
from plait_server.core.run.events import AttemptEnded, AttemptStarted, Event, ExecutionSubmitted, ScopeOpened
from plait_server.core.run.execution import Execution
from plait_server.core.run.states import AttemptOutcome, NodeState
from plait_server.encoding.event_codec import decode_event
from plait_server.encoding.graph_codec import analysis_from_bytes, graph_from_bytes
from plait_server.errors import JournalFull, JournalUnavailable, PlaitError
from plait_server.ports.audit import ActionRecord, AuditEntry, AuditRecord
from plait_server.ports.deletions import Deletions
from plait_server.ports.journal import (
    Appended,
    AppendItem,
    AppendResult,
    Claim,
    DamagedRow,
    EventPage,
    JournalStatistics,
    ListedExecution,
    NamespaceJournal,
    RequestRecord,
    ScopePage,
    SettingResult,
    SettingWritten,
    Verification,
)
from plait_server.ports.lists import ChangePage, ListCursor, RowPage
from plait_server.ports.log_lines import LogLines
from plait_server.ports.snapshots import Snapshots
from plait_server.testing.simulation.snapshot_tap import TappedSnapshots
from plait_server.testing.simulation.tapped_deletions import TappedDeletions
from plait_server.testing.simulation.tapped_log_lines import TappedLogLines, WrittenLines

NAMESPACE: Final = "default"


class Written(NamedTuple):
    """When an event became durable."""

    start: int
    """Which start of the server wrote it."""
    time_s: float
    """In virtual time."""


class Durable:
    """What is durable of one execution, as events tell it, and its state by replay."""

    def __init__(self, execution_id: str, graph: Graph, execution: Execution, records: Records) -> None:
        self.execution_id: Final = execution_id
        self._records = records
        self.graph: Final = graph
        self.contents: list[bytes] = []
        """The events as they are stored."""
        self.events: list[Event] = []
        self.written: list[Written] = []
        """When each event became durable."""
        self.replayed: Final = execution
        """The state after the newest event, by replay alone."""
        self.states: dict[str, NodeState] = {}
        """Node path -> state, by the events' headers."""
        self.started: dict[tuple[str, int], AttemptStarted] = {}
        """(node path, attempt) -> its start."""
        self.ended: dict[tuple[str, int], AttemptEnded] = {}
        """(node path, attempt) -> its end."""
        self.audit: list[AuditRecord] = []
        self.scopes: dict[str, list[int]] = {}
        """Scope path -> the events that the index names for it."""
        self.is_ended = False
        self.given: dict[str, None] = {}
        """The digests of the contents that appends gave it."""
        self.is_deleted = False

    def __repr__(self) -> str:
        return f"<Durable {self.execution_id}, {len(self.events)} events>"

    def take(self, content: bytes, start: int) -> None:
        """Take an event that became durable."""
        event = decode_event(content)
        self.written.append(Written(start, trio.current_time()))
        self.contents.append(content)
        self.events.append(event)
        self._records.replay(self.replayed, event)
        if event.node_state is not None:
            self.states[event.node_path] = event.node_state
        if event.execution_state is not None:
            self.is_ended = event.execution_state.is_ended
        if isinstance(event.detail, AttemptStarted):
            self.started[event.node_path, event.attempt] = event.detail
        elif isinstance(event.detail, AttemptEnded):
            self.ended[event.node_path, event.attempt] = event.detail

    def outcome(self, node_path: str, attempt: int) -> AttemptOutcome | None:
        """Return how an attempt ended; None if it has not."""
        detail = self.ended.get((node_path, attempt))
        return detail.outcome if detail is not None else None


class Records:
    """All that is durable in a simulation's store."""

    def __init__(self) -> None:
        self.executions: dict[str, Durable] = {}
        """By id, in the order of their submission."""
        self.requests: dict[tuple[str, str], RequestRecord] = {}
        """(method, request id) -> what it stands for."""
        self.contents: dict[str, bytes] = {}
        self.open_deleted: list[str] = []
        """Ids of executions that were deleted, and had not ended."""
        self.settings: list[tuple[float, str, str, bytes | None]] = []
        """(virtual time, namespace, name, value), in the order in which they were set."""

    def __repr__(self) -> str:
        return f"<Records of {len(self.executions)} executions>"

    def take(self, item: AppendItem, start: int) -> None:
        """Take an item that a start of the server made durable."""
        self.contents.update(item.contents)
        durable = self.executions.get(item.execution_id)
        for content in item.events:
            if durable is None:
                durable = self.executions[item.execution_id] = self._begin(content)
            durable.take(content, start)
        if durable is not None:
            durable.given.update(dict.fromkeys(item.contents))
            durable.audit.extend(item.audit)
            for scope_path, sequences in item.scope_entries:
                durable.scopes.setdefault(scope_path, []).extend(sequences)
        if item.request is not None:
            self.requests[item.request.method, item.request.request_id] = item.request

    def delete(self, execution_id: str) -> None:
        """Take the beginning of a deletion."""
        durable = self.executions[execution_id]
        durable.is_deleted = True
        if not durable.is_ended:
            self.open_deleted.append(execution_id)

    def replay(self, execution: Execution, event: Event) -> None:
        """Apply an event, with the graph that it names if an output was one (N7)."""
        detail = event.detail
        if isinstance(detail, ScopeOpened) and detail.graph_digest:
            graph = graph_from_bytes(self.contents[detail.graph_digest])
            analysis = analysis_from_bytes(self.contents[detail.analysis_digest])
            execution.definitions[detail.graph_digest] = compile_graph(graph, analysis)
        execution.apply(event)

    def digest(self) -> str:
        """Return a hash over all events of all executions, in their order."""
        whole = hashlib.sha256()
        for durable in self.executions.values():
            for content in durable.contents:
                whole.update(len(content).to_bytes(4, "big") + content)
        return whole.hexdigest()

    def _begin(self, content: bytes) -> Durable:
        detail = decode_event(content).detail
        if not isinstance(detail, ExecutionSubmitted):
            message = f"the first event of an execution is {type(detail).__name__}"
            raise TypeError(message)
        graph = graph_from_bytes(self.contents[detail.graph_digest])
        execution = Execution(graph, analysis_from_bytes(self.contents[detail.analysis_digest]))
        return Durable(detail.execution_id, graph, execution, self)


class BreakPoint(enum.Enum):
    """Where a store breaks, once."""

    BEFORE_APPEND = "before an append"
    AFTER_APPEND = "after an append"
    BEFORE_CLAIM = "before a claim"
    AFTER_CLAIM = "after a claim"
    READ = "at a read"


class Break:
    """What is to happen when the store comes to a point for the n-th time from now on."""

    def __init__(self, point: BreakPoint, count: int, act: Callable[[], PlaitError]) -> None:
        self.point = point
        self.count = count
        self.act = act
        """Called then; gives the error that leaves the journal."""


class Stores:
    """The one store of a simulation, over all starts of its server.

    Args:
        key: The store's secret.
        is_sqlite: Whether it is a SQLite file in a temporary folder, or memory.
    """

    def __init__(self, key: bytes, *, is_sqlite: bool) -> None:
        self._key = key
        self._memory = MemoryStore(key=key)
        self._folder = tempfile.TemporaryDirectory(prefix="plait-sim-") if is_sqlite else None
        self.records: Final = Records()
        self.written_lines: Final = WrittenLines()
        self.snapshot_reads = 0
        """Parts of snapshots that were read."""

    def __repr__(self) -> str:
        return f"<Stores {'sqlite' if self._folder is not None else 'memory'}>"

    @property
    def is_sqlite(self) -> bool:
        """Whether the store is a SQLite file."""
        return self._folder is not None

    def note_snapshot_read(self) -> None:
        """Count a part of a snapshot that was read."""
        self.snapshot_reads += 1

    def open(self, start: int) -> TappedJournal:
        """Open the store, as the n-th start of the server does."""
        return TappedJournal(self.open_untapped(f"server-{start}"), self, start)

    def open_untapped(self, owner: str) -> SqliteJournal | MemoryJournal:
        """Open the store without a tap."""
        if self._folder is None:
            return MemoryJournal(self._memory, owner=owner)
        return SqliteJournal.open(
            Path(self._folder.name) / "plait.db", owner=owner, key=self._key, has_reader=False
        )

    def remove(self) -> None:
        """Remove what lies on the disk. Idempotent."""
        if self._folder is not None:
            self._folder.cleanup()


class TappedJournal:
    """A `Journal` that tells what became durable, and breaks where it is told to."""

    def __init__(self, inner: SqliteJournal | MemoryJournal, stores: Stores, start: int) -> None:
        self._inner = inner
        self._start = start
        self._stores = stores
        self._records = stores.records
        self.breaks: list[Break] = []
        self.is_dead = False
        self.is_full = False
        """Whether appends are refused for want of room."""

    def __repr__(self) -> str:
        return f"<TappedJournal of {self._inner!r}>"

    @property
    def kind(self) -> str:
        """The kind of the store beneath."""
        return self._inner.kind

    @property
    def owner(self) -> str:
        """Who opened it."""
        return self._inner.owner

    def crash(self) -> None:
        """Drop the journal as kill -9 would."""
        self.is_dead = True
        self._inner.crash()

    def namespace(self, name: str) -> TappedNamespace:
        """Return the handle bound to a namespace."""
        return TappedNamespace(self._inner.namespace(name), self)

    async def append_many(self, items: Sequence[AppendItem]) -> Sequence[AppendResult]:
        """Make the items durable together."""
        if self.is_full:
            raise JournalFull
        self.come_to(BreakPoint.BEFORE_APPEND)
        results = await self._inner.append_many(items)
        for item, result in zip(items, results, strict=True):
            if isinstance(result, Appended):
                self._records.take(item, self._start)
        self.come_to(BreakPoint.AFTER_APPEND)
        return results

    async def claim(self, *, limit: int) -> Sequence[Claim | DamagedRow]:
        """Take over open executions of former openings."""
        self.come_to(BreakPoint.BEFORE_CLAIM)
        claims = await self._inner.claim(limit=limit)
        self.come_to(BreakPoint.AFTER_CLAIM)
        return claims

    async def renew(self) -> bool:
        """Return whether this journal is still the owner."""
        if self.is_dead:
            raise JournalUnavailable
        return await self._inner.renew()

    async def verify(self, *, limit: int) -> Verification:
        """Verify the next rows."""
        return await self._inner.verify(limit=limit)

    async def list_due(self, *, now_s: float, limit: int) -> Sequence[Claim]:
        """List sleeping executions whose due time has come."""
        return await self._inner.list_due(now_s=now_s, limit=limit)

    async def read_settings(self) -> Mapping[tuple[str, str], bytes]:
        """Read all settings."""
        return await self._inner.read_settings()

    async def write_setting(
        self,
        namespace: str,
        name: str,
        value: bytes | None,
        audit: ActionRecord,
        request: RequestRecord | None,
    ) -> SettingResult:
        """Set or remove a setting."""
        if self.is_full:
            raise JournalFull
        self.come_to(BreakPoint.BEFORE_APPEND)
        result = await self._inner.write_setting(namespace, name, value, audit, request)
        if isinstance(result, SettingWritten):
            self._stores.records.settings.append((trio.current_time(), namespace, name, value))
        self.come_to(BreakPoint.AFTER_APPEND)
        return result

    async def write_actions(self, actions: Sequence[tuple[str, ActionRecord]]) -> None:
        """Record actions that changed nothing."""
        if self.is_full:
            raise JournalFull
        self.come_to(BreakPoint.BEFORE_APPEND)
        await self._inner.write_actions(actions)
        self.come_to(BreakPoint.AFTER_APPEND)

    @property
    def deletions(self) -> Deletions:
        """Deletes executions."""
        return TappedDeletions(
            self._inner.deletions,
            before=self._come_before_deletion,
            after=lambda: self.come_to(BreakPoint.AFTER_APPEND),
            note=self._records.delete,
        )

    def _come_before_deletion(self) -> None:
        if self.is_full:
            raise JournalFull
        self.come_to(BreakPoint.BEFORE_APPEND)

    @property
    def snapshots(self) -> Snapshots:
        """Keeps snapshots of open executions."""
        return TappedSnapshots(self._inner.snapshots, self._stores.note_snapshot_read)

    @property
    def log_lines(self) -> LogLines:
        """Keeps what handlers log and report."""
        return TappedLogLines(self._inner.log_lines, self._stores.written_lines)

    async def key(self) -> bytes:
        """Return the store's secret."""
        return await self._inner.key()

    def statistics(self) -> JournalStatistics:
        """Take a snapshot of the counters."""
        return self._inner.statistics()

    async def aclose(self) -> None:
        """Close the store."""
        self.is_dead = True
        await self._inner.aclose()

    def come_to(self, point: BreakPoint) -> None:
        """Break here, if it is time.

        Raises:
            PlaitError: what the break says, or that the journal is dead.
        """
        if self.is_dead:
            raise JournalUnavailable
        for entry in self.breaks:
            if entry.point is point:
                entry.count -= 1
                if entry.count <= 0:
                    self.breaks.remove(entry)
                    raise entry.act()


class TappedNamespace:
    """A `NamespaceJournal` of a `TappedJournal`."""

    def __init__(self, inner: NamespaceJournal, journal: TappedJournal) -> None:
        self._inner = inner
        self._journal = journal

    @property
    def namespace(self) -> str:
        """The namespace it is bound to."""
        return self._inner.namespace

    async def read(self, execution_id: str, *, after: int, events_max: int, bytes_max: int) -> EventPage:
        """Read events after a sequence."""
        self._journal.come_to(BreakPoint.READ)
        return await self._inner.read(execution_id, after=after, events_max=events_max, bytes_max=bytes_max)

    async def read_scope(
        self, execution_id: str, scope_path: str, *, after: int, events_max: int, bytes_max: int
    ) -> ScopePage:
        """Read events of a nested scope after a sequence."""
        self._journal.come_to(BreakPoint.READ)
        return await self._inner.read_scope(
            execution_id, scope_path, after=after, events_max=events_max, bytes_max=bytes_max
        )

    async def read_row(self, execution_id: str) -> ListedExecution | None:
        """Read the row of an execution."""
        self._journal.come_to(BreakPoint.READ)
        return await self._inner.read_row(execution_id)

    async def list_rows(
        self,
        *,
        limit: int,
        after: ListCursor | None = None,
        condition: Filter | None = None,
        order: ListOrder = ListOrder.NEWEST_FIRST,
    ) -> RowPage:
        """List executions."""
        self._journal.come_to(BreakPoint.READ)
        return await self._inner.list_rows(limit=limit, after=after, condition=condition, order=order)

    async def count_rows(self, condition: Filter | None = None) -> int:
        """Count executions."""
        self._journal.come_to(BreakPoint.READ)
        return await self._inner.count_rows(condition)

    async def list_changes(self, *, after: int, limit: int) -> ChangePage:
        """List changes of listings."""
        self._journal.come_to(BreakPoint.READ)
        return await self._inner.list_changes(after=after, limit=limit)

    async def find_request(self, method: str, request_id: str) -> RequestRecord | None:
        """Find what a request id stands for."""
        self._journal.come_to(BreakPoint.READ)
        return await self._inner.find_request(method, request_id)

    async def read_content(self, digest: str) -> bytes | None:
        """Read a content by its digest."""
        self._journal.come_to(BreakPoint.READ)
        return await self._inner.read_content(digest)

    async def read_audit(self, execution_id: str, *, limit: int) -> Sequence[AuditRecord]:
        """Read the audit of an execution."""
        self._journal.come_to(BreakPoint.READ)
        return await self._inner.read_audit(execution_id, limit=limit)

    async def list_audit(
        self, *, execution_id: str | None, before: int | None, limit: int
    ) -> Sequence[AuditEntry]:
        """List actions and audit records newest first."""
        self._journal.come_to(BreakPoint.READ)
        return await self._inner.list_audit(execution_id=execution_id, before=before, limit=limit)
