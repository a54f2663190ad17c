"""Lists and counts of a SQLite store: with a filter in the reader's thread, without one in place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from plait_server.adapters.journals.sqlite_errors import translate_errors
from plait_server.adapters.journals.sqlite_lists import Statement, count_statement, find_statement
from plait_server.adapters.journals.sqlite_reader import Reader
from plait_server.adapters.journals.sqlite_rows import Value
from plait_server.core.lists.filters import Filter, ListOrder
from plait_server.errors import StoreDamaged
from plait_server.ports.lists import ListCursor

if TYPE_CHECKING:
    from plait_server.adapters.journals.sqlite import SqliteJournal


class Found(NamedTuple):
    """The places of the executions of a page."""

    cursors: Sequence[ListCursor]
    end: ListCursor | None
    """Where the next page begins; None if there is none."""


class Finder:
    """Finds executions.

    Args:
        journal: The store.
        reader: Reads off the loop; None: everything is read in place.
    """

    def __init__(self, journal: SqliteJournal, reader: Reader | None) -> None:
        self._journal = journal
        self._reader = reader

    async def find(
        self,
        namespace: str,
        condition: Filter | None,
        order: ListOrder,
        *,
        after: ListCursor | None,
        limit: int,
    ) -> Found:
        """Find the next `limit` executions of a list."""
        statement = find_statement(namespace, condition, order, after=after, limit=limit + 1)
        is_short = condition is None
        value = await self._read(statement, is_short=is_short)
        places = cast("list[tuple[int, int]]", json.loads(cast("str", value)))
        cursors = [ListCursor(position, end_us / 1e6) for position, end_us in places]
        return Found(cursors[:limit], cursors[limit - 1] if len(cursors) > limit else None)

    async def count(self, namespace: str, condition: Filter | None) -> int:
        """Count executions."""
        return cast("int", await self._read(count_statement(namespace, condition), is_short=False))

    def close(self) -> None:
        """Interrupt what is being read. Idempotent."""
        if self._reader is not None:
            self._reader.close()

    async def _read(self, statement: Statement, *, is_short: bool) -> Value:
        journal = self._journal
        if is_short or self._reader is None:
            return journal.read(lambda: self._read_in_place(statement))
        journal.require_usable()
        trusts_pages = not journal.is_doubted
        try:
            with translate_errors(journal.path):
                return await self._reader.read(statement, trusts_pages=trusts_pages)
        except StoreDamaged as error:
            # Another read may have met the same page meanwhile.
            if trusts_pages == journal.is_doubted:
                return await self._read(statement, is_short=is_short)
            journal.survive(error)
        return await self._read(statement, is_short=is_short)

    def _read_in_place(self, statement: Statement) -> Value:
        cursor = self._journal.connection.execute(statement.sql, statement.values)
        [(value,)] = cast("list[tuple[Value]]", cursor.fetchall())
        return value
