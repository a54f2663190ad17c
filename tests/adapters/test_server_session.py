"""The server's end of Attach, called directly: what frames mean, what is sent and in which order."""

from __future__ import annotations

from typing import Any

import pytest

from plait.v1 import failure_pb2, payload_pb2
from plait.v1 import worker_hub_service_pb2 as pb
from plait_server.adapters.workers.session import CONTROL_BYTES_MAX, FRAME_BYTES_MAX, ServerSession
from plait_server.adapters.workers.session_events import (
    Accepted,
    CancelStep,
    Ended,
    Hello,
    Ponged,
    Reported,
    Returned,
    SessionEvent,
    SlotsChanged,
    Used,
)
from plait_server.core.limits import HELD_ATTEMPTS_MAX, MIB, TOKEN_BYTES_MAX
from plait_server.core.run.commands import AttemptResult, Disposition
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import AttemptOutcome, CancelStage
from plait_server.errors import InvalidRequest, ProtocolVersionUnsupported, ProtocolViolation
from plait_server.ports.workers import Assignment, AttemptKey

HELLO = pb.Hello(
    protocol_version=1,
    worker_id="w",
    instance_id="w.1",
    types=[pb.ServedType(type="t", max_concurrency=2)],
    slots=4,
    labels={"zone": "a"},
    in_flight=[pb.InFlight(token="runs"), pb.InFlight(token="done", finished=True)],
    sdk="hand/1",
)


NEWER_LEVEL: Any = 16
"""Between WARNING and ERROR: of a worker that is newer than the server."""


def receive(session: ServerSession, *messages: pb.WorkerMessage) -> list[SessionEvent]:
    frame = pb.AttachRequest(messages=messages).SerializeToString()
    return [event for events in session.receive(frame) for event in events]


def attached() -> ServerSession:
    session = ServerSession()
    receive(session, pb.WorkerMessage(hello=HELLO))
    session.welcome(server_version="1", server_instance_id="s", ping_s=5.0, lease_s=15.0, reject_pause_s=1.0)
    assert kinds(session) == ["welcome"]
    return session


def kinds(session: ServerSession) -> list[str]:
    """Take the next frame; the kinds of its messages."""
    frame = session.take_frame()
    return [message.WhichOneof("message") or "" for message in frame.messages] if frame is not None else []


def assignment(path: str = "a", input_json: str = "1") -> Assignment:
    return Assignment(
        AttemptKey("default", "x", 1, path, 1), "w", "w.1", "t", input_json, "", 0, 0.0, "", "", "0", False
    )


# In.


def test_hello_says_who_it_is_and_what_it_holds() -> None:
    session = ServerSession()
    (event,) = receive(session, pb.WorkerMessage(hello=HELLO))
    assert event == session.hello
    assert event == Hello("w", "w.1", "default", {"t": 2}, 4, {"zone": "a"}, "hand/1", ["runs"], ["done"])


@pytest.mark.parametrize(
    "first", [pb.WorkerMessage(pong=pb.Pong()), pb.WorkerMessage()], ids=["pong", "empty"]
)
def test_nothing_comes_before_hello(first: pb.WorkerMessage) -> None:
    with pytest.raises(ProtocolViolation, match="first message"):
        receive(ServerSession(), first)
    large = payload_pb2.Payload(json="x" * 2_000_000)
    with pytest.raises(ProtocolViolation, match="first message"):
        receive(ServerSession(), pb.WorkerMessage(complete=pb.Complete(token="t", output=large)))


def test_hello_is_said_once_and_in_this_version() -> None:
    session = attached()
    with pytest.raises(ProtocolViolation, match="once a stream"):
        receive(session, pb.WorkerMessage(hello=HELLO))
    for version in (0, 2):
        hello = pb.Hello()
        hello.CopyFrom(HELLO)
        hello.protocol_version = version
        with pytest.raises(ProtocolVersionUnsupported, match=f"version {version}"):
            receive(ServerSession(), pb.WorkerMessage(hello=hello))


