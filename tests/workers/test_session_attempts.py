"""Tests of the session by pure calls: the ways of an attempt, and what is taken."""

from collections.abc import Callable
from typing import cast

import pytest
from google.protobuf.duration_pb2 import Duration

from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker.ledger import AttemptNotHeld
from plait_worker.session import WorkerSession
from plait_worker.session_events import CancelRequested, Recorded, RecordedResult
from tests.workers.session_driver import (
    assign,
    attach,
    attached,
    cancel,
    kinds,
    receive,
    recorded,
    said,
)

# One attempt: each way it can go. Steps to what the session said and whether it is idle after them.

Step = Callable[[WorkerSession], object]


def step_complete(session: WorkerSession) -> None:
    session.complete("a", "1")


def step_fail(session: WorkerSession) -> None:
    session.fail("a", "UNKNOWN", "broken")


def step_exited(session: WorkerSession) -> None:
    session.exited("a")


def step_hand_back(session: WorkerSession) -> None:
    session.hand_back("a", "DRAINING", "leaving")


def step_cancel(session: WorkerSession) -> None:
    receive(session, cancel("a"))


def step_recorded(session: WorkerSession) -> None:
    receive(session, recorded("a"))


def step_stale(session: WorkerSession) -> None:
    receive(session, recorded("a", hub.RECORDED_RESULT_STALE))


def named(value: object) -> str:
    steps = cast("list[object]", value) if isinstance(value, list) else []
    return "-".join(getattr(step, "__name__", str(step)) for step in steps)


@pytest.mark.parametrize(
    ("steps", "expected", "is_idle"),
    [
        ([step_complete], ["complete"], False),
        ([step_complete, step_recorded], ["complete"], True),
        ([step_fail, step_recorded], ["fail"], True),
        ([step_complete, step_stale], ["complete"], True),
        ([step_hand_back], ["reject"], True),
        ([step_cancel], ["cancel_ack"], False),
        ([step_cancel, step_exited], ["cancel_ack", "exited"], True),
        ([step_cancel, step_complete], ["cancel_ack", "exited"], True),
        ([step_cancel, step_fail], ["cancel_ack", "exited"], True),
        ([step_cancel, step_hand_back], ["cancel_ack", "exited"], True),
        ([step_cancel, step_cancel, step_exited], ["cancel_ack", "cancel_ack", "exited"], True),
        # The result was there before the cancel: it stays, and the receipts are complete all the same.
        ([step_complete, step_cancel], ["cancel_ack", "complete", "exited"], False),
        ([step_complete, step_cancel, step_recorded], ["cancel_ack", "complete", "exited"], True),
        # A handler that the driver cancelled by itself: the server is told when it asks.
        ([step_exited], [], False),
        ([step_exited, step_cancel], ["cancel_ack", "exited"], True),
        ([step_exited, step_stale], ["exited"], True),
        ([step_exited, step_hand_back], ["reject"], True),
        ([step_stale, step_exited], ["exited"], True),
        ([step_stale, step_cancel, step_exited], ["cancel_ack", "exited"], True),
        # Late words about an attempt that is over.
        ([step_cancel, step_exited, step_cancel], ["cancel_ack", "cancel_ack", "exited", "exited"], True),
        ([step_complete, step_recorded, step_cancel], ["cancel_ack", "complete", "exited"], True),
        ([step_complete, step_recorded, step_recorded], ["complete"], True),
    ],
    ids=named,
)
def test_attempt_goes_its_way(steps: list[Step], expected: list[str], is_idle: bool) -> None:
    session = attached()
    receive(session, assign("a"))
    assert kinds(session) == []
    for step in steps:
        step(session)
    assert kinds(session) == expected
    assert session.is_idle is is_idle


@pytest.mark.parametrize("first", [step_complete, step_fail, step_exited, step_hand_back])
@pytest.mark.parametrize("second", [step_complete, step_fail, step_exited])
def test_end_of_a_handler_is_told_once(first: Step, second: Step) -> None:
    session = attached()
    receive(session, assign("a"))
    first(session)
    with pytest.raises(AttemptNotHeld):
        second(session)


