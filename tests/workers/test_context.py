"""Tests of what a handler may say."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from plait_worker import Context
from plait_worker.reports import ReportBuffer
from tests.workers.contexts import NeverFlushed, make_assigned, make_context
from tests.workers.session_driver import assign, attached, receive, said


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")], ids=repr)
def test_progress_is_a_share(fraction: float) -> None:
    with pytest.raises(ValueError, match="within 0 to 1"):
        make_context().progress(fraction)


def test_level_is_one_of_four() -> None:
    level: Any = "FATAL"
    with pytest.raises(ValueError, match="DEBUG, INFO, WARNING or ERROR"):
        make_context().log("x", level=level)


def test_usage_is_checked_where_it_is_reported() -> None:
    context = make_context()
    amount: Any = 0.1
    with pytest.raises(TypeError, match="exact"):
        context.usage("tokens", amount)
    for number in range(64):
        context.usage(f"u{number}", 1)
    with pytest.raises(ValueError, match="at most 64 units"):
        context.usage("u64", 1)


def test_details_of_a_heartbeat_are_small_json() -> None:
    context = make_context()
    with pytest.raises(ValueError, match="is a set"):
        context.heartbeat({1})
    with pytest.raises(ValueError, match="at most 32768 bytes"):
        context.heartbeat("x" * 32768)


def test_raise_if_cancelled_raises_what_no_handler_catches_by_accident() -> None:
    context = make_context()
    context.raise_if_cancelled()
    context.cancelled.set()
    with pytest.raises(asyncio.CancelledError):
        context.raise_if_cancelled()
    assert repr(context) == "<Context e n attempt=1 cancelled>"


def test_attempt_without_a_bound_has_no_deadline() -> None:
    assert (make_context().time_left, make_context().deadline) == (None, None)


def test_tray_adds_up_and_keeps_the_newest() -> None:
    session = attached()
    receive(session, assign("a"))
    said(session)
    buffer = ReportBuffer("a", NeverFlushed())
    for number in range(1500):
        buffer.put_log("INFO", str(number), 1)
        buffer.put_progress(number / 1500, "")
        buffer.put_usage("tokens", Decimal("0.1"))
        buffer.put_heartbeat(None)
    buffer.flush_into(session)
    buffer.flush_into(session)
    messages = said(session)
    kinds = [message.WhichOneof("message") for message in messages]
    assert kinds == ["heartbeat", "usage", "progress", *["log"] * 1000]
    assert messages[1].usage.amount == "150.0"
    assert messages[-1].log.message == "1499"


def test_details_of_an_earlier_attempt_can_be_read() -> None:
    assert (make_context().heartbeat_details, make_context().heartbeat_timeout) == (None, None)
    assigned = make_assigned()._replace(heartbeat_details_json='{"row":5}', heartbeat_timeout_s=1.5)
    context = Context(assigned, worker_id="w", buffer=ReportBuffer("a", NeverFlushed()), clock=lambda: 0.0)
    assert context.heartbeat_details == {"row": 5}
    assert context.heartbeat_timeout == timedelta(seconds=1.5)


def test_a_heartbeat_without_details_does_not_take_back_those_before() -> None:
    session = attached()
    receive(session, assign("a"))
    buffer = ReportBuffer("a", NeverFlushed())
    buffer.put_heartbeat("1")
    buffer.put_heartbeat(None)
    buffer.flush_into(session)
    assert [each.heartbeat.details.json for each in said(session)] == ["1"]


def test_more_time_is_asked_for_where_there_is_a_bound() -> None:
    now_s = [0.0]
    session = attached()
    receive(session, assign("a"))
    buffer = ReportBuffer("a", NeverFlushed())
    context = Context(
        make_assigned()._replace(time_left_s=5.0), worker_id="w", buffer=buffer, clock=lambda: now_s[0]
    )
    now_s[0] = 4.0
    context.extend(0.5)
    assert context.time_left == timedelta(seconds=1)
    context.extend(timedelta(seconds=10))
    assert context.time_left == timedelta(seconds=10)
    buffer.flush_into(session)
    assert [each.extend.duration.seconds for each in said(session)] == [10]
    for wrong in (0, -1, float("nan"), float("inf"), 1e12):
        with pytest.raises(ValueError, match="more time must be above 0"):
            context.extend(wrong)
    unbounded = make_context()
    unbounded.extend(1)
    assert unbounded.time_left is None
