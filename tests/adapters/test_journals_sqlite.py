"""Opening, guarding and closing the file of a SQLite store."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import cast

import apsw
import pytest
import trio

from plait_server.adapters.journals.conditions import Head
from plait_server.adapters.journals.queries import load_migrations, load_queries, load_script
from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.adapters.journals.sqlite_file import APPLICATION_ID, CHECKSUM_BYTES_OF_PAGE, migrate
from plait_server.adapters.journals.sqlite_rows import Row
from plait_server.errors import (
    EventDamaged,
    ExecutionNotFound,
    JournalUnavailable,
    PlaitError,
    StoreDamaged,
    StoreLocked,
    StoreLost,
    StoreMissing,
    StoreTooNew,
    StoreTooOld,
)
from plait_server.ports.journal import Appended, AppendItem, ExecutionRow
from tests.adapters.journals_stores import rows_of

CHECKS_OF_STRUCTURE = {
    "check_store",
    "check_executions",
    "check_requests",
    "check_settings",
    "check_content_uses",
    "check_deletions",
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


def item(execution_id: str, sequence: int = 0, *, is_open: bool = True) -> AppendItem:
    return AppendItem(
        namespace="n",
        execution_id=execution_id,
        expected_sequence=sequence,
        owner_epoch=1,
        events=(b"event " * 50,),
        row=ExecutionRow(summary=b"summary", is_open=is_open),
    )


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, image: bytes | bytearray) -> None:
    """Write a database file and the empty log that a clean end leaves beside it."""
    path.write_bytes(image)
    path.with_name(path.name + "-wal").write_bytes(b"")


async def fill(path: Path, executions: int) -> None:
    journal = SqliteJournal.open(path, owner="filler")
    await journal.append_many([item(f"x{number}") for number in range(executions)])
    await journal.aclose()


# Making.


async def test_a_missing_folder_is_made_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "store.db"
    journal = SqliteJournal.open(path, owner="o")
    await journal.append_many([item("x")])
    assert mode_of(path.parent) == 0o700
    for name in ("store.db", "store.db-wal", "store.db.lock"):
        assert mode_of(path.with_name(name)) == 0o600
    await journal.aclose()


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_a_given_key_is_kept_and_a_second_ignored(path: Path) -> None:
    journal = SqliteJournal.open(path, owner="o", key=b"k" * 32)
    await journal.aclose()
    journal = SqliteJournal.open(path, owner="o", key=b"other" * 8)
    assert await journal.key() == b"k" * 32
    await journal.aclose()


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalUnavailable, match="cannot be opened"):
        SqliteJournal.open(tmp_path / "file" / "store.db", owner="o")


def test_a_store_that_is_a_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable):
        SqliteJournal.open(tmp_path, owner="o")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(JournalUnavailable, match=f"let user {os.getuid()}"):
        SqliteJournal.open(tmp_path / "store.db", owner="o")


def test_a_store_that_was_not_finished_is_finished(path: Path) -> None:
    """A crash in the making leaves an empty file, or a database without tables."""
    path.touch()
    SqliteJournal.open(path, owner="o").crash()
    for each in path.parent.iterdir():
        each.unlink()
    connection = apsw.Connection(str(path))
    connection.reserve_bytes("main", CHECKSUM_BYTES_OF_PAGE)
    connection.pragma("journal_mode", "wal")
    connection.close()
    SqliteJournal.open(path, owner="o").crash()


# One at a time.


async def test_a_second_opening_is_refused(path: Path) -> None:
    journal = SqliteJournal.open(path, owner="first")
    with pytest.raises(StoreLocked, match=f"process {os.getpid()} on .* \\(owner first\\)"):
        SqliteJournal.open(path, owner="second")
    assert list(await journal.append_many([item("x")])) == [Appended(last_sequence=1)]
    await journal.aclose()
    SqliteJournal.open(path, owner="second").crash()


async def test_no_other_program_can_read_the_database_meanwhile(path: Path) -> None:
    """Its SQLite may be one that corrupts logs."""
    journal = SqliteJournal.open(path, owner="o")
    await journal.append_many([item("x")])
    program = "import sqlite3, sys; sqlite3.connect(sys.argv[1], timeout=0).execute('SELECT 1 FROM events')"
    other = await trio.run_process(
        [sys.executable, "-c", program, str(path)], capture_stderr=True, check=False
    )
    assert b"database is locked" in other.stderr
    await journal.aclose()


def test_a_database_that_another_program_holds_is_told(path: Path) -> None:
    SqliteJournal.open(path, owner="o").crash()
    other = apsw.Connection(str(path))
    other.pragma("locking_mode", "exclusive")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StoreLocked, match="another program"):
        SqliteJournal.open(path, owner="o")
    other.close()


async def test_ownership_is_lost_with_the_lock_file(path: Path) -> None:
    journal = SqliteJournal.open(path, owner="o")
    assert await journal.renew()
    path.with_name("store.db.lock").unlink()
    assert not await journal.renew()
    path.with_name("store.db.lock").touch()
    assert not await journal.renew()
    await journal.aclose()
    assert not await journal.renew()


def move_away(path: Path) -> None:
    path.rename(path.with_name("moved.db"))


async def test_ownership_is_lost_with_the_file(path: Path) -> None:
    journal = SqliteJournal.open(path, owner="o")
    move_away(path)
    assert not await journal.renew()
    write(path, b"")
    assert not await journal.renew()
    journal.crash()


@pytest.mark.parametrize("name", ["store.db", "store.db-wal"])
async def test_an_append_to_a_file_that_is_gone_is_not_acknowledged(path: Path, name: str) -> None:
    journal = SqliteJournal.open(path, owner="o")
    await journal.append_many([item("x")])
    path.with_name(name).unlink()
    with pytest.raises(StoreLost, match="put the files back"):
        await journal.append_many([item("y")])
    for call in (journal.append_many([item("z")]), journal.renew()):
        with pytest.raises(JournalUnavailable, match="put the files back"):
            await call
    journal.crash()


def test_a_store_that_is_not_there_is_made_only_if_it_may_be(path: Path) -> None:
    with pytest.raises(StoreMissing, match="--create"):
        SqliteJournal.open(path / "store.db", owner="o", may_create=False)
    assert not path.exists()
    path.touch()
    with pytest.raises(StoreMissing, match="--create"):
        SqliteJournal.open(path, owner="o", may_create=False)
    SqliteJournal.open(path, owner="o").crash()
    SqliteJournal.open(path, owner="o", may_create=False).crash()


async def test_a_head_that_someone_else_moved_stops_the_writer(path: Path) -> None:
    """The update repeats the conditions, so a cache that is wrong writes nothing."""
    journal = SqliteJournal.open(path, owner="o")
    await journal.append_many([item("x")])
    head = journal._heads["n", "x"]
    journal._heads["n", "x"] = Head(*head)._replace(last_sequence=7)
    with pytest.raises(StoreDamaged):
        await journal.append_many([item("y"), item("x", 7)])
    with pytest.raises(JournalUnavailable):
        await journal.append_many([item("z")])
    journal.crash()
    journal = SqliteJournal.open(path, owner="o")
    assert [row.execution_id for row in (await journal.namespace("n").list_rows(limit=9)).rows] == ["x"]
    await journal.aclose()


async def test_a_closed_journal_does_nothing(path: Path) -> None:
    journal = SqliteJournal.open(path, owner="o")
    await journal.aclose()
    with pytest.raises(JournalUnavailable, match="closed"):
        await journal.append_many([item("x")])
    with pytest.raises(JournalUnavailable, match="closed"):
        await journal.namespace("n").read("x", after=0, events_max=1, bytes_max=1)
    assert "closed" in repr(journal)


# What is not a store, or not any more.


def test_a_file_that_is_no_database_is_left_alone(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 1000)
    with pytest.raises(StoreDamaged):
        SqliteJournal.open(path, owner="o")
    assert path.read_bytes() == b"Dear diary, " * 1000


def test_another_program_s_database_is_left_alone(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE recipes (name)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StoreDamaged, match="another program"):
        SqliteJournal.open(path, owner="o")
    assert path.read_bytes() == before


async def test_a_newer_store_is_refused(path: Path) -> None:
    await fill(path, 1)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", load_migrations()[-1].version + 1)
    connection.close()
    with pytest.raises(StoreTooNew, match="upgrade Plait"):
        SqliteJournal.open(path, owner="o")


async def test_an_older_store_is_refused(path: Path) -> None:
    await fill(path, 1)
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", load_migrations()[0].version - 1)
    connection.close()
    with pytest.raises(StoreTooOld, match="run the Plait that wrote it"):
        SqliteJournal.open(path, owner="o")


@pytest.mark.parametrize(
    "statement",
    [
        "DROP TABLE audit",
        "DROP INDEX executions_open",
        "ALTER TABLE events DROP COLUMN checksum",
        "DELETE FROM store",
        "PRAGMA user_version = 0",
        "PRAGMA user_version = -1",
    ],
)
async def test_a_store_that_lacks_something_is_refused(path: Path, statement: str) -> None:
    await fill(path, 1)
    connection = apsw.Connection(str(path))
    connection.execute(statement)
    connection.close()
    with pytest.raises(StoreDamaged):
        SqliteJournal.open(path, owner="o")


async def test_a_store_truncated_at_any_page_is_refused(path: Path, tmp_path: Path) -> None:
    await fill(path, 50)
    whole = read(path)
    assert len(whole) > 10 * 4096
    for size in range(0, len(whole), 4096):
        truncated = tmp_path / f"{size}.db"
        write(truncated, whole[:size])
        with pytest.raises(StoreDamaged):
            SqliteJournal.open(truncated, owner="o")


async def test_no_flipped_bit_makes_events_that_were_not_written(path: Path, tmp_path: Path) -> None:
    """Damage is told or does not matter, wherever it is: eight bits of every page."""
    journal = SqliteJournal.open(path, owner="o")
    written = {f"x{number}": [b"%d %d " % (number, index) * 20 for index in range(6)] for number in range(8)}
    for name, events in written.items():
        await journal.append_many(
            [
                AppendItem(
                    namespace="n",
                    execution_id=name,
                    expected_sequence=0,
                    owner_epoch=1,
                    events=events,
                    row=ExecutionRow(summary=b"s", is_open=True),
                )
            ]
        )
    await journal.aclose()
    whole = read(path)
    damaged = tmp_path / "damaged.db"
    told = 0
    for bit in range(0, len(whole) * 8, 4096 + 37):
        image = bytearray(whole)
        image[bit // 8] ^= 1 << bit % 8
        write(damaged, image)
        told += await is_damage_told(damaged, written)
    assert told > 0


@pytest.mark.parametrize("offset", [16, 18, 19, 20, 28, 44, 52, 56, 60, 68])
async def test_a_damaged_header_is_told_with_the_command(path: Path, offset: int) -> None:
    """SQLite takes some of it for a file that may not be written."""
    await fill(path, 1)
    image = bytearray(read(path))
    image[offset] ^= 0xE3
    write(path, image)
    with pytest.raises((StoreDamaged, StoreTooNew), match="plait store check"):
        SqliteJournal.open(path, owner="o")


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM events WHERE sequence = 3",
        "DELETE FROM events WHERE sequence = 1",
        "DELETE FROM events WHERE sequence = 5",
        "DELETE FROM events",
        "INSERT INTO events (execution, sequence, event, checksum) VALUES (1, 6, x'00', zeroblob(16))",
        "UPDATE events SET checksum = zeroblob(16) WHERE sequence = 5",
        "UPDATE events SET checksum = x'00' WHERE sequence = 2",
        "UPDATE executions SET last_sequence = 4",
        "UPDATE executions SET last_sequence = 6",
        "UPDATE executions SET last_checksum = zeroblob(16)",
    ],
)
async def test_missing_and_foreign_events_are_told(path: Path, statement: str) -> None:
    journal = SqliteJournal.open(path, owner="o")
    await journal.append_many([item("x")])
    for sequence in range(1, 5):
        await journal.append_many([item("x", sequence)])
    await journal.aclose()
    connection = apsw.Connection(str(path))
    connection.execute(statement)
    connection.close()
    journal = SqliteJournal.open(path, owner="o")
    with pytest.raises(EventDamaged):
        await journal.namespace("n").read("x", after=0, events_max=100, bytes_max=1 << 20)
    assert list(await journal.append_many([item("y")])) == [Appended(last_sequence=1)]
    await journal.aclose()


async def test_a_checksum_that_grew_is_told(path: Path) -> None:
    """Only the event behind it is read, and BLAKE2b takes no key of that length."""
    journal = SqliteJournal.open(path, owner="o")
    await journal.append_many([item("x")])
    await journal.append_many([item("x", 1)])
    await journal.aclose()
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE events SET checksum = zeroblob(100) WHERE sequence = 1")
    connection.close()
    journal = SqliteJournal.open(path, owner="o")
    with pytest.raises(EventDamaged):
        await journal.namespace("n").read("x", after=1, events_max=1, bytes_max=1)
    await journal.aclose()


async def is_damage_told(path: Path, written: dict[str, list[bytes]]) -> bool:
    try:
        journal = SqliteJournal.open(path, owner="o")
    except PlaitError:
        return True
    told = False
    for name, events in written.items():
        try:
            page = await journal.namespace("n").read(name, after=0, events_max=100, bytes_max=1 << 20)
        except (ExecutionNotFound, PlaitError):
            told = True
        else:
            assert list(page.events) == events
    journal.crash()
    return told


# The log.


async def test_the_log_stays_small(path: Path) -> None:
    journal = SqliteJournal.open(path, owner="o", checkpoint_pages=20)
    await journal.append_many([item("x")])
    for sequence in range(1, 200):
        await journal.append_many([item("x", sequence)])
    log = path.with_name("store.db-wal")
    # Writing the schema takes 64 pages.
    assert 0 < log.stat().st_size < 80 * 4096
    await journal.aclose()
    assert log.stat().st_size == 0


async def test_the_heads_of_ended_executions_are_forgotten(path: Path) -> None:
    journal = SqliteJournal.open(path, owner="o")
    await journal.append_many([item("x"), item("y")])
    assert len(journal._heads) == 2
    await journal.append_many([item("x", 1, is_open=False)])
    assert list(journal._heads) == [("n", "y")]
    await journal.aclose()


# Schema and queries.


def schema_of(connection: apsw.Connection) -> list[Row]:
    return rows_of(connection, "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY type, name")


def test_the_migrations_make_the_schema() -> None:
    migrated = apsw.Connection(":memory:")
    migrate(migrated)
    written = apsw.Connection(":memory:")
    written.execute(load_script("sqlite_schema.sql"))
    assert schema_of(migrated) == schema_of(written)
    assert migrated.pragma("user_version") == load_migrations()[-1].version
    assert migrated.pragma("application_id") == APPLICATION_ID
    migrate(migrated)
    assert schema_of(migrated) == schema_of(written)
    migrated.close()
    written.close()


def test_migrations_are_numbered_without_gaps_and_set_their_version() -> None:
    for version, migration in enumerate(load_migrations(), start=load_migrations()[0].version):
        assert migration.version == version
        assert f"PRAGMA user_version = {version};" in migration.sql


def test_every_query_is_read() -> None:
    queries = load_queries("sqlite.sql")
    assert len(queries) == sum(line.endswith(" --") for line in load_script("sqlite.sql").splitlines())
    assert all(query.description.endswith(".") for query in queries.values())
    assert all(query.sql and ";" not in query.sql for query in queries.values())


def test_no_query_scans_a_table() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute(load_script("sqlite_schema.sql"))
    for query in load_queries("sqlite.sql").values():
        if query.name in {"describe_structure", "begin", "commit", "rollback"} | CHECKS_OF_STRUCTURE:
            continue
        plan = plan_of(connection, query.sql)
        # `sqlite_sequence` has a row for each table that counts.
        # The settings are read whole, once; `each` has a row for each namespace.
        harmless = ("SCAN CONSTANT ROW", "SCAN sqlite_sequence", "SCAN settings", "SCAN each")
        assert not [step for step in plan if step.startswith("SCAN") and step not in harmless], query.name
    connection.close()


def plan_of(connection: apsw.Connection, sql: str) -> list[str]:
    """The steps of a query whose parameters are bound to nothing."""
    parameters = {word.strip("(),") for word in sql.split() if word.lstrip("(").startswith(":")}
    bindings = {name.removeprefix(":"): None for name in parameters}
    rows = cast("list[Row]", connection.execute(sql, bindings, explain=2).fetchall())
    return [str(row[3]) for row in rows]
