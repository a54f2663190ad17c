"""Filters of executions: what a parsed filter is, and which executions it matches.

The language is a subset of AIP-160 (https://google.aip.dev/160); `parsing` has its grammar. A store may compare in its
own way, and must agree with `matches`, which is the meaning:

- A field that an execution lacks (a label; `end_time` until the end) satisfies no comparison but `!=`.
- `!=` is the negation of `=`.
"""

from __future__ import annotations

import enum
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias, assert_never

from plait_server.core.lists.listing import Listing
from plait_server.core.run.states import ExecutionState


class TimeField(enum.Enum):
    """A time that filters compare."""

    CREATE_TIME = "create_time"
    END_TIME = "end_time"


class TimeOperator(enum.Enum):
    """How a time is compared. `!=` is a `Not`."""

    EQUAL = "="
    LESS = "<"
    AT_MOST = "<="
    GREATER = ">"
    AT_LEAST = ">="


@dataclass(frozen=True, slots=True)
class StateIs:
    """The execution is in this state."""

    state: ExecutionState


@dataclass(frozen=True, slots=True)
class GraphNameIs:
    """The execution's graph has this name."""

    name: str


@dataclass(frozen=True, slots=True)
class LabelIs:
    """The execution has this label with this value."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class HasLabel:
    """The execution has this label."""

    key: str


@dataclass(frozen=True, slots=True)
class TimeCompares:
    """A time of the execution compares so with another."""

    field: TimeField
    operator: TimeOperator
    time_s: float
    """Wall time, seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Not:
    """The filter does not match."""

    operand: Filter


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of at least two filters match."""

    operands: Sequence[Filter]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Any of at least two filters matches."""

    operands: Sequence[Filter]


Filter: TypeAlias = StateIs | GraphNameIs | LabelIs | HasLabel | TimeCompares | Not | AllOf | AnyOf
"""A filter. The parser bounds its depth, so that recursion over it is safe."""


class ListOrder(enum.Enum):
    """The order of a list. Equal end times are in the order of creation, in the same direction."""

    NEWEST_FIRST = "create_time desc"
    OLDEST_FIRST = "create_time"
    LAST_ENDED_FIRST = "end_time desc"
    """Those that have not ended come last."""
    FIRST_ENDED_FIRST = "end_time"
    """Those that have not ended come first."""

    @property
    def is_descending(self) -> bool:
        """Whether the greatest comes first."""
        return self in (ListOrder.NEWEST_FIRST, ListOrder.LAST_ENDED_FIRST)

    @property
    def is_by_end(self) -> bool:
        """Whether the end time counts."""
        return self in (ListOrder.LAST_ENDED_FIRST, ListOrder.FIRST_ENDED_FIRST)


_COMPARE: Final[Mapping[TimeOperator, Callable[[float, float], bool]]] = {
    TimeOperator.EQUAL: operator.eq,
    TimeOperator.LESS: operator.lt,
    TimeOperator.AT_MOST: operator.le,
    TimeOperator.GREATER: operator.gt,
    TimeOperator.AT_LEAST: operator.ge,
}


def matches(condition: Filter, listing: Listing) -> bool:
    """Return whether an execution matches a filter."""
    return _judge(condition, listing, is_now=True) is True


def may_have_matched(condition: Filter, listing: Listing) -> bool:
    """Return whether an execution may have matched a filter at an earlier time: by what of it never changes."""
    return _judge(condition, listing, is_now=False) is not False


def _judge(condition: Filter, listing: Listing, *, is_now: bool) -> bool | None:
    """Return whether the filter matches; None if it depends on fields that change, unless `is_now`."""
    match condition:
        case StateIs(state):
            return listing.state == state if is_now else None
        case GraphNameIs(name):
            return listing.graph_name == name
        case LabelIs(key, value):
            return listing.labels.get(key) == value
        case HasLabel(key):
            return key in listing.labels
        case TimeCompares(field, compares, time_s):
            if field is TimeField.CREATE_TIME:
                return _COMPARE[compares](listing.create_time_s, time_s)
            has_ended = listing.end_time_s > 0
            return has_ended and _COMPARE[compares](listing.end_time_s, time_s) if is_now else None
        case Not(operand):
            judged = _judge(operand, listing, is_now=is_now)
            return None if judged is None else not judged
        case AllOf(operands):
            verdicts = [_judge(each, listing, is_now=is_now) for each in operands]
            return False if False in verdicts else None if None in verdicts else True
        case AnyOf(operands):
            verdicts = [_judge(each, listing, is_now=is_now) for each in operands]
            return True if True in verdicts else None if None in verdicts else False
        case _:
            assert_never(condition)