@pytest.mark.parametrize(
    "held",
    [
        [pb.InFlight(token="x")] * (HELD_ATTEMPTS_MAX + 1),
        [pb.InFlight(token="x" * (TOKEN_BYTES_MAX + 1))],
    ],
    ids=["too many", "too long"],
)
def test_what_is_in_flight_is_bounded(held: list[pb.InFlight]) -> None:
    hello = pb.Hello()
    hello.CopyFrom(HELLO)
    hello.in_flight.extend(held)
    with pytest.raises(InvalidRequest, match="in_flight"):
        receive(ServerSession(), pb.WorkerMessage(hello=hello))


def test_bytes_that_are_no_frame_are_a_violation() -> None:
    with pytest.raises(ProtocolViolation, match="no AttachRequest"):
        list(attached().receive(b"\x0a\xff"))


def test_each_message_has_its_meaning() -> None:
    events = receive(
        attached(),
        pb.WorkerMessage(accept=pb.Accept(token="a")),
        pb.WorkerMessage(reject=pb.Reject(token="a", code="REJECT_CODE_NO_SLOT", message="no")),
        pb.WorkerMessage(credit=pb.Credit(slots=7)),
        pb.WorkerMessage(credit=pb.Credit(slots=-7)),
        pb.WorkerMessage(credit=pb.Credit(slots=70_000)),
        pb.WorkerMessage(drain=pb.Drain()),
        pb.WorkerMessage(pong=pb.Pong(number=3)),
        pb.WorkerMessage(cancel_ack=pb.CancelAck(token="a")),
        pb.WorkerMessage(log=pb.LogLine(token="a", level="LOG_LEVEL_ERROR", message="l")),
        pb.WorkerMessage(log=pb.LogLine(token="a", level=NEWER_LEVEL, message="l")),
        pb.WorkerMessage(usage=pb.Usage(token="a", unit="u", amount="0.5")),
        pb.WorkerMessage(),
    )
    assert events == [
        Accepted("a"),
        Returned(
            "a", AttemptResult("", 0, AttemptOutcome.RETURNED, failure=Failure(code="NO_SLOT", message="no"))
        ),
        SlotsChanged(7, is_draining=False),
        SlotsChanged(0, is_draining=False),
        SlotsChanged(10_000, is_draining=False),
        SlotsChanged(0, is_draining=True),
        Ponged(3),
        CancelStep("a", CancelStage.ACKNOWLEDGED, None),
        Reported("a", "ERROR", "l"),
        Reported("a", "WARNING", "l"),
        Used("a", "u", "0.5", ""),
    ]


def ended(session: ServerSession, message: pb.WorkerMessage) -> Ended:
    (event,) = receive(session, message)
    assert isinstance(event, Ended)
    assert event.result.from_worker
    return event


def test_a_result_without_output_is_null() -> None:
    result = ended(attached(), pb.WorkerMessage(complete=pb.Complete(token="a"))).result
    assert (result.outcome, result.output) == (AttemptOutcome.SUCCEEDED, Payload("null"))


@pytest.mark.parametrize(
    ("seconds", "read"),
    [(None, None), (0.0, 0.0), (2.5, 2.5), (-3.0, 0.0)],
    ids=["absent", "0", "2.5", "negative"],
)
def test_advice_to_retry_is_never_in_the_past(seconds: float | None, read: float | None) -> None:
    fail = pb.Fail(token="a", code="ABORTED")
    if seconds is not None:
        fail.retry_after.FromNanoseconds(int(seconds * 1e9))
    result = ended(attached(), pb.WorkerMessage(fail=fail)).result
    assert result.retry_after_s == read
    assert result.retryable is None


