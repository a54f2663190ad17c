"""Compares the spans of an execution with the expected ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.proto.trace.v1 import trace_pb2

from plait_server.testing.simulation.callers import Caller
from plait_server.testing.simulation.span_law import ExpectedSpan, Pb, Value
from plait_server.testing.simulation.store import NAMESPACE

MESSAGE_CHARS: Final = 1_000
"""Characters of a failure's message in a span."""
SUM_ERROR: Final = 0.000_002
"""How much sums of times may differ, in seconds: they are added up in another order, and rounded."""
SPEEDUP_ERROR: Final = 0.001


def problem_of(
    expected: Mapping[bytes, ExpectedSpan],
    spans: Mapping[bytes, Pb],
    execution_id: str,
    caller: Caller,
) -> str:
    """Return what is wrong with the spans of an execution; empty if nothing is."""
    for span_id, wanted in expected.items():
        if span_id not in spans:
            return f"the span of {wanted.label} is missing"
    for span_id, span in spans.items():
        if span_id not in expected:
            return f"there is a span {span.name!r} that the law does not know: {span}"
        wanted = expected[span_id]
        problem = (
            _trace_problem(span, wanted, execution_id, caller)
            or _attributes_problem(span, wanted, execution_id)
            or _failure_problem(span, wanted)
            or _nesting_problem(span, spans)
        )
        if problem:
            return f"the span of {wanted.label}: {problem}"
    return ""


def _trace_problem(span: Pb, wanted: ExpectedSpan, execution_id: str, caller: Caller) -> str:
    is_remote = wanted.name == "execution" and bool(caller.span_id)
    links = [link.span_id for link in span.links]
    pairs: Sequence[tuple[str, object, object]] = (
        ("name", span.name, wanted.name),
        ("kind", span.kind, wanted.kind),
        ("trace", span.trace_id.hex(), caller.trace_of(execution_id)),
        ("parent", span.parent_span_id.hex(), wanted.parent.hex()),
        ("flags", span.flags, caller.flags | 0x100 | (0x200 if is_remote else 0)),
        ("tracestate", span.trace_state, caller.tracestate),
        ("start", span.start_time_unix_nano, wanted.start_ns),
        ("end", span.end_time_unix_nano, wanted.end_ns),
        ("links", sorted(links), sorted(links if wanted.links is None else wanted.links)),
        ("traces of links", {link.trace_id for link in span.links} <= {span.trace_id}, True),
        ("dropped", span.dropped_attributes_count + span.dropped_events_count + span.dropped_links_count, 0),
    )
    for what, got, right in pairs:
        if got != right:
            return f"{what}: {got}, and the law says {right}"
    return ""


def _attributes_problem(span: Pb, wanted: ExpectedSpan, execution_id: str) -> str:
    right: dict[str, Value] = {
        "plait.namespace": NAMESPACE,
        "plait.execution.id": execution_id,
        "plait.run": 1,
        **{key: value for key, value in wanted.attributes.items() if value != ""},
    }
    got = _values(span)
    if len(got) != len(span.attributes) or got.keys() != right.keys():
        return f"attributes: {sorted(got)}, and the law says {sorted(right)}"
    for key, value in right.items():
        found = got[key]
        if isinstance(value, float) and isinstance(found, float):
            is_right = abs(found - value) <= (SPEEDUP_ERROR if key == "plait.speedup" else SUM_ERROR)
        else:
            is_right = found == value and type(found) is type(value)
        if not is_right:
            return f"{key}: {found!r}, and the law says {value!r}"
    return ""


def _failure_problem(span: Pb, wanted: ExpectedSpan) -> str:
    is_error = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
    if is_error != bool(wanted.code) or (span.status.code != trace_pb2.Status.STATUS_CODE_UNSET) != is_error:
        return f"status {span.status.code}, and the law says {wanted.code or 'no error'}"
    failure = wanted.failure
    if wanted.code not in span.status.message:
        return f"its status says {span.status.message!r}, without {wanted.code}"
    if failure is not None and failure.message[: MESSAGE_CHARS - 100] not in span.status.message:
        return f"its status says {span.status.message!r}, without {failure.message!r}"
    retries = [_values(event)["plait.attempt.number"] for event in span.events if event.name == "retry"]
    if retries != list(wanted.retries):
        return f"retries {retries}, and the law says {wanted.retries}"
    told = [
        (_values(event), event.time_unix_nano == span.end_time_unix_nano)
        for event in span.events
        if event.name == "exception"
    ]
    right = (
        {"exception.type": failure.code, "exception.message": failure.message[:MESSAGE_CHARS]}
        if failure is not None
        else None
    )
    if told != ([(right, True)] if right is not None else []) or len(told) + len(retries) != len(span.events):
        return f"events {list(span.events)}, and the law says {right}"
    return ""


def _nesting_problem(span: Pb, spans: Mapping[bytes, Pb]) -> str:
    for link in span.links:
        if link.span_id not in spans:
            return f"it links to {link.span_id.hex()}, which there is not"
    if span.start_time_unix_nano > span.end_time_unix_nano:
        return "it ends before it starts"
    if span.name == "execution":
        return ""
    parent = spans.get(span.parent_span_id)
    if parent is None:
        return f"its parent {span.parent_span_id.hex()} does not exist"
    starts = parent.start_time_unix_nano <= span.start_time_unix_nano
    if not (starts and span.end_time_unix_nano <= parent.end_time_unix_nano):
        return f"it is not within its parent {parent.name!r}"
    return ""


def _values(holder: Pb | Pb.Event) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for each in holder.attributes:
        value: Value = getattr(each.value, each.value.WhichOneof("value") or "string_value")
        values[each.key] = value
    return values
