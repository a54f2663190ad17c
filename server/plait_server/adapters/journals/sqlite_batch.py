"""The rows that one append to the SQLite store writes: by table, in the order of the queries' parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import apsw

from plait_server.adapters.journals.conditions import Head
from plait_server.adapters.journals.queries import load_queries
from plait_server.adapters.journals.sqlite_rows import Row, values_of_listing
from plait_server.adapters.journals.verification import (
    checksum_of_action,
    checksum_of_audit,
    checksum_of_content_key,
    checksum_of_head,
    checksum_of_request,
    checksum_of_scope_entry,
    digest_of_listing,
    digest_of_row,
    pack_sequences,
)
from plait_server.errors import InvariantViolated
from plait_server.ports.audit import ActionRecord
from plait_server.ports.journal import (
    Appended,
    AppendItem,
    AppendResult,
    RequestRecord,
    chain,
    chain_start,
)


@dataclass(slots=True)
class Batch:
    """The rows of one append, collected while its items are checked, and written in one transaction."""

    last_position: int
    """The highest position assigned so far."""
    last_arrival: int
    """The highest number of an audit record or an action assigned so far."""
    last_change: int
    """The highest change number assigned so far."""
    results: list[AppendResult] = field(default_factory=list[AppendResult])
    """One for each item that was decided."""
    heads: dict[tuple[str, str], Head] = field(default_factory=dict[tuple[str, str], Head])
    """The heads of the executions in this batch, by namespace and id."""
    records: dict[tuple[str, str, str], RequestRecord] = field(
        default_factory=dict[tuple[str, str, str], RequestRecord]
    )
    """Requests of the items in this batch, by namespace, method and id."""
    executions: list[Row] = field(default_factory=list[Row])
    """For `insert_execution`."""
    rows: list[Row] = field(default_factory=list[Row])
    """For `update_execution`."""
    listings: list[Row] = field(default_factory=list[Row])
    """For `update_listing`."""
    labels: list[Row] = field(default_factory=list[Row])
    """For `insert_label`."""
    ends: list[Row] = field(default_factory=list[Row])
    """For `update_head`."""
    events: list[Row] = field(default_factory=list[Row])
    """For `insert_event`."""
    contents: list[Row] = field(default_factory=list[Row])
    """For `insert_content`."""
    uses: list[Row] = field(default_factory=list[Row])
    """For `insert_use`."""
    requests: list[Row] = field(default_factory=list[Row])
    """For `insert_request`."""
    audit: list[Row] = field(default_factory=list[Row])
    """For `insert_audit`."""
    scope_entries: list[Row] = field(default_factory=list[Row])
    """For `insert_scope_entry`."""
    actions: list[Row] = field(default_factory=list[Row])
    """For `insert_action`."""
    forgotten: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """The executions that the transaction deletes, by namespace and id."""
    event_bytes: int = 0

    def add(self, item: AppendItem, head: Head | None, *, owner: int) -> Appended:
        """Add an item that was not refused.

        Args:
            item: Well-formed, of an execution that has no other item here.
            head: The execution's head; None if the item creates the execution.
            owner: The number of the opening that appends.
        """
        key = (item.namespace, item.execution_id)
        if head is None:
            self.last_position += 1
            position, sequence, audit_count = self.last_position, 0, 0
            checksum = identity = chain_start(*key)
        else:
            position, sequence, checksum = head.position, head.last_sequence, head.last_checksum
            identity, audit_count = head.identity, head.audit_count
        for event in item.events:
            sequence += 1
            checksum = chain(checksum, event)
            self.events.append((position, sequence, event, checksum))
            self.event_bytes += len(event)

        row, epoch = item.row, item.owner_epoch
        audit_count += len(item.audit)
        if row is not None:
            listing_digest = digest_of_listing(row.listing)
            is_changed = head is None or head.listing_digest != listing_digest
            self.last_change += is_changed
            new = Head(
                position,
                sequence,
                checksum,
                epoch,
                owner,
                row.is_open,
                audit_count,
                identity,
                digest_of_row(row, listing_digest),
                listing_digest,
                self.last_change if is_changed or head is None else head.change,
            )
            values = (row.is_open, row.due_time_s, audit_count, row.summary, checksum_of_head(new))
            if head is None:
                self.executions.append(
                    (
                        *(position, *key, identity, sequence, checksum, epoch, owner, *values),
                        *(*values_of_listing(row.listing), new.change),
                    )
                )
                self.labels += [(item.namespace, *label, position) for label in row.listing.labels.items()]
            else:
                self.rows.append(
                    (sequence, checksum, owner, *values, position, item.expected_sequence, epoch)
                )
                if is_changed:
                    self.listings.append((*values_of_listing(row.listing), new.change, position))
        elif head is not None:
            new = head._replace(last_sequence=sequence, last_checksum=checksum, audit_count=audit_count)
            self.ends.append(
                (
                    sequence,
                    checksum,
                    audit_count,
                    checksum_of_head(new),
                    position,
                    item.expected_sequence,
                    epoch,
                    owner,
                )
            )
        else:
            raise InvariantViolated  # `require_well_formed` has checked it.
        self.heads[key] = new

        self._add_records(item, new)
        return Appended(last_sequence=sequence)

    def write(self, connection: apsw.Connection) -> bool:
        """Write the rows, in the caller's transaction; return whether every execution ended where its item expected."""
        queries = load_queries("sqlite.sql")

        def write(query: str, rows: list[Row]) -> None:
            if rows:
                connection.executemany(queries[query].sql, rows)

        before = connection.total_changes()
        write("update_execution", self.rows)
        write("update_head", self.ends)
        if connection.total_changes() - before != len(self.rows) + len(self.ends):
            return False
        write("update_listing", self.listings)
        write("insert_execution", self.executions)
        write("insert_label", self.labels)
        write("insert_event", self.events)
        write("insert_content", self.contents)
        write("insert_use", self.uses)
        write("insert_request", self.requests)
        write("insert_audit", self.audit)
        write("insert_scope_entry", self.scope_entries)
        write("insert_action", self.actions)
        return True

    def add_action(self, namespace: str, action: ActionRecord) -> None:
        """Add an action of a namespace."""
        self.last_arrival += 1
        self.actions.append(
            (
                self.last_arrival,
                namespace,
                action.execution_id,
                action.time_s,
                action.principal,
                action.is_verified,
                action.method,
                action.target,
                action.detail,
                action.is_refused,
                checksum_of_action(namespace, self.last_arrival, action),
            )
        )

    def add_actions(self, actions: Sequence[tuple[str, ActionRecord]]) -> None:
        """Add actions, each of a namespace."""
        for namespace, action in actions:
            self.add_action(namespace, action)

    def add_request(self, namespace: str, request: RequestRecord, forget_time_s: float | None = None) -> None:
        """Add the record of a request that nothing conflicts with.

        Args:
            namespace: Its namespace.
            request: The record.
            forget_time_s: When it may be forgotten; None if it lives as long as its execution.
        """
        request_key = (namespace, request.method, request.request_id)
        self.records[request_key] = request
        self.requests.append(
            (
                *request_key,
                request.fingerprint,
                request.execution_id,
                checksum_of_request(namespace, request),
                forget_time_s,
            )
        )

    def _add_records(self, item: AppendItem, head: Head) -> None:
        for digest, content in item.contents.items():
            self.contents.append(
                (item.namespace, digest, checksum_of_content_key(item.namespace, digest), content)
            )
            self.uses.append((head.position, item.namespace, digest))
        if item.request is not None:
            self.add_request(item.namespace, item.request)
        if item.action is not None:
            self.add_action(item.namespace, item.action)
        for scope_path, sequences in item.scope_entries:
            packed = pack_sequences(sequences)
            self.scope_entries.append(
                (
                    head.position,
                    scope_path,
                    sequences[-1],
                    packed,
                    checksum_of_scope_entry(head.identity, scope_path, sequences[-1], packed),
                )
            )
        for number, audit in enumerate(item.audit, start=head.audit_count - len(item.audit) + 1):
            self.last_arrival += 1
            self.audit.append(
                (
                    self.last_arrival,
                    head.position,
                    number,
                    audit.time_s,
                    audit.kind,
                    audit.node_path,
                    audit.attempt,
                    audit.worker_id,
                    audit.detail,
                    checksum_of_audit(head.identity, number, audit),
                    item.namespace,
                )
            )
