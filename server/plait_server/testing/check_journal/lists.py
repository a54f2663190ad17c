"""What a store must do for lists, counts and watchers of a namespace."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Final

from plait_server.core.lists.filters import Filter, ListOrder, matches
from plait_server.core.lists.listing import Listing
from plait_server.core.lists.parsing import parse_filter
from plait_server.core.run.states import ExecutionState
from plait_server.ports.journal import AppendItem, ExecutionRow, Journal, ListedExecution
from plait_server.ports.lists import ChangePage, ListCursor
from plait_server.testing.check_journal.items import NAMESPACE, OTHER_NAMESPACE, append, make
from plait_server.testing.check_journal.store import StoreUnderTest

FILTERS: Final = (
    "",
    "state = RUNNING",
    "state != RUNNING",
    "state = SUCCEEDED",
    'graph_name = "orders"',
    'state = FAILED AND graph_name = "orders"',
    'graph_name = "orders" AND state = SUCCEEDED AND labels.team = "a"',
    "labels.team = a",
    "labels.team != a",
    "labels:team",
    "NOT labels:team",
    "labels:team AND state = SUCCEEDED",
    'labels.team = "%" OR labels."a b" = "_"',
    'labels.team = a AND labels."a b" = "_"',
    'create_time >= "1970-01-01T00:00:04Z"',
    'create_time < "1970-01-01T00:00:04.5Z" AND create_time > "1970-01-01T00:00:01Z"',
    'end_time <= "1970-01-01T00:01:43Z"',
    'end_time = "1970-01-01T00:01:42.25Z" OR create_time = "1970-01-01T00:00:03Z"',
    'NOT (end_time > "1970-01-01T00:01:42Z" OR state = FAILED)',
    'end_time != "1970-01-01T00:01:42.25Z"',
    "(state = RUNNING OR state = FAILED) AND (NOT graph_name = 'it''s')".replace("''", "\\'"),
)


async def check_lists_are_filtered_and_ordered(store: StoreUnderTest) -> None:
    """Check every filter in every order, in pages of several sizes, against a sort of all rows."""
    journal = await store.open()
    items = _items(24)
    await append(journal, *items, make("elsewhere", namespace=OTHER_NAMESPACE, row=_row(3)))
    await store.crash(journal)
    journal = await store.open()
    handle = journal.namespace(NAMESPACE)
    everything = [row for row in (await handle.list_rows(limit=100)).rows if isinstance(row, ListedExecution)]
    assert [row.row for row in reversed(everything)] == [item.row for item in items]
    for text in FILTERS:
        condition = parse_filter(text)
        wanted = [row for row in everything if condition is None or matches(condition, row.row.listing)]
        assert await handle.count_rows(condition) == len(wanted), text
        for order in ListOrder:
            wanted.sort(key=lambda row: _place(row, order), reverse=order.is_descending)
            for size in (1, 3, 100):
                listed = await _list(journal, condition, order, size)
                assert listed == [row.execution_id for row in wanted], (text, order, size)
    assert await journal.namespace("empty").count_rows(None) == 0


async def check_changes_of_listings(store: StoreUnderTest) -> None:
    """Check that each change of a listing gets a number above all others, and nothing else does."""
    journal = await store.open()
    handle = journal.namespace(NAMESPACE)
    assert await handle.list_changes(after=0, limit=10) == ChangePage(changes=[], last_change=0, floor=0)
    await append(journal, *_items(4))
    first = await handle.list_changes(after=0, limit=10)
    assert _ids(first) == ["x0", "x1", "x2", "x3"]
    assert all(before.number < after.number for before, after in pairwise(first.changes))
    assert first.last_change == first.changes[-1].number
    # The same listing again, events without a row, and another namespace.
    await append(journal, _go_on("x1", 1, _row(1)), _go_on("x2", 1, None))
    await append(journal, make("elsewhere", namespace=OTHER_NAMESPACE))
    page = await handle.list_changes(after=first.last_change, limit=10)
    assert _ids(page) == []
    assert page.last_change > first.last_change
    await append(journal, _go_on("x0", 1, _row(5)), _go_on("x2", 2, _row(9)))
    await append(journal, _go_on("x0", 2, _row(6)))
    await store.crash(journal)
    journal = await store.open()
    handle = journal.namespace(NAMESPACE)
    page = await handle.list_changes(after=first.last_change, limit=10)
    assert _ids(page) == ["x2", "x0"], "an execution that changed twice is shown once, at its newest change"
    [_, newest] = page.changes
    assert isinstance(newest.row, ListedExecution)
    assert newest.row.row == _row(6)
    assert _ids(await handle.list_changes(after=first.last_change, limit=1)) == ["x2"]
    assert _ids(await handle.list_changes(after=page.changes[0].number, limit=10)) == ["x0"]
    await append(journal, make("x9"))
    assert _ids(await handle.list_changes(after=page.last_change, limit=10)) == ["x9"]


def _items(count: int) -> list[AppendItem]:
    return [make(f"x{number}", row=_row(number)) for number in range(count)]


def _row(number: int) -> ExecutionRow:
    """Return the row of an execution: every combination of fields comes up, and equal end times."""
    states = (ExecutionState.RUNNING, ExecutionState.SUCCEEDED, ExecutionState.FAILED)
    state = states[number % 3]
    labels: tuple[dict[str, str], ...] = (
        {},
        {"team": "a"},
        {"team": "%", "a b": "_"},
        {"a b": "_", "team": "a"},
        {"é\n": "'"},
    )
    return ExecutionRow(
        summary=f"row {number}".encode(),
        is_open=not state.is_ended,
        listing=Listing(
            state=state,
            reason="TIRED" if number % 4 == 1 else "",
            graph_name=("orders", "", "it's")[number % 7 % 3],
            labels=labels[number % 5],
            create_time_s=float(number),
            end_time_s=100 + (number % 4) * 1.125 if state.is_ended else 0.0,
        ),
    )


def _go_on(execution_id: str, expected: int, row: ExecutionRow | None) -> AppendItem:
    return AppendItem(
        namespace=NAMESPACE,
        execution_id=execution_id,
        expected_sequence=expected,
        owner_epoch=1,
        events=[b"more"],
        row=row,
    )


def _place(row: ListedExecution, order: ListOrder) -> tuple[float, int]:
    return row.row.listing.end_time_s if order.is_by_end else 0.0, row.position


async def _list(journal: Journal, condition: Filter | None, order: ListOrder, size: int) -> list[str]:
    listed: list[str] = []
    after: ListCursor | None = None
    while True:
        page = await journal.namespace(NAMESPACE).list_rows(
            limit=size, after=after, condition=condition, order=order
        )
        assert len(page.rows) == len(page.cursors) <= size
        listed += [row.execution_id for row in page.rows]
        if page.end is None:
            return listed
        after = page.end


def _ids(page: ChangePage) -> Sequence[str]:
    return [change.row.execution_id for change in page.changes]
