"""The queries of lists and counts with a filter, put together from the parts in `sqlite_lists.sql`.

A query goes through one index in the order of the list, and judges the filter by the columns in it; `_source` picks the
index by what the filter demands of all its matches. So a list costs at most a scan of an index, about 50 ns for each
execution that the filter does not match.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, assert_never

from plait_server.adapters.journals.queries import load_queries
from plait_server.adapters.journals.sqlite_rows import Value
from plait_server.core.lists.filters import (
    AllOf,
    AnyOf,
    Filter,
    GraphNameIs,
    HasLabel,
    LabelIs,
    ListOrder,
    Not,
    StateIs,
    TimeCompares,
    TimeOperator,
)
from plait_server.core.run.states import ExecutionState
from plait_server.ports.lists import ListCursor

_OPERATORS: Final[Mapping[TimeOperator, str]] = {
    TimeOperator.EQUAL: "equal",
    TimeOperator.LESS: "less",
    TimeOperator.AT_MOST: "at_most",
    TimeOperator.GREATER: "greater",
    TimeOperator.AT_LEAST: "at_least",
}
_ORDERS: Final[Mapping[ListOrder, tuple[str, str]]] = {
    ListOrder.NEWEST_FIRST: ("newest_first", "before_position"),
    ListOrder.OLDEST_FIRST: ("oldest_first", "after_position"),
    ListOrder.LAST_ENDED_FIRST: ("last_ended_first", "before_end"),
    ListOrder.FIRST_ENDED_FIRST: ("first_ended_first", "after_end"),
}


class Statement(NamedTuple):
    """A query whose result is one row of one value."""

    sql: str
    values: Sequence[Value]


class _Part(NamedTuple):
    sql: str
    values: tuple[Value, ...] = ()


def count_statement(namespace: str, condition: Filter | None) -> Statement:
    """Return the query that counts executions."""
    return _join([_part("count"), *_matching(namespace, condition, ListOrder.NEWEST_FIRST)])


def find_statement(
    namespace: str,
    condition: Filter | None,
    order: ListOrder,
    *,
    after: ListCursor | None,
    limit: int,
) -> Statement:
    """Return the query that finds the positions of a page, as a JSON array."""
    order_by, goes_on = _ORDERS[order]
    parts = [_part("find"), *_matching(namespace, condition, order)]
    if after is not None:
        end = (after.end_time_s,) if order.is_by_end else ()
        parts.append(_part(goes_on, *end, after.position))
    return _join([*parts, _part(order_by), _part("end_find", limit)])


def _matching(namespace: str, condition: Filter | None, order: ListOrder) -> list[_Part]:
    demands = list(condition.operands) if isinstance(condition, AllOf) else [condition] if condition else []
    source, is_met = _source(namespace, demands, order)
    parts = [source]
    for each in demands:
        if each is not is_met:
            parts += [_Part("AND"), *_condition(each)]
    return parts


def _source(namespace: str, demands: Sequence[Filter], order: ListOrder) -> tuple[_Part, Filter | None]:
    """Return the index to go through, and the demand that everything in it meets."""
    if order.is_by_end:
        return _part("by_end", namespace), None
    # Labels and graphs tell fewer executions from the rest than most states; not so the one in which most end.
    for each in sorted(demands, key=_rank):
        match each:
            case LabelIs(key, value):
                return _part("by_label", namespace, key, value), each
            case GraphNameIs(name):
                return _part("by_graph", namespace, name), each
            case StateIs(state):
                return _part("by_state", namespace, int(state)), each
            case HasLabel(key):
                return _part("by_any_label", namespace, key), each
            case _:
                break
    return _part("in_order", namespace), None


def _rank(demand: Filter) -> int:
    match demand:
        case StateIs(state):
            return 0 if state is not ExecutionState.SUCCEEDED else 3
        case LabelIs():
            return 1
        case GraphNameIs():
            return 2
        case HasLabel():
            return 4
        case TimeCompares() | Not() | AllOf() | AnyOf():
            return 5
        case _:
            assert_never(demand)


def _condition(condition: Filter) -> list[_Part]:
    match condition:
        case StateIs(state):
            return [_part("where_state", int(state))]
        case GraphNameIs(name):
            return [_part("where_graph_name", name)]
        case LabelIs(key, value):
            return [_part("where_label", key, value)]
        case HasLabel(key):
            return [_part("where_any_label", key)]
        case TimeCompares(field, compares, time_s):
            return [_part(f"where_{field.value}_{_OPERATORS[compares]}", time_s)]
        case Not(operand):
            return [_Part("NOT ("), *_condition(operand), _Part(")")]
        case AllOf(operands):
            return _joined("AND", operands)
        case AnyOf(operands):
            return _joined("OR", operands)
        case _:
            assert_never(condition)


def _joined(connective: str, operands: Sequence[Filter]) -> list[_Part]:
    parts = [_Part("(")]
    for place, each in enumerate(operands):
        parts += [*([_Part(connective)] if place else []), *_condition(each)]
    return [*parts, _Part(")")]


def _part(name: str, *values: Value) -> _Part:
    return _Part(load_queries("sqlite_lists.sql")[name].sql, values)


def _join(parts: Sequence[_Part]) -> Statement:
    return Statement(" ".join(part.sql for part in parts), [value for part in parts for value in part.values])
