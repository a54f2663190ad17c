"""Finds single rows of a SQLite store by their keys, and verifies that they are theirs."""

from __future__ import annotations

import apsw

from plait_server.adapters.journals.queries import load_queries
from plait_server.adapters.journals.sqlite_rows import Stored, UnexpectedRow, fetch, record_of, stored_of
from plait_server.ports.journal import DamagedRow, RequestRecord


def find_execution(
    connection: apsw.Connection, namespace: str, execution_id: str
) -> Stored | DamagedRow | None:
    """Return the row of an execution.

    Raises:
        UnexpectedRow: the key of the row is damaged.
        apsw.Error: SQLite failed.
    """
    for row in fetch(connection, load_queries("sqlite.sql")["find_execution"], namespace, execution_id):
        found = stored_of(row)
        if (found.namespace, found.execution_id) != (namespace, execution_id):
            raise UnexpectedRow(f"the key of execution {execution_id}")
        return found
    return None


def find_record(
    connection: apsw.Connection, namespace: str, method: str, request_id: str
) -> RequestRecord | None:
    """Return the record of a request id.

    Raises:
        UnexpectedRow: it is damaged.
        apsw.Error: SQLite failed.
    """
    for row in fetch(connection, load_queries("sqlite.sql")["find_request"], namespace, method, request_id):
        found, record = record_of(row)
        if (found, record.method, record.request_id) != (namespace, method, request_id):
            raise UnexpectedRow(f"the record of request {request_id}")
        return record
    return None
