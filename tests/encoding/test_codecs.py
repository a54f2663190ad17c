"""Events, failures and executions as messages: what goes in comes out, within the limits."""

import contextlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from plait.v1 import event_pb2
from plait_server.core.definition.graph import Policy
from plait_server.core.run import events
from plait_server.core.run.events import Event
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import (
    AttemptOutcome,
    CancelStage,
    ExecutionState,
    NodeState,
    PauseMode,
    Treatment,
)
from plait_server.encoding.event_codec import (
    decode_event,
    duration,
    encode_event,
    seconds_of_duration,
    seconds_of_timestamp,
    timestamp,
)
from plait_server.encoding.failure_codec import (
    failure_from_proto,
    failure_to_proto,
    payload_from_proto,
    payload_to_proto,
)
from plait_server.errors import EventDamaged

texts = st.text(max_size=8)
counts = st.integers(0, 2**31 - 1)
# To the microsecond, up to the year 2243; a float holds that.
wall = st.integers(1, 2**53 - 1).map(lambda micros: micros / 1_000_000)
spans = st.integers(0, 10**6 * 86_400 * 365).map(lambda micros: micros / 1_000_000)
payloads = st.one_of(
    st.text(min_size=1, max_size=8).map(Payload),
    st.integers(0, 2**40).map(lambda size: Payload("", "d" * 64, size)),
)
failures = st.recursive(
    st.builds(
        Failure,
        code=texts,
        message=texts,
        details=st.none() | payloads,
        retryable=st.booleans(),
        node_path=texts,
        attempt=counts,
    ),
    lambda inner: st.builds(Failure, code=texts, causes=st.lists(inner, max_size=3).map(tuple)),
    max_leaves=6,
)
amounts = st.dictionaries(texts, texts, max_size=3)
positions = st.sets(st.integers(0, 10_000), max_size=4).map(sorted).map(tuple)
ends = {
    "output": st.none() | payloads,
    "failure": st.none() | failures,
    "edges_false": positions,
    "treatment": st.sampled_from(Treatment),
    "edges_not_taken": st.lists(st.builds(events.EdgeName, texts, texts), max_size=3).map(tuple),
}

DETAILS: dict[type, st.SearchStrategy[events.Detail]] = {
    events.ExecutionSubmitted: st.builds(
        events.ExecutionSubmitted,
        execution_id=texts,
        graph_name=texts,
        graph_digest=texts,
        analysis_digest=texts,
        input=payloads,
        labels=amounts,
        semantics_version=counts,
        traceparent=texts,
        node_count=counts,
        parent_span_id=texts,
        tracestate=texts,
        priority=st.integers(-1_000, 1_000),
    ),
    events.ExecutionStarted: st.builds(events.ExecutionStarted),
    events.AttemptStarted: st.builds(
        events.AttemptStarted,
        worker_id=texts,
        worker_instance_id=texts,
        queue_s=spans,
        input=st.none() | payloads,
        concurrency_key=texts,
    ),
    events.AttemptExtended: st.builds(events.AttemptExtended, deadline_s=wall),
    events.AttemptEnded: st.builds(
        events.AttemptEnded,
        outcome=st.sampled_from(AttemptOutcome),
        usage=amounts,
        retry_time_s=st.just(0.0) | wall,
        heartbeat_details=st.none() | payloads,
        **ends,
    ),
    events.NodeEnded: st.builds(events.NodeEnded, **ends),
    events.NodeWaiting: st.builds(events.NodeWaiting, due_time_s=wall, input=st.none() | payloads),
    events.NodeIdled: st.builds(events.NodeIdled),
    events.ScopeOpened: st.builds(
        events.ScopeOpened,
        scope_path=texts,
        input=payloads,
        node_count=counts,
        branches_before=counts,
        graph_digest=texts,
        analysis_digest=texts,
    ),
    events.ScopeEnded: st.builds(
        events.ScopeEnded,
        scope_path=texts,
        state=st.sampled_from(ExecutionState),
        failure=st.none() | failures,
    ),
    events.CancelRequested: st.builds(events.CancelRequested, message=texts),
    events.PauseRequested: st.builds(events.PauseRequested, mode=st.sampled_from(PauseMode), message=texts),
    events.ExecutionPaused: st.builds(events.ExecutionPaused),
    events.ExecutionResumed: st.builds(events.ExecutionResumed, data=payloads, message=texts),
    events.ExecutionUpdated: st.builds(
        events.ExecutionUpdated,
        priority=st.none() | st.integers(-1_000, 1_000),
        policy=st.none() | st.builds(Policy, max_concurrency=st.integers(0, 10_000)),
        locks=st.lists(
            st.builds(
                events.NodeLock,
                node_path=texts,
                is_locked=st.booleans(),
                output=st.none() | payloads,
            ),
            max_size=3,
        ).map(tuple),
    ),
    events.UsageReported: st.builds(events.UsageReported, usage=st.dictionaries(texts, texts, max_size=3)),
    events.CancelReceipt: st.builds(
        events.CancelReceipt, stage=st.sampled_from(CancelStage), worker_id=texts
    ),
    events.ExecutionEnded: st.builds(
        events.ExecutionEnded,
        output=st.none() | payloads,
        failure=st.none() | failures,
        failure_count=counts,
    ),
}
headers = st.builds(
    Event,
    sequence=st.integers(1, 2**63 - 1),
    time_s=wall,
    run=counts,
    node_path=texts,
    attempt=counts,
    branch=texts,
    node_state=st.none() | st.sampled_from(NodeState),
    execution_state=st.none() | st.sampled_from(ExecutionState),
    reason=texts,
    detail=st.just(events.NodeIdled()),
)


