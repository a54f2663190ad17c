"""Verifies the rows of a SQLite store in the background, a few at a time.

Rows are verified whenever they are read. But an execution with a flipped `is_open` is never claimed, and one with a
damaged id is not found by its id; only a pass over all rows finds these. Events, contents' bytes and audit records are
left out, because their damage or loss is noticed when they are needed.
"""

from __future__ import annotations

from typing import cast

import apsw

from plait_server.adapters.journals.queries import load_queries
from plait_server.adapters.journals.sqlite_rows import (
    Row,
    fetch,
    record_of,
    require_content_key,
    stored_of,
)
from plait_server.ports.journal import DamagedRow, Verification


class Verifier:
    """Verifies once all executions, then the requests, then the keys of the contents."""

    def __init__(self, connection: apsw.Connection) -> None:
        self._connection = connection
        self._queries = load_queries("sqlite.sql")
        self._position = 0
        self._request: Row | None = ("", "", "")
        self._content: int | None = 0
        self._are_executions_done = False

    def verify(self, limit: int) -> Verification:
        """Verify the next rows.

        Raises:
            UnexpectedRow: one is damaged that cannot be laid at one execution's door.
            apsw.Error: whatever SQLite says.
        """
        damaged: list[DamagedRow] = []
        if not self._are_executions_done:
            damaged = self._verify_executions(limit)
        elif self._request is not None:
            self._verify_requests(limit)
        elif self._content is not None:
            self._verify_contents(limit)
        return Verification(damaged=damaged, is_done=self._content is None)

    def _verify_executions(self, limit: int) -> list[DamagedRow]:
        rows = fetch(self._connection, self._queries["verify_executions"], self._position, limit)
        damaged = [stored for stored in map(stored_of, rows) if isinstance(stored, DamagedRow)]
        self._are_executions_done = len(rows) < limit
        if rows:
            self._position = cast("int", rows[-1][0])
        return damaged

    def _verify_requests(self, limit: int) -> None:
        rows = fetch(self._connection, self._queries["verify_requests"], *(self._request or ()), limit)
        for row in rows:
            record_of(row)
        self._request = rows[-1][:3] if len(rows) == limit else None

    def _verify_contents(self, limit: int) -> None:
        rows = fetch(self._connection, self._queries["verify_contents"], self._content, limit)
        for _, *key in rows:
            require_content_key(*key)
        self._content = cast("int", rows[-1][0]) if len(rows) == limit else None
