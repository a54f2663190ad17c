"""The trace context that is sent with a submission (W3C Trace Context): the parent of the execution's span (B2).

It is the one that the caller passes, else that of the current OpenTelemetry span, if the program has imported
OpenTelemetry. A context that is not valid is not sent: the execution then begins a new trace.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, NamedTuple

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-[ -~]*)?")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
TRACESTATE_CHARS_MAX: Final = 512
"""The server drops a longer one, so it is not sent."""


class CallerTrace(NamedTuple):
    """The trace context of the caller; empty if it has none."""

    traceparent: str
    tracestate: str
    is_explicit: bool

    @property
    def metadata(self) -> tuple[tuple[str, str], ...]:
        """The headers of the call."""
        headers = (("traceparent", self.traceparent), ("tracestate", self.tracestate))
        return tuple(header for header in headers if header[1])

    @contextmanager
    def as_parent(self) -> Generator[None, None, None]:
        """Make the caller's context the parent of the span that instrumentation makes of a call.

        Instrumentation of gRPC sends its own span instead of the header. Without this, that span would be a child of
        the current one, and the execution would be in the wrong trace.
        """
        if not (self.is_explicit and self.traceparent and "opentelemetry.trace" in sys.modules):
            yield
            return
        from opentelemetry import context  # noqa: PLC0415 - the program has imported it.
        from opentelemetry.trace.propagation import tracecontext  # noqa: PLC0415 - as above.

        propagator = tracecontext.TraceContextTextMapPropagator()
        token = context.attach(propagator.extract(dict(self.metadata), context.get_current()))
        try:
            yield
        finally:
            context.detach(token)


def caller_trace(traceparent: str, tracestate: str) -> CallerTrace:
    """Return the trace context to send with a call.

    Args:
        traceparent: that of the parent; empty: the current span's.
        tracestate: the one that belongs to `traceparent`.
    """
    is_explicit = bool(traceparent)
    if not is_explicit:
        traceparent, tracestate = _current()
    if not _is_valid(traceparent):
        return CallerTrace("", "", is_explicit)
    is_sendable = (
        len(tracestate) <= TRACESTATE_CHARS_MAX and tracestate.isascii() and tracestate.isprintable()
    )
    return CallerTrace(traceparent, tracestate if is_sendable else "", is_explicit)


def _current() -> tuple[str, str]:
    if "opentelemetry.trace" not in sys.modules:
        return "", ""
    from opentelemetry import trace  # noqa: PLC0415 - the program has imported it.

    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return "", ""
    trace_id, span_id = trace.format_trace_id(span.trace_id), trace.format_span_id(span.span_id)
    return f"00-{trace_id}-{span_id}-{span.trace_flags:02x}", span.trace_state.to_header()


def _is_valid(traceparent: str) -> bool:
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return False
    version, trace_id, span_id, _, rest = match.groups()
    return (
        version != "ff" and not (version == "00" and rest) and trace_id != _NO_TRACE and span_id != _NO_SPAN
    )
