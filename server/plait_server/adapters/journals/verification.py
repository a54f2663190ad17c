"""Verifies data as it is read: the chain of an execution's events, the digest of a content, the checksum of a row.

Each checksum is BLAKE2b of a row's values and key, so that a row is never taken for another's.
An execution's row has one checksum in two steps, because most appends change only its end: the digest
of the part for lists and recovery is computed first, and the checksum covers that digest.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from plait_server.adapters.journals.conditions import Head
from plait_server.core.lists.listing import Listing
from plait_server.errors import EventDamaged
from plait_server.ports.audit import ActionRecord, AuditRecord
from plait_server.ports.journal import (
    CHECKSUM_BYTES,
    EventPage,
    ExecutionRow,
    RequestRecord,
    ScopePage,
    chain,
)

_HEAD: Final = struct.Struct(">qqqqqq")
_ROW: Final = struct.Struct(">?d?")
_LISTING: Final = struct.Struct(">qddqq")


def labels_text(labels: Mapping[str, str]) -> str:
    """Return the form in which the labels of an execution are stored: a JSON object with sorted keys."""
    return json.dumps(labels, ensure_ascii=False, sort_keys=True) if labels else "{}"


def digest_of_listing(listing: Listing) -> bytes:
    """Return the digest of an execution's listing."""
    reason, graph_name = listing.reason.encode(), listing.graph_name.encode()
    numbers = _LISTING.pack(
        listing.state, listing.create_time_s, listing.end_time_s, len(reason), len(graph_name)
    )
    labels = labels_text(listing.labels).encode()
    return hashlib.blake2b(numbers + reason + graph_name + labels, digest_size=CHECKSUM_BYTES).digest()


def digest_of_row(row: ExecutionRow, listing_digest: bytes) -> bytes:
    """Return the digest of an execution's row, the first step of its checksum.

    Args:
        row: The row.
        listing_digest: The digest of its listing; empty for a row of a store from before there were listings.
    """
    due_time_s = row.due_time_s
    packed = _ROW.pack(due_time_s is not None, due_time_s or 0.0, row.is_open)
    return hashlib.blake2b(packed + listing_digest + row.summary, digest_size=CHECKSUM_BYTES).digest()


def checksum_of_head(head: Head) -> bytes:
    """Return the checksum of an execution's row: of its key, its head and its row's digest."""
    packed = _HEAD.pack(
        head.position, head.last_sequence, head.owner_epoch, head.owner, head.audit_count, head.change
    )
    return hashlib.blake2b(
        packed + head.last_checksum + head.row_digest, digest_size=CHECKSUM_BYTES, key=head.identity
    ).digest()


def checksum_of_request(namespace: str, record: RequestRecord) -> bytes:
    """Return the checksum of a request's record."""
    words = (namespace, record.method, record.request_id, record.execution_id, record.fingerprint.hex())
    return checksum_of_words(b"plait request", words)


def checksum_of_audit(identity: bytes, number: int, record: AuditRecord) -> bytes:
    """Return the checksum of an audit record, with its number and its execution's identity."""
    words = (
        identity.hex(),
        str(number),
        record.time_s.hex(),
        record.kind,
        record.node_path,
        str(record.attempt),
        record.worker_id,
        record.detail,
    )
    return checksum_of_words(b"plait audit", words)


def checksum_of_action(namespace: str, arrival: int, record: ActionRecord) -> bytes:
    """Return the checksum of an action, with its number and its namespace."""
    words = (
        namespace,
        str(arrival),
        record.time_s.hex(),
        record.principal,
        str(record.is_verified),
        record.method,
        record.execution_id,
        record.target,
        record.detail,
        str(record.is_refused),
    )
    return checksum_of_words(b"plait action", words)


def checksum_of_setting(namespace: str, name: str, value: bytes) -> bytes:
    """Return the checksum of a setting."""
    return checksum_of_words(b"plait setting", (namespace, name, value.hex()))


def checksum_of_tombstone(namespace: str, execution_id: str, change: int, time_s: float) -> bytes:
    """Return the checksum of the tombstone of an execution."""
    return checksum_of_words(b"plait tombstone", (namespace, execution_id, str(change), time_s.hex()))


def checksum_of_deletion(position: int) -> bytes:
    """Return the checksum of a deletion, which must not delete another execution than was meant."""
    return checksum_of_words(b"plait deletion", (str(position),))


def checksum_of_content_key(namespace: str, digest: str) -> bytes:
    """Return the checksum that binds a content to its namespace; its digest covers the bytes."""
    return checksum_of_words(b"plait content", (namespace, digest))


def pack_sequences(sequences: Sequence[int]) -> bytes:
    """Encode the sequences of an entry as distances from the last one: 4 bytes each."""
    last = sequences[-1]
    return struct.pack(f">{len(sequences)}I", *[last - sequence for sequence in sequences])


def unpack_sequences(last_sequence: int, packed: bytes) -> list[int]:
    """Decode the sequences of an entry whose checksum fits."""
    return [last_sequence - distance for (distance,) in struct.iter_unpack(">I", packed)]


def checksum_of_scope_entry(identity: bytes, scope_path: str, last_sequence: int, packed: bytes) -> bytes:
    """Return the checksum of an entry of the index by scope."""
    content = b"%d:%b%b" % (last_sequence, packed, scope_path.encode(errors="surrogatepass"))
    return hashlib.blake2b(content, digest_size=CHECKSUM_BYTES, key=identity, person=b"plait scope").digest()


def checksum_of_words(purpose: bytes, words: Iterable[str]) -> bytes:
    """Return the checksum of a list of texts; different lists of the same purpose have different input."""
    text = "".join(f"{len(word)}:{word}" for word in words)
    # Damage may leave half of a surrogate pair; it must be hashed too.
    return hashlib.blake2b(
        text.encode(errors="surrogatepass"), digest_size=CHECKSUM_BYTES, person=purpose
    ).digest()


