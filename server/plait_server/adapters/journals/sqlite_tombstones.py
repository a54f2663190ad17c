"""Drops tombstones of a SQLite store, and remembers up to which change they may be missing."""

from __future__ import annotations

from itertools import takewhile
from typing import cast

import apsw

from plait_server.adapters.journals.queries import load_queries
from plait_server.adapters.journals.sqlite_rows import fetch
from plait_server.adapters.journals.verification import checksum_of_tombstone


def drop_tombstones(connection: apsw.Connection, before_s: float, limit: int) -> int:
    """Drop the oldest tombstones, those from before a time, in the caller's transaction.

    Args:
        connection: The connection.
        before_s: Wall time, seconds since 1970.
        limit: The most tombstones to look at.

    Returns:
        How many were dropped.
    """
    rows = fetch(connection, load_queries("sqlite.sql")["list_first_tombstones"], limit + 1)
    # One more, for the floor, which comes first. Later deletions are after earlier ones, even if the clock went back.
    old = list(takewhile(lambda row: row[1] == "" or cast("float", row[2]) <= before_s, rows))
    dropped = sum(row[1] != "" for row in old)
    if dropped:
        set_floor(connection, cast("int", old[-1][0]))
    return dropped


def set_floor(connection: apsw.Connection, change: int) -> None:
    """Drop all tombstones up to a change, in the caller's transaction; tokens from before it have expired."""
    queries = load_queries("sqlite.sql")
    fetch(connection, queries["drop_tombstones"], change)
    checksum = checksum_of_tombstone("", "", change, 0.0)
    fetch(connection, queries["insert_tombstone"], change, "", "", 0.0, checksum)
