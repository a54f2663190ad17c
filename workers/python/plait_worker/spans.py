"""The spans of handlers, made by OpenTelemetry's API. Only `tracing` imports this, if the API is installed.

What is behind the API (samplers, span processors) belongs to the program: an exception from there is logged once, and
does not fail the attempt.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AttributeValue

from plait_worker.failures import FailureReport
from plait_worker.session_events import Assigned

logger = logging.getLogger("plait_worker")

TIMEOUT_REASONS: Final = frozenset({"DEADLINE", "TIMED_OUT"})
"""The reasons of a cancel that make the span an error, as the attempt's span is then."""

# The constant is private, and the plain key is older; instrumentation checks both.
_SUPPRESSED_KEYS: Final = (
    getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation"),
    "suppress_instrumentation",
)
_W3C: Final = TraceContextTextMapPropagator()


class HandlerSpan:
    """The span of one handler."""

    __slots__ = ("_end_ns", "_span", "_tracer")

    def __init__(self, span: trace.Span, tracer: HandlerTracer) -> None:
        self._span = span
        self._tracer = tracer
        self._end_ns: int | None = None

    def stop(self) -> None:
        """Note that the handler has ended; the span will end at this time."""
        self._end_ns = time.time_ns()

    def end(self, outcome: object, cancel_reason: str) -> None:
        """End the span, at the time of `stop` if that was called.

        Args:
            outcome: the handler's result or failure; anything else if it has none.
            cancel_reason: why the attempt was cancelled; empty if it was not.
        """
        try:
            if self._span.is_recording():
                self._describe(outcome, cancel_reason)
            self._span.end(self._end_ns)
        except Exception as error:  # noqa: BLE001 - from the program's code.
            self._tracer.tell_problem(error)

    def _describe(self, outcome: object, cancel_reason: str) -> None:
        span = self._span
        if cancel_reason:
            span.set_attribute("plait.cancel.reason", cancel_reason)
        is_timeout = cancel_reason in TIMEOUT_REASONS
        if isinstance(outcome, FailureReport):
            exception: dict[str, AttributeValue] = {
                "exception.type": outcome.exception or outcome.code,
                "exception.message": outcome.message,
            }
            if outcome.traceback:
                exception["exception.stacktrace"] = outcome.traceback
            span.add_event("exception", exception)
            # For a cancelled handler, raising is a way to end, not a failure.
            if not cancel_reason or is_timeout:
                span.set_attribute("error.type", outcome.code)
                span.set_status(trace.StatusCode.ERROR, outcome.message)
        elif is_timeout and not isinstance(outcome, str):
            span.set_attribute("error.type", "DEADLINE_EXCEEDED")
            span.set_status(trace.StatusCode.ERROR, "the attempt's time ran out")


class HandlerTracer:
    """Makes the spans of one worker's handlers. Thread-safe.

    Args:
        namespace: the namespace served.
        worker_id: the worker's id.
    """

    def __init__(self, namespace: str, worker_id: str) -> None:
        # A proxy, if no provider is set yet: it uses the one that is set when a span begins.
        self._tracer = trace.get_tracer("plait_worker")
        self._attributes: dict[str, AttributeValue] = {
            "plait.namespace": namespace,
            "plait.worker.id": worker_id,
        }
        self._has_told = False

    def begin(self, assigned: Assigned) -> HandlerSpan | None:
        """Begin the span of an attempt's handler, and make it current in the caller's context.

        Call it in a context of the handler's own, where the span remains current. It replaces OpenTelemetry's context
        of the worker: a span that was current when `Worker.run` was called, and the suppression of instrumentation.

        Returns:
            The span, to be ended by the caller; None if none was made.
        """
        parent = otel_context.Context()
        if not _is_needed():
            otel_context.attach(parent)
            return None
        try:
            carrier = {"traceparent": assigned.traceparent, "tracestate": assigned.tracestate}
            parent = _W3C.extract({name: text for name, text in carrier.items() if text}, parent)
            attributes = self._attributes | {
                "plait.execution.id": assigned.execution_id,
                "plait.run": assigned.run,
                "plait.node.path": assigned.node_path,
                "plait.node.type": assigned.type,
                "plait.attempt.number": assigned.attempt,
            }
            if assigned.branch:
                attributes["plait.branch.id"] = assigned.branch
            name = f"handle {assigned.type}"
            span = self._tracer.start_span(name, parent, kind=trace.SpanKind.SERVER, attributes=attributes)
        except Exception as error:  # noqa: BLE001 - as in HandlerSpan.end.
            otel_context.attach(parent)
            self.tell_problem(error)
            return None
        otel_context.attach(trace.set_span_in_context(span, parent))
        return HandlerSpan(span, self)

    def tell_problem(self, error: Exception) -> None:
        """Log once that spans cannot be made."""
        if not self._has_told:
            self._has_told = True
            logger.warning("spans of handlers are lost: OpenTelemetry raised %r", error, exc_info=error)


def _is_needed() -> bool:
    """Return whether spans may be recorded, or the trace passed on, for which `propagate` has to be imported.

    Checked for each handler, since a program may set up OpenTelemetry late. It saves 5 us of 6.
    """
    return "opentelemetry.propagate" in sys.modules or not isinstance(
        trace.get_tracer_provider(), trace.ProxyTracerProvider
    )


@contextmanager
def suppressed_instrumentation() -> Generator[None, None, None]:
    """Suppress instrumentation for what is called in this context."""
    context = otel_context.get_current()
    for key in _SUPPRESSED_KEYS:
        context = otel_context.set_value(key, True, context)
    token = otel_context.attach(context)
    try:
        yield
    finally:
        otel_context.detach(token)
