"""Deletes executions from a SQLite store, in slices.

A deletion is found again after a crash, because its row is deleted with the last slice. Where a page is damaged, and
the store is read without the checksums of pages, nothing more is deleted: a use that was lost would take a content away
from an execution that needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, cast

from plait_server.adapters.journals.sqlite_lookup import find_execution, find_record
from plait_server.adapters.journals.sqlite_rows import Row, Stored, UnexpectedRow, Value, stored_of
from plait_server.adapters.journals.sqlite_tombstones import drop_tombstones
from plait_server.adapters.journals.verification import checksum_of_deletion, checksum_of_tombstone
from plait_server.ports.audit import ActionRecord
from plait_server.ports.deletions import (
    REQUESTS_KEPT_S,
    TOMBSTONES_KEPT_S,
    DeleteResult,
    DeletionBegun,
    ExecutionMissing,
    ExecutionOpen,
)
from plait_server.ports.journal import DamagedRow, RequestConflict, RequestRecord

if TYPE_CHECKING:
    from plait_server.adapters.journals.sqlite import SqliteJournal
    from plait_server.adapters.journals.sqlite_batch import Batch

_BY_SIZE: Final = (("list_doomed_snapshots", "delete_snapshot"), ("list_doomed_events", "delete_event"))
"""The queries that list rows and their sizes, and those that delete one of them."""
_BY_COUNT: Final = ("delete_scope_entries", "delete_audit", "drop_log_lines")
"""The queries that delete rows of small, bounded size."""


class SqliteDeletions:
    """The `Deletions` of a `SqliteJournal`."""

    def __init__(self, journal: SqliteJournal) -> None:
        self._journal = journal
        self._damaged: set[int] = set()
        """Positions of expired executions that are damaged."""

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

        def begin(batch: Batch) -> DeleteResult:
            if request is not None:
                record = find_record(self._journal.connection, namespace, request.method, request.request_id)
                if record is not None:
                    return RequestConflict(record=record)
            found = find_execution(self._journal.connection, namespace, execution_id)
            if found is None:
                return ExecutionMissing()
            if isinstance(found, Stored) and found.head.is_open and not is_corrupt:
                return ExecutionOpen()
            self._take_out(batch, found, now_s)
            if request is not None:
                batch.add_request(namespace, request, now_s + REQUESTS_KEPT_S)
            if action is not None:
                batch.add_action(namespace, action)
            return DeletionBegun()

        return self._journal.make_durable(begin)

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
        limit_of_rows = limit + len(self._damaged)
        rows = self._journal.read(
            lambda: [
                stored_of(row)
                for row in self._journal.execute("list_expired", namespace, ended_before_s, limit_of_rows)
            ]
        )
        self._damaged.update(row.position for row in rows if isinstance(row, DamagedRow))
        expired = [row for row in rows if isinstance(row, Stored) and not is_busy(row.execution_id)][:limit]
        if expired:

            def begin(batch: Batch) -> None:
                for stored in expired:
                    self._take_out(batch, stored, now_s)

            self._journal.make_durable(begin)
        return [stored.execution_id for stored in expired]

    async def delete_some(self, *, rows_max: int, bytes_max: int) -> bool:
        """Delete some of the rows of executions that were taken out; see the port."""
        if self._journal.is_doubted or not self._journal.read(self._find):
            return True

        def delete(_: Batch) -> bool:
            rows_left, bytes_left = rows_max, bytes_max
            while rows_left > 0 and bytes_left > 0:
                position = self._find()
                if position is None:
                    return True
                rows, size = self._delete(position, rows_left, bytes_left)
                rows_left -= rows
                bytes_left -= size
            return False

        return self._journal.make_durable(delete)

    async def forget_some(self, *, now_s: float, actions_before_s: float, limit: int) -> bool:
        """Forget old records of requests and actions; see the port."""

        def forget(_: Batch) -> bool:
            requests = self._change("forget_requests", now_s, limit)
            actions = self._change("forget_actions", limit, actions_before_s)
            tombstones = drop_tombstones(self._journal.connection, now_s - TOMBSTONES_KEPT_S, limit)
            return max(requests, actions, tombstones) < limit

        return self._journal.make_durable(forget)

    async def list_namespaces(self) -> Sequence[str]:
        """List the namespaces that have executions."""
        rows = self._journal.read(lambda: self._journal.execute("list_namespaces"))
        return [str(namespace) for (namespace,) in rows]

    # Inside a transaction.

    def _take_out(self, batch: Batch, found: Stored | DamagedRow, now_s: float) -> None:
        namespace, execution_id = found.namespace, found.execution_id
        position = found.head.position if isinstance(found, Stored) else found.position
        execute = self._journal.execute
        batch.forgotten.append((namespace, execution_id))
        execute("delete_execution", position)
        # The labels of a damaged row are not known; lists pass over a label without an execution.
        labels: Mapping[str, str] = found.row.listing.labels if isinstance(found, Stored) else {}
        for key, value in labels.items():
            execute("delete_label", namespace, key, value, position)
        execute("outlive_requests", now_s + REQUESTS_KEPT_S, namespace, execution_id)
        batch.last_change += 1
        checksum = checksum_of_tombstone(namespace, execution_id, batch.last_change, now_s)
        execute("insert_tombstone", batch.last_change, namespace, execution_id, now_s, checksum)
        execute("insert_deletion", position, checksum_of_deletion(position))

    def _find(self) -> int | None:
        match self._journal.execute("find_deletion"):
            case []:
                return None
            case [(int(position), bytes(checksum))] if checksum == checksum_of_deletion(position):
                return position
            case _:
                raise UnexpectedRow("the note of a deletion")

    def _delete(self, position: int, rows_max: int, bytes_max: int) -> tuple[int, int]:
        """Delete some rows of the first table that has some; end the deletion if none has. Return rows and bytes."""
        for list_query, delete_query in _BY_SIZE:
            rows = self._journal.execute(list_query, position, rows_max)
            if rows:
                doomed, size = _within(rows, bytes_max)
                for arrival, *_ in doomed:
                    self._journal.execute(delete_query, arrival)
                return len(doomed), size
        for query in _BY_COUNT:
            count = self._change(query, position, rows_max)
            if count:
                return count, 0
        uses = self._journal.execute("list_uses", position, rows_max)
        if uses:
            # What another execution uses takes no time.
            counted = [(content, 0 if is_shared else size, is_shared) for content, size, is_shared in uses]
            doomed, size = _within(counted, bytes_max)
            for content, _, is_shared in doomed:
                self._journal.execute("delete_use", content, position)
                if not is_shared:
                    self._journal.execute("delete_content", content)
            return len(doomed), size
        self._journal.execute("end_deletion", position)
        return 1, 0

    def _change(self, query: str, *values: Value) -> int:
        before = self._journal.connection.total_changes()
        self._journal.execute(query, *values)
        return self._journal.connection.total_changes() - before


def _within(rows: Sequence[Row], bytes_max: int) -> tuple[list[Row], int]:
    """Return the first rows whose sizes, in the second column, fit together, at least one; and their size."""
    taken: list[Row] = []
    size = 0
    for row in rows:
        more = cast("int | None", row[1]) or 0
        if taken and size + more > bytes_max:
            break
        taken.append(row)
        size += more
    return taken, size
