"""Events between the core and protobuf: encoded once, and those bytes are journaled and sent to watchers.

Times are kept to the microsecond. `decode_event(encode_event(event)) == event` for every event that the
machine makes: live and replayed state must not differ (A1).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, TypeAlias

from google.protobuf import duration_pb2, timestamp_pb2
from google.protobuf.message import DecodeError

from plait.v1 import event_pb2, payload_pb2
from plait_server.core.limits import EVENT_BYTES_MAX
from plait_server.core.run.events import (
    NO_USAGE,
    AttemptEnded,
    AttemptExtended,
    AttemptStarted,
    CancelReceipt,
    CancelRequested,
    Detail,
    EdgeName,
    Event,
    ExecutionEnded,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSubmitted,
    ExecutionUpdated,
    NodeEnded,
    NodeIdled,
    NodeWaiting,
    PauseRequested,
    ScopeEnded,
    ScopeOpened,
    UsageReported,
)
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import AttemptOutcome, CancelStage, ExecutionState, NodeState, Treatment
from plait_server.encoding.failure_codec import (
    failure_from_proto,
    failure_to_proto,
    payload_from_proto,
    payload_to_proto,
)
from plait_server.encoding.settings_codec import (
    decode_pause,
    decode_resumed,
    decode_updated,
    encode_pause,
    encode_resumed,
    encode_updated,
)
from plait_server.errors import EventDamaged, InvariantViolated

_MICROS: Final = 1_000_000

_Ended: TypeAlias = event_pb2.AttemptEnded | event_pb2.NodeEnded | event_pb2.ExecutionEnded

_TYPES: Final[dict[type, event_pb2.EventType]] = {
    ExecutionSubmitted: event_pb2.EVENT_TYPE_EXECUTION_SUBMITTED,
    ExecutionStarted: event_pb2.EVENT_TYPE_EXECUTION_STARTED,
    AttemptStarted: event_pb2.EVENT_TYPE_ATTEMPT_STARTED,
    AttemptExtended: event_pb2.EVENT_TYPE_ATTEMPT_EXTENDED,
    AttemptEnded: event_pb2.EVENT_TYPE_ATTEMPT_ENDED,
    NodeEnded: event_pb2.EVENT_TYPE_NODE_ENDED,
    NodeWaiting: event_pb2.EVENT_TYPE_NODE_WAITING,
    NodeIdled: event_pb2.EVENT_TYPE_NODE_IDLED,
    CancelRequested: event_pb2.EVENT_TYPE_CANCEL_REQUESTED,
    CancelReceipt: event_pb2.EVENT_TYPE_CANCEL_RECEIPT,
    ExecutionEnded: event_pb2.EVENT_TYPE_EXECUTION_ENDED,
    UsageReported: event_pb2.EVENT_TYPE_USAGE_REPORTED,
    ScopeOpened: event_pb2.EVENT_TYPE_SCOPE_OPENED,
    ScopeEnded: event_pb2.EVENT_TYPE_SCOPE_ENDED,
    PauseRequested: event_pb2.EVENT_TYPE_EXECUTION_PAUSE_REQUESTED,
    ExecutionPaused: event_pb2.EVENT_TYPE_EXECUTION_PAUSED,
    ExecutionResumed: event_pb2.EVENT_TYPE_EXECUTION_RESUMED,
    ExecutionUpdated: event_pb2.EVENT_TYPE_EXECUTION_UPDATED,
}


def timestamp(time_s: float) -> timestamp_pb2.Timestamp:
    """Write a wall time to the microsecond."""
    seconds, micros = divmod(_micros(time_s), _MICROS)
    return timestamp_pb2.Timestamp(seconds=seconds, nanos=micros * 1000)


def seconds_of_timestamp(message: timestamp_pb2.Timestamp) -> float:
    """Read a wall time, seconds since 1970."""
    return (message.seconds * _MICROS + message.nanos // 1000) / _MICROS


def duration(duration_s: float) -> duration_pb2.Duration:
    """Write a duration of at least 0 seconds to the microsecond."""
    seconds, micros = divmod(_micros(duration_s), _MICROS)
    return duration_pb2.Duration(seconds=seconds, nanos=micros * 1000)


def seconds_of_duration(message: duration_pb2.Duration) -> float:
    """Read a duration in seconds."""
    return (message.seconds * _MICROS + message.nanos // 1000) / _MICROS


def _micros(time_s: float) -> int:
    # Only the fraction is multiplied: the product of the whole is off by a microsecond from the year 2109 on.
    return int(time_s) * _MICROS + round(time_s % 1.0 * _MICROS)


def encode_event(event: Event) -> bytes:
    """Write an event in its public form.

    Raises:
        InvariantViolated: The event is over 256 KiB; the code that makes such events must bound their fields.
    """
    detail = event.detail
    message = event_pb2.Event(
        sequence=event.sequence,
        time=timestamp(event.time_s),
        type=_TYPES[type(detail)],
        run=event.run,
        node_path=event.node_path,
        attempt=event.attempt,
        branch=event.branch,
        # The core's numbers are the contract's.
        node_state=event.node_state or 0,  # type: ignore[arg-type] # an IntEnum of the same numbers
        execution_state=event.execution_state or 0,  # type: ignore[arg-type] # an IntEnum of the same numbers
        reason=event.reason,
    )
    encoder = _ENCODERS.get(type(detail))
    if encoder is not None:
        encoder(message, detail)
    content = message.SerializeToString(deterministic=True)
    if len(content) > EVENT_BYTES_MAX:
        text = (
            f"event {event.sequence}, {type(detail).__name__} of {event.node_path!r}, has {len(content)} bytes, over "
            f"the limit of {EVENT_BYTES_MAX}; please report this"
        )
        raise InvariantViolated(text)
    return content


def decode_event(content: bytes) -> Event:
    """Read an event of the journal.

    Raises:
        EventDamaged: The bytes are not an event, or of a type that this version does not know.
    """
    try:
        message = event_pb2.Event.FromString(content)
        detail = _DECODERS[message.type](message)
        return Event(
            message.sequence,
            seconds_of_timestamp(message.time),
            message.run,
            message.node_path,
            message.attempt,
            message.branch,
            NodeState(message.node_state) if message.node_state else None,
            ExecutionState(message.execution_state) if message.execution_state else None,
            message.reason,
            detail,
        )
    # DecodeError is protobuf's; KeyError and ValueError mean an event type or state of a newer version.
    except (DecodeError, KeyError, ValueError) as error:
        text = "an event cannot be read: it is damaged, or a newer version of Plait wrote it; upgrade, or restore it"
        raise EventDamaged(text) from error


def _encode_submitted(message: event_pb2.Event, detail: ExecutionSubmitted) -> None:
    target = message.execution_submitted
    target.execution_id = detail.execution_id
    target.graph_name = detail.graph_name
    target.graph_digest = detail.graph_digest
    target.analysis_digest = detail.analysis_digest
    target.input.CopyFrom(payload_to_proto(detail.input))
    target.labels.update(detail.labels)
    target.semantics_version = detail.semantics_version
    target.traceparent = detail.traceparent
    target.node_count = detail.node_count
    target.parent_span_id = detail.parent_span_id
    target.tracestate = detail.tracestate
    target.priority = detail.priority


def _encode_attempt_started(message: event_pb2.Event, detail: AttemptStarted) -> None:
    target = message.attempt_started
    target.worker_id = detail.worker_id
    target.worker_instance_id = detail.worker_instance_id
    if detail.queue_s:
        target.queue_time.CopyFrom(duration(detail.queue_s))
    if detail.input is not None:
        target.input.CopyFrom(payload_to_proto(detail.input))
    target.concurrency_key = detail.concurrency_key


def _encode_extended(message: event_pb2.Event, detail: AttemptExtended) -> None:
    message.attempt_extended.deadline_time.CopyFrom(timestamp(detail.deadline_s))


def _encode_attempt_ended(message: event_pb2.Event, detail: AttemptEnded) -> None:
    target = message.attempt_ended
    target.outcome = detail.outcome  # type: ignore[assignment] # an IntEnum of the same numbers
    if detail.output is not None:
        _set_payload(target.output, detail.output)
    if detail.failure is not None:
        target.failure.CopyFrom(failure_to_proto(detail.failure))
    if detail.usage:
        target.usage.update(detail.usage)
    if detail.retry_time_s:
        target.retry_time.CopyFrom(timestamp(detail.retry_time_s))
    if detail.edges_false:
        target.edges_false = _bits(detail.edges_false)
        target.edges_not_taken_count = len(detail.edges_false)
    if detail.edges_not_taken:
        target.edges_not_taken.extend(
            [event_pb2.EdgeName(handle=h, target=t) for h, t in detail.edges_not_taken]
        )
    if detail.treatment:
        target.treatment = detail.treatment  # type: ignore[assignment] # an IntEnum of the same numbers
    if detail.heartbeat_details is not None:
        _set_payload(target.heartbeat_details, detail.heartbeat_details)


def _encode_node_ended(message: event_pb2.Event, detail: NodeEnded) -> None:
    target = message.node_ended
    target.SetInParent()
    if detail.output is not None:
        _set_payload(target.output, detail.output)
    if detail.failure is not None:
        target.failure.CopyFrom(failure_to_proto(detail.failure))
    if detail.edges_false:
        target.edges_false = _bits(detail.edges_false)
        target.edges_not_taken_count = len(detail.edges_false)
    if detail.edges_not_taken:
        target.edges_not_taken.extend(
            [event_pb2.EdgeName(handle=h, target=t) for h, t in detail.edges_not_taken]
        )
    if detail.treatment:
        target.treatment = detail.treatment  # type: ignore[assignment] # an IntEnum of the same numbers


def _encode_waiting(message: event_pb2.Event, detail: NodeWaiting) -> None:
    target = message.node_waiting
    target.due_time.CopyFrom(timestamp(detail.due_time_s))
    if detail.input is not None:
        _set_payload(target.input, detail.input)


def _encode_cancel_requested(message: event_pb2.Event, detail: CancelRequested) -> None:
    message.cancel_requested.reason = detail.message
    message.cancel_requested.SetInParent()


def _encode_receipt(message: event_pb2.Event, detail: CancelReceipt) -> None:
    message.cancel_receipt.stage = detail.stage  # type: ignore[assignment] # an IntEnum of the same numbers
    message.cancel_receipt.worker_id = detail.worker_id


def _encode_usage(message: event_pb2.Event, detail: UsageReported) -> None:
    message.usage_reported.SetInParent()
    message.usage_reported.usage.update(detail.usage)


def _encode_ended(message: event_pb2.Event, detail: ExecutionEnded) -> None:
    target = message.execution_ended
    target.SetInParent()
    if detail.output is not None:
        _set_payload(target.output, detail.output)
    if detail.failure is not None:
        target.failure.CopyFrom(failure_to_proto(detail.failure))
    target.failure_count = detail.failure_count


def _encode_scope_opened(message: event_pb2.Event, detail: ScopeOpened) -> None:
    target = message.scope_opened
    target.scope_path = detail.scope_path
    _set_payload(target.input, detail.input)
    target.graph_digest = detail.graph_digest
    target.analysis_digest = detail.analysis_digest
    target.node_count = detail.node_count
    target.branches_before = detail.branches_before


def _encode_scope_ended(message: event_pb2.Event, detail: ScopeEnded) -> None:
    target = message.scope_ended
    target.scope_path = detail.scope_path
    target.state = detail.state  # type: ignore[assignment] # an IntEnum of the same numbers
    if detail.failure is not None:
        target.failure.CopyFrom(failure_to_proto(detail.failure))


# Each encoder takes its own detail type; the table matches them by type, which no signature can express.
_ENCODERS: Final[dict[type, Callable[[event_pb2.Event, Any], None]]] = {
    ExecutionSubmitted: _encode_submitted,
    AttemptStarted: _encode_attempt_started,
    AttemptExtended: _encode_extended,
    AttemptEnded: _encode_attempt_ended,
    NodeEnded: _encode_node_ended,
    NodeWaiting: _encode_waiting,
    CancelRequested: _encode_cancel_requested,
    CancelReceipt: _encode_receipt,
    ExecutionEnded: _encode_ended,
    UsageReported: _encode_usage,
    ScopeOpened: _encode_scope_opened,
    ScopeEnded: _encode_scope_ended,
    PauseRequested: encode_pause,
    ExecutionResumed: encode_resumed,
    ExecutionUpdated: encode_updated,
}


def _set_payload(target: payload_pb2.Payload, payload: Payload) -> None:
    if payload.digest:
        target.digest = payload.digest
        target.size_bytes = payload.size_bytes
    else:
        target.json = payload.json


def _bits(places: tuple[int, ...]) -> bytes:
    """Encode ascending positions as a bitmap: half a million edges take at most 62 KiB, whichever of them are set."""
    bits = bytearray(places[-1] // 8 + 1)
    for place in places:
        bits[place // 8] |= 1 << place % 8
    return bytes(bits)


def _places(bits: bytes) -> tuple[int, ...]:
    if not bits:
        return ()
    return tuple(
        8 * index + bit for index, byte in enumerate(bits) if byte for bit in range(8) if byte >> bit & 1
    )


def _names(edges: Iterable[event_pb2.EdgeName]) -> tuple[EdgeName, ...]:
    return tuple([EdgeName(edge.handle, edge.target) for edge in edges])


def _optional_payload(message: _Ended) -> Payload | None:
    return payload_from_proto(message.output) if message.HasField("output") else None


def _optional_failure(message: _Ended | event_pb2.ScopeEnded) -> Failure | None:
    return failure_from_proto(message.failure) if message.HasField("failure") else None


def _decode_submitted(message: event_pb2.Event) -> Detail:
    source = message.execution_submitted
    return ExecutionSubmitted(
        source.execution_id,
        source.graph_name,
        source.graph_digest,
        source.analysis_digest,
        payload_from_proto(source.input),
        dict(source.labels),
        source.semantics_version,
        source.traceparent,
        source.node_count,
        source.parent_span_id,
        source.tracestate,
        source.priority,
    )


def _decode_attempt_started(message: event_pb2.Event) -> Detail:
    source = message.attempt_started
    return AttemptStarted(
        source.worker_id,
        source.worker_instance_id,
        seconds_of_duration(source.queue_time),
        payload_from_proto(source.input) if source.HasField("input") else None,
        source.concurrency_key,
    )


def _decode_attempt_ended(message: event_pb2.Event) -> Detail:
    source = message.attempt_ended
    return AttemptEnded(
        AttemptOutcome(source.outcome),
        _optional_payload(source),
        _optional_failure(source),
        dict(source.usage) if source.usage else NO_USAGE,
        seconds_of_timestamp(source.retry_time) if source.HasField("retry_time") else 0.0,
        _places(source.edges_false),
        Treatment(source.treatment),
        _names(source.edges_not_taken) if source.edges_not_taken else (),
        payload_from_proto(source.heartbeat_details) if source.HasField("heartbeat_details") else None,
    )


def _decode_node_ended(message: event_pb2.Event) -> Detail:
    source = message.node_ended
    return NodeEnded(
        _optional_payload(source),
        _optional_failure(source),
        _places(source.edges_false),
        Treatment(source.treatment),
        _names(source.edges_not_taken) if source.edges_not_taken else (),
    )


def _decode_waiting(message: event_pb2.Event) -> Detail:
    source = message.node_waiting
    return NodeWaiting(
        seconds_of_timestamp(source.due_time),
        payload_from_proto(source.input) if source.HasField("input") else None,
    )


def _decode_ended(message: event_pb2.Event) -> Detail:
    source = message.execution_ended
    return ExecutionEnded(_optional_payload(source), _optional_failure(source), source.failure_count)


def _decode_scope_opened(message: event_pb2.Event) -> Detail:
    source = message.scope_opened
    return ScopeOpened(
        source.scope_path,
        payload_from_proto(source.input),
        source.node_count,
        source.branches_before,
        source.graph_digest,
        source.analysis_digest,
    )


def _decode_scope_ended(message: event_pb2.Event) -> Detail:
    source = message.scope_ended
    return ScopeEnded(source.scope_path, ExecutionState(source.state), _optional_failure(source))


_DECODERS: Final[dict[int, Callable[[event_pb2.Event], Detail]]] = {
    event_pb2.EVENT_TYPE_EXECUTION_SUBMITTED: _decode_submitted,
    event_pb2.EVENT_TYPE_EXECUTION_STARTED: lambda _: ExecutionStarted(),
    event_pb2.EVENT_TYPE_ATTEMPT_STARTED: _decode_attempt_started,
    event_pb2.EVENT_TYPE_ATTEMPT_EXTENDED: lambda message: AttemptExtended(
        seconds_of_timestamp(message.attempt_extended.deadline_time)
    ),
    event_pb2.EVENT_TYPE_ATTEMPT_ENDED: _decode_attempt_ended,
    event_pb2.EVENT_TYPE_NODE_ENDED: _decode_node_ended,
    event_pb2.EVENT_TYPE_NODE_WAITING: _decode_waiting,
    event_pb2.EVENT_TYPE_NODE_IDLED: lambda _: NodeIdled(),
    event_pb2.EVENT_TYPE_CANCEL_REQUESTED: lambda message: CancelRequested(message.cancel_requested.reason),
    event_pb2.EVENT_TYPE_CANCEL_RECEIPT: lambda message: CancelReceipt(
        CancelStage(message.cancel_receipt.stage),
        message.cancel_receipt.worker_id,
    ),
    event_pb2.EVENT_TYPE_EXECUTION_ENDED: _decode_ended,
    event_pb2.EVENT_TYPE_SCOPE_OPENED: _decode_scope_opened,
    event_pb2.EVENT_TYPE_SCOPE_ENDED: _decode_scope_ended,
    event_pb2.EVENT_TYPE_EXECUTION_PAUSE_REQUESTED: decode_pause,
    event_pb2.EVENT_TYPE_EXECUTION_PAUSED: lambda _: ExecutionPaused(),
    event_pb2.EVENT_TYPE_EXECUTION_RESUMED: decode_resumed,
    event_pb2.EVENT_TYPE_EXECUTION_UPDATED: decode_updated,
    event_pb2.EVENT_TYPE_USAGE_REPORTED: lambda message: UsageReported(dict(message.usage_reported.usage)),
}
