"""Opens the file of a SQLite store: creates it if needed, recognizes foreign files, migrates, checks."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never, cast

import apsw
from apsw import sqlite_extra

from plait_server.adapters.journals.queries import load_migrations, load_queries, load_script
from plait_server.adapters.journals.sqlite_errors import damaged
from plait_server.adapters.journals.sqlite_filling import LISTINGS_VERSION, fill_listings
from plait_server.adapters.journals.sqlite_lock import StoreLock
from plait_server.adapters.journals.sqlite_log import (
    PAGE_BYTES,
    Acknowledged,
    Log,
    LogState,
    judge_log,
    read_log,
)
from plait_server.adapters.journals.sqlite_rows import Stored, StoreRow, fetch, store_of, stored_of
from plait_server.adapters.journals.sqlite_tombstones import set_floor
from plait_server.adapters.journals.verification import checksum_of_head
from plait_server.errors import JournalUnavailable, StoreExists, StoreMissing, StoreTooNew, StoreTooOld

logger = logging.getLogger(__name__)

# "Plai"; the first migration sets it.
APPLICATION_ID: Final = 0x506C6169

CHECKSUM_BYTES_OF_PAGE: Final = 8
"""The bytes that cksumvfs keeps at the end of each page."""

# Up to 32 MiB of the pages that commits touch often stay in memory; a transaction that changes more
# spills.
_CACHE_KIB: Final = 32 * 1024

# A large transaction lets the log grow; it is cut back to this at the next restart of the log.
_LOG_BYTES_KEPT: Final = 64 * 1024 * 1024


_CHECKS_OF_STRUCTURE: Final = (
    "check_store",
    "check_executions",
    "check_requests",
    "check_settings",
    "check_content_uses",
    "check_deletions",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """The facts that an opening reads when it becomes the owner."""

    generation: int
    """The number of this opening, one above the previous."""
    key: bytes
    """The store's secret."""
    last_position: int
    """The highest position ever assigned to an execution."""
    last_arrival: int
    """The highest number of an audit record or an action."""
    last_change: int
    """The highest change number ever assigned."""


def require_store(path: Path, *, remedy: str = "name the store that there is") -> None:
    """Check that there is a store at a path.

    Args:
        path: The path.
        remedy: The advice in the error.

    Raises:
        StoreMissing: there is nothing, or an empty file.
        JournalUnavailable: The operating system refuses access.
    """
    try:
        is_missing = path.stat().st_size == 0
    except FileNotFoundError:
        is_missing = True
    except OSError as error:
        raise refused(path, error) from error
    if is_missing:
        raise StoreMissing(f"there is no store at {path}; {remedy}")


def require_absent(path: Path) -> None:
    """Check that the path for a copy of a store is unused.

    Raises:
        StoreExists: there is something.
    """
    for each in (path, path.with_name(path.name + "-wal")):
        if each.exists():
            raise StoreExists(f"{each} exists, and is not overwritten; name a path where there is nothing")


def prepare_folder(path: Path) -> None:
    """Create the store's folder, durably.

    Raises:
        JournalUnavailable: it cannot be made, or is no folder.
    """
    missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)
    except OSError as error:
        raise refused(path, error) from error


