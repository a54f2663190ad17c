"""Stores of older versions: the migration fills listings, damage stays damage, and contents are kept."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path
from typing import cast

import apsw
import pytest

from plait_server.adapters.journals.conditions import Head
from plait_server.adapters.journals.queries import load_migrations, load_queries
from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.adapters.journals.sqlite_check import check_store
from plait_server.adapters.journals.sqlite_file import connect, migrate
from plait_server.adapters.journals.sqlite_filling import LISTINGS_VERSION, checksum_of_former
from plait_server.adapters.journals.sqlite_rows import Row
from plait_server.adapters.journals.sqlite_salvage import salvage_store
from plait_server.adapters.journals.verification import checksum_of_content_key, digest_of_row
from plait_server.encoding.execution_codec import listing_of_summary
from plait_server.errors import StoreTooOld
from plait_server.ports.journal import AppendItem, DamagedRow, ListedExecution, chain, chain_start
from tests.adapters.journals_damage import NAMESPACE, fill_store, item_of
from tests.adapters.journals_stores import rows_of

USES_VERSION = 7


async def former_store(path: Path, items: list[AppendItem], *, damaged: str = "") -> None:
    """Make a store as it was before there were listings, with these executions in it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    await fill_store(path, executions=0)
    with contextlib.closing(connect(path, vfs=None)) as connection:
        store = cast("list[Row]", connection.execute("SELECT * FROM store").fetchall())
        names = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        )
        for (name,) in cast("list[Row]", names.fetchall()):
            connection.execute(f"DROP TABLE {name!s}")
        for migration in load_migrations():
            if migration.version < LISTINGS_VERSION:
                connection.execute(migration.sql)
        connection.execute(f"INSERT INTO store VALUES ({', '.join('?' * len(store[0]))})", store[0])
        for position, item in enumerate(items, start=1):
            assert item.row is not None
            identity = checksum = chain_start(item.namespace, item.execution_id)
            for sequence, event in enumerate(item.events, start=1):
                checksum = chain(checksum, event)
                connection.execute(
                    "INSERT INTO events (execution, sequence, event, checksum) VALUES (?, ?, ?, ?)",
                    (position, sequence, event, checksum),
                )
            end = (position, len(item.events), checksum, 1, 1, item.row.is_open, 0, identity)
            head = Head(*end, digest_of_row(item.row, b""), b"", 0)
            summary = item.row.summary if item.execution_id != damaged else b"\n" + item.row.summary
            connection.execute(
                """INSERT INTO executions (position, namespace, execution_id, last_sequence, last_checksum,
                owner_epoch, owner, is_open, summary, audit_count, identity, checksum)
                VALUES (?, ?, ?, ?, ?, 1, 1, ?, ?, 0, ?, ?)""",
                (
                    *(position, item.namespace, item.execution_id, len(item.events), checksum),
                    *(item.row.is_open, summary, identity, checksum_of_former(head)),
                ),
            )


async def test_an_upgrade_fills_the_listings_of_what_was_there(tmp_path: Path) -> None:
    items = [item_of(number) for number in range(5)]
    await former_store(tmp_path / "store.db", items, damaged="x2")
    journal = SqliteJournal.open(tmp_path / "store.db", owner="new")
    rows = (await journal.namespace(NAMESPACE).list_rows(limit=10)).rows
    shown = {row.execution_id: row.row for row in rows if isinstance(row, ListedExecution)}
    assert shown == {item.execution_id: item.row for item in items if item.execution_id != "x2"}
    assert [row.execution_id for row in rows if isinstance(row, DamagedRow)] == ["x2"]
    await journal.aclose()
    assert len(check_store(tmp_path / "store.db").findings) >= 1


async def test_an_upgrade_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    items = [item_of(number) for number in range(3)]
    await former_store(tmp_path / "store.db", items)
    with contextlib.closing(connect(tmp_path / "store.db", vfs=None)) as connection:
        [adds] = [each for each in load_migrations() if each.version == LISTINGS_VERSION]
        connection.execute(adds.sql)
    with pytest.raises(StoreTooOld):
        check_store(tmp_path / "store.db")
    journal = SqliteJournal.open(tmp_path / "store.db", owner="new")
    rows = (await journal.namespace(NAMESPACE).list_rows(limit=10)).rows
    assert [row.row for row in rows if isinstance(row, ListedExecution)] == [
        item.row for item in reversed(items)
    ]
    await journal.aclose()


async def test_a_store_from_before_can_be_salvaged(tmp_path: Path) -> None:
    items = [item_of(number) for number in range(3)]
    await former_store(tmp_path / "store.db", items)
    assert salvage_store(tmp_path / "store.db", tmp_path / "new.db").lost == []


def test_a_summary_that_is_none_has_no_listing() -> None:
    assert listing_of_summary(b"\xff") is None


def test_contents_of_older_stores_are_kept() -> None:
    """Which of its executions use them is not known."""
    with contextlib.closing(apsw.Connection(":memory:")) as connection:
        for migration in load_migrations():
            if migration.version < USES_VERSION:
                connection.execute(migration.sql)
        digest = hashlib.sha256(b"content").hexdigest()
        values = ("n", digest, checksum_of_content_key("n", digest), b"content")
        connection.execute(load_queries("sqlite.sql")["insert_content"].sql, values)
        migrate(connection)
        assert rows_of(connection, "SELECT content, execution FROM content_uses") == [(1, 0)]
