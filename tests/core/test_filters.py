"""Filters of executions: what is read, what is refused and why, and what matches."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_server.core.lists.filters import (
    AllOf,
    AnyOf,
    GraphNameIs,
    HasLabel,
    LabelIs,
    ListOrder,
    Not,
    StateIs,
    TimeCompares,
    TimeField,
    TimeOperator,
    matches,
    may_have_matched,
)
from plait_server.core.lists.listing import Listing
from plait_server.core.lists.parsing import (
    DEPTH_MAX,
    FILTER_CHARS_MAX,
    TERMS_MAX,
    parse_filter,
    parse_order,
)
from plait_server.core.run.states import ExecutionState
from plait_server.errors import InvalidFilter

RUNNING = StateIs(ExecutionState.RUNNING)


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("", None),
        (" \t", None),
        ("state = RUNNING", RUNNING),
        ("state=RUNNING", RUNNING),
        ("state != RUNNING", Not(RUNNING)),
        ('graph_name = "a \\"b\\" \\\\"', GraphNameIs('a "b" \\')),
        ("graph_name = 'AND'", GraphNameIs("AND")),
        ("graph_name = state", GraphNameIs("state")),
        ("labels.team = core/a-1", LabelIs("team", "core/a-1")),
        ("labels.a.b = c", LabelIs("a.b", "c")),
        ('labels."a b" = ""', LabelIs("a b", "")),
        ("labels:team", HasLabel("team")),
        ('labels : "a b"', HasLabel("a b")),
        (
            'create_time >= "2026-01-01T00:00:00Z"',
            TimeCompares(TimeField.CREATE_TIME, TimeOperator.AT_LEAST, 1_767_225_600.0),
        ),
        (
            'end_time != "1970-01-01T01:00:00.25+01:00"',
            Not(TimeCompares(TimeField.END_TIME, TimeOperator.EQUAL, 0.25)),
        ),
        ("state = RUNNING AND labels:a AND labels:b", AllOf((RUNNING, HasLabel("a"), HasLabel("b")))),
        ("NOT NOT NOT state = RUNNING", Not(RUNNING)),
        (
            "state = RUNNING AND NOT (labels:a OR (labels:b))",
            AllOf((RUNNING, Not(AnyOf((HasLabel("a"), HasLabel("b")))))),
        ),
    ],
)
def test_filters_are_read(text: str, condition: object) -> None:
    assert parse_filter(text) == condition


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("statee = RUNNING", 1, "the fields are state, graph_name, labels.KEY, create_time, end_time"),
        ("RUNNING", 1, "no field `RUNNING`"),
        ('"state" = RUNNING', 1, "where a field must stand"),
        ("labels. = x", 1, "no field"),
        ("state", 6, "has nothing where an operator must stand"),
        ("state =", 8, "has nothing where a value must stand"),
        ("state = = RUNNING", 9, "where a value must stand"),
        ("state RUNNING", 7, "where an operator must stand"),
        ("state = WALKING", 9, "QUEUED, RUNNING"),
        ("state = CORRUPT", 9, "no state `CORRUPT` to filter by"),
        ("state > RUNNING", 7, "use `=` or `!=`"),
        ("labels = x", 8, "`labels.KEY =` or `labels:KEY`"),
        ("state:RUNNING", 6, "use `=` or `!=`"),
        ('create_time:"2026-01-01T00:00:00Z"', 12, "compares a time"),
        ("create_time > 2026", 15, '"2026-01-31T12:00:00Z"'),
        ('create_time > "2026-01-01T00:00:00"', 15, "where a time must stand"),
        ("state = RUNNING state = FAILED", 17, "AND, OR or the end"),
        ("state = RUNNING AND", 20, "where a comparison must stand"),
        ("AND state = RUNNING", 1, "no field `AND`"),
        ("state = RUNNING AND labels:a OR labels:b", 30, "put parentheses"),
        ("(state = RUNNING", 17, "add `)`"),
        ("state = RUNNING)", 16, "AND, OR or the end"),
        ("()", 2, "where a field must stand"),
        ('graph_name = "a', 14, "not closed"),
        ('graph_name = "a\\n"', 16, "backslash"),
        ("graph_name = é", 14, "in quotes"),
        ("state = RUNNING;", 16, "in quotes"),
        ("state = RUNNING\0", 16, "in quotes"),
        ("(" * (DEPTH_MAX + 1) + "labels:a" + ")" * (DEPTH_MAX + 1), DEPTH_MAX + 1, "deeper than 8"),
        (" AND ".join(["labels:a"] * (TERMS_MAX + 1)), TERMS_MAX * 13 + 1, "more than 32"),
        ("x" * (FILTER_CHARS_MAX + 1), FILTER_CHARS_MAX + 1, "longer than 1024"),
    ],
)
def test_what_is_no_filter_is_refused_with_position_and_remedy(text: str, position: int, says: str) -> None:
    with pytest.raises(InvalidFilter) as refused:
        parse_filter(text)
    [violation] = refused.value.violations
    assert violation.field == "filter"
    assert says in violation.message
    assert refused.value.position == position
    assert f"(at character {position})" in violation.message


PIECES = ("(", ")", "NOT", "AND", "OR", "labels:a", "state", "=", "'")


@given(st.text(max_size=200) | st.lists(st.sampled_from(PIECES), max_size=60).map(" ".join))
def test_every_text_is_a_filter_or_refused(text: str) -> None:
    condition = None
    try:
        condition = parse_filter(text)
    except InvalidFilter as error:
        is_inside = 1 <= error.position <= len(text) + 1
    else:
        is_inside = True
    assert is_inside
    if condition is not None:
        listing = Listing(labels={"a": "b"})
        assert not matches(condition, listing) or may_have_matched(condition, listing)


@pytest.mark.parametrize(
    ("text", "is_matched", "may_have_been"),
    [
        ("state = RUNNING", False, True),
        ("state = SUCCEEDED", True, True),
        ("state = SUCCEEDED AND labels.team = other", False, False),
        ("state = RUNNING OR labels.team = core", True, True),
        ("NOT state = SUCCEEDED", False, True),
        ("NOT (state = SUCCEEDED OR labels:team)", False, False),
        ("labels.missing != x", True, True),
        ('end_time < "1970-01-01T00:00:20Z"', True, True),
        ('end_time > "1970-01-01T00:00:20Z"', False, True),
        ('create_time > "1970-01-01T00:00:20Z"', False, False),
    ],
)
def test_filters_match(text: str, *, is_matched: bool, may_have_been: bool) -> None:
    listing = Listing(
        state=ExecutionState.SUCCEEDED, labels={"team": "core"}, create_time_s=1.0, end_time_s=10.0
    )
    condition = parse_filter(text)
    assert condition is not None
    assert matches(condition, listing) is is_matched
    assert may_have_matched(condition, listing) is may_have_been


def test_the_end_of_what_has_not_ended_satisfies_no_comparison() -> None:
    open_one = Listing(state=ExecutionState.RUNNING)
    for operator in ("=", "<", "<=", ">", ">="):
        condition = parse_filter(f'end_time {operator} "1970-01-01T00:00:00Z"')
        assert condition is not None
        assert not matches(condition, open_one)


def test_orders_are_read() -> None:
    assert parse_order("") is parse_order(" create_time  desc ") is ListOrder.NEWEST_FIRST
    assert parse_order("end_time asc") is ListOrder.FIRST_ENDED_FIRST
    assert parse_order("state") is parse_order("create_time, end_time") is None
