"""Checks that the spans that must have arrived at the collector did (B2.1).

A span is due at a start of the server for one of two reasons: the event that completes it became durable during that
start, or the execution was open when the server started, so that its earlier events are told again. Each start must
hand over in time, and send, the spans that are due, unless the server died first or the collector made trouble.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from plait_server.telemetry.span_observer import GATHER_S
from plait_server.testing.simulation.collector import BATCH_WAIT_S, WAY_S, Collector, Tracing
from plait_server.testing.simulation.span_law import ExpectedSpan
from plait_server.testing.simulation.store import Durable

LATE_S: Final = GATHER_S + BATCH_WAIT_S + 0.01
"""The longest time between a durable event and the handing over of its spans, in seconds."""
SEND_S: Final = 4 * 2 * WAY_S + 0.01
"""The longest time between the handing over of a span and its arrival: up to three batches are sent before its own."""


def missing_span(durable: Durable, expected: Mapping[bytes, ExpectedSpan], collector: Collector) -> str:
    """Return which span of a sampled execution should have been sent and was not; empty if none."""
    for span_id, span in expected.items():
        for tracing, due_s in _due(durable, span.sequence, collector):
            handed_s = tracing.handed.get(span_id)
            if handed_s is None and tracing.is_stopped and due_s <= tracing.ended_s:
                return (
                    f"the span of {span.label} was not handed over by server {tracing.number}, which stopped"
                )
            if (handed_s if handed_s is not None else tracing.ended_s) > due_s + LATE_S:
                return (
                    f"the span of {span.label} was due at {due_s:.3f} at server {tracing.number}, "
                    f"and handed over at {handed_s}"
                )
            if handed_s is None or span_id in collector.spans or span_id in tracing.troubled:
                continue
            had_time = tracing.is_stopped or tracing.ended_s > handed_s + SEND_S
            if had_time and tracing.ended_s > tracing.trouble_until_s:
                return f"the span of {span.label}, handed over by server {tracing.number}, did not arrive"
    return ""


def _due(durable: Durable, sequence: int, collector: Collector) -> Iterator[tuple[Tracing, float]]:
    """Find the starts of the server at which the spans that an event completes are due, and since when."""
    written = durable.written[sequence - 1]
    last_start = durable.written[-1].start
    for tracing in collector.tracings[written.start - 1 : last_start]:
        if tracing.number == written.start:
            yield tracing, written.time_s
        else:  # It was open when this one started.
            yield tracing, max(tracing.ready_s, tracing.room_s)