@pytest.mark.parametrize("json_bytes", [1_100_000, 2_000_000], ids=["parsed", "not parsed"])
def test_a_result_too_large_fails_its_attempt(json_bytes: int) -> None:
    """S2.1: TOO_LARGE; the stream goes on."""
    session = attached()
    output = payload_pb2.Payload(json='"' + "x" * json_bytes + '"')
    event = ended(session, pb.WorkerMessage(complete=pb.Complete(token="a", output=output)))
    assert (event.token, event.result.outcome) == ("a", AttemptOutcome.FAILED)
    assert event.result.failure is not None
    assert event.result.failure.code == "TOO_LARGE"
    assert receive(session, pb.WorkerMessage(pong=pb.Pong(number=1))) == [Ponged(1)]


BAD_RESULTS = {
    "empty": (payload_pb2.Payload(json=""), "INVALID_RESULT"),
    "cut": (payload_pb2.Payload(json="{"), "INVALID_RESULT"),
    "nan": (payload_pb2.Payload(json="NaN"), "INVALID_RESULT"),
    "duplicate key": (payload_pb2.Payload(json='{"a":1,"a":2}'), "INVALID_RESULT"),
    "surrogate": (payload_pb2.Payload(json='"\\ud800"'), "INVALID_RESULT"),
    "two values": (payload_pb2.Payload(json="1 2"), "INVALID_RESULT"),
    "too deep": (payload_pb2.Payload(json="[" * 100 + "]" * 100), "INVALID_RESULT"),
    "digest": (payload_pb2.Payload(digest="ab" * 32), "INVALID_RESULT"),
    "large": (payload_pb2.Payload(json='"' + "x" * MIB + '"'), "TOO_LARGE"),
    "wide": (payload_pb2.Payload(json='"' + "\u00e4" * (MIB // 2) + '"'), "TOO_LARGE"),
}


@pytest.mark.parametrize("name", BAD_RESULTS)
def test_a_result_that_is_no_payload_fails_its_attempt(name: str) -> None:
    """S2.1: INVALID_RESULT is no JSON, TOO_LARGE is over the payload's limit; the policy says what is repeated."""
    output, code = BAD_RESULTS[name]
    usage = pb.UsageTotals(amounts={"u": "1"})
    message = pb.WorkerMessage(complete=pb.Complete(token="a", output=output, usage=usage))
    result = ended(attached(), message).result
    assert result.failure is not None
    assert (result.outcome, result.failure.code, result.retryable) == (AttemptOutcome.FAILED, code, None)
    assert result.usage == {"u": "1"}


@pytest.mark.parametrize(
    "amount",
    ["", "-1", "1e3", "NaN", "Infinity", "1_0", "1 ", "1\n", "\u0661", "\u00b2", "1.2.3", ".5", "1" * 42],
    ids=str.encode,
)
def test_usage_that_is_no_exact_decimal_fails_its_attempt(amount: str) -> None:
    """U1."""
    message = pb.WorkerMessage(complete=pb.Complete(token="a", usage=pb.UsageTotals(amounts={"u": amount})))
    result = ended(attached(), message).result
    assert result.failure is not None
    assert (result.failure.code, result.retryable, result.usage) == ("INVALID_RESULT", None, None)


@pytest.mark.parametrize("amount", ["0", "007", "1.", "0.0025", "1" * 40, "1" * 20 + "." + "1" * 20])
def test_exact_decimals_are_taken_as_they_come(amount: str) -> None:
    """U1."""
    message = pb.WorkerMessage(complete=pb.Complete(token="a", usage=pb.UsageTotals(amounts={"u": amount})))
    result = ended(attached(), message).result
    assert (result.outcome, result.usage) == (AttemptOutcome.SUCCEEDED, {"u": amount})


def test_a_failure_says_what_the_worker_said() -> None:
    """E1, T1: the worker's own word, and its advice."""
    fail = pb.Fail(
        token="a",
        code="BUSY",
        message="try later",
        details=payload_pb2.Payload(json='{"q":9}'),
        retryable=True,
        causes=[failure_pb2.Failure(code="DEEPER", message="why")],
        usage=pb.UsageTotals(amounts={"u": "1"}),
    )
    result = ended(attached(), pb.WorkerMessage(fail=fail)).result
    assert (result.outcome, result.retryable, result.usage) == (AttemptOutcome.FAILED, True, {"u": "1"})
    failure = result.failure
    assert failure is not None
    assert (failure.code, failure.message, failure.details) == ("BUSY", "try later", Payload('{"q":9}'))
    assert [cause.code for cause in failure.causes] == ["DEEPER"]


def test_what_is_wrong_with_a_failure_is_said_and_the_failure_stands() -> None:
    fail = pb.Fail(
        token="a", code="C", message="broken", details=payload_pb2.Payload(json="{"), retryable=True
    )
    result = ended(attached(), pb.WorkerMessage(fail=fail)).result
    assert result.failure is not None
    assert (result.failure.code, result.failure.details, result.retryable) == ("C", None, True)
    assert result.failure.message.startswith("broken (its details were dropped")
    result = ended(attached(), pb.WorkerMessage(fail=pb.Fail(token="a", code="no code"))).result
    assert result.failure is not None
    assert result.failure.code == "UNKNOWN"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("[" + "[]," * 300_000 + "1]", ""),
        ("[" + "[]," * 300_000 + "NaN]", "INVALID_RESULT"),
        ("[" + "[]," * 400_000 + "1]", "TOO_LARGE"),
    ],
    ids=["fine", "no JSON", "too large"],
)
def test_a_result_of_many_values_is_checked_in_slices(text: str, code: str) -> None:
    """Others run in between; what came before it is not held up, and the order stays."""
    output = payload_pb2.Payload(json=text)
    complete = pb.WorkerMessage(complete=pb.Complete(token="a", output=output))
    pong = pb.WorkerMessage(pong=pb.Pong(number=1))
    pieces = list(attached().receive(pb.AttachRequest(messages=[pong, complete, pong]).SerializeToString()))
    assert pieces[0] == [Ponged(1)]
    assert len(pieces) > 5 or code == "TOO_LARGE"
    (event, last) = [event for events in pieces[1:] for event in events]
    assert last == Ponged(1)
    assert isinstance(event, Ended)
    if code:
        assert event.result.failure is not None
        assert event.result.failure.code == code
    else:
        assert event.result.output == Payload(text)


def test_details_of_many_values_are_dropped() -> None:
    details = payload_pb2.Payload(json="[" + "[]," * 300_000 + "1]")
    result = ended(attached(), pb.WorkerMessage(fail=pb.Fail(token="a", code="C", details=details))).result
    assert result.failure is not None
    assert result.failure.details is None
    assert "too many values" in result.failure.message


def test_a_token_that_would_have_to_be_sent_back_is_bounded() -> None:
    session = attached()
    ended(session, pb.WorkerMessage(complete=pb.Complete(token="x" * TOKEN_BYTES_MAX)))
    with pytest.raises(ProtocolViolation, match="token"):
        receive(session, pb.WorkerMessage(complete=pb.Complete(token="x" * (TOKEN_BYTES_MAX + 1))))
    with pytest.raises(ProtocolViolation, match="token"):
        receive(attached(), pb.WorkerMessage(fail=pb.Fail(token="x" * (TOKEN_BYTES_MAX + 1))))


def test_a_large_frame_comes_in_pieces_in_order() -> None:
    session = attached()
    pongs = [pb.WorkerMessage(pong=pb.Pong(number=number)) for number in range(1, 10_001)]
    pieces = list(session.receive(pb.AttachRequest(messages=pongs).SerializeToString()))
    assert [event.number for events in pieces for event in events if isinstance(event, Ponged)] == list(
        range(1, 10_001)
    )
    assert max(map(len, pieces)) <= 500


# Out.


def test_nothing_is_sent_before_welcome_and_it_is_first() -> None:
    session = ServerSession()
    receive(session, pb.WorkerMessage(hello=HELLO))
    session.recorded("a", Disposition.STALE)
    session.assign("b", assignment(), "key")
    assert session.take_frame() is None
    session.welcome(server_version="1", server_instance_id="s", ping_s=5.0, lease_s=15.0, reject_pause_s=1.0)
    assert kinds(session) == ["welcome", "recorded", "assign"]
    assert session.take_frame() is None


def test_an_assign_says_all_that_a_handler_may_ask_for() -> None:
    session = attached()
    key = AttemptKey("default", "x", 2, "loop/a", 3)
    session.assign(
        "one",
        assignment()._replace(
            key=key, time_left_s=60.0, traceparent="00-1-2-01", tracestate="a=b", branch="0-002"
        ),
        "default/x/a",
    )
    session.assign(
        "two", assignment()._replace(input_json="", input_digest="d" * 64, input_size_bytes=40_000), "k"
    )
    frame = session.take_frame()
    assert frame is not None
    one, two = (message.assign for message in frame.messages)
    assert (one.token, one.execution_id, one.node_path, one.attempt, one.run) == ("one", "x", "loop/a", 3, 2)
    assert (one.type, one.input.json, one.time_left.ToSeconds()) == ("t", "1", 60)
    assert (one.traceparent, one.idempotency_key) == ("00-1-2-01", "default/x/a")
    assert (one.tracestate, one.branch) == ("a=b", "0-002")
    assert (two.input.json, two.input.digest, two.input.size_bytes) == ("", "d" * 64, 40_000)
    assert not two.HasField("time_left")


@pytest.mark.parametrize("disposition", list(Disposition))
def test_each_answer_has_its_name_on_the_wire(disposition: Disposition) -> None:
    session = attached()
    session.recorded("a", disposition)
    frame = session.take_frame()
    assert frame is not None
    recorded = frame.messages[0].recorded
    assert recorded.token == "a"
    assert pb.RecordedResult.Name(recorded.result) == f"RECORDED_RESULT_{disposition.name}"


def test_control_messages_overtake_assigns() -> None:
    session = attached()
    for path in "abc":
        session.assign(path, assignment(path), "key")
    session.cancel("x", "CANCELLED", 10.0)
    session.ping(1)
    session.recorded("y", Disposition.RECORDED)
    assert kinds(session) == ["cancel", "ping", "recorded", "assign", "assign", "assign"]


def test_frames_are_full_and_not_over_full() -> None:
    session = attached()
    for number in range(5):
        session.assign(f"t{number}", assignment(f"n{number}", '"' + "é" * 200_000 + '"'), "key")
    session.assign("huge", assignment("huge", '"' + "x" * 2_000_000 + '"'), "key")
    paths: list[list[str]] = []
    while (frame := session.take_frame()) is not None:
        paths.append([message.assign.node_path for message in frame.messages])
        assert frame.ByteSize() <= FRAME_BYTES_MAX or len(frame.messages) == 1
    assert paths == [["n0", "n1"], ["n2", "n3"], ["n4"], ["huge"]]


def test_what_was_not_sent_is_withdrawn_and_what_was_is_not() -> None:
    session = attached()
    for path in "abc":
        session.assign(path, assignment(path), "key")
    assert session.withdraw("b")
    assert not session.withdraw("b")
    frame = session.take_frame()
    assert frame is not None
    assert [message.assign.token for message in frame.messages] == ["a", "c"]
    assert not session.withdraw("a")
    assert session.take_frame() is None


def test_what_waits_for_a_worker_that_does_not_read_is_counted() -> None:
    session = attached()
    token = "x" * TOKEN_BYTES_MAX
    for _ in range(CONTROL_BYTES_MAX // (TOKEN_BYTES_MAX + 64)):
        session.recorded(token, Disposition.STALE)
    assert not session.is_overfull
    for _ in range(100):
        session.cancel(token, "STALE", 10.0)
    assert session.is_overfull
    # One that reads is never over-full, however much it was told in all.
    while session.take_frame() is not None:
        pass
    for _ in range(3):
        for _ in range(CONTROL_BYTES_MAX // (TOKEN_BYTES_MAX + 64)):
            session.recorded(token, Disposition.STALE)
        assert not session.is_overfull
        while session.take_frame() is not None:
            pass
