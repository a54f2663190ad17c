"""The stores of Plait as `StoreUnderTest`."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import cast

import apsw

from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.adapters.journals.sqlite_rows import Row
from plait_server.adapters.journals.verification import checksum_of_setting
from plait_server.ports.journal import Journal


def rows_of(connection: apsw.Connection, sql: str, values: Row = ()) -> list[Row]:
    return cast("list[Row]", connection.execute(sql, values).fetchall())


class MemoryUnderTest:
    def __init__(self) -> None:
        self.store = MemoryStore()
        self._numbers = itertools.count(1)

    async def open(self) -> Journal:
        return MemoryJournal(self.store, owner=f"owner-{next(self._numbers)}")

    async def crash(self, journal: Journal) -> None:
        assert isinstance(journal, MemoryJournal)
        journal.crash()

    async def damage_event(self, namespace: str, execution_id: str, sequence: int) -> None:
        self.store.damage_event(namespace, execution_id, sequence)

    async def damage_row(self, namespace: str, execution_id: str) -> None:
        self.store.damage_row(namespace, execution_id)

    async def exchange(self, first: tuple[str, str], second: tuple[str, str]) -> None:
        kept = self.store.executions
        kept[first], kept[second] = kept[second], kept[first]

    async def fill_settings(self, count: int) -> None:
        self.store.settings.update({("", f"s{number}"): b"" for number in range(count)})


class SqliteUnderTest:
    """A store in a file. `finish` drops what a test left open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._numbers = itertools.count(1)
        self._opened: list[SqliteJournal] = []

    async def open(self) -> Journal:
        self.finish()
        # Few pages, so that the checks see checkpoints too.
        journal = SqliteJournal.open(self.path, owner=f"owner-{next(self._numbers)}", checkpoint_pages=4)
        self._opened.append(journal)
        return journal

    async def crash(self, journal: Journal) -> None:
        assert isinstance(journal, SqliteJournal)
        journal.crash()

    async def damage_event(self, namespace: str, execution_id: str, sequence: int) -> None:
        connection = apsw.Connection(str(self.path))
        found = rows_of(
            connection,
            "SELECT event, arrival FROM events JOIN executions ON execution = position "
            "WHERE namespace = ? AND execution_id = ? AND sequence = ?",
            (namespace, execution_id, sequence),
        )
        match found:
            case [(bytes(event), int(arrival))]:
                damaged = bytes((event[0] ^ 1,)) + event[1:]
                connection.execute("UPDATE events SET event = ? WHERE arrival = ?", (damaged, arrival))
            case _:
                raise AssertionError("no such event")
        connection.close()

    async def damage_row(self, namespace: str, execution_id: str) -> None:
        await self._change(
            "UPDATE executions SET summary = x'00' WHERE namespace = ? AND execution_id = ?",
            (namespace, execution_id),
        )

    async def exchange(self, first: tuple[str, str], second: tuple[str, str]) -> None:
        rename = (
            "UPDATE executions SET namespace = ?, execution_id = ? WHERE namespace = ? AND execution_id = ?"
        )
        await self._change(rename, ("", "", *first))
        await self._change(rename, (*first, *second))
        await self._change(rename, (*second, "", ""))

    async def fill_settings(self, count: int) -> None:
        names = [f"s{number}" for number in range(count)]
        connection = apsw.Connection(str(self.path))
        with connection:
            connection.executemany(
                "INSERT INTO settings VALUES ('', ?, x'', ?)",
                [(name, checksum_of_setting("", name, b"")) for name in names],
            )
        connection.close()

    async def _change(self, sql: str, values: Row) -> None:
        connection = apsw.Connection(str(self.path))
        connection.execute(sql, values)
        assert connection.changes() == 1
        connection.close()

    def finish(self) -> None:
        for journal in self._opened:
            journal.crash()
        self._opened.clear()
