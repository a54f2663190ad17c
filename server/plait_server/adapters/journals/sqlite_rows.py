"""Parses and verifies rows of the SQLite store.

Damage can put a value of any type anywhere, so each row is matched with a pattern that names the types, and texts
are read as bytes where invalid UTF-8 must not end the whole query.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, TypeAlias, cast

import apsw

from plait_server.adapters.journals.conditions import Head
from plait_server.adapters.journals.queries import Query
from plait_server.adapters.journals.verification import (
    checksum_of_action,
    checksum_of_audit,
    checksum_of_content_key,
    checksum_of_head,
    checksum_of_request,
    checksum_of_scope_entry,
    checksum_of_setting,
    checksum_of_tombstone,
    checksum_of_words,
    damaged_scope,
    digest_of_listing,
    digest_of_row,
    labels_text,
    unpack_sequences,
)
from plait_server.core.lists.listing import Listing
from plait_server.core.run.states import ExecutionState
from plait_server.ports.audit import ActionRecord, AuditEntry, AuditRecord
from plait_server.ports.journal import (
    Claim,
    DamagedRow,
    ExecutionRow,
    ListedExecution,
    RequestRecord,
    chain_start,
)
from plait_server.ports.lists import Tombstone

Value: TypeAlias = str | bytes | int | float | None
"""A value in a column."""

Row: TypeAlias = tuple[Value, ...]
"""A row of a result."""


class UnexpectedRow(Exception):
    """A row is damaged, and no execution is known to be affected. `translate_errors` turns it into StoreDamaged."""


class Stored(NamedTuple):
    """A complete row of `executions`. A NamedTuple, because lists make hundreds of them."""

    namespace: str
    execution_id: str
    head: Head
    row: ExecutionRow

    def listed(self) -> ListedExecution:
        """Return the form for lists."""
        head = self.head
        return ListedExecution(
            execution_id=self.execution_id,
            position=head.position,
            last_sequence=head.last_sequence,
            owner_epoch=head.owner_epoch,
            row=self.row,
        )

    def claim(self) -> Claim:
        """Return the claim on the execution."""
        return Claim(
            namespace=self.namespace,
            execution_id=self.execution_id,
            owner_epoch=self.head.owner_epoch,
            last_sequence=self.head.last_sequence,
            row=self.row,
        )


class StoreRow(NamedTuple):
    """The store's own row."""

    key: bytes
    generation: int
    owner: str
    process_id: int
    host: str
    epoch_jump: int

    def checksum(self) -> bytes:
        """Return the row's checksum."""
        numbers = (str(self.generation), str(self.process_id), str(self.epoch_jump))
        words = (self.key.hex(), self.owner, self.host, *numbers)
        return checksum_of_words(b"plait store", words)


def fetch(connection: apsw.Connection, query: Query, *values: Value) -> list[Row]:
    """Run a query to its end.

    Args:
        connection: The connection.
        query: A named query.
        values: Its parameters, in the order in which their names first appear.

    Raises:
        apsw.Error: SQLite failed.
    """
    return cast("list[Row]", connection.execute(query.sql, values).fetchall())


def stored_of(row: Row) -> Stored | DamagedRow:
    """Parse a row of `executions`.

    Raises:
        UnexpectedRow: its key is damaged.
    """
    match row:
        case (int(position), bytes(namespace_bytes), bytes(id_bytes), bytes() | None as identity, *values):
            pass
        case _:
            raise UnexpectedRow("the key of an execution")
    try:
        namespace, execution_id = namespace_bytes.decode(), id_bytes.decode()
    except UnicodeDecodeError:
        raise UnexpectedRow(f"the key of execution number {position}") from None
    start = chain_start(namespace, execution_id)
    stored = _stored_of(namespace, execution_id, start, position, values)
    if stored is not None and identity == start:
        return stored
    if stored is not None or identity == start:
        return DamagedRow(namespace=namespace, execution_id=execution_id, position=position)
    raise UnexpectedRow(f"the key of execution number {position}")


