"""How the span of a handler ends."""

import time

import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from plait_worker.failures import FailureReport
from plait_worker.spans import HandlerSpan, HandlerTracer
from tests.spans import provide_spans


def test_handler_that_fails_after_its_time_ran_out_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """B2.1: TIMED_OUT is a failure, and the handler's own exception says more."""
    spans = provide_spans(monkeypatch)
    span = HandlerSpan(trace.get_tracer(__name__).start_span("handle t"), HandlerTracer("default", "w"))
    span.end(FailureReport(code="UNKNOWN", message="OSError: closed", exception="OSError"), "DEADLINE")
    (ended_span,) = spans.all
    assert ended_span.status.status_code is StatusCode.ERROR
    assert ended_span.status.description == "OSError: closed"
    assert dict(ended_span.attributes or {}) == {"error.type": "UNKNOWN", "plait.cancel.reason": "DEADLINE"}


def test_span_ends_when_its_handler_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The span ends with the handler, before the worker's own work."""
    spans = provide_spans(monkeypatch)
    span = HandlerSpan(
        trace.get_tracer(__name__).start_span("handle t", start_time=1), HandlerTracer("default", "w")
    )
    span.stop()
    stopped_ns = time.time_ns()
    while time.time_ns() <= stopped_ns:
        pass
    span.end('"done"', "")
    (ended_span,) = spans.all
    assert ended_span.end_time is not None
    assert ended_span.end_time <= stopped_ns
