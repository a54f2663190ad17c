"""Fills the listings of a store from before there were any: between two migrations, from the executions' summaries."""

from __future__ import annotations

import hashlib
import logging
import struct
from collections.abc import Sequence
from typing import Final, cast

import apsw

from plait_server.adapters.journals.conditions import Head
from plait_server.adapters.journals.queries import load_queries
from plait_server.adapters.journals.sqlite_rows import Row, Value, fetch, values_of_listing
from plait_server.adapters.journals.verification import (
    checksum_of_head,
    digest_of_listing,
    digest_of_row,
)
from plait_server.encoding.execution_codec import listing_of_summary
from plait_server.ports.journal import CHECKSUM_BYTES, ExecutionRow

logger = logging.getLogger(__name__)

LISTINGS_VERSION: Final = 5
"""The migration that adds the columns; the next one adds the indexes, which are made faster of filled columns."""

_SLICE: Final = 1_000
_FORMER_HEAD: Final = struct.Struct(">qqqqq")


def fill_listings(connection: apsw.Connection) -> None:
    """Fill the listings of all rows, a slice in a transaction; after a crash those that lack it.

    A row that is damaged, or whose summary cannot be read, stays as it is; it is found to be damaged when it is read.

    Raises:
        apsw.Error: SQLite cannot read or write it.
    """
    queries = load_queries("sqlite_filling.sql")
    after = count = 0
    while rows := fetch(connection, queries["list_unfilled"], after, _SLICE):
        after = cast("int", rows[-1][0])
        filled = [row for row in map(_fill, rows) if row is not None]
        with connection:
            connection.executemany(queries["fill_listing"].sql, [values for values, _ in filled])
            connection.executemany(
                load_queries("sqlite.sql")["insert_label"].sql,
                [label for _, labels in filled for label in labels],
            )
        count += len(rows)
        if count % (100 * _SLICE) == 0:
            logger.info("upgrading the store: %d executions so far", count)


def _fill(row: Row) -> tuple[Row, list[Row]] | None:
    """Return the parameters of `fill_listing` and of `insert_label` for a row; None if it is damaged."""
    match row:
        case (
            int(position),
            bytes(namespace),
            bytes(identity),
            int(sequence),
            bytes(last_checksum),
            int(epoch),
            int(owner),
            0 | 1 as is_open,
            None | float() as due_time_s,
            int(audit_count),
            bytes(summary),
            bytes(checksum),
        ):
            pass
        case _:
            return None
    former = ExecutionRow(summary=summary, is_open=bool(is_open), due_time_s=due_time_s)
    head = Head(
        *(position, sequence, last_checksum, epoch, owner, bool(is_open), audit_count, identity),
        *(digest_of_row(former, b""), b"", position),
    )
    listing = listing_of_summary(summary)
    if checksum_of_former(head) != checksum or listing is None:
        return None
    digest = digest_of_listing(listing)
    head = head._replace(row_digest=digest_of_row(former, digest), listing_digest=digest)
    name = namespace.decode()
    labels: Sequence[tuple[Value, ...]] = [(name, *label, position) for label in listing.labels.items()]
    return (*values_of_listing(listing), head.change, checksum_of_head(head), position), list(labels)


def checksum_of_former(head: Head) -> bytes:
    """Return the checksum that the row of an execution had before it had a listing."""
    packed = _FORMER_HEAD.pack(
        head.position, head.last_sequence, head.owner_epoch, head.owner, head.audit_count
    )
    return hashlib.blake2b(
        packed + head.last_checksum + head.row_digest, digest_size=CHECKSUM_BYTES, key=head.identity
    ).digest()