def _stored_of(
    namespace: str, execution_id: str, identity: bytes, position: int, values: Sequence[Value]
) -> Stored | None:
    """Parse the rest of a row; return None if the checksum does not fit."""
    match values:
        case [
            int(sequence),
            bytes(last_checksum),
            int(epoch),
            int(owner),
            0 | 1 as is_open,
            None | float() as due_time_s,
            int(audit_count),
            bytes(summary),
            *listed,
            int(change),
            bytes(checksum),
        ]:
            listing = _listing_of(listed)
            if listing is None:
                return None
            execution_row = ExecutionRow(
                summary=summary, is_open=bool(is_open), due_time_s=due_time_s, listing=listing
            )
            listing_digest = digest_of_listing(listing)
            head = Head(
                position,
                sequence,
                last_checksum,
                epoch,
                owner,
                bool(is_open),
                audit_count,
                identity,
                digest_of_row(execution_row, listing_digest),
                listing_digest,
                change,
            )
            if checksum_of_head(head) == checksum:
                return Stored(namespace, execution_id, head, execution_row)
            return None
        case _:
            return None


def values_of_listing(listing: Listing) -> Row:
    """Return the columns of a listing, without its change number."""
    return (
        int(listing.state),
        listing.reason,
        listing.graph_name,
        labels_text(listing.labels),
        listing.create_time_s,
        listing.end_time_s,
    )


def _listing_of(values: Sequence[Value]) -> Listing | None:
    """Parse the columns of a listing; return None if a value cannot be one. The caller verifies the checksum."""
    match values:
        case [
            int(state),
            bytes(reason),
            bytes(graph_name),
            bytes(labels_json),
            float(create_time_s),
            float(end_time_s),
        ]:
            try:
                labels: object = json.loads(labels_json) if labels_json != b"{}" else {}
                return Listing(
                    state=ExecutionState(state),
                    reason=reason.decode(),
                    graph_name=graph_name.decode(),
                    labels=cast("dict[str, str]", labels),
                    create_time_s=create_time_s,
                    end_time_s=end_time_s,
                )
            except (ValueError, RecursionError):
                return None
        case _:
            return None


def floor_of(rows: Sequence[Row]) -> int:
    """Parse the rows of `find_floor`.

    Raises:
        UnexpectedRow: it is damaged.
    """
    return tombstone_of("", rows[0]).change if rows else 0


def tombstone_of(namespace: str, row: Row) -> Tombstone:
    """Parse a row of `list_tombstones`.

    Raises:
        UnexpectedRow: it is damaged.
    """
    match row:
        case (int(change), bytes(content), float(time_s), bytes(checksum)):
            execution_id = _text(content)
            if checksum_of_tombstone(namespace, execution_id, change, time_s) == checksum:
                return Tombstone(change=change, execution_id=execution_id, time_s=time_s)
        case _:
            pass
    raise UnexpectedRow("the record of a deletion")


def record_of(row: Row) -> tuple[str, RequestRecord]:
    """Return the namespace and the record in a row of `requests`.

    Raises:
        UnexpectedRow: it is damaged.
    """
    match row:
        case (
            str(namespace),
            str(method),
            str(request_id),
            bytes(fingerprint),
            str(execution_id),
            bytes(checksum),
        ):
            record = RequestRecord(
                method=method, request_id=request_id, fingerprint=fingerprint, execution_id=execution_id
            )
            if checksum_of_request(namespace, record) == checksum:
                return namespace, record
        case _:
            pass
    raise UnexpectedRow("the record of a request")


def require_content_key(namespace: Value, digest: Value, checksum: Value) -> None:
    """Check the key of a content.

    Raises:
        UnexpectedRow: it is damaged.
    """
    if not (
        isinstance(namespace, str)
        and isinstance(digest, str)
        and checksum_of_content_key(namespace, digest) == checksum
    ):
        raise UnexpectedRow("the key of a content")