def sync_folder(folder: Path) -> None:
    """Make the list of files in a folder durable.

    Raises:
        OSError: the operating system cannot.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def connect(path: Path, *, vfs: str | None) -> apsw.Connection:
    """Open the database without reading from it.

    Args:
        path: The database file.
        vfs: The SQLite VFS to use, without checksums of pages; None selects that of `checksum_vfs`.

    Raises:
        StoreDamaged: The file is empty, and its log shows that it was not; or its header is damaged.
        OSError: the file cannot be made.
        apsw.Error: SQLite cannot open it.
    """
    try:
        # It holds payloads and the key, so only this user may read it. SQLite gives its log the same rights.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        # The header is written before there is a log, so a crash during creation cannot look like this.
        if path.stat().st_size == 0 and path.with_name(path.name + "-wal").exists():
            raise damaged(path, "the file is empty") from None
    if vfs is None:
        _require_header(path)
    connection = apsw.Connection(str(path), apsw.SQLITE_OPEN_READWRITE, vfs or checksum_vfs())
    if vfs is None and path.stat().st_size == 0:
        connection.reserve_bytes("main", CHECKSUM_BYTES_OF_PAGE)
    # Closing must not write: after a failed flush that would be a retry.
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
    return connection


@functools.cache
def checksum_vfs() -> str:
    """Load SQLite's VFS that keeps a checksum in the last bytes of each page; return its name.

    Source: https://www.sqlite.org/cksumvfs.html

    Raises:
        JournalUnavailable: this installation of apsw was built without it.
    """
    try:
        # It lies on the default. This one keeps other processes, whose SQLite may corrupt logs, out of the database
        # while any connection of this one is open, and its log's index in memory.
        apsw.set_default_vfs("unix-excl")
        with contextlib.closing(apsw.Connection(":memory:")) as connection:
            sqlite_extra.load(connection, "cksumvfs")
    except (sqlite_extra.NotAvailable, LookupError) as error:
        message = "this installation of apsw lacks SQLite's cksumvfs; install apsw from its wheel"
        raise JournalUnavailable(message, nothing_written=True) from error
    return "cksmvfs"


def has_whole_structure(connection: apsw.Connection, path: Path) -> bool:
    """Turn off the checksums of pages, and return whether indexes and lookup tables are intact.

    Takes seconds for millions of executions; damage is rare. Events, audit records and contents are not checked:
    an execution knows how many it has, so their loss is noticed.
    """
    queries = load_queries("sqlite.sql")
    try:
        # After the first access, which turns the checksums on.
        connection.pragma("checksum_verification", 0)
        found = [fetch(connection, queries[name]) for name in _CHECKS_OF_STRUCTURE]
    except (apsw.Error, UnicodeDecodeError):
        return False
    if found != [[("ok",)]] * len(_CHECKS_OF_STRUCTURE):
        return False
    logger.error(
        "a page of the store %s is damaged; the server goes on, because its structure is intact, and affected "
        "executions are shown as CORRUPT. Stop it soon, and run `plait store check %s`",
        path,
        path,
    )
    return True


def prepare_database(connection: apsw.Connection, path: Path, lock: StoreLock, *, vfs: str | None) -> None:
    """Configure the connection, check the log, and write it into the database.

    Raises:
        StoreDamaged: the file is another program's, or its log is damaged.
        StoreTooNew: a newer version of Plait wrote it.
        StoreTooOld: an older version of Plait wrote it.
        JournalUnavailable: the file system cannot hold a log.
        apsw.Error: SQLite cannot read or write it.
    """
    if vfs is not None:
        # Before the first access, so that the log's index stands in this process's memory. `unix-excl` does that too,
        # and lets a second connection of this process read.
        connection.pragma("locking_mode", "exclusive")
    # Before SQLite writes to either. If all its data is in a damaged log, a database looks like a new one.
    log, is_empty = read_log(path), path.stat().st_size == 0
    if not is_new(connection):
        require_ours(connection, path)
    if vfs is None and connection.reserve_bytes("main") != CHECKSUM_BYTES_OF_PAGE:
        raise damaged(path, "its pages have no room for checksums")
    if connection.pragma("journal_mode", "wal") != "wal":
        raise JournalUnavailable(
            f"the file system of {path} cannot hold a write-ahead log; name another store"
        )
    # NORMAL loses acknowledged events at a power cut.
    connection.pragma("synchronous", "full")
    # On macOS a plain fsync leaves the data in the drive's cache. Elsewhere these two have no effect.
    connection.pragma("fullfsync", 1)
    connection.pragma("checkpoint_fullfsync", 1)
    connection.pragma("cell_size_check", 1)
    connection.pragma("temp_store", "memory")
    connection.pragma("cache_size", -_CACHE_KIB)
    connection.pragma("journal_size_limit", _LOG_BYTES_KEPT)
    if not is_empty:
        _require_whole_log(connection, path, log, lock.acknowledged)
    lock.note_end()
    # Data that a failed flush left in a log must be durable before anything is appended to it; the
    # whole log is written into the database and restarted.
    connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)


def take_database(connection: apsw.Connection, path: Path, *, owner: str, key: bytes | None) -> Holding:
    """Migrate the schema to the newest version, and become the owner recorded in the database.

    Args:
        connection: A connection set up by `prepare_database`.
        path: The path to name in errors.
        owner: The name of this opening.
        key: The secret of a new store; None selects a random one.

    Raises:
        StoreDamaged: it lacks something, or its own row is damaged.
        apsw.Error: SQLite cannot write it.
    """
    migrate(connection)
    _require_structure(connection, path)
    queries = load_queries("sqlite.sql")
    new = StoreRow(secrets.token_bytes(32) if key is None else key, 0, "", 0, "", 0)
    fetch(connection, queries["begin"])
    last = fetch(connection, queries["find_last_position"])
    # A store with executions can only have lost its key by damage, which a new key would hide.
    if last == [(0,)]:
        fetch(connection, queries["insert_store"], *new, new.checksum())
    found = store_of(fetch(connection, queries["find_store"]))
    taken = StoreRow(found.key, found.generation + 1, owner, os.getpid(), socket.gethostname(), 0)
    fetch(connection, queries["take_store"], *taken[1:], taken.checksum())
    _raise_epochs(connection, found.epoch_jump)
    arrival = fetch(connection, queries["find_last_arrival"])
    change = fetch(connection, queries["find_last_change"])
    if found.epoch_jump:
        # The store is a copy: watchers may have seen changes that it lacks, so their tokens must expire (FAILURES 14).
        set_floor(connection, cast("int", change[0][0]) + found.epoch_jump)
        change = fetch(connection, queries["find_last_change"])
    fetch(connection, queries["commit"])
    match last, arrival, change:
        case [(int(last_position),)], [(int(last_arrival),)], [(int(last_change),)]:
            return Holding(
                generation=taken.generation,
                key=taken.key,
                last_position=last_position,
                last_arrival=last_arrival,
                last_change=last_change,
            )
        case _:
            raise damaged(path, "the number of the newest execution, audit record or change")


def _raise_epochs(connection: apsw.Connection, jump: int) -> None:
    """Raise the epoch of each execution, so that no writer from before a backup can write to the restored store."""
    queries = load_queries("sqlite.sql")
    after = 0
    while jump and (rows := fetch(connection, queries["verify_executions"], after, 1_000)):
        for stored in map(stored_of, rows):
            if isinstance(stored, Stored):
                head = stored.head._replace(owner_epoch=stored.head.owner_epoch + jump)
                values = head.owner, head.owner_epoch, checksum_of_head(head), head.position
                fetch(connection, queries["claim"], *values)
        after = cast("int", rows[-1][0])


def migrate(connection: apsw.Connection) -> None:
    """Run the migrations that a database lacks, each in a transaction.

    Raises:
        apsw.Error: SQLite cannot write it.
    """
    version = connection.pragma("user_version")
    for migration in load_migrations():
        if migration.version > version:
            if migration.version == LISTINGS_VERSION + 1:
                fill_listings(connection)
            with connection:
                connection.execute(migration.sql)


def is_new(connection: apsw.Connection) -> bool:
    """Return whether nothing has been written to a database yet.

    Raises:
        apsw.Error: SQLite cannot read it.
    """
    names = ("application_id", "user_version", "schema_version")
    return all(connection.pragma(name) == 0 for name in names)


def _require_header(path: Path) -> None:
    """Check the part of a header that would make SQLite misread the file if it is damaged.

    Called before there is a connection, because closing the file would release its locks. The rest of the
    first page is left to the checksum, which is verified when the page is read.
    """
    with path.open("rb") as file:
        page = file.read(PAGE_BYTES)
    # Damage hits one of these; another program's file has neither.
    is_ours = page[20:21] == bytes([CHECKSUM_BYTES_OF_PAGE]) or page[68:72] == APPLICATION_ID.to_bytes(4)
    log = read_log(path)
    # The first page of a checkpoint that was cut off is in the log.
    if not is_ours or (log is not None and any(frame.page == 1 for frame in log.frames())):
        return
    with contextlib.closing(apsw.Connection(":memory:", vfs=checksum_vfs())) as connection:
        if connection.execute("SELECT verify_checksum(?)", (page,)).get == 0 and not _is_sound(page):
            raise damaged(path, "the header that says how its pages are read")


def _is_sound(page: bytes) -> bool:
    """Return whether the fields of a header that are the same in every store are intact; see fileformat2.html, 1.3."""
    wal, sizes = page[18:20] in (b"\x01\x01", b"\x02\x02"), bytes([CHECKSUM_BYTES_OF_PAGE, 64, 32, 32])
    numbers = {44: 4, 52: 0, 56: 1, 64: 0, 68: APPLICATION_ID}
    return (
        wal
        and page[16:18] == PAGE_BYTES.to_bytes(2)
        and page[20:24] == sizes
        and all(page[at : at + 4] == number.to_bytes(4) for at, number in numbers.items())
    )


def require_ours(connection: apsw.Connection, path: Path) -> None:
    """Check that a database is a store of this version.

    Raises:
        StoreDamaged: it is another program's.
        StoreTooNew: a newer version of Plait wrote it.
        StoreTooOld: an older version of Plait wrote it.
        apsw.Error: SQLite cannot read it.
    """
    application_id = connection.pragma("application_id")
    version = connection.pragma("user_version")
    oldest, newest = load_migrations()[0].version, load_migrations()[-1].version
    if application_id != APPLICATION_ID:
        raise damaged(path, "it is the database of another program")
    if version > newest:
        raise StoreTooNew(
            f"the store {path} has schema version {version}, and this Plait knows {newest}; "
            f"upgrade Plait, or name another store; if no newer one wrote it, run `plait store check {path}`",
            version=version,
            newest=newest,
        )
    if version < 1:
        raise damaged(path, f"it claims to have schema version {version}")
    if version < oldest:
        raise StoreTooOld(
            f"the store {path} has schema version {version}, and this Plait reads {oldest} and newer; "
            "run the Plait that wrote it until its executions have ended, or name another store; if no older one "
            f"wrote it, run `plait store check {path}`",
            version=version,
            oldest=oldest,
        )


def refused(path: Path, error: OSError) -> JournalUnavailable:
    """Return the error for a refusal of the operating system at the opening."""
    return JournalUnavailable(
        f"the store {path} cannot be opened: {error.strerror}: {error.filename}; "
        f"let user {os.getuid()} read and write the file and its folder, or name another store",
        nothing_written=True,
    )


def _require_whole_log(
    connection: apsw.Connection, path: Path, log: Log | None, acknowledged: Acknowledged | None
) -> None:
    if log is None:
        if acknowledged is not None:
            raise damaged(
                path,
                f"its log, which the last server left, is gone (if you put a backup here, delete {path.name}.lock)",
            )
        return
    frames_taken, _ = connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
    state = judge_log(log, frames_taken=frames_taken, acknowledged=acknowledged)
    match state:
        case LogState.WHOLE:
            pass
        case LogState.TORN:
            logger.warning(
                "the log of %s ends with a transaction that was cut off when the machine stopped; "
                "it was never acknowledged",
                path,
            )
        case LogState.DAMAGED:
            raise damaged(path, f"its log is damaged after frame {frames_taken} of {log.frame_count}")
        case _:
            assert_never(state)


def _require_structure(connection: apsw.Connection, path: Path) -> None:
    query = load_queries("sqlite.sql")["describe_structure"]
    with contextlib.closing(apsw.Connection(":memory:")) as model:
        model.execute(load_script("sqlite_schema.sql"))
        wanted = fetch(model, query)
    if fetch(connection, query) != wanted:
        raise damaged(path, "its tables are not those of its schema version")
