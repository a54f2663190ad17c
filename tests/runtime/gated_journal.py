"""The memory journal behind a gate: appends are held, broken and looked at."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import trio

from plait_server.adapters.journals.memory import MemoryJournal, MemoryNamespaceJournal
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.core.lists.filters import Filter, ListOrder
from plait_server.errors import JournalFull
from plait_server.ports.audit import ActionRecord, AuditEntry, AuditRecord
from plait_server.ports.deletions import DeleteResult, Deletions
from plait_server.ports.journal import (
    AppendItem,
    AppendResult,
    Claim,
    DamagedRow,
    EventPage,
    JournalStatistics,
    ListedExecution,
    RequestRecord,
    ScopePage,
    SettingResult,
    Verification,
)
from plait_server.ports.lists import ChangePage, ListCursor, RowPage
from plait_server.ports.log_lines import LogLines
from plait_server.ports.snapshots import Snapshots


class Gate:
    """Lets appends through, holds them, or breaks them; keeps what went through."""

    def __init__(self) -> None:
        self.batches: list[list[AppendItem]] = []
        self._open = trio.Event()
        self._open.set()
        self.waiting = 0
        """Appends that stand before the gate."""
        self.breaks: list[Exception | Callable[[AppendItem], AppendResult | None]] = []
        """For the next appends: an error to raise, or a function asked for each item's result (None appends it)."""
        self.reads_yield = False
        """Whether reads let others run, as those of a store far away do."""
        self.is_full = False
        """Whether deletions are refused for want of room."""

    def close(self) -> None:
        self._open = trio.Event()

    def open(self) -> None:
        self._open.set()

    async def pass_through(self) -> None:
        self.waiting += 1
        await self._open.wait()
        self.waiting -= 1


class GatedJournal:
    """A memory journal behind a gate."""

    kind = "memory"

    def __init__(self, store: MemoryStore, gate: Gate) -> None:
        self.inner = MemoryJournal(store, owner=f"owner-{store.generation + 1}")
        self._gate = gate

    @property
    def owner(self) -> str:
        return self.inner.owner

    def namespace(self, name: str) -> GatedNamespace:
        return GatedNamespace(self.inner.namespace(name), self._gate)

    async def append_many(self, items: Sequence[AppendItem]) -> Sequence[AppendResult]:
        await self._gate.pass_through()
        action = self._gate.breaks.pop(0) if self._gate.breaks else None
        if isinstance(action, Exception):
            raise action
        results: list[AppendResult] = []
        for item in items:
            refused = action(item) if action is not None else None
            results.append(refused or (await self.inner.append_many([item]))[0])
        self._gate.batches.append(list(items))
        return results

    async def claim(self, *, limit: int) -> Sequence[Claim | DamagedRow]:
        if self._gate.reads_yield:
            await trio.sleep(0.001)
        return await self.inner.claim(limit=limit)

    async def renew(self) -> bool:
        return await self.inner.renew()

    async def verify(self, *, limit: int) -> Verification:
        return await self.inner.verify(limit=limit)

    async def list_due(self, *, now_s: float, limit: int) -> Sequence[Claim]:
        return await self.inner.list_due(now_s=now_s, limit=limit)

    async def read_settings(self) -> Mapping[tuple[str, str], bytes]:
        return await self.inner.read_settings()

    async def write_setting(
        self,
        namespace: str,
        name: str,
        value: bytes | None,
        audit: ActionRecord,
        request: RequestRecord | None,
    ) -> SettingResult:
        return await self.inner.write_setting(namespace, name, value, audit, request)

    async def write_actions(self, actions: Sequence[tuple[str, ActionRecord]]) -> None:
        await self.inner.write_actions(actions)

    @property
    def deletions(self) -> Deletions:
        return GatedDeletions(self.inner.deletions, self._gate)

    @property
    def snapshots(self) -> Snapshots:
        return self.inner.snapshots

    @property
    def log_lines(self) -> LogLines:
        return self.inner.log_lines

    async def key(self) -> bytes:
        return await self.inner.key()

    def statistics(self) -> JournalStatistics:
        return self.inner.statistics()

    async def aclose(self) -> None:
        await self.inner.aclose()


