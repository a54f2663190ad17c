"""Tests of the session by pure calls: its streams, and what it says on them."""

from decimal import Decimal

import pytest
from google.protobuf.duration_pb2 import Duration

from plait.v1 import failure_pb2, payload_pb2
from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker.session import WorkerSession
from plait_worker.session_events import Assigned, ProtocolError, SessionState, Welcomed
from tests.workers.session_driver import (
    assign,
    attach,
    attached,
    cancel,
    kinds,
    make_session,
    ping,
    receive,
    recorded,
    said,
    welcome,
)

# The stream.


def test_hello_is_first_and_alone_until_welcome() -> None:
    session = WorkerSession(
        worker_id="w",
        instance_id="i",
        types={"a": 2, "b": 0},
        slots=5,
        namespace="n",
        labels={"gpu": "a100"},
        sdk="test/1",
    )
    assert session.take_frame() is None
    session.connected()
    frame = session.take_frame()
    assert frame is not None
    assert [message.WhichOneof("message") for message in frame.messages] == ["hello"]
    hello = frame.messages[0].hello
    assert hello.protocol_version == 1
    assert (hello.worker_id, hello.instance_id, hello.namespace, hello.sdk) == ("w", "i", "n", "test/1")
    assert [(served.type, served.max_concurrency) for served in hello.types] == [("a", 2), ("b", 0)]
    assert (hello.slots, dict(hello.labels)) == (5, {"gpu": "a100"})
    session.drain()
    assert session.take_frame() is None
    receive(session, welcome())
    assert kinds(session) == ["drain"]


def test_welcome_says_what_the_server_says() -> None:
    session = make_session()
    session.connected()
    said(session)
    frame = hub.AttachResponse(
        messages=[
            hub.ServerMessage(
                welcome=hub.Welcome(
                    protocol_version=1,
                    server_version="0.1.0",
                    ping_interval=Duration(seconds=3, nanos=500_000_000),
                    lease=Duration(seconds=10),
                    payload_bytes_max=100,
                    server_instance_id="s",
                )
            )
        ]
    )
    assert session.receive(frame) == [
        Welcomed(
            server_version="0.1.0",
            server_instance_id="s",
            ping_interval_s=3.5,
            lease_s=10.0,
            payload_bytes_max=100,
        )
    ]
    assert session.state is SessionState.ATTACHED


@pytest.mark.parametrize(
    ("messages", "said_of_it"),
    [
        ([assign("a")], "first message was not welcome"),
        ([welcome(2)], "protocol 2"),
        ([welcome(), welcome()], "welcome twice"),
        ([welcome(), assign("")], "without a token"),
        ([welcome(), recorded("a", hub.RECORDED_RESULT_UNSPECIFIED)], "unknown result 0"),
    ],
    ids=["no-welcome", "version", "two-welcomes", "no-token", "no-result"],
)
def test_broken_protocol_is_told_and_ends_the_stream(
    messages: list[hub.ServerMessage], said_of_it: str
) -> None:
    session = make_session()
    session.connected()
    said(session)
    events = receive(session, *messages, assign("later"))
    assert isinstance(events[-1], ProtocolError)
    assert said_of_it in events[-1].message
    assert session.state is SessionState.BROKEN
    assert receive(session, assign("b")) == []
    assert session.take_frame() is None
    session.disconnected()
    attach(session)
    assert [type(event) for event in receive(session, assign("b"))] == [Assigned]


def test_server_that_speaks_before_hello_breaks_the_protocol() -> None:
    session = make_session()
    session.connected()
    assert [type(event) for event in receive(session, welcome())] == [ProtocolError]


def test_message_of_a_later_protocol_is_ignored() -> None:
    session = attached()
    assert receive(session, hub.ServerMessage(), assign("a"))[0] == Assigned(
        token="a",
        execution_id="",
        node_path="",
        attempt=1,
        run=1,
        type="t",
        input_json="null",
        input_digest=None,
        time_left_s=None,
        traceparent="",
        tracestate="",
        branch="",
        idempotency_key="",
    )