def test_every_type_of_event_is_tried() -> None:
    assert set(DETAILS) == set(events.Detail.__args__)


def test_every_event_type_of_the_contract_has_a_detail() -> None:
    assert len(DETAILS) == len(set(event_pb2.EventType.values()) - {event_pb2.EVENT_TYPE_UNSPECIFIED})


@pytest.mark.parametrize("each", list(DETAILS), ids=lambda each: each.__name__)
@given(headers, st.data())
def test_an_event_comes_back_as_it_was(each: type, header: Event, data: st.DataObject) -> None:
    """A1: live and replayed state do not differ."""
    event = header._replace(detail=data.draw(DETAILS[each]))
    content = encode_event(event)
    decoded = decode_event(content)
    assert decoded == event
    assert type(decoded.detail) is each
    # DESIGN 6: checksums are chained over the bytes.
    assert encode_event(decoded) == content
    assert encode_event(decoded) == content


@given(wall)
@example(4409482506.864569)
def test_times_are_kept_to_the_microsecond(time_s: float) -> None:
    assert seconds_of_timestamp(timestamp(time_s)) == time_s
    assert timestamp(time_s).nanos % 1000 == 0


@given(spans)
def test_durations_are_kept_to_the_microsecond(span_s: float) -> None:
    assert seconds_of_duration(duration(span_s)) == span_s


@pytest.mark.parametrize("number", [0, 9_999])
def test_an_event_of_an_unknown_type_is_damaged(number: int) -> None:
    message = event_pb2.Event(sequence=1, type=number)  # type: ignore[arg-type] # what a newer version writes
    with pytest.raises(EventDamaged):
        decode_event(message.SerializeToString())


@pytest.mark.parametrize("field", ["node_state", "execution_state"])
def test_an_event_of_an_unknown_state_is_damaged(field: str) -> None:
    message = event_pb2.Event(sequence=1, type=event_pb2.EVENT_TYPE_NODE_IDLED)
    setattr(message, field, 9_999)
    with pytest.raises(EventDamaged):
        decode_event(message.SerializeToString())


def test_an_unknown_outcome_is_damaged() -> None:
    message = event_pb2.Event(sequence=1, type=event_pb2.EVENT_TYPE_ATTEMPT_ENDED)
    with pytest.raises(EventDamaged):
        decode_event(message.SerializeToString())


@given(st.binary())
def test_any_bytes_are_an_event_or_damaged(content: bytes) -> None:
    try:
        event = decode_event(content)
    except EventDamaged:
        return
    assert isinstance(event, Event)


@given(headers, st.data())
def test_a_cut_event_is_never_another_error(header: Event, data: st.DataObject) -> None:
    event = header._replace(detail=data.draw(st.one_of(*DETAILS.values())))
    content = encode_event(event)
    cut = content[: data.draw(st.integers(0, len(content)))]
    with contextlib.suppress(EventDamaged):
        decode_event(cut)


# Payloads and failures.


@given(payloads)
def test_a_payload_comes_back_as_it_was(payload: Payload) -> None:
    assert payload_from_proto(payload_to_proto(payload)) == payload


@given(failures)
def test_a_failure_comes_back_as_it_was(failure: Failure) -> None:
    assert failure_from_proto(failure_to_proto(failure)) == failure
