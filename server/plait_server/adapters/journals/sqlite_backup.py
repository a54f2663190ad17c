"""Copies a SQLite store while a server uses it, or while none does.

Only the process that has a store open can read it, so a server is asked for a backup by a file beside its store:
`plait store backup` writes the request, the server copies a few pages between two rounds of its
loop, and finally writes the answer. Anyone who may write into the store's folder may ask; there is no network port.
Each file appears complete, by a rename.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import apsw
import trio

from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.adapters.journals.sqlite_errors import translate_errors
from plait_server.adapters.journals.sqlite_file import (
    CHECKSUM_BYTES_OF_PAGE,
    checksum_vfs,
    connect,
    refused,
    require_absent,
    require_ours,
    require_store,
    sync_folder,
)
from plait_server.adapters.journals.sqlite_lock import StoreLock
from plait_server.adapters.journals.sqlite_salvage import mark_copy
from plait_server.errors import BackupFailed, PlaitError, StoreLocked

logger = logging.getLogger(__name__)

_PAGES_A_STEP: Final = 256
"""The pages copied at a time, which takes a millisecond or two."""
_LOOK_S: Final = 0.5
"""How often either side checks for the other's file."""
_TAKE_S: Final = 10.0
"""If a server that uses the store has not accepted a request by then, it never will."""


async def serve_backups(journal: SqliteJournal) -> None:
    """Make the requested backups, until cancelled."""
    request = _request_of(journal.path)
    while True:
        if _exists(request):
            try:
                await _serve_one(journal, request)
            except OSError as error:
                # The requester gets no answer and reports a timeout; the server goes on.
                logger.warning("a backup cannot be answered: %s", error)
        await trio.sleep(_LOOK_S)


async def backup_store(path: Path, new: Path, *, on_wait: Callable[[], None]) -> None:
    """Copy a store to an unused path; if a server runs, it makes the copy.

    Args:
        path: The store.
        new: The path of the copy.
        on_wait: Called once a server has been asked.

    Raises:
        StoreMissing: there is no store.
        StoreExists: there is something at the new path.
        BackupFailed: the server could not make it, or stopped.
        StoreDamaged: the store is damaged.
        JournalUnavailable: the operating system refuses.
        JournalFull: the disk is full.
    """
    require_store(path)
    require_absent(new)
    try:
        lock = StoreLock.take(path, owner="backup")
    except StoreLocked:
        on_wait()
        await _ask(path, new)
        return
    except OSError as error:
        raise refused(path, error) from error
    try:
        with translate_errors(path):
            connection = connect(path, vfs=None)
        try:
            with translate_errors(path):
                connection.pragma("locking_mode", "exclusive")
                require_ours(connection, path)
            await _copy(connection, path, new)
        finally:
            connection.close()
    finally:
        lock.release()


async def _ask(path: Path, new: Path) -> None:
    request, answer = _request_of(path), _answer_of(path)
    mark = os.urandom(8).hex()
    _remove(answer)
    _write(request, {"new": str(new), "mark": mark})
    try:
        with trio.move_on_after(_TAKE_S):
            while _exists(request):  # noqa: ASYNC110 -- There is no notification when another process removes a file.
                await trio.sleep(_LOOK_S)
        if _exists(request):
            message = (
                f"the process that uses the store {path} does not answer; is it a server of this version?"
            )
            raise BackupFailed(message)
        # A copy has no deadline; a server that stops releases its lock.
        while (said := _read(answer)) is None or said.get("mark") != mark:
            if _is_free(path):
                message = "the server stopped before the backup was made; run the command again"
                raise BackupFailed(message)
            await trio.sleep(_LOOK_S)
        if said.get("error"):
            raise BackupFailed(said["error"])
    finally:
        _remove(request)
        _remove(answer)


async def _serve_one(journal: SqliteJournal, request: Path) -> None:
    asked = _read(request) or {}
    new, error = Path(str(asked.get("new", ""))), ""
    try:
        _remove(request)
        require_absent(new)
        await _copy(journal.connection, journal.path, new)
    except PlaitError as caught:
        error = caught.message
    except OSError as caught:
        error = f"{caught.strerror}: {caught.filename}"
    _write(_answer_of(journal.path), {"mark": asked.get("mark", ""), "error": error})


async def _copy(source: apsw.Connection, path: Path, new: Path) -> None:
    """Copy a database; data appended in the meantime is in the copy too. It appears complete or not at all."""
    part = new.with_name(new.name + ".part")
    _remove(part)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with translate_errors(part):
            target = apsw.Connection(str(part), apsw.SQLITE_OPEN_READWRITE, checksum_vfs())
            try:
                # The first page is written now, because the VFS reads from it that pages have room for checksums.
                target.reserve_bytes("main", CHECKSUM_BYTES_OF_PAGE)
                target.pragma("user_version", 1)
                with target.backup("main", source, "main") as backup:
                    while not backup.done:
                        with translate_errors(path):
                            backup.step(_PAGES_A_STEP)
                        await trio.lowlevel.checkpoint()
                target.pragma("locking_mode", "exclusive")
                mark_copy(target)
            finally:
                target.close()
        _remove(part.with_name(part.name + "-wal"))
        part.rename(new)
        sync_folder(new.parent)
    finally:
        _remove(part)


def _exists(path: Path) -> bool:
    return path.exists()


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _is_free(path: Path) -> bool:
    try:
        StoreLock.take(path, owner="backup").release()
    except StoreLocked:
        return False
    return True


def _request_of(path: Path) -> Path:
    return path.with_name(path.name + ".backup-request")


def _answer_of(path: Path) -> Path:
    return path.with_name(path.name + ".backup-answer")


def _write(path: Path, content: dict[str, str]) -> None:
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(content, file)
    part.rename(path)


def _read(path: Path) -> dict[str, str] | None:
    try:
        content: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return cast("dict[str, str]", content) if isinstance(content, dict) else None
