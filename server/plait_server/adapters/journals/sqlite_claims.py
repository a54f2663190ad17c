"""Claims open executions of a SQLite store."""

from __future__ import annotations

from typing import cast

import apsw

from plait_server.adapters.journals.queries import load_queries
from plait_server.adapters.journals.sqlite_rows import Row, Stored, fetch, stored_of
from plait_server.adapters.journals.verification import checksum_of_head
from plait_server.ports.journal import Claim, DamagedRow


def claim_next(
    connection: apsw.Connection, *, generation: int, after: int, limit: int
) -> tuple[list[Claim | DamagedRow], int]:
    """Claim the next open executions of former openings, in the caller's transaction.

    Args:
        connection: The connection.
        generation: The number of the opening that claims.
        after: Only executions above this position are claimed.
        limit: The most executions to claim.

    Returns:
        The claims, and the position after which the next call goes on. Damaged rows are skipped and left unchanged.
    """
    queries = load_queries("sqlite.sql")
    taken: list[Claim | DamagedRow] = []
    updates: list[Row] = []
    rows = fetch(connection, queries["list_claimable"], generation, after, limit)
    for stored in map(stored_of, rows):
        if isinstance(stored, Stored):
            head = stored.head._replace(owner=generation, owner_epoch=stored.head.owner_epoch + 1)
            updates.append((head.owner, head.owner_epoch, checksum_of_head(head), head.position))
            taken.append(stored._replace(head=head).claim())
        else:
            taken.append(stored)
    if updates:
        connection.executemany(queries["claim"].sql, updates)
    return taken, cast("int", rows[-1][0]) if rows else after
