"""Checks a whole SQLite store that no server uses; writes nothing."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import apsw

from plait_server.adapters.journals.queries import load_migrations, load_queries
from plait_server.adapters.journals.sqlite_errors import is_page_damage, translate_errors
from plait_server.adapters.journals.sqlite_file import (
    checksum_vfs,
    connect,
    is_new,
    refused,
    require_ours,
    require_store,
)
from plait_server.adapters.journals.sqlite_image import Image, decode_events, index_by_scope
from plait_server.adapters.journals.sqlite_lock import StoreLock
from plait_server.adapters.journals.sqlite_log import PAGE_BYTES, LogState, judge_log, read_log
from plait_server.adapters.journals.sqlite_rows import Stored, fetch
from plait_server.core.run.events import ExecutionSubmitted, ScopeOpened
from plait_server.errors import EventDamaged, StoreDamaged, StoreTooOld
from plait_server.ports.journal import DamagedRow

FINDINGS_MAX: Final = 1_000
"""Findings beyond this number are only counted."""


@dataclass(slots=True)
class StoreCheck:
    """The result of a check."""

    executions: int = 0
    """Intact ones."""
    events: int = 0
    contents: int = 0
    requests: int = 0
    findings: list[str] = field(default_factory=list[str])
    """The first `FINDINGS_MAX` findings, one line each."""
    damaged: int = 0
    """How many findings there are."""

    def add(self, finding: str) -> None:
        """Add a finding."""
        self.damaged += 1
        if self.damaged <= FINDINGS_MAX:
            self.findings.append(finding)


def check_store(path: Path) -> StoreCheck:
    """Check a store: its log, its pages, its structure, every row, chain and content.

    Raises:
        StoreMissing: there is none.
        StoreLocked: a server uses it.
        StoreTooNew, StoreTooOld: another version of Plait wrote it.
        StoreDamaged: it is another program's file.
        JournalUnavailable: the operating system refuses.
    """
    require_store(path)
    check = StoreCheck()
    try:
        lock = StoreLock.take(path, owner="check")
    except OSError as error:
        raise refused(path, error) from error
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(lock.release)
        log = read_log(path)
        in_log = {page for page, _ in log.pages()} if log is not None else set[int]()
        # Before the connection is opened: closing another descriptor of the file would release its locks.
        pages = _check_pages(path, in_log, check)
        with translate_errors(path):
            connection = connect(path, vfs=None)
        cleanup.callback(connection.close)
        connection.pragma("locking_mode", "exclusive")
        try:
            with translate_errors(path):
                is_in_log = is_new(connection)
                taken, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
                if not is_in_log:
                    require_ours(connection, path)
                    _require_newest(connection, path)
        except StoreDamaged as error:
            if not is_page_damage(error):
                raise
            return check
        if log is None and lock.acknowledged is not None:
            check.add("log: gone, though the store was in use")
        if log is not None:
            state = judge_log(log, frames_taken=taken, acknowledged=lock.acknowledged)
            if state is LogState.DAMAGED:
                check.add(f"log: damaged after frame {taken} of {log.frame_count}; the rest was not checked")
        if is_in_log:
            # Not even the schema has reached the database; a lost row cannot be told from one that never existed.
            return check
        connection.pragma("checksum_verification", 0)
        _check_structure(connection, check)
        _check_rows(Image(connection, pages=pages + len(in_log)), check)
    return check


def _require_newest(connection: apsw.Connection, path: Path) -> None:
    """Check that a store has the newest schema, which is that of the queries.

    Raises:
        StoreTooOld: an older version of Plait wrote it.
    """
    version, newest = connection.pragma("user_version"), load_migrations()[-1].version
    if version < newest:
        raise StoreTooOld(
            f"the store {path} has schema version {version}, and this check reads {newest}; start its server once, "
            "which upgrades it, and check it then",
            version=version,
            oldest=newest,
        )


def _check_pages(path: Path, in_log: set[int], check: StoreCheck) -> int:
    """Check each page's checksum, except for pages in the log; return the number of pages."""
    number = 0
    with (
        path.open("rb") as file,
        contextlib.closing(apsw.Connection(":memory:", vfs=checksum_vfs())) as connection,
    ):
        while page := file.read(PAGE_BYTES):
            number += 1
            if number not in in_log and connection.execute("SELECT verify_checksum(?)", (page,)).get != 1:
                check.add(f"page {number}: its checksum does not fit")
    return number


def _check_structure(connection: apsw.Connection, check: StoreCheck) -> None:
    try:
        for row in fetch(connection, load_queries("sqlite_image.sql")["check_all"]):
            if row != ("ok",):
                check.add(f"structure: {row[0]!s}")
    except (apsw.Error, UnicodeDecodeError) as error:
        check.add(f"structure: {error}")


def _check_rows(image: Image, check: StoreCheck) -> None:
    if image.store_row() is None:
        check.add("the store's own row")
    digests: set[tuple[str, str]] = set()
    for content in image.contents():
        if content is None:
            check.add("a content: damaged")
        else:
            digests.add((content.namespace, content.digest))
            check.contents += 1
    for request in image.requests():
        if request is None:
            check.add("the record of a request: damaged")
        else:
            check.requests += 1
    for setting in image.settings():
        if setting is None:
            check.add("a setting: damaged")
    for action in image.actions():
        if action is None:
            check.add("a record of who did what: damaged")
    deletions, kept = image.deletions(), image.used(0)
    for position, is_whole in deletions.items():
        if not is_whole:
            check.add(f"the note that execution number {position} is deleted: damaged")
    for position in range(1, image.last_position() + 1):
        if position in deletions:
            continue
        match image.execution(position):
            case None if image.has_trace(position):
                check.add(f"execution number {position}: its row, or the key in it, is lost")
            case None:
                pass
            case DamagedRow() as row:
                check.add(f"execution {row.execution_id} of {row.namespace}: its row is damaged")
            case Stored() as stored:
                damage = _damage_of(image, stored, digests, kept)
                check.events += 0 if damage else stored.head.last_sequence
                check.executions += not damage
                if damage:
                    check.add(f"execution {stored.execution_id} of {stored.namespace}: {damage}")


def _damage_of(image: Image, stored: Stored, digests: set[tuple[str, str]], kept: frozenset[str]) -> str:
    """Return what is damaged of an execution besides its row; empty if it is intact."""
    events = image.events(stored.head.position, stored.head.identity)
    if len(events) != stored.head.last_sequence or events[-1].checksum != stored.head.last_checksum:
        return f"event {len(events) + 1} is damaged or missing"
    try:
        image.audit(stored)
        if len(image.arrivals(stored)) != stored.head.audit_count:
            return "its audit records are not listed; `plait store salvage` lists them"
        scopes: dict[str, list[int]] = {}
        decoded = decode_events(events)
        for entry in index_by_scope(decoded):
            scopes.setdefault(entry.scope_path, []).extend(entry.sequences)
        if image.scopes(stored) != scopes:
            return "its index by scope does not fit its events; `plait store salvage` rebuilds it"
    except EventDamaged as error:
        return error.message
    details = (event.detail for event in decoded)
    needed = [
        digest
        for detail in details
        if isinstance(detail, ExecutionSubmitted | ScopeOpened)
        for digest in (detail.graph_digest, detail.analysis_digest)
        if digest
    ]
    lost = next((each for each in needed if (stored.namespace, each) not in digests), None)
    if lost:
        return f"its graph, the content {lost}, is damaged or missing"
    if not kept.issuperset(needed) and not (kept | image.used(stored.head.position)).issuperset(needed):
        return "it is not noted which contents it uses; `plait store salvage` notes them"
    return ""
