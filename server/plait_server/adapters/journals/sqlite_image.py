"""Reads a SQLite store that may be damaged anywhere, as far as possible: for checks and salvages.

Nothing here relies on the structure or on the checksums of pages. Whatever cannot be read is skipped, and whatever is
read is verified by its own checksum.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Mapping
from typing import NamedTuple, cast

import apsw

from plait_server.adapters.journals.queries import load_queries
from plait_server.adapters.journals.sqlite_rows import (
    Row,
    Stored,
    StoreRow,
    UnexpectedRow,
    Value,
    audit_of,
    entry_of_action,
    fetch,
    record_of,
    sequences_of,
    setting_of,
    store_of,
    stored_of,
)
from plait_server.adapters.journals.verification import (
    checksum_of_content_key,
    checksum_of_deletion,
    verify_audit,
    verify_content,
)
from plait_server.core.run.events import Event, ExecutionSubmitted
from plait_server.core.run.scope_index import ScopeEntry, ScopeIndex
from plait_server.encoding.event_codec import decode_event
from plait_server.errors import EventDamaged
from plait_server.ports.audit import ActionRecord, AuditRecord
from plait_server.ports.journal import DamagedRow, RequestRecord, chain

# A row has at least 60 bytes, which bounds the search if a counter is damaged.
_ROWS_OF_PAGE_MAX = 64

_CHANGE_MAX = 2**60
"""Above all change numbers that a store comes to, and far enough below the largest integer to count on."""


class StoredEvent(NamedTuple):
    """An event as it is stored."""

    sequence: int
    event: bytes
    checksum: bytes


class Content(NamedTuple):
    """A content as it is stored."""

    namespace: str
    digest: str
    content: bytes


class Image:
    """A store as it is in a database, without its log.

    Args:
        connection: A connection to the database, used only here.
        pages: How many pages the database has.
    """

    def __init__(self, connection: apsw.Connection, *, pages: int) -> None:
        self._connection = connection
        self._queries = {**load_queries("sqlite.sql"), **load_queries("sqlite_image.sql")}
        self._rows_max = pages * _ROWS_OF_PAGE_MAX
        self._by_position: dict[int, list[StoredEvent]] | None = None

    def store_row(self) -> StoreRow | None:
        """Read the store's own row; None if it is damaged."""
        try:
            return store_of(fetch(self._connection, self._queries["find_store"]))
        except (UnexpectedRow, UnicodeDecodeError, apsw.Error):
            return None

    def last_position(self) -> int:
        """Return the highest number that an execution may have."""
        return max(map(self._last, ("find_last_execution", "find_last_position")))

    def last_change(self) -> int:
        """Return a number that no intact row's change is above."""
        for row in self._fetch("find_highest_change"):
            if isinstance(row[0], int):
                return min(row[0], _CHANGE_MAX)
        return _CHANGE_MAX

    def execution(self, position: int) -> Stored | DamagedRow | None:
        """Read the row of an execution; None if the row or its key is lost."""
        try:
            for row in fetch(self._connection, self._queries["find_by_position"], position):
                found = stored_of(row)
                return found if isinstance(found, DamagedRow) or found.head.position == position else None
        except (UnexpectedRow, apsw.Error):
            pass
        return None

    def has_trace(self, position: int) -> bool:
        """Return whether there is, or may be, any data of the execution with this number."""
        try:
            row = fetch(self._connection, self._queries["find_by_position"], position)
            return bool(row or fetch(self._connection, self._queries["list_events"], position, 1))
        except apsw.Error:
            return True

    def events(self, position: int, identity: bytes) -> list[StoredEvent]:
        """Read the first events of an execution, up to the first that does not fit the chain."""
        found: list[StoredEvent] = []
        for row in self._fetch("list_events", position, 1):
            match row:
                case (int(sequence), bytes(event), bytes(checksum)):
                    found.append(StoredEvent(sequence, event, checksum))
                case _:
                    break
        return fitting(found, identity)

    def events_without_index(self, position: int, identity: bytes) -> list[StoredEvent]:
        """Read the events of all executions without an index, by one pass over the table."""
        if self._by_position is None:
            self._by_position = {}
            for _, row in self._rows("find_last_event", "find_event"):
                match row:
                    case (int(execution), int(sequence), bytes(event), bytes(checksum)):
                        self._by_position.setdefault(execution, []).append(
                            StoredEvent(sequence, event, checksum)
                        )
                    case _:
                        pass
        return fitting(sorted(self._by_position.get(position, ())), identity)

    def audit(self, stored: Stored) -> list[AuditRecord]:
        """Read the audit records of an execution.

        Raises:
            EventDamaged: one is damaged or missing.
        """
        count = stored.head.audit_count
        rows = self._fetch("list_audit", stored.head.position, count) if count else ()
        records = [audit_of(row) for row in rows]
        return verify_audit(records, execution_id=stored.execution_id, head=stored.head, limit=count)

    def scopes(self, stored: Stored) -> Mapping[str, list[int]]:
        """Read the index by scope: which events are about which nested scope.

        Raises:
            EventDamaged: an entry is damaged.
        """
        found: dict[str, list[int]] = {}
        for path, *entry in self._fetch("list_all_scope_entries", stored.head.position):
            # A damaged path that is not text fits no checksum.
            scope_path = path.decode(errors="replace") if isinstance(path, bytes) else ""
            sequences = sequences_of([tuple(entry)], stored.head.identity, stored.execution_id, scope_path)
            found.setdefault(scope_path, []).extend(sequences)
        return found

    def deletions(self) -> Mapping[int, bool]:
        """Return which executions were deleted, and whether the note of that is intact."""
        return {
            position: checksum == checksum_of_deletion(position)
            for position, checksum in self._fetch("list_deletions")
            if isinstance(position, int)
        }

    def used(self, position: int) -> frozenset[str]:
        """Return the digests of the contents that an execution uses; those of 0 are kept whoever uses them."""
        rows = self._fetch("list_used", position)
        return frozenset(digest.decode(errors="replace") for (digest,) in rows if isinstance(digest, bytes))

    def arrivals(self, stored: Stored) -> list[int]:
        """Return where the audit records of an execution stand in the lists; fewer than it has if one is damaged."""
        found: list[int] = []
        for row in self._fetch("list_arrivals", stored.head.position):
            match row:
                case (int(), int(arrival), bytes(namespace)) if (
                    0 < arrival <= self._rows_max and namespace == stored.namespace.encode()
                ):
                    found.append(arrival)
                case _:
                    break
        return found

    def settings(self) -> Iterator[tuple[str, str, bytes] | None]:
        """Read all settings, None for each that is damaged."""
        try:
            for row in self._connection.execute(self._queries["list_settings"].sql):
                try:
                    yield setting_of(cast("Row", row))
                except UnexpectedRow:
                    yield None
        except (apsw.Error, UnicodeDecodeError):
            yield None

    def actions(self) -> Iterator[tuple[str, int, ActionRecord] | None]:
        """Read all actions with their namespaces and numbers, None for each that is damaged."""
        for number, row in self._rows("find_last_action", "find_action"):
            namespace = row[1].decode(errors="replace") if row and isinstance(row[1], bytes) else ""
            record = entry_of_action(row, namespace).record if row else None
            yield (namespace, number, record) if isinstance(record, ActionRecord) else None

    def requests(self) -> Iterator[tuple[str, RequestRecord] | None]:
        """Read the records of all requests, None for each that is damaged; both ends if the middle is damaged."""
        seen: set[Row] = set()
        for query in ("list_requests", "list_requests_backwards"):
            is_whole = yield from self._requests(query, seen)
            if is_whole:
                return

    def contents(self) -> Iterator[Content | None]:
        """Read all contents, None for each that is damaged."""
        return (content for _, content in self.numbered_contents())

    def numbered_contents(self) -> Iterator[tuple[int, Content | None]]:
        """Read all contents with their numbers, None for each that is damaged."""
        for number, row in self._rows("find_last_content", "find_content"):
            yield number, _content_of(row)

    def content(self, number: int) -> Content | None:
        """Read the bytes of a content."""
        return next(map(_content_of, self._fetch("find_content", number)), None)

    def submitted_id(self, position: int) -> str:
        """Return the id of an execution from its first event; empty if that is lost."""
        for row in self._fetch("list_events", position, 1):
            match row:
                case (1, bytes(event), bytes()):
                    try:
                        detail = decode_event(event).detail
                    except EventDamaged:
                        return ""
                    return detail.execution_id if isinstance(detail, ExecutionSubmitted) else ""
                case _:
                    return ""
        return ""

    def _requests(
        self, query: str, seen: set[Row]
    ) -> Generator[tuple[str, RequestRecord] | None, None, bool]:
        """Read rows in an order; return whether the end was reached."""
        try:
            for row in self._connection.execute(self._queries[query].sql):
                if row not in seen:
                    seen.add(cast("Row", row))
                    try:
                        yield record_of(cast("Row", row))
                    except UnexpectedRow:
                        yield None
        except (apsw.Error, UnicodeDecodeError):
            yield None
            return False
        return True

    def _last(self, query: str) -> int:
        """Read the number of a table's last row, limited to a plausible number."""
        for row in self._fetch(query):
            if isinstance(row[0], int):
                return min(row[0], self._rows_max)
        return 0

    def _rows(self, last: str, query: str) -> Iterator[tuple[int, Row | None]]:
        """Read a table by the numbers of its rows, None for each that cannot be read."""
        for number in range(1, self._last(last) + 1):
            try:
                for row in fetch(self._connection, self._queries[query], number):
                    yield number, row
            except apsw.Error:
                yield number, None

    def _fetch(self, query: str, *values: Value) -> list[Row]:
        """Run a query, and return its rows up to the first error."""
        rows: list[Row] = []
        with contextlib.suppress(apsw.Error):
            # Rows read before the error are kept.
            rows.extend(cast("Iterator[Row]", self._connection.execute(self._queries[query].sql, values)))
        return rows


