"""The sampler port: decides whether the trace of an execution is recorded, once, when it is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from plait_server.core.run.trace import TraceContext


class Sampling(NamedTuple):
    """A sampler's decision."""

    is_sampled: bool
    """Whether the trace is recorded."""
    tracestate: str
    """The W3C tracestate of the execution's span; may be empty."""


class Sampler(Protocol):
    """Decides which traces are recorded."""

    def sample(self, trace_id: str, caller: TraceContext | None, attributes: Mapping[str, str]) -> Sampling:
        """Decide whether the trace of one execution is recorded.

        Args:
            trace_id: 32 hexadecimal digits.
            caller: The caller's trace context; None if it sent none.
            attributes: The attributes of the execution's span that are known at its start.
        """
        ...


class FollowCaller:
    """A sampler that follows the caller's decision, and samples if the caller has no trace context."""

    def sample(self, trace_id: str, caller: TraceContext | None, attributes: Mapping[str, str]) -> Sampling:
        """Follow the caller's decision."""
        del trace_id, attributes
        return Sampling(caller is None or caller.is_sampled, caller.tracestate if caller is not None else "")