def store_of(rows: list[Row]) -> StoreRow:
    """Parse the row of `store`.

    Raises:
        UnexpectedRow: it is missing or damaged.
    """
    match rows:
        case [
            (
                bytes(key),
                int(generation),
                str(owner),
                int(process_id),
                str(host),
                int(epoch_jump),
                bytes(checksum),
            )
        ]:
            row = StoreRow(key, generation, owner, process_id, host, epoch_jump)
            if row.checksum() == checksum:
                return row
        case _:
            pass
    raise UnexpectedRow("the store's own row")


def audit_of(row: Row) -> tuple[int, AuditRecord, bytes]:
    """Return number, record and checksum in a row of `list_audit`; a damaged row gets an empty checksum."""
    match row:
        case (
            int(number),
            float(time_s),
            bytes(kind),
            bytes(node_path),
            int(attempt),
            bytes(worker_id),
            bytes(detail),
            bytes(checksum),
        ):
            return (
                number,
                AuditRecord(
                    time_s=time_s,
                    kind=_text(kind),
                    node_path=_text(node_path),
                    attempt=attempt,
                    worker_id=_text(worker_id),
                    detail=_text(detail),
                ),
                checksum,
            )
        case _:
            nothing = AuditRecord(time_s=0.0, kind="", node_path="", attempt=0, worker_id="", detail="")
            return 0, nothing, b""


def entry_of_audit(row: Row) -> AuditEntry:
    """Return the entry in a row of `list_namespace_audit` or `list_execution_audit`."""
    match row:
        case (int(arrival), bytes(execution_id), bytes(identity), *values):
            number, record, checksum = audit_of(tuple(values))
            is_whole = checksum == checksum_of_audit(identity, number, record)
            return AuditEntry(
                position=arrival, execution_id=_text(execution_id), record=record if is_whole else None
            )
        case (int(arrival), *_):
            return AuditEntry(position=arrival, execution_id="", record=None)
        case _:
            raise UnexpectedRow("the number of an audit record")


def entry_of_action(row: Row, namespace: str) -> AuditEntry:
    """Return the entry in a row of `list_actions`."""
    match row:
        case (
            int(arrival),
            bytes(namespace_bytes),
            bytes(execution_id),
            float(time_s),
            bytes(principal),
            0 | 1 as is_verified,
            bytes(method),
            bytes(target),
            bytes(detail),
            0 | 1 as is_refused,
            bytes(checksum),
        ):
            record = ActionRecord(
                time_s=time_s,
                principal=_text(principal),
                is_verified=bool(is_verified),
                method=_text(method),
                execution_id=_text(execution_id),
                target=_text(target),
                detail=_text(detail),
                is_refused=bool(is_refused),
            )
            is_whole = _text(namespace_bytes) == namespace and checksum == checksum_of_action(
                namespace, arrival, record
            )
            return AuditEntry(
                position=arrival,
                execution_id=record.execution_id if is_whole else "",
                record=record if is_whole else None,
            )
        case (int(arrival), *_):
            return AuditEntry(position=arrival, execution_id="", record=None)
        case _:
            raise UnexpectedRow("the number of an action")


def setting_of(row: Row) -> tuple[str, str, bytes]:
    """Return namespace, name and value in a row of `list_settings`.

    Raises:
        UnexpectedRow: it is damaged.
    """
    match row:
        case (str(namespace), str(name), bytes(value), bytes(checksum)) if (
            checksum_of_setting(namespace, name, value) == checksum
        ):
            return namespace, name, value
        case _:
            raise UnexpectedRow("a setting")


def sequences_of(
    rows: Iterable[Row], identity: bytes, execution_id: str, scope_path: str, *, after: int = 0
) -> Iterator[int]:
    """Read the sequences after a given one from rows of `list_scope_entries`.

    Raises:
        EventDamaged: a row is damaged.
    """
    for row in rows:
        match row:
            case (int(last), bytes(packed), bytes(checksum)) if checksum == checksum_of_scope_entry(
                identity, scope_path, last, packed
            ):
                yield from (sequence for sequence in unpack_sequences(last, packed) if sequence > after)
            case _:
                raise damaged_scope(execution_id, scope_path)


def _text(content: bytes) -> str:
    # Invalid UTF-8 was never written, so the checksum will not fit.
    return content.decode(errors="replace")
