"""Deletes executions from a store in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from plait_server.adapters.journals.memory_store import StoredExecution
from plait_server.ports.audit import ActionRecord
from plait_server.ports.deletions import (
    REQUESTS_KEPT_S,
    TOMBSTONES_KEPT_S,
    DeleteResult,
    DeletionBegun,
    ExecutionMissing,
    ExecutionOpen,
)
from plait_server.ports.journal import RequestConflict, RequestRecord

if TYPE_CHECKING:
    from plait_server.adapters.journals.memory import MemoryJournal


class MemoryDeletions:
    """The `Deletions` of a `MemoryJournal`."""

    def __init__(self, journal: MemoryJournal) -> None:
        self._journal = journal

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
        """Take an execution out of the store; see the port."""
        store = self._journal.require_store()
        key = (namespace, request.method, request.request_id) if request is not None else None
        if key is not None and key in store.requests:
            return RequestConflict(record=store.requests[key])
        execution = store.executions.get((namespace, execution_id))
        if execution is None:
            return ExecutionMissing()
        if execution.head.is_open and not (is_corrupt or execution.is_damaged):
            return ExecutionOpen()
        self._take_out(execution, now_s)
        if request is not None and key is not None:
            store.requests[key] = request
            store.forget_times_s[key] = now_s + REQUESTS_KEPT_S
        if action is not None:
            store.add_entry(namespace, action.execution_id, action)
        return DeletionBegun()

    async def begin_expired(
        self,
        namespace: str,
        *,
        ended_before_s: float,
        now_s: float,
        limit: int,
        is_busy: Callable[[str], bool],
    ) -> Sequence[str]:
        """Take executions that ended before a time out of the store; see the port."""
        expired = [
            (execution.row.listing.end_time_s, execution.head.position, execution)
            for execution in self._journal.require_store().executions.values()
            if execution.namespace == namespace
            and not execution.head.is_open
            and not execution.is_damaged
            and not is_busy(execution.execution_id)
            and 0 < execution.row.listing.end_time_s < ended_before_s
        ]
        expired = sorted(expired, key=lambda entry: entry[:2])[:limit]
        for _, _, execution in expired:
            self._take_out(execution, now_s)
        return [execution.execution_id for _, _, execution in expired]

    async def delete_some(self, *, rows_max: int, bytes_max: int) -> bool:
        """Delete some of the rows of executions that were taken out; see the port."""
        del bytes_max  # In memory only the number of objects takes time.
        store = self._journal.require_store()
        left = rows_max
        while left > 0:
            if not store.doomed:
                return True
            execution = next(iter(store.doomed.values()))
            if execution.events:
                count = min(left, len(execution.events))
                del execution.events[-count:]
                left -= count
                continue
            for digest in list(islice(execution.uses, left)):
                del execution.uses[digest]
                key = execution.namespace, digest
                del store.uses[key][execution.head.position]
                if not store.uses[key]:
                    del store.uses[key], store.contents[key]
                left -= 1
            if not execution.uses and left > 0:
                del store.doomed[execution.head.position]
                left -= 1
        return False

    async def forget_some(self, *, now_s: float, actions_before_s: float, limit: int) -> bool:
        """Forget old records of requests and actions; see the port."""
        store = self._journal.require_store()
        due = [key for key, time_s in store.forget_times_s.items() if time_s <= now_s][:limit]
        for key in due:
            del store.requests[key], store.forget_times_s[key]
        actions = (
            (position, entry.record)
            for position, (_, entry) in store.audit.items()
            if isinstance(entry.record, ActionRecord)
        )
        old = [position for position, record in islice(actions, limit) if record.time_s < actions_before_s]
        for position in old:
            del store.audit[position]
        dropped = 0
        while store.tombstones and store.tombstones[0][3] <= now_s - TOMBSTONES_KEPT_S and dropped < limit:
            store.floor = store.tombstones.pop(0)[0]
            dropped += 1
        return max(len(due), len(old), dropped) < limit

    async def list_namespaces(self) -> Sequence[str]:
        """List the namespaces that have executions."""
        return sorted({namespace for namespace, _ in self._journal.require_store().executions})

    def _take_out(self, execution: StoredExecution, now_s: float) -> None:
        store = self._journal.require_store()
        namespace, execution_id = execution.namespace, execution.execution_id
        del store.executions[namespace, execution_id]
        for arrival in execution.arrivals:
            del store.audit[arrival]
        for key, record in store.requests.items():
            if key[0] == namespace and record.execution_id == execution_id:
                store.forget_times_s[key] = now_s + REQUESTS_KEPT_S
        store.last_change += 1
        store.tombstones.append((store.last_change, namespace, execution_id, now_s))
        store.doomed[execution.head.position] = execution
