"""The callers' traces: sampled or not, missing, or named by headers that are not valid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Final, NamedTuple

from plait_server.core.run.trace import SpanIds, own_trace_id
from plait_server.testing.simulation.store import NAMESPACE

_NOBODY: Final[Sequence[Mapping[str, str]]] = (
    {},
    {"tracestate": "a=1"},
    {"traceparent": "00-" + "0" * 32 + "-00f067aa0ba902b7-01"},
    {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-" + "0" * 16 + "-01"},
    {"traceparent": "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"},
    {"traceparent": "nonsense", "tracestate": "a=1"},
)
"""Headers without a valid trace context (W3C Trace Context)."""
_STATES: Final = (("", ""), ("vendor=1", "vendor=1"), ("a=1 ,b=2", "a=1,b=2"), ("nonsense", ""))
"""A `tracestate`, and the one that is passed on."""


class Caller(NamedTuple):
    """A caller's trace context."""

    headers: Mapping[str, str]
    trace_id: str = ""
    """32 hexadecimal digits; empty if it has none."""
    span_id: str = ""
    flags: int = 1
    """The flags that are passed on; sampled if there is no valid trace context."""
    tracestate: str = ""

    @property
    def is_sampled(self) -> bool:
        """Whether the spans of the executions that it submits are sent."""
        return bool(self.flags & 1)

    def trace_of(self, execution_id: str) -> str:
        """Return the trace id of an execution that it submits."""
        return self.trace_id or own_trace_id(NAMESPACE, execution_id)

    def traceparent(self, execution_id: str) -> str:
        """Return the traceparent of an execution that it submits."""
        span_id = SpanIds(NAMESPACE, execution_id, 1).execution().hex()
        return f"00-{self.trace_of(execution_id)}-{span_id}-{self.flags:02x}"


def choose_caller(chance: Random) -> Caller:
    """Choose a caller's trace context."""
    if chance.random() < 0.4:
        return Caller(chance.choice(_NOBODY))
    trace_id, span_id = f"{chance.getrandbits(128) | 1:032x}", f"{chance.getrandbits(64) | 1:016x}"
    flags = chance.choice((1, 1, 1, 3, 0, 0, 2, 0xFD))
    sent, passed_on = chance.choice(_STATES)
    headers = {"traceparent": f"00-{trace_id}-{span_id}-{flags:02x}", "tracestate": sent}
    return Caller(headers, trace_id, span_id, flags & 3, passed_on)