def test_assign_is_read_in_full() -> None:
    session = attached()
    assign_message = hub.Assign(
        token="a",
        execution_id="e",
        node_path="n",
        attempt=2,
        run=3,
        type="t",
        input=payload_pb2.Payload(digest="d" * 64),
        time_left=Duration(seconds=1, nanos=250_000_000),
        traceparent="00-a-b-01",
        tracestate="a=b",
        branch="0-001",
        idempotency_key="k",
    )
    assert receive(session, hub.ServerMessage(assign=assign_message)) == [
        Assigned(
            token="a",
            execution_id="e",
            node_path="n",
            attempt=2,
            run=3,
            type="t",
            input_json=None,
            input_digest="d" * 64,
            time_left_s=1.25,
            traceparent="00-a-b-01",
            tracestate="a=b",
            branch="0-001",
            idempotency_key="k",
        )
    ]


def test_time_that_has_run_out_is_not_taken_for_none() -> None:
    session = attached()
    message = hub.ServerMessage(assign=hub.Assign(token="a", type="t", time_left=Duration()))
    (event,) = receive(session, message)
    assert isinstance(event, Assigned)
    assert event.time_left_s == 0.0


# Over several streams.


def test_what_is_held_is_named_and_sent_again() -> None:
    """A4: a worker keeps a result until it is told what became of it."""
    session = attached()
    receive(session, *(assign(token) for token in "abcd"))
    session.complete("b", "1")
    session.fail("c", "UNKNOWN", "broken")
    said(session)
    session.disconnected()
    session.complete("d", "2")
    hello = attach(session)
    held = [(attempt.token, attempt.finished) for attempt in hello.in_flight]
    assert held == [("a", False), ("b", True), ("c", True), ("d", True)]
    again = said(session)
    assert [message.WhichOneof("message") for message in again] == ["complete", "fail", "complete"]
    assert said(session) == []


def test_result_that_comes_while_greeting_is_sent_once() -> None:
    session = attached()
    receive(session, assign("a"))
    session.disconnected()
    session.connected()
    said(session)
    session.complete("a", "1")
    receive(session, welcome())
    assert kinds(session) == ["complete"]


def test_words_that_were_not_taken_go_out_on_the_next_stream() -> None:
    """An attempt of which the server has still to hear is named in hello, or it would count as lost."""
    session = attached(slots=2)
    receive(session, assign("cancelled"), cancel("cancelled"), assign("back"), assign("over"), ping(1))
    session.exited("cancelled")
    session.hand_back("back", "NOT_NOW", "later")
    session.disconnected()
    hello = attach(session)
    held = [(attempt.token, attempt.finished) for attempt in hello.in_flight]
    assert held == [("over", False), ("cancelled", False), ("back", False)]
    assert kinds(session) == ["reject", "exited", "reject"]
    session.disconnected()
    assert list(attach(session).in_flight) == []


def test_finished_attempt_that_was_cancelled_is_named_once() -> None:
    """Its result is kept: named as running, too, it would be cancelled again."""
    session = attached()
    receive(session, assign("a"))
    session.complete("a", "1")
    receive(session, cancel("a"))
    session.disconnected()
    assert [(held.token, held.finished) for held in attach(session).in_flight] == [("a", True)]
    assert kinds(session) == ["complete", "exited"]


def test_stream_that_ends_before_hello_takes_it_along() -> None:
    session = make_session()
    session.connected()
    session.disconnected()
    assert session.take_frame() is None


def test_reports_survive_a_cut() -> None:
    session = attached()
    receive(session, assign("a"))
    said(session)
    session.disconnected()
    session.log("a", "INFO", "while away")
    session.usage("a", "tokens", 3)
    session.progress("a", 0.5)
    attach(session)
    assert sorted(str(kind) for kind in kinds(session)) == ["log", "progress", "usage"]


# What handlers say.


def test_reports_of_attempts_that_do_not_run_are_ignored() -> None:
    session = attached()
    session.progress("x", 0.5)
    session.log("x", "INFO", "hello")
    session.usage("x", "tokens", 1)
    session.heartbeat("x")
    assert session.take_frame() is None