def fitting(events: list[StoredEvent], identity: bytes) -> list[StoredEvent]:
    """Return the first events, up to a gap in the numbers or an event that does not fit the chain."""
    checksum = identity
    for number, stored in enumerate(events, start=1):
        checksum = chain(checksum, stored.event)
        if stored.sequence != number or stored.checksum != checksum:
            return events[: number - 1]
    return events


def decode_events(events: list[StoredEvent]) -> list[Event]:
    """Decode the events of an execution with nested scopes; of any other, only the first.

    Decoding all events of a store would take minutes.

    Raises:
        EventDamaged: an event cannot be read.
    """
    # The path of each node in a nested scope has a slash.
    has_scopes = any(b"/" in stored.event for stored in events)
    return [decode_event(stored.event) for stored in (events if has_scopes else events[:1])]


def index_by_scope(events: list[Event]) -> list[ScopeEntry]:
    """Compute the index by scope of an execution from the result of `decode_events`."""
    index = ScopeIndex()
    for event in events:
        index.apply(event)
    return list(index.take())


def _content_of(row: Row | None) -> Content | None:
    match row:
        case (bytes(namespace_bytes), bytes(digest_bytes), bytes(checksum), bytes(content)):
            namespace = namespace_bytes.decode(errors="replace")
            digest = digest_bytes.decode(errors="replace")
        case _:
            return None
    try:
        verify_content(digest, content)
    except EventDamaged:
        return None
    is_bound = checksum_of_content_key(namespace, digest) == checksum
    return Content(namespace, digest, content) if is_bound else None
