"""Saves the intact data of a SQLite store into a new one, while no server uses it.

The salvage reads a copy into which the pages of the log are written, including those after the point where SQLite
stops. It verifies all data as the server does. If only the row of an execution is damaged, its events are replayed,
because they contain everything in the row. The index by scope is not read, but rebuilt from the events.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw

from plait_server.adapters.journals.conditions import Head
from plait_server.adapters.journals.queries import load_queries
from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.adapters.journals.sqlite_batch import Batch
from plait_server.adapters.journals.sqlite_errors import translate_errors
from plait_server.adapters.journals.sqlite_file import (
    connect,
    migrate,
    refused,
    require_absent,
    require_store,
)
from plait_server.adapters.journals.sqlite_image import Image, StoredEvent, decode_events, index_by_scope
from plait_server.adapters.journals.sqlite_lock import StoreLock
from plait_server.adapters.journals.sqlite_log import PAGE_BYTES, read_log
from plait_server.adapters.journals.sqlite_rows import Row, Stored, fetch, store_of, values_of_listing
from plait_server.adapters.journals.verification import (
    checksum_of_audit,
    checksum_of_content_key,
    checksum_of_head,
    checksum_of_request,
    checksum_of_scope_entry,
    checksum_of_setting,
    digest_of_listing,
    digest_of_row,
    pack_sequences,
)
from plait_server.core.lists.listing import listing_of
from plait_server.core.run.events import ExecutionSubmitted, ScopeOpened
from plait_server.core.run.execution import Execution
from plait_server.encoding.definition_codec import definition_from_bytes
from plait_server.encoding.event_codec import decode_event
from plait_server.encoding.execution_codec import summarize
from plait_server.encoding.graph_codec import analysis_from_bytes, graph_from_bytes
from plait_server.errors import EventDamaged
from plait_server.ports.audit import AuditRecord
from plait_server.ports.deletions import REQUESTS_KEPT_S
from plait_server.ports.journal import ExecutionRow, chain_start

EPOCH_JUMP: Final = 1_000_000
"""What is added to the epochs of a copy: more than the number of openings, so that no earlier writer fits."""

# The header of a database: the journal mode, and the number of pages.
_JOURNAL_MODE_OFFSET: Final = 18
_PAGE_COUNT_OFFSET: Final = 28


# A text of 64 characters, with its length before it.
_DIGEST: Final = re.compile(rb"@([0-9a-f]{64})")


@dataclass(slots=True)
class Salvage:
    """The result of a salvage."""

    executions: int = 0
    """All executions that were saved."""
    rebuilt: list[str] = field(default_factory=list[str])
    """Those of them whose row was rebuilt from their events: id and namespace."""
    lost: list[str] = field(default_factory=list[str])
    """The losses, one line each."""
    has_key: bool = True
    """Whether the store's secret was intact; with a new one, results of earlier attempts are refused."""


def salvage_store(path: Path, new: Path) -> Salvage:
    """Save the intact data of a store.

    Raises:
        StoreMissing: there is no store.
        StoreLocked: a server uses it.
        StoreExists: there is something at the new path.
        StoreTooNew, StoreTooOld: another version of Plait wrote it.
        JournalUnavailable: the operating system refuses.
        JournalFull: the disk is full.
    """
    require_store(path)
    require_absent(new)
    salvage = Salvage()
    copy = new.with_name(new.name + ".reading")
    with contextlib.ExitStack() as cleanup:
        try:
            cleanup.callback(StoreLock.take(path, owner="salvage").release)
            new.parent.mkdir(parents=True, exist_ok=True)
            cleanup.callback(copy.unlink, missing_ok=True)
            pages = _make_copy(path, copy)
        except OSError as error:
            raise refused(path, error) from error
        with translate_errors(copy):
            source = apsw.Connection(str(copy), apsw.SQLITE_OPEN_READWRITE, "unix")
            cleanup.callback(source.close)
            # A store of an older version is read as one of this version, unless damage stops that.
            with contextlib.suppress(apsw.Error):
                migrate(source)
            image = Image(source, pages=pages)
            row = image.store_row()
        salvage.has_key = row is not None
        SqliteJournal.open(new, owner="salvage", key=row.key if row else None).crash()
        lock = StoreLock.take(new, owner="salvage")
        cleanup.callback(lock.release)
        lock.note_end()
        with translate_errors(new):
            target = connect(new, vfs=None)
            cleanup.callback(target.close)
            target.pragma("locking_mode", "exclusive")
            with target:
                _Writer(image, target, salvage).write()
            mark_copy(target)
    return salvage