def verify_page(
    stored: Iterable[tuple[int, bytes | None, bytes | None]],
    *,
    execution_id: str,
    head: Head,
    after: int,
    events_max: int,
    bytes_max: int,
) -> EventPage:
    """Read events from `stored` while they fit the chain and the bounds.

    Args:
        stored: Sequence, event and checksum in order, beginning with the event `after`, which is only chained
            to; with the first event if `after` is 0. No more is taken from it than the page needs.
        execution_id: The id to name in errors.
        head: The head of the execution, which reveals missing events at the end.
        after: The page begins after this sequence.
        events_max: Bound of the page.
        bytes_max: Bound of the page, except for its first event.

    Raises:
        EventDamaged: an event is missing, there is one too many, or its bytes are not those that were
            appended.
    """
    events: list[bytes] = []
    if after >= head.last_sequence:
        return EventPage(events=events, last_sequence=head.last_sequence)
    expected = max(after, 1)
    previous = head.identity
    budget = bytes_max
    for sequence, event, checksum in stored:
        if sequence != expected or event is None or checksum is None:
            raise _damaged(execution_id, expected)
        if sequence > after:
            budget -= len(event)
            if events and (len(events) == events_max or budget < 0):
                return EventPage(events=events, last_sequence=head.last_sequence)
            if chain(previous, event) != checksum:
                raise _damaged(execution_id, sequence)
            events.append(event)
        # BLAKE2b takes keys up to 64 bytes; a longer, damaged checksum cannot be one.
        if len(checksum) != CHECKSUM_BYTES:
            raise _damaged(execution_id, sequence)
        previous = checksum
        expected += 1
    if expected != head.last_sequence + 1 or previous != head.last_checksum:
        raise _damaged(execution_id, min(expected, head.last_sequence))
    return EventPage(events=events, last_sequence=head.last_sequence)


def verify_scope_page(
    sequences: Iterable[int],
    find_event: Callable[[int], tuple[object, object, object]],
    *,
    execution_id: str,
    after: int,
    events_max: int,
    bytes_max: int,
) -> ScopePage:
    """Read events of a scope while they fit the bounds.

    Args:
        sequences: The scope's sequences after `after`, ascending. No more are read than the page needs.
        find_event: Returns the checksum before an event, the event, and its own checksum. Each of them may be
            damaged.
        execution_id: The id to name in errors.
        after: The page begins after this sequence.
        events_max: Bound of the page.
        bytes_max: Bound of the page, except for its first event.

    Raises:
        EventDamaged: an event is missing, or its bytes are not those that were appended.
    """
    events: list[bytes] = []
    budget = bytes_max
    for sequence in sequences:
        if len(events) == events_max:
            return ScopePage(events=events, after=after, is_last=False)
        previous, event, checksum = find_event(sequence)
        if not (isinstance(previous, bytes) and len(previous) == CHECKSUM_BYTES and isinstance(event, bytes)):
            raise _damaged(execution_id, sequence)
        budget -= len(event)
        if events and budget < 0:
            return ScopePage(events=events, after=after, is_last=False)
        if chain(previous, event) != checksum:
            raise _damaged(execution_id, sequence)
        events.append(event)
        after = sequence
    return ScopePage(events=events, after=after, is_last=True)


def verify_audit(
    records: Iterable[tuple[int, AuditRecord, bytes]], *, execution_id: str, head: Head, limit: int
) -> list[AuditRecord]:
    """Return the first audit records of an execution, at most `limit`.

    Args:
        records: Number, record and checksum, by number.
        execution_id: The id to name in errors.
        head: The head of the execution, which reveals missing records.
        limit: The most records to return.

    Raises:
        EventDamaged: a record is missing, there is one too many, or one is not what was appended.
    """
    verified: list[AuditRecord] = []
    for number, record, checksum in records:
        if number != len(verified) + 1 or checksum != checksum_of_audit(head.identity, number, record):
            break
        verified.append(record)
    if len(verified) != min(limit, head.audit_count):
        raise EventDamaged(
            f"audit record {len(verified) + 1} of execution {execution_id} is damaged or missing",
            execution_id=execution_id,
        )
    return verified


def damaged_row(execution_id: str) -> EventDamaged:
    """Return the error for an execution whose row is damaged."""
    return EventDamaged(
        f"the row of execution {execution_id} is damaged; the execution is quarantined, others go on; "
        "stop the server and run `plait store check` for all that is damaged",
        execution_id=execution_id,
    )


def verify_content(digest: str, content: bytes) -> bytes:
    """Return the content if it has the digest.

    Raises:
        EventDamaged: it does not have the digest.
    """
    if hashlib.sha256(content).hexdigest() != digest:
        raise damaged_content(digest)
    return content


def damaged_content(digest: str) -> EventDamaged:
    """Return the error for a content that does not have its digest."""
    return EventDamaged(
        f"the content {digest} is damaged; executions that need it cannot go on", digest=digest
    )


def damaged_scope(execution_id: str, scope_path: str) -> EventDamaged:
    """Return the error for a scope whose index is damaged."""
    return EventDamaged(
        f"the index by scope of execution {execution_id} is damaged at {scope_path}; stop the server and run "
        "`plait store salvage`, which rebuilds it",
        execution_id=execution_id,
        scope_path=scope_path,
    )


def _damaged(execution_id: str, sequence: int) -> EventDamaged:
    return EventDamaged(
        f"event {sequence} of execution {execution_id} is damaged or missing; the execution is quarantined, "
        "others go on; stop the server and run `plait store check` for all that is damaged",
        execution_id=execution_id,
        sequence=sequence,
    )