def test_unknown_attempt_cannot_end() -> None:
    session = attached()
    for step in (step_complete, step_fail, step_exited, step_hand_back):
        with pytest.raises(AttemptNotHeld):
            step(session)


def test_cancel_asks_once_and_says_why() -> None:
    session = attached()
    receive(session, assign("a"))
    message = hub.Cancel(token="a", reason="CANCEL_REASON_RACE_LOST", grace=Duration(seconds=10))
    assert receive(session, hub.ServerMessage(cancel=message)) == [
        CancelRequested(token="a", reason="RACE_LOST", grace_s=10.0)
    ]
    assert receive(session, hub.ServerMessage(cancel=message)) == []


def test_cancel_of_an_unknown_attempt_is_answered_in_full() -> None:
    session = attached()
    assert receive(session, cancel("other")) == []
    assert kinds(session) == ["cancel_ack", "exited"]
    assert session.is_idle


@pytest.mark.parametrize("result", list(RecordedResult), ids=lambda result: result.name)
def test_recorded_ends_the_keeping(result: RecordedResult) -> None:
    session = attached()
    receive(session, assign("a"))
    session.complete("a", "1")
    assert list(session.unrecorded) == ["a"]
    assert receive(session, recorded("a", result.value)) == [Recorded(token="a", result=result)]
    assert list(session.unrecorded) == []
    assert session.statistics().stale == (result is RecordedResult.STALE)


@pytest.mark.parametrize("result", list(RecordedResult), ids=lambda result: result.name)
def test_recorded_for_a_running_attempt_cancels_it(result: RecordedResult) -> None:
    session = attached()
    receive(session, assign("a"))
    assert receive(session, recorded("a", result.value)) == [
        CancelRequested(token="a", reason="STALE", grace_s=0.0)
    ]


# What is taken.


def test_duplicate_assign_starts_no_second_handler() -> None:
    """FAILURES 15: the SDK drops the same attempt token."""
    session = attached()
    assert len(receive(session, assign("a"), assign("a"))) == 1
    assert kinds(session) == []
    session.complete("a", "1")
    assert receive(session, assign("a")) == []
    assert kinds(session) == ["complete"]
    receive(session, recorded("a"))
    assert receive(session, assign("a")) == []
    assert [message.reject.code for message in said(session)] == [hub.REJECT_CODE_ALREADY_ENDED]
    assert session.statistics().duplicates == 3


def test_result_that_was_written_is_sent_again_when_its_attempt_is_assigned_again() -> None:
    """A4: whoever assigns it again has not kept the result, and waits for it."""
    session = attached()
    receive(session, assign("a"))
    session.complete("a", "1")
    assert kinds(session) == ["complete"]
    assert receive(session, assign("a")) == []
    assert kinds(session) == ["complete"]


def test_unrecorded_results_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait_worker.ledger.UNRECORDED_MAX", 2)
    session = attached()
    for token in "ab":
        receive(session, assign(token))
        session.complete(token, "1")
    assert receive(session, assign("c")) == []
    rejects = [message.reject for message in said(session) if message.HasField("reject")]
    assert [(reject.token, reject.code) for reject in rejects] == [("c", hub.REJECT_CODE_NO_SLOT)]
    receive(session, recorded("a"))
    assert len(receive(session, assign("d"))) == 1


def test_last_ended_attempts_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait_worker.ledger.ENDED_TOKENS_MAX", 2)
    session = attached()
    for token in "abc":
        receive(session, assign(token))
        session.complete(token, "1")
        receive(session, recorded(token))
    assert len(receive(session, assign("a"), assign("b"), assign("c"))) == 1
    assert session.running == ("a",)


def test_attempt_that_was_turned_away_stays_so() -> None:
    session = attached(slots=1)
    receive(session, assign("a"), assign("b"))
    session.complete("a", "1")
    assert receive(session, assign("b")) == []
    assert [m.reject.code for m in said(session) if m.HasField("reject")] == [hub.REJECT_CODE_NO_SLOT] * 2


