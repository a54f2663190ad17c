"""What one append to the SQLite store writes: rows by table, in the order of the queries' parameters."""

from __future__ import annotations

from dataclasses import dataclass, field

from plait_server.adapters.journals.conditions import Head
from plait_server.adapters.journals.sqlite_rows import Row
from plait_server.errors import InvariantViolated
from plait_server.ports.journal import CHAIN_START, Appended, AppendItem, AppendResult, RequestRecord, chain


@dataclass(slots=True)
class Batch:
    """Gathered while items are decided, written at once, and remembered when it is durable."""

    last_position: int
    """The highest position given so far."""
    results: list[AppendResult] = field(default_factory=list[AppendResult])
    """One for each item that was decided."""
    heads: dict[tuple[str, str], Head] = field(default_factory=dict[tuple[str, str], Head])
    """Where the executions of the items in this batch end, by namespace and id."""
    records: dict[tuple[str, str, str], RequestRecord] = field(
        default_factory=dict[tuple[str, str, str], RequestRecord]
    )
    """Requests of the items in this batch, by namespace, method and id."""
    executions: list[Row] = field(default_factory=list[Row])
    """For `insert_execution`."""
    rows: list[Row] = field(default_factory=list[Row])
    """For `update_execution`."""
    ends: list[Row] = field(default_factory=list[Row])
    """For `update_head`."""
    events: list[Row] = field(default_factory=list[Row])
    """For `insert_event`."""
    contents: list[Row] = field(default_factory=list[Row])
    """For `insert_content`."""
    requests: list[Row] = field(default_factory=list[Row])
    """For `insert_request`."""
    audit: list[Row] = field(default_factory=list[Row])
    """For `insert_audit`."""
    event_bytes: int = 0

    def add(self, item: AppendItem, head: Head | None, *, owner: int) -> Appended:
        """Add an item against which nothing speaks.

        Args:
            item: Well-formed, of an execution that has no other item here.
            head: The execution's; None if the item makes it.
            owner: Number of the opening that appends.
        """
        key = (item.namespace, item.execution_id)
        if head is None:
            self.last_position += 1
            position, sequence, checksum = self.last_position, 0, CHAIN_START
        else:
            position, sequence, checksum = head.position, head.last_sequence, head.last_checksum
        for event in item.events:
            sequence += 1
            checksum = chain(checksum, event)
            self.events.append((position, sequence, event, checksum))
            self.event_bytes += len(event)

        row, epoch = item.row, item.owner_epoch
        if row is not None:
            values = (row.is_open, row.due_time_s, row.summary)
            if head is None:
                self.executions.append((position, *key, sequence, checksum, epoch, owner, *values))
            else:
                self.rows.append(
                    (sequence, checksum, owner, *values, position, item.expected_sequence, epoch)
                )
            self.heads[key] = Head(position, sequence, checksum, epoch, owner, row.is_open)
        elif head is not None:
            self.ends.append((sequence, checksum, position, item.expected_sequence, epoch, owner))
            self.heads[key] = head._replace(last_sequence=sequence, last_checksum=checksum)
        else:
            raise InvariantViolated  # `require_well_formed` has seen it.

        for digest, content in item.contents.items():
            self.contents.append((item.namespace, digest, content))
        request = item.request
        if request is not None:
            request_key = (item.namespace, request.method, request.request_id)
            self.records[request_key] = request
            self.requests.append((*request_key, request.fingerprint, request.execution_id))
        for audit in item.audit:
            self.audit.append(
                (
                    position,
                    audit.time_s,
                    audit.kind,
                    audit.node_path,
                    audit.attempt,
                    audit.worker_id,
                    audit.detail,
                )
            )
        return Appended(last_sequence=sequence)
