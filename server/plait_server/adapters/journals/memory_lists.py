"""Lists, counts and changes of a store in memory."""

from __future__ import annotations

from plait_server.adapters.journals.memory_store import MemoryStore, StoredExecution
from plait_server.core.lists.filters import Filter, ListOrder, matches
from plait_server.ports.lists import Change, ChangePage, ListCursor, RowPage, Tombstone


def list_rows(
    store: MemoryStore,
    namespace: str,
    limit: int,
    after: ListCursor | None,
    condition: Filter | None,
    order: ListOrder,
) -> RowPage:
    """List executions of a namespace; see the port."""
    shown = [(_cursor_of(each, order), each) for each in _of(store, namespace) if _is_shown(each, condition)]
    shown.sort(key=lambda entry: _key(entry[0]), reverse=order.is_descending)
    if after is not None:
        place = _key(after)
        shown = [
            entry
            for entry in shown
            if (_key(entry[0]) < place if order.is_descending else _key(entry[0]) > place)
        ]
    page = shown[:limit]
    return RowPage(
        rows=[each.damaged_row() if each.is_damaged else each.listed() for _, each in page],
        cursors=[cursor for cursor, _ in page],
        end=page[-1][0] if page and len(shown) > limit else None,
    )


def count_rows(store: MemoryStore, namespace: str, condition: Filter | None) -> int:
    """Count the executions of a namespace that match a filter."""
    return sum(_is_shown(execution, condition) for execution in _of(store, namespace))


def list_changes(store: MemoryStore, namespace: str, after: int, limit: int) -> ChangePage:
    """List changes of a namespace's listings; see the port."""
    changes = [
        Change(each.head.change, each.damaged_row() if each.is_damaged else each.listed())
        for each in _of(store, namespace)
        if each.head.change > after
    ]
    changes += [
        Change(number, Tombstone(change=number, execution_id=execution_id, time_s=time_s))
        for number, name, execution_id, time_s in store.tombstones
        if name == namespace and number > after
    ]
    changes.sort(key=lambda change: change.number)
    return ChangePage(changes=changes[:limit], last_change=store.last_change, floor=store.floor)


def _cursor_of(execution: StoredExecution, order: ListOrder) -> ListCursor:
    return ListCursor(execution.head.position, execution.row.listing.end_time_s if order.is_by_end else 0.0)


def _key(cursor: ListCursor) -> tuple[float, int]:
    return cursor.end_time_s, cursor.position


def _of(store: MemoryStore, namespace: str) -> list[StoredExecution]:
    return [each for each in store.executions.values() if each.namespace == namespace]


def _is_shown(execution: StoredExecution, condition: Filter | None) -> bool:
    return condition is None or matches(condition, execution.row.listing)
