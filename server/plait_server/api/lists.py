"""Lists and counts of a namespace's executions, with filters, and orders that page tokens are bound to."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from plait.v1 import execution_pb2, execution_service_pb2
from plait_server.api.checks import Checks
from plait_server.api.pages import ANSWER_BYTES_MAX, PageTokens
from plait_server.core.lists.filters import ListOrder
from plait_server.core.lists.parsing import parse_filter, parse_order
from plait_server.ports.journal import DamagedRow, Journal, ListedExecution
from plait_server.ports.lists import ListCursor

ROWS_READ_MAX: Final = 50
"""A page is read in parts, because a thousand of the largest rows take 70 MB."""
_ENTRY_OVERHEAD: Final = 8

Pb = execution_service_pb2


class ExecutionLists:
    """Lists and counts executions.

    Args:
        journal: Where they are.
        tokens: Seals page tokens.
        describe_row: Returns a row as lists show it.
    """

    def __init__(
        self,
        journal: Journal,
        tokens: PageTokens,
        describe_row: Callable[[str, ListedExecution | DamagedRow], execution_pb2.Execution],
    ) -> None:
        self._journal = journal
        self._tokens = tokens
        self._describe_row = describe_row

    async def list(self, request: Pb.ListExecutionsRequest) -> Pb.ListExecutionsResponse:
        """List a page."""
        checks = Checks()
        namespace = checks.namespace(request.namespace)
        size = checks.page_size(request.page_size)
        order = parse_order(request.order_by)
        if order is None:
            orders = ", ".join(f"`{each.value}`" for each in ListOrder)
            checks.add("order_by", f"is no order of executions; those are {orders}")
        checks.finish()
        assert order is not None  # `finish` raises
        condition = parse_filter(request.filter)
        of_list = ("ListExecutions", namespace, order.value, digest_of_filter(request.filter))
        after = _cursor_of(self._tokens.read(request.page_token, *of_list))
        response = Pb.ListExecutionsResponse()
        left = ANSWER_BYTES_MAX
        while True:
            page = await self._journal.namespace(namespace).list_rows(
                limit=min(ROWS_READ_MAX, size - len(response.executions)),
                after=after,
                condition=condition,
                order=order,
            )
            for row, cursor in zip(page.rows, page.cursors, strict=True):
                execution = self._describe_row(namespace, row)
                left -= execution.ByteSize() + _ENTRY_OVERHEAD
                if left < 0 and after is not None:
                    response.next_page_token = self._tokens.make(_text_of(after), *of_list)
                    return response
                response.executions.append(execution)
                after = cursor
            if page.end is None:
                return response
            after = page.end
            if len(response.executions) >= size:
                response.next_page_token = self._tokens.make(_text_of(after), *of_list)
                return response

    async def count(self, request: Pb.CountExecutionsRequest) -> Pb.CountExecutionsResponse:
        """Count executions."""
        checks = Checks()
        namespace = checks.namespace(request.namespace)
        checks.finish()
        condition = parse_filter(request.filter)
        count = await self._journal.namespace(namespace).count_rows(condition)
        return Pb.CountExecutionsResponse(count=count)


def digest_of_filter(text: str) -> str:
    """Return what binds a token to a filter."""
    return hashlib.sha256(text.encode()).hexdigest()


def _text_of(cursor: ListCursor) -> str:
    return f"{cursor.position} {cursor.end_time_s.hex()}"


def _cursor_of(text: str | None) -> ListCursor | None:
    if text is None:
        return None
    position, _, end_time_s = text.partition(" ")
    return ListCursor(int(position), float.fromhex(end_time_s))