def test_usage_adds_up_exactly() -> None:
    """U1: amounts are exact decimals and add up."""
    session = attached()
    receive(session, assign("a"))
    session.usage("a", "dollars", "0.1")
    session.usage("a", "dollars", Decimal("0.2"))
    session.usage("a", "tokens", 10)
    reports = [message.usage for message in said(session) if message.HasField("usage")]
    assert [(report.unit, report.amount) for report in reports] == [("dollars", "0.3"), ("tokens", "10")]
    session.usage("a", "dollars", "1E+3")
    session.complete("a", None, {"tokens": Decimal(2)})
    (message,) = said(session)
    assert dict(message.complete.usage.amounts) == {"dollars": "1000.3", "tokens": "12"}
    assert not message.complete.HasField("output")


@pytest.mark.parametrize("ending", ["fail", "exited"])
def test_usage_of_failed_and_cancelled_attempts_counts(ending: str) -> None:
    """U1: failed and aborted attempts included."""
    session = attached()
    receive(session, assign("a"))
    session.usage("a", "tokens", 7)
    if ending == "exited":
        receive(session, cancel("a"))
        said(session)
        session.exited("a")
    else:
        said(session)
        session.fail("a", "UNKNOWN", "broken")
    (message,) = said(session)
    assert dict(getattr(message, ending).usage.amounts) == {"tokens": "7"}


def test_failure_carries_everything() -> None:
    session = attached()
    receive(session, assign("a"))
    said(session)
    cause = failure_pb2.Failure(code="INNER", message="deep")
    session.fail(
        "a",
        "UNAVAILABLE",
        "later",
        details_json='{"x":1}',
        retryable=False,
        retry_after_s=1.5,
        causes=[cause],
    )
    (message,) = said(session)
    assert message.fail == hub.Fail(
        token="a",
        code="UNAVAILABLE",
        message="later",
        details=payload_pb2.Payload(json='{"x":1}'),
        retryable=False,
        retry_after=Duration(seconds=1, nanos=500_000_000),
        causes=[cause],
    )


def test_wait_of_zero_is_sent() -> None:
    """T1: the worker's `retry_after` wins over the computed delay; zero means at once."""
    session = attached()
    receive(session, assign("a"))
    said(session)
    session.fail("a", "UNAVAILABLE", "now", retryable=False, retry_after_s=0.0)
    (message,) = said(session)
    assert message.fail.HasField("retry_after")
    assert message.fail.HasField("retryable")


# What it shows.


def test_state_is_shown() -> None:
    session = attached(slots=4)
    receive(session, assign("a"), assign("b"))
    session.complete("b", "1")
    session.drain()
    assert repr(session) == "<WorkerSession w attached draining running=1/4 unrecorded=1 queued=2>"
    statistics = session.statistics()
    assert (statistics.running, statistics.unrecorded, statistics.queued) == (1, 1, 2)
    assert (statistics.is_draining, statistics.streams, statistics.assigned) == (True, 1, 2)
    assert session.running == ("a",)


@pytest.mark.parametrize(
    ("arguments", "said_of_it"),
    [
        ({"worker_id": "no id"}, "worker_id"),
        ({"instance_id": ""}, "instance_id"),
        ({"namespace": "ü"}, "namespace"),
        ({"types": {}}, "at least one"),
        ({"types": {"t": -1}}, "max_concurrency of t"),
        ({"types": {"no type": 1}}, "node type"),
        ({"slots": 0}, "slots must be within 1"),
        ({"slots": 10_001}, "slots"),
        ({"labels": {str(number): "" for number in range(65)}}, "labels"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_arguments_are_checked(arguments: dict[str, object], said_of_it: str) -> None:
    valid: dict[str, object] = {"worker_id": "w", "instance_id": "i", "types": {"t": 0}, "slots": 1}
    with pytest.raises(ValueError, match=said_of_it):
        WorkerSession(**{**valid, **arguments})  # type: ignore[arg-type] # the wrong ones are the point
