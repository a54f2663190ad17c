"""Opens a SQLite store: acquires the lock, the connection and the ownership, or nothing at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

import apsw

from plait_server.adapters.journals.sqlite_errors import is_page_damage, translate_errors
from plait_server.adapters.journals.sqlite_file import (
    Holding,
    connect,
    has_whole_structure,
    prepare_database,
    prepare_folder,
    refused,
    require_store,
    take_database,
)
from plait_server.adapters.journals.sqlite_lock import StoreLock
from plait_server.errors import StoreDamaged

T = TypeVar("T")


class OpenedStore(NamedTuple):
    """An open store; its owner closes the connection and releases the lock."""

    connection: apsw.Connection
    lock: StoreLock
    holding: Holding
    is_doubted: bool
    """Whether a page is damaged, and the checksums of pages are off."""


def open_store(
    file: Path, *, owner: str, key: bytes | None, may_create: bool, vfs: str | None
) -> OpenedStore:
    """Open a store; arguments and errors are those of `SqliteJournal.open`."""
    if not may_create:
        require_store(file, remedy="pass --create to make one, or name the store that there is")
    prepare_folder(file)
    with contextlib.ExitStack() as cleanup:
        try:
            lock = StoreLock.take(file, owner=owner)
            cleanup.callback(lock.release)
            with translate_errors(file):
                connection = connect(file, vfs=vfs)
            cleanup.callback(connection.close)
            _, was_doubted = _attempt(
                connection, file, lambda: prepare_database(connection, file, lock, vfs=vfs)
            )
            holding, is_doubted = _attempt(
                connection, file, lambda: take_database(connection, file, owner=owner, key=key)
            )
            with translate_errors(file):
                frames, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
            lock.note_use(file.with_name(file.name + "-wal"), frames)
        except OSError as error:
            raise refused(file, error) from error
        cleanup.pop_all()
    return OpenedStore(connection, lock, holding, was_doubted or is_doubted)


def _attempt(connection: apsw.Connection, file: Path, step: Callable[[], T]) -> tuple[T, bool]:
    """Run a step; if it met a damaged page and the structure is intact, run it again without checksums of pages.

    Returns:
        The step's result, and whether it needed the second attempt.
    """
    try:
        with translate_errors(file):
            return step(), False
    except StoreDamaged as error:
        if not is_page_damage(error):
            raise
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if not has_whole_structure(connection, file):
            raise
    with translate_errors(file):
        return step(), True