def mark_copy(connection: apsw.Connection) -> None:
    """Make the next opening raise every epoch (FAILURES 14), and move all data into the database file itself."""
    queries = load_queries("sqlite.sql")
    marked = store_of(fetch(connection, queries["find_store"]))._replace(epoch_jump=EPOCH_JUMP)
    fetch(connection, queries["take_store"], *marked[1:], marked.checksum())
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def _make_copy(path: Path, copy: Path) -> int:
    """Copy the database, apply its log, and mark it as one without a log; return its pages."""
    # It holds the key and payloads, so only this user may read it.
    os.close(os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
    shutil.copyfile(path, copy)
    log = read_log(path)
    with copy.open("r+b") as file:
        size = file.seek(0, 2)
        # A damaged page number must not make the copy a million times larger.
        pages_max = size // PAGE_BYTES + (log.frame_count if log is not None else 0)
        for number, page in log.pages() if log is not None else ():
            if 0 < number <= pages_max:
                file.seek((number - 1) * PAGE_BYTES)
                file.write(page)
        pages = -(-file.seek(0, 2) // PAGE_BYTES)
        file.truncate(pages * PAGE_BYTES)
        file.seek(_JOURNAL_MODE_OFFSET)
        file.write(b"\x01\x01")
        file.seek(_PAGE_COUNT_OFFSET)
        file.write(pages.to_bytes(4))
    return pages


class _Writer:
    """Writes the intact rows of an image into a new store. Executions keep their numbers."""

    def __init__(self, image: Image, connection: apsw.Connection, salvage: Salvage) -> None:
        self._image = image
        self._connection = connection
        self._queries = {**load_queries("sqlite.sql"), **load_queries("sqlite_image.sql")}
        self._salvage = salvage
        self._numbers: dict[tuple[str, str], int] = {}
        """Namespace and digest -> number of the content."""
        self._arrivals: set[int] = {0}
        """The numbers of the actions and audit records that were saved."""
        self._last_change = image.last_change()
        self._saved: set[tuple[str, str]] = set()
        """Namespace and id of the executions that were saved."""

    def write(self) -> None:
        """Write everything, in the caller's transaction."""
        for number, content in self._image.numbered_contents():
            if content is None:
                self._salvage.lost.append("a content: damaged")
                continue
            namespace, digest, whole = content
            self._numbers[namespace, digest] = number
            self._insert(
                "insert_content", namespace, digest, checksum_of_content_key(namespace, digest), whole
            )
        self._write_settings_and_actions()
        namespaces = sorted({namespace for namespace, _ in self._numbers})
        deletions = self._image.deletions()
        for position in range(1, self._image.last_position() + 1):
            if not deletions.get(position, False):
                self._save(position, namespaces)
        self._insert("insert_lost_uses")
        self._write_requests()

    def _write_requests(self) -> None:
        for record in self._image.requests():
            if record is None:
                self._salvage.lost.append("the record of a request: damaged")
                continue
            namespace, request = record
            checksum = checksum_of_request(namespace, request)
            words = (request.method, request.request_id, request.fingerprint, request.execution_id)
            is_saved = (namespace, request.execution_id) in self._saved
            forget_time_s = None if is_saved else time.time() + REQUESTS_KEPT_S
            self._insert("insert_request", namespace, *words, checksum, forget_time_s)

    def _write_settings_and_actions(self) -> None:
        for setting in self._image.settings():
            if setting is None:
                self._salvage.lost.append(
                    "a setting: damaged; look at the limits and the namespaces' settings"
                )
            else:
                self._insert("write_setting", *setting, checksum_of_setting(*setting))
        batch = Batch(last_position=0, last_arrival=0, last_change=0)
        for action in self._image.actions():
            if action is None:
                self._salvage.lost.append("a record of who did what: damaged")
                continue
            namespace, arrival, record = action
            batch.last_arrival = arrival - 1
            batch.add_action(namespace, record)
            self._arrivals.add(arrival)
        batch.write(self._connection)

    def _save(self, position: int, namespaces: list[str]) -> None:
        found = self._image.execution(position)
        keys = [(found.namespace, found.execution_id)] if found is not None else []
        if found is None:
            # Its events have its id, and their chain depends on its namespace.
            execution_id = self._image.submitted_id(position)
            keys = [(namespace, execution_id) for namespace in namespaces if execution_id]
        for namespace, execution_id in keys:
            identity = chain_start(namespace, execution_id)
            for events in (
                self._image.events(position, identity),
                self._image.events_without_index(position, identity),
            ):
                if isinstance(found, Stored) and _is_whole(found, events):
                    self._write(found, events, self._audit_of(found))
                    return
                if (
                    events
                    and not isinstance(found, Stored)
                    and self._rebuild(namespace, execution_id, position, events)
                ):
                    return
        name = (
            f"execution {keys[0][1]} of {keys[0][0]}" if found is not None else f"execution number {position}"
        )
        if not self._image.has_trace(position):
            return
        if found is not None or keys:
            self._salvage.lost.append(f"{name}: events are damaged or missing")
        else:
            self._salvage.lost.append(f"{name}: its row and its first event are lost")

    def _rebuild(self, namespace: str, execution_id: str, position: int, events: list[StoredEvent]) -> bool:
        """Save an execution without its row; return whether its events suffice."""
        try:
            execution = self._replay(namespace, events)
        except EventDamaged:
            return False
        listing = listing_of(execution)
        row = ExecutionRow(
            summary=summarize(namespace, execution).SerializeToString(),
            is_open=not execution.is_ended,
            listing=listing,
        )
        identity, listed = chain_start(namespace, execution_id), digest_of_listing(listing)
        digest = digest_of_row(row, listed)
        self._last_change += 1
        head = Head(
            position,
            len(events),
            events[-1].checksum,
            1,
            1,
            row.is_open,
            0,
            identity,
            digest,
            listed,
            self._last_change,
        )
        self._write(Stored(namespace, execution_id, head, row), events, [])
        self._salvage.rebuilt.append(f"execution {execution_id} of {namespace}")
        return True

    def _replay(self, namespace: str, events: list[StoredEvent]) -> Execution:
        submitted = decode_event(events[0].event)
        if not isinstance(submitted.detail, ExecutionSubmitted):
            raise EventDamaged
        graph = self._content(namespace, submitted.detail.graph_digest)
        analysis = self._content(namespace, submitted.detail.analysis_digest)
        execution = Execution(graph_from_bytes(graph), analysis_from_bytes(analysis))
        for stored in events:
            event = decode_event(stored.event)
            opened = event.detail
            if isinstance(opened, ScopeOpened) and opened.graph_digest:
                graph = self._content(namespace, opened.graph_digest)
                analysis = self._content(namespace, opened.analysis_digest)
                execution.definitions[opened.graph_digest] = definition_from_bytes(graph, analysis)
            execution.apply(event)
            execution.forget_closed()
            execution.scope_index.take()
        return execution

    def _content(self, namespace: str, digest: str) -> bytes:
        number = self._numbers.get((namespace, digest))
        content = self._image.content(number) if number is not None else None
        if content is None:
            raise EventDamaged
        return content.content

    def _audit_of(self, stored: Stored) -> list[AuditRecord]:
        try:
            return self._image.audit(stored)
        except EventDamaged as error:
            self._salvage.lost.append(
                f"the audit records of execution {stored.execution_id}: {error.message}"
            )
            return []

    def _write(self, stored: Stored, events: list[StoredEvent], audit: list[AuditRecord]) -> None:
        # As if it belonged to the opening that created the new store; the next one claims it.
        head = stored.head._replace(owner=1, audit_count=len(audit))
        self._insert(
            "insert_execution",
            head.position,
            stored.namespace,
            stored.execution_id,
            head.identity,
            head.last_sequence,
            head.last_checksum,
            head.owner_epoch,
            head.owner,
            head.is_open,
            stored.row.due_time_s,
            head.audit_count,
            stored.row.summary,
            checksum_of_head(head),
            *values_of_listing(stored.row.listing),
            head.change,
        )
        for label in stored.row.listing.labels.items():
            self._insert("insert_label", stored.namespace, *label, head.position)
        self._saved.add((stored.namespace, stored.execution_id))
        for event in events:
            self._insert("insert_event", head.position, *event)
            for digest in map(bytes.decode, _DIGEST.findall(event.event)):
                if (stored.namespace, digest) in self._numbers:
                    self._insert("insert_use", head.position, stored.namespace, digest)
        arrivals = self._image.arrivals(stored)
        for number, record in enumerate(audit, start=1):
            arrival = arrivals[number - 1] if number <= len(arrivals) else 0
            if arrival in self._arrivals:
                arrival = max(self._arrivals) + 1
            self._arrivals.add(arrival)
            values: Row = (
                record.time_s,
                record.kind,
                record.node_path,
                record.attempt,
                record.worker_id,
                record.detail,
            )
            self._insert(
                "insert_audit",
                arrival,
                head.position,
                number,
                *values,
                checksum_of_audit(head.identity, number, record),
                stored.namespace,
            )
        self._index(stored, events)
        self._salvage.executions += 1

    def _index(self, stored: Stored, events: list[StoredEvent]) -> None:
        try:
            entries = index_by_scope(decode_events(events))
        except EventDamaged as error:
            self._salvage.lost.append(
                f"the index by scope of execution {stored.execution_id}: {error.message}"
            )
            return
        for scope_path, sequences in entries:
            packed = pack_sequences(sequences)
            key = scope_path, sequences[-1], packed
            checksum = checksum_of_scope_entry(stored.head.identity, *key)
            self._insert("insert_scope_entry", stored.head.position, *key, checksum)

    def _insert(self, query: str, *values: str | bytes | float | None) -> None:
        fetch(self._connection, self._queries[query], *values)


def _is_whole(stored: Stored, events: list[StoredEvent]) -> bool:
    return len(events) == stored.head.last_sequence and events[-1].checksum == stored.head.last_checksum