class GatedDeletions:
    """The deletions of a `GatedJournal`."""

    def __init__(self, inner: Deletions, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate

    async def begin(
        self,
        namespace: str,
        execution_id: str,
        *,
        now_s: float,
        is_corrupt: bool,
        action: ActionRecord | None,
        request: RequestRecord | None,
    ) -> DeleteResult:
        self._require_room()
        return await self._inner.begin(
            namespace, execution_id, now_s=now_s, is_corrupt=is_corrupt, action=action, request=request
        )

    async def begin_expired(
        self,
        namespace: str,
        *,
        ended_before_s: float,
        now_s: float,
        limit: int,
        is_busy: Callable[[str], bool],
    ) -> Sequence[str]:
        self._require_room()
        return await self._inner.begin_expired(
            namespace, ended_before_s=ended_before_s, now_s=now_s, limit=limit, is_busy=is_busy
        )

    async def delete_some(self, *, rows_max: int, bytes_max: int) -> bool:
        self._require_room()
        return await self._inner.delete_some(rows_max=rows_max, bytes_max=bytes_max)

    async def forget_some(self, *, now_s: float, actions_before_s: float, limit: int) -> bool:
        self._require_room()
        return await self._inner.forget_some(now_s=now_s, actions_before_s=actions_before_s, limit=limit)

    async def list_namespaces(self) -> Sequence[str]:
        return await self._inner.list_namespaces()

    def _require_room(self) -> None:
        if self._gate.is_full:
            raise JournalFull


class GatedNamespace:
    """A namespace of a `GatedJournal`."""

    def __init__(self, inner: MemoryNamespaceJournal, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate

    @property
    def namespace(self) -> str:
        return self._inner.namespace

    async def _way(self) -> None:
        if self._gate.reads_yield:
            await trio.sleep(0.001)

    async def read(self, execution_id: str, *, after: int, events_max: int, bytes_max: int) -> EventPage:
        await self._way()
        return await self._inner.read(execution_id, after=after, events_max=events_max, bytes_max=bytes_max)

    async def read_scope(
        self, execution_id: str, scope_path: str, *, after: int, events_max: int, bytes_max: int
    ) -> ScopePage:
        await self._way()
        return await self._inner.read_scope(
            execution_id, scope_path, after=after, events_max=events_max, bytes_max=bytes_max
        )

    async def read_row(self, execution_id: str) -> ListedExecution | None:
        await self._way()
        return await self._inner.read_row(execution_id)

    async def list_rows(
        self,
        *,
        limit: int,
        after: ListCursor | None = None,
        condition: Filter | None = None,
        order: ListOrder = ListOrder.NEWEST_FIRST,
    ) -> RowPage:
        await self._way()
        return await self._inner.list_rows(limit=limit, after=after, condition=condition, order=order)

    async def count_rows(self, condition: Filter | None = None) -> int:
        await self._way()
        return await self._inner.count_rows(condition)

    async def list_changes(self, *, after: int, limit: int) -> ChangePage:
        await self._way()
        return await self._inner.list_changes(after=after, limit=limit)

    async def find_request(self, method: str, request_id: str) -> RequestRecord | None:
        await self._way()
        return await self._inner.find_request(method, request_id)

    async def read_content(self, digest: str) -> bytes | None:
        await self._way()
        return await self._inner.read_content(digest)

    async def read_audit(self, execution_id: str, *, limit: int) -> Sequence[AuditRecord]:
        await self._way()
        return await self._inner.read_audit(execution_id, limit=limit)

    async def list_audit(
        self, *, execution_id: str | None, before: int | None, limit: int
    ) -> Sequence[AuditEntry]:
        await self._way()
        return await self._inner.list_audit(execution_id=execution_id, before=before, limit=limit)
