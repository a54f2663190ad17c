"""Rows of the SQLite store, taken apart.

Damage can put a value of any type anywhere, so each row is matched with a pattern that names the types.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias, cast

import apsw

from plait_server.adapters.journals.conditions import Head
from plait_server.adapters.journals.queries import Query
from plait_server.ports.journal import AuditRecord, Claim, ExecutionRow, ListedExecution, RequestRecord

Value: TypeAlias = str | bytes | int | float | None
"""What SQLite keeps."""

Row: TypeAlias = tuple[Value, ...]
"""What a query gives."""


class UnexpectedRow(Exception):
    """A row does not have the columns that its query selects. `translate_errors` makes StoreDamaged of it."""


def fetch(connection: apsw.Connection, query: Query, *values: Value) -> list[Row]:
    """Run a query to its end.

    Args:
        connection: Where.
        query: A named query.
        values: Its parameters, in the order in which their names first appear.

    Raises:
        apsw.Error: whatever SQLite says.
    """
    return cast("list[Row]", connection.execute(query.sql, values).fetchall())


def head_of(row: Row) -> Head:
    """Make a head of a row of `find_head`.

    Raises:
        UnexpectedRow: it is none.
    """
    match row:
        case (int(position), int(sequence), bytes(checksum), int(epoch), int(owner), int(is_open)):
            return Head(position, sequence, checksum, epoch, owner, bool(is_open))
        case _:
            raise UnexpectedRow("the row of an execution")


def record_of(row: Row, *, method: str, request_id: str) -> RequestRecord:
    """Make a record of a row of `find_request`.

    Raises:
        UnexpectedRow: it is none.
    """
    match row:
        case (bytes(fingerprint), str(execution_id)):
            return RequestRecord(
                method=method, request_id=request_id, fingerprint=fingerprint, execution_id=execution_id
            )
        case _:
            raise UnexpectedRow(f"the record of request {request_id}")


def claim_of(row: Row) -> Claim:
    """Make a claim of a row of `claim` or `list_due`.

    Raises:
        UnexpectedRow: it is none.
    """
    match row:
        case (int(), str(namespace), str(execution_id), int(epoch), int(last_sequence), *values):
            return Claim(
                namespace=namespace,
                execution_id=execution_id,
                owner_epoch=epoch,
                last_sequence=last_sequence,
                row=_execution_row_of(values),
            )
        case _:
            raise UnexpectedRow("the row of an execution")


def listed_of(row: Row) -> ListedExecution:
    """Make the entry of a list of a row of `find_row` or `list_rows`.

    Raises:
        UnexpectedRow: it is none.
    """
    match row:
        case (str(execution_id), int(position), int(last_sequence), int(epoch), *values):
            return ListedExecution(
                execution_id=execution_id,
                position=position,
                last_sequence=last_sequence,
                owner_epoch=epoch,
                row=_execution_row_of(values),
            )
        case _:
            raise UnexpectedRow("the row of an execution")


def audit_of(row: Row) -> AuditRecord:
    """Make an audit record of a row of `list_audit`.

    Raises:
        UnexpectedRow: it is none.
    """
    match row:
        case (float(time_s), str(kind), str(node_path), int(attempt), str(worker_id), str(detail)):
            return AuditRecord(
                time_s=time_s,
                kind=kind,
                node_path=node_path,
                attempt=attempt,
                worker_id=worker_id,
                detail=detail,
            )
        case _:
            raise UnexpectedRow("an audit record")


def _execution_row_of(values: Sequence[Value]) -> ExecutionRow:
    match values:
        case (bytes(summary), int(is_open), None | float() as due_time_s):
            return ExecutionRow(summary=summary, is_open=bool(is_open), due_time_s=due_time_s)
        case _:
            raise UnexpectedRow("the row of an execution")
