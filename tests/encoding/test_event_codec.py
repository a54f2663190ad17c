"""A1: events come back from the journal as the machine made them."""

from __future__ import annotations

import contextlib
from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plait.v1 import event_pb2
from plait_server.core.run import events
from plait_server.core.run.events import Event
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import AttemptOutcome, CancelStage, ExecutionState, NodeState, Treatment
from plait_server.encoding.event_codec import (
    decode_event,
    duration,
    encode_event,
    seconds_of_duration,
    seconds_of_timestamp,
    timestamp,
)
from plait_server.errors import EventDamaged

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
MICROS = st.integers(0, 4 * 10**15)
TIMES = MICROS.map(lambda micros: round(micros / 1_000_000, 6))
LATER = st.integers(1, 4 * 10**15).map(lambda micros: round(micros / 1_000_000, 6))
DIGESTS = st.builds(Payload, st.just(""), st.just("0f" * 32), st.integers(1, 2**40))
INLINE = st.sampled_from(("null", '"ä"', '{"a":[1,2.50]}', "123456789012345678901234567890")).map(Payload)
PAYLOADS = INLINE | DIGESTS
MAYBE = st.none() | PAYLOADS
FAILURES = st.builds(
    Failure,
    code=st.sampled_from(("UNKNOWN", "POISON")),
    message=TEXT,
    details=MAYBE,
    causes=st.lists(st.builds(Failure, code=TEXT), max_size=3).map(tuple),
    retryable=st.booleans(),
    node_path=TEXT,
    attempt=st.integers(0, 1_000),
)
PLACES = st.sets(st.integers(0, 10_000), max_size=5).map(sorted).map(tuple)
USAGE = st.dictionaries(TEXT, st.sampled_from(("1", "0.0025")), max_size=3)
DETAILS = {
    events.ExecutionSubmitted: st.builds(
        events.ExecutionSubmitted,
        TEXT,
        TEXT,
        TEXT,
        TEXT,
        PAYLOADS,
        st.dictionaries(TEXT, TEXT, max_size=3),
        st.integers(0, 100),
        TEXT,
        st.integers(0, 100_000),
    ),
    events.ExecutionStarted: st.builds(events.ExecutionStarted),
    events.AttemptStarted: st.builds(events.AttemptStarted, TEXT, TEXT, TIMES, MAYBE),
    events.AttemptEnded: st.builds(
        events.AttemptEnded,
        st.sampled_from(AttemptOutcome),
        MAYBE,
        st.none() | FAILURES,
        USAGE,
        st.just(0.0) | LATER,
        PLACES,
        st.sampled_from(Treatment),
    ),
    events.NodeEnded: st.builds(
        events.NodeEnded, MAYBE, st.none() | FAILURES, PLACES, st.sampled_from(Treatment)
    ),
    events.NodeWaiting: st.builds(events.NodeWaiting, TIMES, MAYBE),
    events.NodeIdled: st.builds(events.NodeIdled),
    events.ScopeOpened: st.builds(
        events.ScopeOpened, TEXT, PAYLOADS, st.integers(0, 100_000), st.integers(0, 100_000), TEXT, TEXT
    ),
    events.ScopeEnded: st.builds(
        events.ScopeEnded, TEXT, st.sampled_from(ExecutionState), st.none() | FAILURES
    ),
    events.CancelRequested: st.builds(events.CancelRequested, TEXT),
    events.UsageReported: st.builds(events.UsageReported, st.dictionaries(TEXT, TEXT, max_size=3)),
    events.CancelReceipt: st.builds(events.CancelReceipt, st.sampled_from(CancelStage), TEXT),
    events.ExecutionEnded: st.builds(
        events.ExecutionEnded, MAYBE, st.none() | FAILURES, st.integers(0, 100_000)
    ),
}
EVENTS = st.builds(
    Event,
    st.integers(1, 2**53),
    TIMES,
    st.integers(1, 2**31 - 1),
    TEXT,
    st.integers(0, 2**31 - 1),
    TEXT,
    st.none() | st.sampled_from(NodeState),
    st.none() | st.sampled_from(ExecutionState),
    TEXT,
    st.one_of(*DETAILS.values()),
)


def test_every_detail_of_the_core_has_a_strategy_here() -> None:
    assert set(DETAILS) == set(get_args(events.Detail))


def test_every_event_type_of_the_contract_is_written() -> None:
    written = {
        event_pb2.Event.FromString(encode_event(an_event(strategy_type))).type for strategy_type in DETAILS
    }
    assert written == set(event_pb2.EventType.values()) - {event_pb2.EVENT_TYPE_UNSPECIFIED}


def an_event(detail_type: type) -> Event:
    fields: dict[type, tuple[object, ...]] = {
        events.ExecutionSubmitted: ("x", "g", "d", "a", Payload("1"), {}, 1, "", 1),
        events.AttemptStarted: ("w", "w.1", 0.0),
        events.AttemptEnded: (AttemptOutcome.LOST,),
        events.NodeWaiting: (1.0,),
        events.CancelRequested: ("",),
        events.CancelReceipt: (CancelStage.EXITED, "w"),
        events.UsageReported: ({},),
        events.ScopeOpened: ("a", Payload("1"), 1, 0),
        events.ScopeEnded: ("a", ExecutionState.FAILED),
    }
    return Event(1, 1.0, 1, "", 0, "0", None, None, "", detail_type(*fields.get(detail_type, ())))


@given(EVENTS)
@example(an_event(events.CancelRequested))
@example(an_event(events.NodeEnded))
@example(an_event(events.ExecutionEnded))
def test_an_event_comes_back_equal(event: Event) -> None:
    """A1: live and replayed state must not differ."""
    assert decode_event(encode_event(event)) == event


@given(EVENTS)
def test_the_same_event_gives_the_same_bytes(event: Event) -> None:
    """DESIGN 6: checksums are chained over the bytes."""
    assert encode_event(decode_event(encode_event(event))) == encode_event(event)


@given(MICROS)
def test_times_are_kept_to_the_microsecond(micros: int) -> None:
    time_s = round(micros / 1_000_000, 6)
    assert seconds_of_timestamp(timestamp(time_s)) == time_s
    assert seconds_of_duration(duration(time_s)) == time_s
    assert timestamp(time_s).nanos % 1000 == 0


@given(st.binary(max_size=200))
def test_any_bytes_are_an_event_or_damaged(content: bytes) -> None:
    """K4: nothing else is raised, so that only this execution is quarantined."""
    try:
        decode_event(content)
    except EventDamaged as error:
        assert "upgrade" in str(error)  # noqa: PT017 # either outcome is right


@given(EVENTS, st.integers(0, 10_000), st.integers(1, 255))
def test_a_damaged_event_is_an_event_or_damaged(event: Event, place: int, flip: int) -> None:
    """K4."""
    content = bytearray(encode_event(event))
    content[place % len(content)] ^= flip
    with contextlib.suppress(EventDamaged):
        decode_event(bytes(content))


@pytest.mark.parametrize(
    "message",
    [
        event_pb2.Event(sequence=1),
        event_pb2.Event(sequence=1, type=999),  # type: ignore[arg-type] # of a version to come
        event_pb2.Event(sequence=1, type=event_pb2.EVENT_TYPE_NODE_IDLED, node_state=99),  # type: ignore[arg-type] # likewise
    ],
    ids=["no type", "unknown type", "unknown state"],
)
def test_an_event_of_a_newer_version_is_refused(message: event_pb2.Event) -> None:
    """FAILURES 12: unknown event types stop the execution and are not skipped."""
    with pytest.raises(EventDamaged):
        decode_event(message.SerializeToString())
