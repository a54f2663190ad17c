"""The trace context that goes with a submission, by W3C Trace Context: whose child the execution is (B2).

What the caller names wins; else it is the current span of OpenTelemetry, which is asked for only if the program has
imported it. A context that is not valid is not sent: the execution then begins a trace of its own.
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
"""What the server keeps; a longer one is not sent, for a part of it may name the wrong state."""


class CallerTrace(NamedTuple):
    """The caller's span, named to the server; empty if it has none."""

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
        """Have spans that instrumentation makes of a call be children of what the caller named.

        Instrumentation of gRPC sends its own span in place of the header: without this it would be a child of the
        current span, and the execution in the wrong trace.
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
    """Return what goes with a call.

    Args:
        traceparent: what the caller names; empty: the current span.
        tracestate: what goes with that.
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
