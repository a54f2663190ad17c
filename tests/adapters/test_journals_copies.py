"""`plait store`: checks, salvages and backups of a SQLite store (FAILURES 9, 14)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import apsw
import pytest
import trio

from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.adapters.journals.sqlite_backup import backup_store, serve_backups
from plait_server.adapters.journals.sqlite_check import check_store
from plait_server.adapters.journals.sqlite_log import FRAME_BYTES, HEADER_BYTES, read_log
from plait_server.adapters.journals.sqlite_salvage import EPOCH_JUMP, salvage_store
from plait_server.errors import BackupFailed, StoreDamaged, StoreExists, StoreLocked, StoreMissing
from plait_server.ports.journal import Claim, ListedExecution
from tests.adapters.journals_damage import (
    EXECUTIONS,
    NAMESPACE,
    everything_of,
    fill_store,
    item_of,
    read_everything,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    trio.run(fill_store, path)
    return path


def change(path: Path, *statements: str) -> None:
    with closing(apsw.Connection(str(path))) as connection:
        for statement in statements:
            connection.execute(statement)
            assert connection.changes() == 1


def nothing() -> None:
    pass


async def claims_of(path: Path) -> Sequence[Claim]:
    journal = SqliteJournal.open(path, owner="reader", may_create=False)
    try:
        return [claim for claim in await journal.claim(limit=1000) if isinstance(claim, Claim)]
    finally:
        await journal.aclose()


def test_a_whole_store_is_whole(path: Path) -> None:
    before = path.read_bytes()
    check = check_store(path)
    assert (check.findings, check.damaged) == ([], 0)
    assert check.executions == EXECUTIONS
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        (
            "UPDATE executions SET is_open = 1 - is_open WHERE position = 2",
            "execution x1 of n: its row is damaged",
        ),
        (
            "UPDATE executions SET execution_id = 'y' WHERE position = 2",
            "execution number 2: its row, or the key",
        ),
        (
            "UPDATE events SET event = x'00' WHERE execution = 2 AND sequence = 2",
            "x1 of n: event 2 is damaged",
        ),
        ("DELETE FROM events WHERE execution = 2 AND sequence = 3", "x1 of n: event 3 is damaged or missing"),
        ("UPDATE audit SET detail = '' WHERE execution = 2 AND number = 1", "audit record 1 of execution x1"),
        ("DELETE FROM contents WHERE rowid = 1", "its graph"),
        ("UPDATE contents SET content = x'00' WHERE rowid = 1", "a content: damaged"),
        ("UPDATE contents SET namespace = 'm' WHERE rowid = 1", "a content: damaged"),
        (
            "UPDATE requests SET execution_id = 'x2' WHERE request_id = 'r1'",
            "the record of a request: damaged",
        ),
        ("UPDATE store SET generation = 99", "the store's own row"),
        ("UPDATE settings SET value = x'00' WHERE name = 'namespace'", "a setting: damaged"),
        ("UPDATE actions SET principal = 'q' WHERE arrival = 1", "who did what: damaged"),
        ("UPDATE audit SET namespace = 'm' WHERE execution = 2 AND number = 1", "x1 of n: its audit records"),
    ],
)
def test_a_check_tells_all_that_is_damaged(path: Path, statement: str, says: str) -> None:
    change(path, statement)
    check = check_store(path)
    assert any(says in finding for finding in check.findings), check.findings


def test_a_check_tells_pages_and_logs(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert [finding.partition(":")[0] for finding in check_store(path).findings] == [
        f"page {len(content) // 4096}"
    ]


async def test_a_store_in_use_is_neither_checked_nor_salvaged(path: Path, tmp_path: Path) -> None:
    journal = SqliteJournal.open(path, owner="o")
    with pytest.raises(StoreLocked):
        check_store(path)
    with pytest.raises(StoreLocked):
        salvage_store(path, tmp_path / "new.db")
    await journal.aclose()


def test_what_is_not_there_and_what_is_there_are_told(path: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="there is no store"):
        check_store(tmp_path / "missing.db")
    with pytest.raises(StoreMissing, match="there is no store"):
        salvage_store(tmp_path / "missing.db", tmp_path / "new.db")
    with pytest.raises(StoreExists, match="not overwritten"):
        salvage_store(path, path)
    with pytest.raises(StoreExists, match="not overwritten"):
        trio.run(partial(backup_store, path, path, on_wait=nothing))


async def test_a_salvage_of_a_whole_store_saves_everything(path: Path, tmp_path: Path) -> None:
    expected = await everything_of(path)
    salvage = salvage_store(path, tmp_path / "new.db")
    assert (salvage.executions, salvage.lost, salvage.rebuilt, salvage.has_key) == (EXECUTIONS, [], [], True)
    assert await everything_of(tmp_path / "new.db") == expected
    assert check_store(tmp_path / "new.db").findings == []


async def test_a_salvage_saves_what_is_whole_and_rebuilds_rows(path: Path, tmp_path: Path) -> None:
    expected = await everything_of(path)
    change(
        path,
        "UPDATE executions SET summary = x'00' WHERE position = 2",
        "UPDATE executions SET execution_id = 'y' WHERE position = 3",
        "DELETE FROM executions WHERE position = 4",
        "UPDATE events SET event = x'00' WHERE execution = 5 AND sequence = 2",
        "UPDATE store SET key = zeroblob(32)",
    )
    new = tmp_path / "new.db"
    salvage = salvage_store(path, new)
    assert salvage.executions == EXECUTIONS - 1
    assert salvage.rebuilt == [f"execution x{number} of n" for number in (1, 2, 3)]
    assert salvage.lost == ["execution x4 of n: events are damaged or missing"]
    assert not salvage.has_key
    assert check_store(new).findings == []
    journal = SqliteJournal.open(new, owner="after", may_create=False)
    found = await read_everything(journal)
    await journal.aclose()
    for name, whole in expected.items():
        if name == "x4":
            assert name not in found
        elif name in ("x1", "x2", "x3"):
            assert found[name].events == whole.events
            assert found[name].row.is_open == whole.row.is_open
        else:
            assert found[name] == whole


def test_a_salvage_reads_the_log_past_its_damage(path: Path, tmp_path: Path) -> None:
    expected = trio.run(everything_of, path)
    path = tmp_path / "killed" / "store.db"
    trio.run(partial(fill_store, path, is_killed=True))
    log = read_log(path)
    assert log is not None
    file = path.with_name("store.db-wal")
    content = bytearray(file.read_bytes())
    for frame in range(3, log.frame_count, 7):
        content[HEADER_BYTES + frame * FRAME_BYTES + 1000] ^= 0x55
    file.write_bytes(content)
    with pytest.raises(StoreDamaged, match="plait store salvage"):
        SqliteJournal.open(path, owner="o")
    (finding,) = check_store(path).findings
    assert finding.startswith("log: damaged after frame 0 of ")
    salvage = salvage_store(path, tmp_path / "new.db")
    assert salvage.lost == []
    assert trio.run(everything_of, tmp_path / "new.db") == expected


@pytest.mark.parametrize("is_in_use", [False, True])
async def test_a_backup_is_whole_and_raises_every_epoch(
    path: Path, tmp_path: Path, *, is_in_use: bool
) -> None:
    expected = await everything_of(path)
    new = tmp_path / "new.db"
    if is_in_use:
        journal = SqliteJournal.open(path, owner="o")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve_backups, journal)
            await backup_store(path, new, on_wait=nothing)
            nursery.cancel_scope.cancel()
        await journal.aclose()
    else:
        await backup_store(path, new, on_wait=nothing)
    assert check_store(new).findings == []
    before = {claim.execution_id: claim.owner_epoch for claim in await claims_of(path)}
    restored = await claims_of(new)
    assert {claim.execution_id for claim in restored} == before.keys()
    assert all(claim.owner_epoch >= before[claim.execution_id] + EPOCH_JUMP - 1 for claim in restored)
    # Only the first opening does; and ended ones are raised too.
    assert all(claim.owner_epoch < 2 * EPOCH_JUMP for claim in await claims_of(new))
    journal = SqliteJournal.open(new, owner="after")
    rows = (await journal.namespace("n").list_rows(limit=1000)).rows
    assert all(row.owner_epoch > EPOCH_JUMP for row in rows if isinstance(row, ListedExecution))
    await journal.aclose()
    assert await everything_of(new) == expected


async def test_watch_tokens_from_before_a_restore_have_expired(path: Path, tmp_path: Path) -> None:
    """FAILURES 14: the copy lacks what was changed after it was made; a salvage lacks what was lost."""

    async def last_change_and_floor(path: Path) -> tuple[int, int]:
        journal = SqliteJournal.open(path, owner="watched", may_create=False)
        page = await journal.namespace(NAMESPACE).list_changes(after=0, limit=100)
        await journal.aclose()
        assert len(page.changes) == EXECUTIONS
        return page.last_change, page.floor

    salvage_store(path, tmp_path / "salvaged.db")
    await backup_store(path, tmp_path / "copied.db", on_wait=nothing)
    newest, floor = await last_change_and_floor(path)
    assert floor == 0
    for name in ("salvaged.db", "copied.db"):
        _, floor = await last_change_and_floor(tmp_path / name)
        assert floor >= newest + EPOCH_JUMP
        assert await last_change_and_floor(tmp_path / name) == (floor, floor), "not at every opening"


async def test_what_is_appended_during_a_backup_is_whole_in_it_or_not_there(
    path: Path, tmp_path: Path
) -> None:
    journal = SqliteJournal.open(path, owner="o", checkpoint_pages=20)
    new = tmp_path / "new.db"

    async def append_on() -> None:
        number = EXECUTIONS
        while not new.exists():
            await journal.append_many([item_of(number)])
            number += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_backups, journal)
        nursery.start_soon(append_on)
        await backup_store(path, new, on_wait=nothing)
        nursery.cancel_scope.cancel()
    await journal.aclose()
    check = check_store(new)
    assert check.findings == []
    assert check.executions >= EXECUTIONS


async def test_a_backup_that_fails_says_why(path: Path, tmp_path: Path) -> None:
    journal = SqliteJournal.open(path, owner="o")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(serve_backups, journal)
        with pytest.raises(BackupFailed, match="No such file or directory"):
            await backup_store(path, tmp_path / "missing" / "new.db", on_wait=nothing)
        nursery.cancel_scope.cancel()
    await journal.aclose()
    assert set(os.listdir(tmp_path)) == {  # noqa: PTH208 -- Names are compared.
        "store.db",
        "store.db-wal",
        "store.db.lock",
    }


def test_a_copy_of_a_store_by_hand_is_a_store(path: Path, tmp_path: Path) -> None:
    shutil.copy(path, tmp_path / "copied.db")
    SqliteJournal.open(tmp_path / "copied.db", owner="o", may_create=False).crash()


async def test_a_deleted_execution_is_no_damage_and_is_not_salvaged(path: Path, tmp_path: Path) -> None:
    """K1: what was begun to be deleted stays gone, however much of it is still in the store."""
    expected = await everything_of(path)
    journal = SqliteJournal.open(path, owner="deleter")
    for name in ("x1", "x2"):
        await journal.deletions.begin("n", name, now_s=1.0, is_corrupt=False, action=None, request=None)
    assert not await journal.deletions.delete_some(rows_max=2, bytes_max=1_000_000)
    await journal.aclose()
    check = check_store(path)
    assert (check.findings, check.executions) == ([], EXECUTIONS - 2)
    salvage = salvage_store(path, tmp_path / "new.db")
    assert (salvage.executions, salvage.lost, salvage.rebuilt) == (EXECUTIONS - 2, [], [])
    assert check_store(tmp_path / "new.db").findings == []
    kept = await everything_of(tmp_path / "new.db")
    assert kept == {name: whole for name, whole in expected.items() if name not in ("x1", "x2")}


async def test_a_use_that_is_lost_is_told_and_found_again(path: Path, tmp_path: Path) -> None:
    change(path, "DELETE FROM content_uses WHERE execution = 2 AND content = 1")
    (finding,) = check_store(path).findings
    assert "execution x1 of n: it is not noted which contents it uses" in finding
    assert salvage_store(path, tmp_path / "new.db").lost == []
    assert check_store(tmp_path / "new.db").findings == []
    journal = SqliteJournal.open(tmp_path / "new.db", owner="deleter")
    for number in range(EXECUTIONS):
        await journal.deletions.begin(
            "n", f"x{number}", now_s=1.0, is_corrupt=True, action=None, request=None
        )
    assert await journal.deletions.delete_some(rows_max=100_000, bytes_max=1 << 30)
    contents = journal.connection.execute("SELECT count(*) FROM contents").get
    await journal.aclose()
    # No event names the large content, so no execution is known to use it.
    assert contents == 1
