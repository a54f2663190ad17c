"""Damages a store in thousands of places, and looks what a server would make of it: `python -m tests.rigs.damage`.

Whatever is damaged, each answer must be right, or say that the execution is CORRUPT, or the store must be refused with
the command that checks it. A wrong answer, or one that leaves out what was acknowledged, ends the rig with its place.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import shutil
import sqlite3
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias, cast

import apsw
import trio

from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.adapters.journals.sqlite_check import check_store
from plait_server.adapters.journals.sqlite_file import checksum_vfs
from plait_server.adapters.journals.sqlite_log import FRAME_BYTES, HEADER_BYTES, read_log
from plait_server.adapters.journals.sqlite_rows import Row
from plait_server.adapters.journals.sqlite_salvage import salvage_store
from plait_server.errors import EventDamaged, StoreDamaged, StoreTooNew, StoreTooOld
from plait_server.ports.journal import Appended, AppendItem, Claim, DamagedRow, ListedExecution
from tests.adapters.journals_damage import NAMESPACE, SETTINGS, action_of, fill_store, item_of

Outcome: TypeAlias = str
"""`right`, `CORRUPT` or `refused`."""

TABLES: Final = (
    "store",
    "executions",
    "events",
    "requests",
    "contents",
    "audit",
    "scope_entries",
    "settings",
    "actions",
    "content_uses",
)
KEYS: Final = {
    "requests": "namespace, method, request_id",
    "scope_entries": "execution, scope_path, last_sequence",
    "settings": "namespace, name",
    "content_uses": "content, execution",
}
"""The keys of tables without row ids."""


async def judge(path: Path, items: list[AppendItem]) -> Outcome:
    """Use a damaged store as a server does, and compare what it says with what was appended.

    Raises:
        AssertionError: an answer is wrong, or something is missing, and nobody said so.
    """
    journal: SqliteJournal | None = None
    corrupt: set[str] = set()
    said = ""
    try:
        journal = SqliteJournal.open(path, owner="after", may_create=False)
        # Before the answers: a server verifies while it answers, and stops within seconds or minutes.
        corrupt = await _verify(journal)
        corrupt |= await _claim(journal, items)
        corrupt |= await _list(journal, items)
        for item in items:
            if item.execution_id not in corrupt and not await _is_whole(journal, item):
                corrupt.add(item.execution_id)
        await _require_contents(journal, items, corrupt)
        assert await journal.read_settings() == SETTINGS, "wrong settings"
        await _require_audit(journal, items)
        await _append(journal, items, corrupt)
    except (StoreDamaged, StoreTooNew, StoreTooOld) as error:
        said = error.message
    finally:
        if journal is not None:
            journal.crash()
    if said:
        assert "plait store check" in said, f"refused without the command: {said}"
        return "refused"
    return "CORRUPT" if corrupt else "right"


async def _verify(journal: SqliteJournal) -> set[str]:
    corrupt: set[str] = set()
    is_done = False
    while not is_done:
        verification = await journal.verify(limit=200)
        corrupt |= {row.execution_id for row in verification.damaged}
        is_done = verification.is_done
    return corrupt


async def _claim(journal: SqliteJournal, items: list[AppendItem]) -> set[str]:
    wanted = {item.execution_id: item for item in items if item.row is not None and item.row.is_open}
    corrupt: set[str] = set()
    while claims := await journal.claim(limit=100):
        for claim in claims:
            if isinstance(claim, DamagedRow):
                corrupt.add(claim.execution_id)
                wanted.pop(claim.execution_id, None)
                continue
            item = wanted.pop(claim.execution_id)
            assert claim == Claim(
                namespace=NAMESPACE,
                execution_id=item.execution_id,
                owner_epoch=2,
                last_sequence=len(item.events),
                row=claim.row,
            )
            assert claim.row == item.row
    for name in wanted:
        # Its row says that it is not open, or another's: whoever looks at it must be told.
        try:
            await journal.namespace(NAMESPACE).read_row(name)
        except EventDamaged:
            corrupt.add(name)
        else:
            raise AssertionError(f"{name} hangs")
    return corrupt


async def _list(journal: SqliteJournal, items: list[AppendItem]) -> set[str]:
    corrupt: set[str] = set()
    left = {item.execution_id: item for item in items}
    page = await journal.namespace(NAMESPACE).list_rows(limit=7)
    rows = list(page.rows)
    while page.end is not None:
        page = await journal.namespace(NAMESPACE).list_rows(after=page.end, limit=7)
        rows += page.rows
    for listed in rows:
        item = left.pop(listed.execution_id)
        if isinstance(listed, ListedExecution):
            assert (listed.row, listed.last_sequence) == (item.row, len(item.events)), "wrong list"
        else:
            corrupt.add(listed.execution_id)
    assert not left, f"not listed: {sorted(left)}"
    return corrupt


async def _is_whole(journal: SqliteJournal, item: AppendItem) -> bool:
    handle = journal.namespace(NAMESPACE)
    name = item.execution_id
    assert item.request is not None
    assert await handle.find_request(item.request.method, item.request.request_id) == item.request, "request"
    try:
        listed = await handle.read_row(name)
        page = await handle.read(name, after=0, events_max=1_000, bytes_max=1 << 30)
        scope = await handle.read_scope(name, "a", after=0, events_max=1_000, bytes_max=1 << 30)
        audit = await handle.read_audit(name, limit=100)
    except EventDamaged:
        return False
    assert listed is not None, f"{name} is not found"
    assert (listed.row, listed.last_sequence) == (item.row, len(item.events)), f"wrong row of {name}"
    assert list(page.events) == list(item.events), f"wrong events of {name}"
    assert list(audit) == list(item.audit), f"wrong audit of {name}"
    indexed = {sequence for entry in item.scope_entries for sequence in entry.sequences}
    expected = [event for sequence, event in enumerate(item.events, start=1) if sequence in indexed]
    # A scope of which nothing is found is missed by who knows of it.
    assert list(scope.events) in (expected, []), f"wrong events of a scope of {name}"
    return list(scope.events) == expected


async def _require_contents(journal: SqliteJournal, items: list[AppendItem], corrupt: set[str]) -> None:
    """Every execution needs all of its contents, so one that is damaged makes all of them CORRUPT."""
    for item in items:
        for digest, content in item.contents.items():
            try:
                assert await journal.namespace(NAMESPACE).read_content(digest) == content, "wrong content"
            except EventDamaged:
                corrupt.add(item.execution_id)


async def _require_audit(journal: SqliteJournal, items: list[AppendItem]) -> None:
    """An entry is right or shown as damaged; one that lost its namespace is found by `plait store check`."""
    wanted = [action_of(""), *(record for item in items for record in (item.action, *item.audit))]
    for entry in await journal.namespace(NAMESPACE).list_audit(execution_id=None, before=None, limit=1_000):
        assert entry.record is None or entry.record in wanted, "wrong audit"


async def _append(journal: SqliteJournal, items: list[AppendItem], corrupt: set[str]) -> None:
    """Go on: what is not CORRUPT takes an event, and a new execution is made."""
    for item in items:
        if item.execution_id in corrupt or item.row is None or not item.row.is_open:
            continue
        more = AppendItem(
            namespace=NAMESPACE,
            execution_id=item.execution_id,
            expected_sequence=len(item.events),
            owner_epoch=2,
            events=[b"more"],
        )
        assert list(await journal.append_many([more])) == [Appended(last_sequence=len(item.events) + 1)]
    assert all(isinstance(result, Appended) for result in await journal.append_many([item_of(10_000)]))


# What is damaged.


def places(size: int, count: int, rng: random.Random) -> Iterator[tuple[str, int, int]]:
    """Yield a name, an offset and a mask for each place: of one bit and of eight by turns."""
    for number in range(count):
        offset = rng.randrange(size)
        mask = rng.randrange(1, 256) if number % 2 else 1 << rng.randrange(8)
        yield f"byte {offset} ^ {mask:#04x}", offset, mask


def flipped(value: object, rng: random.Random) -> object:
    """Return a value of a column with a bit flipped, of the same type; what is NULL becomes a number."""
    match value:
        case int():
            return value ^ (1 << rng.choice((0, 1, 16)))
        case float():
            return value + 1.0
        case str():
            place = rng.randrange(len(value)) if value else 0
            return value[:place] + chr(ord(value[place]) ^ 1) + value[place + 1 :] if value else "x"
        case bytes():
            place = rng.randrange(len(value))
            return value[:place] + bytes((value[place] ^ (1 << rng.randrange(8)),)) + value[place + 1 :]
        case _:
            return 1.0


def columns(path: Path) -> list[tuple[str, str]]:
    """Return each column of each table."""
    with contextlib.closing(apsw.Connection(str(path), vfs=checksum_vfs())) as connection:
        return [
            (table, str(row[1]))
            for table in TABLES
            for row in connection.execute("SELECT * FROM pragma_table_info(?)", (table,))
        ]


def flip_column(path: Path, table: str, column: str, rng: random.Random, *, is_foreign: bool) -> str:
    """Flip a column of a random row by SQL; say what was done.

    Args:
        path: The store.
        table: Of it.
        column: Of that.
        rng: Chooses the row and the bit.
        is_foreign: Whether by a SQLite that leaves the pages' checksums as they are, else with right ones.
    """
    opened = sqlite3.connect(path) if is_foreign else apsw.Connection(str(path), vfs=checksum_vfs())
    with contextlib.closing(opened) as connection:
        names = KEYS.get(table, "rowid")
        rows = cast(
            "list[Row]",
            connection.execute(f"SELECT {column}, {names} FROM {table} ORDER BY {names}").fetchall(),
        )
        value, *found = rng.choice(rows)
        changed = flipped(value, rng)
        marks = ", ".join("?" * len(found))
        try:
            connection.execute(
                f"UPDATE {table} SET {column} = ? WHERE ({names}) = ({marks})", (changed, *found)
            )
            if is_foreign:
                connection.execute("COMMIT")
        except (apsw.ConstraintError, sqlite3.IntegrityError):
            return ""  # Another row has this key.
    return f"{table}.{column} of {found}: {value!r} -> {changed!r}"


def flip(path: Path, offset: int, mask: int) -> None:
    """Change a byte of a file."""
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes((byte ^ mask,)))


class Rig:
    """A whole store, closed and killed, of which copies are damaged."""

    def __init__(self, folder: Path, *, executions: int) -> None:
        self.items = [item_of(number) for number in range(executions)]
        self._folder = folder
        for name, is_killed in (("closed", False), ("killed", True)):
            trio.run(_fill, folder / name / "store.db", executions, is_killed)

    def copied(self, name: str) -> Path:
        """Return a new copy of the store."""
        target = self._folder / "copy"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(self._folder / name, target)
        return target / "store.db"

    def judge(self, path: Path, what: str) -> Outcome:
        """Judge a damaged store; a salvage of what is refused must save something.

        Raises:
            AssertionError: see `judge`.
        """
        try:
            return trio.run(judge, path, self.items)
        except BaseException as error:
            raise AssertionError(f"{what}: {error!r}") from error

    def flip_columns(self, count: int, seed: int) -> Counter[Outcome]:
        """Flip each column of each table so often, as SQLite would write it and by a foreign one."""
        counts: Counter[Outcome] = Counter()
        rng = random.Random(seed)
        for table, column in columns(self.copied("closed")):
            for number in range(count):
                path = self.copied("closed")
                what = flip_column(path, table, column, rng, is_foreign=number % 2 == 1)
                if what:
                    counts[self.judge(path, what)] += 1
        return counts

    def flip_database(self, count: int, seed: int) -> Counter[Outcome]:
        """Flip random places of the database file."""
        counts: Counter[Outcome] = Counter()
        size = self.copied("closed").stat().st_size
        for what, offset, mask in places(size, count, random.Random(seed)):
            path = self.copied("closed")
            flip(path, offset, mask)
            counts[self.judge(path, what)] += 1
        return counts

    def flip_log(self, count: int, seed: int) -> Counter[Outcome]:
        """Flip random places of the log that a kill left."""
        counts: Counter[Outcome] = Counter()
        log = read_log(self.copied("killed"))
        assert log is not None
        size = HEADER_BYTES + FRAME_BYTES * sum(map(log.is_of_this_use, log.frames()))
        for what, offset, mask in places(size, count, random.Random(seed)):
            path = self.copied("killed")
            flip(path.with_name("store.db-wal"), offset, mask)
            counts[self.judge(path, f"log, {what}")] += 1
        return counts

    def salvage(self, count: int, seed: int) -> Counter[Outcome]:
        """Flip random places of the database and of the log, and save what is whole; counts executions.

        Raises:
            AssertionError: what was saved is not what was appended, or is damaged.
        """
        counts: Counter[Outcome] = Counter()
        rng = random.Random(seed)
        for number in range(count):
            name, suffix = ("killed", "-wal") if number % 4 == 0 else ("closed", "")
            path = self.copied(name)
            damaged = path.with_name(path.name + suffix)
            [(what, offset, mask)] = places(damaged.stat().st_size, 1, rng)
            flip(damaged, offset, mask)
            new = path.with_name("new.db")
            try:
                salvage = salvage_store(path, new)
                check = check_store(new)
                assert check.findings == [], check.findings
                saved = trio.run(_saved, new, self.items)
            except BaseException as error:
                raise AssertionError(f"salvage of {name}{suffix}, {what}: {error!r}") from error
            assert saved == salvage.executions == check.executions
            counts["saved"] += saved
            counts["rebuilt"] += len(salvage.rebuilt)
            counts["lost"] += len(self.items) - saved
            assert saved == len(self.items) or salvage.lost, f"{what}: lost without a word"
        return counts


async def _saved(path: Path, items: list[AppendItem]) -> int:
    """Read what was saved, which must be what was appended; return how many executions there are."""
    journal = SqliteJournal.open(path, owner="after", may_create=False)
    try:
        handle = journal.namespace(NAMESPACE)
        rows = (await handle.list_rows(limit=1_000)).rows
        by_id = {item.execution_id: item for item in items}
        for row in rows:
            assert isinstance(row, ListedExecution)
            item = by_id[row.execution_id]
            page = await handle.read(row.execution_id, after=0, events_max=1_000, bytes_max=1 << 30)
            assert list(page.events) == list(item.events)
            assert row.row == item.row
        return len(rows)
    finally:
        journal.crash()


async def _fill(path: Path, executions: int, is_killed: bool) -> None:
    await fill_store(path, executions=executions, is_killed=is_killed)


def main() -> int:
    """Run the rig whole."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--columns", type=int, default=20, help="flips of each column")
    parser.add_argument("--places", type=int, default=2_000, help="flips of the database")
    parser.add_argument("--log", type=int, default=500, help="flips of the log")
    parser.add_argument("--salvages", type=int, default=300, help="stores that are salvaged")
    parser.add_argument("--executions", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    logging.disable()
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder), executions=chosen.executions)
        parts: tuple[tuple[str, Callable[[int, int], Counter[Outcome]], int], ...] = (
            ("columns", rig.flip_columns, chosen.columns),
            ("database", rig.flip_database, chosen.places),
            ("log", rig.flip_log, chosen.log),
        )
        for name, part, count in parts:
            counts = part(count, chosen.seed)
            said = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("right", "CORRUPT", "refused"))
            sys.stdout.write(f"{name:9} {counts.total():5} places: {said}; 0 wrong, 0 lost\n")
            sys.stdout.flush()
        counts = rig.salvage(chosen.salvages, chosen.seed)
        sys.stdout.write(
            f"salvage   {chosen.salvages:5} stores: {counts['saved']} executions saved, {counts['rebuilt']} of them "
            f"by their events, {counts['lost']} lost and told\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