def test_cancelled_attempt_is_not_run_again() -> None:
    session = attached()
    receive(session, assign("a"), cancel("a"))
    session.exited("a")
    said(session)
    assert receive(session, assign("a")) == []
    assert kinds(session) == ["exited"]


@pytest.mark.parametrize(
    ("types", "slots", "assigned", "code"),
    [
        ({"t": 0}, 2, ["t", "t", "t"], hub.REJECT_CODE_NO_SLOT),
        ({"t": 1, "u": 0}, 8, ["t", "t"], hub.REJECT_CODE_NO_SLOT),
        ({"t": 0}, 8, ["u"], hub.REJECT_CODE_UNKNOWN_TYPE),
    ],
    ids=["slots", "concurrency-of-the-type", "type"],
)
def test_assign_that_cannot_be_taken_is_rejected(
    types: dict[str, int], slots: int, assigned: list[str], code: hub.RejectCode
) -> None:
    session = attached(types=types, slots=slots)
    events = receive(session, *(assign(str(number), type_) for number, type_ in enumerate(assigned)))
    assert len(events) == len(assigned) - 1
    rejects = [message.reject for message in said(session) if message.HasField("reject")]
    assert [(reject.token, reject.code) for reject in rejects] == [(str(len(assigned) - 1), code)]


def test_slot_is_free_when_the_handler_has_ended() -> None:
    session = attached(types={"t": 1}, slots=1)
    for number in range(3):
        assert len(receive(session, assign(str(number)))) == 1
        session.complete(str(number), "1")
    receive(session, assign("cancelled"), cancel("cancelled"))
    assert receive(session, assign("early")) == []
    session.exited("cancelled")
    assert len(receive(session, assign("late"))) == 1


def test_draining_session_takes_nothing_new() -> None:
    """T3."""
    session = attached()
    receive(session, assign("a"))
    session.drain()
    session.drain()
    assert receive(session, assign("b")) == []
    assert kinds(session) == ["drain", "reject"]
    session.complete("a", "1")
    receive(session, recorded("a"))
    said(session)
    assert session.is_idle


def test_drain_is_told_on_every_stream() -> None:
    session = attached()
    session.drain()
    assert kinds(session) == ["drain"]
    session.disconnected()
    attach(session)
    assert kinds(session) == ["drain"]


def test_credit_changes_the_slots() -> None:
    session = attached(slots=1)
    session.set_credit(2)
    session.set_credit(2)
    assert len(receive(session, assign("a"), assign("b"), assign("c"))) == 2
    assert kinds(session) == ["credit", "reject"]
    session.set_credit(0)
    assert [message.credit.slots for message in said(session)] == [0]
    session.disconnected()
    assert attach(session).slots == 1
    assert [message.credit.slots for message in said(session)] == [0]
    with pytest.raises(ValueError, match="slots"):
        session.set_credit(10_001)


# Heartbeats.


def test_the_newest_details_are_sent_again_on_each_new_stream() -> None:
    """A server that has restarted keeps no details; a heartbeat without any does not take them back."""
    session = attached()
    receive(session, assign("a"), assign("b"))
    session.heartbeat("a", "1")
    said(session)
    session.heartbeat("a")
    session.heartbeat("b")
    assert [message.heartbeat.HasField("details") for message in said(session)] == [False, False]
    session.disconnected()
    attach(session)
    assert [(each.heartbeat.token, each.heartbeat.details.json) for each in said(session)] == [("a", "1")]
    session.complete("a", "null")
    said(session)
    session.disconnected()
    attach(session)
    assert [message.WhichOneof("message") for message in said(session)] == ["complete"]


def test_a_heartbeat_without_details_keeps_those_that_wait() -> None:
    session = attached()
    receive(session, assign("a"))
    session.heartbeat("a", "1")
    session.heartbeat("a")
    assert [each.heartbeat.details.json for each in said(session)] == ["1"]
