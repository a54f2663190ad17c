"""Spans as OTLP: what a collector reads is what was meant."""

from __future__ import annotations

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from plait_server.ports.span_sender import SpanLimits
from plait_server.telemetry.span_encoding import SpanEncoder
from plait_server.telemetry.spans import Span, SpanEvent, SpanKind, Trace

TRACE = Trace(bytes(range(16)), 1, "a=b", (("plait.namespace", "n"), ("plait.run", 1)))
PLAIN = Span(
    TRACE,
    b"12345678",
    b"",
    "node t",
    SpanKind.INTERNAL,
    1_000,
    2_000,
    (("plait.node.level", 2),),
    (("plait.node.path", "über"), ("plait.queue_s", 0.5)),
)
FULL = PLAIN._replace(
    span_id=b"abcdefgh",
    parent_id=b"12345678",
    kind=SpanKind.CONSUMER,
    events=tuple(SpanEvent("retry", time, (("plait.attempt.number", time),)) for time in (1, 2, 3)),
    links=(b"11111111", b"22222222", b"33333333"),
    links_dropped=5,
    events_dropped=7,
    error="UNAVAILABLE: no",
    has_remote_parent=True,
)


def read(encoder: SpanEncoder) -> list[trace_pb2.Span]:
    (resource,) = ExportTraceServiceRequest.FromString(encoder.take()).resource_spans
    (scope,) = resource.scope_spans
    return list(scope.spans)


def attributes(message: trace_pb2.Span | trace_pb2.Span.Event) -> dict[str, object]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in message.attributes
    }


def test_span_is_encoded() -> None:
    encoder = SpanEncoder({}, "1")
    size = encoder.add(PLAIN)
    (message,) = read(encoder)
    assert (message.trace_id, message.span_id, message.parent_span_id) == (bytes(range(16)), b"12345678", b"")
    assert (message.name, message.kind, message.trace_state) == ("node t", 1, "a=b")
    assert (message.start_time_unix_nano, message.end_time_unix_nano) == (1_000, 2_000)
    assert attributes(message) == {
        "plait.namespace": "n",
        "plait.run": 1,
        "plait.node.path": "über",
        "plait.node.level": 2,
        "plait.queue_s": 0.5,
    }
    assert message.flags == 0x101
    assert not message.HasField("status")
    assert message.ByteSize() < size < 1_000


def test_failure_events_and_links_are_encoded() -> None:
    encoder = SpanEncoder({}, "1")
    size = encoder.add(FULL)
    (message,) = read(encoder)
    assert size == message.ByteSize()
    assert (message.status.code, message.status.message) == (2, "UNAVAILABLE: no")
    assert [(event.name, event.time_unix_nano) for event in message.events] == [
        ("retry", 1),
        ("retry", 2),
        ("retry", 3),
    ]
    assert attributes(message.events[0]) == {"plait.attempt.number": 1}
    assert [(link.trace_id, link.span_id) for link in message.links] == [
        (bytes(range(16)), span_id) for span_id in FULL.links
    ]
    assert (message.dropped_links_count, message.dropped_events_count) == (5, 7)
    assert message.flags == 0x301, "its parent is of another process"


def test_limits_cut_and_count() -> None:
    """OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT and the others are kept; what is dropped is counted."""
    limits = SpanLimits(attributes_max=3, attribute_chars_max=2, events_max=1, links_max=2)
    encoder = SpanEncoder({}, "1", limits)
    encoder.add(FULL)
    (message,) = read(encoder)
    assert attributes(message) == {"plait.namespace": "n", "plait.run": 1, "plait.node.level": 2}
    assert message.dropped_attributes_count == 2
    assert [event.time_unix_nano for event in message.events] == [3]
    assert (message.dropped_events_count, message.dropped_links_count) == (9, 6)
    assert [link.span_id for link in message.links] == [b"11111111", b"22222222"]


def test_every_batch_has_the_resource() -> None:
    encoder = SpanEncoder({"service.name": "plait", "n": 1, "b": True, "f": 0.5}, "1.2")
    for count in (2, 1):
        for _ in range(count):
            encoder.add(PLAIN)
        assert len(encoder) == count
        (resource,) = trace_pb2.TracesData.FromString(encoder.take()).resource_spans
        values = {each.key: each.value.WhichOneof("value") for each in resource.resource.attributes}
        assert values == {
            "service.name": "string_value",
            "n": "int_value",
            "b": "bool_value",
            "f": "double_value",
        }
        (scope,) = resource.scope_spans
        assert (scope.scope.name, scope.scope.version, len(scope.spans)) == ("plait", "1.2", count)
    assert len(encoder) == 0


def test_spans_of_two_traces_do_not_mix() -> None:
    other = TRACE._replace(trace_id=bytes(16), attributes=(("plait.namespace", "m"),))
    encoder = SpanEncoder({}, "1")
    for trace in (TRACE, other, TRACE):
        encoder.add(PLAIN._replace(trace=trace))
    messages = read(encoder)
    assert [message.trace_id for message in messages] == [bytes(range(16)), bytes(16), bytes(range(16))]
    assert [attributes(message)["plait.namespace"] for message in messages] == ["n", "m", "n"]


def test_returned_size_is_an_upper_bound() -> None:
    """Batches are bounded by it, and a collector accepts 4 MiB."""
    long = "x" * 128
    trace = Trace(bytes(16), 1, "t" * 512, (("plait.namespace", long), ("plait.execution.id", long)))
    shared = (("plait.node.type", long), ("plait.worker.id", long), ("plait.worker.instance_id", long))
    own = (
        ("plait.node.id", long),
        ("plait.node.path", long),
        ("plait.branch.id", "0-100000" * 8),
        ("plait.branch.name", long),
        ("plait.node.level", 99_999),
        ("plait.queue_s", 0.5),
    )
    encoder = SpanEncoder({}, "1")
    size = encoder.add(PLAIN._replace(trace=trace, name=f"node {long}", shared=shared, attributes=own))
    (message,) = read(encoder)
    assert message.ByteSize() <= size
