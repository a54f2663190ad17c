"""The sampler port: whether the trace of an execution is recorded, decided once, when it is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from plait_server.core.trace import TraceContext


class Sampling(NamedTuple):
    """A decision."""

    is_sampled: bool
    tracestate: str


class Sampler(Protocol):
    """Decides which traces are recorded."""

    def sample(self, trace_id: str, caller: TraceContext | None, attributes: Mapping[str, str]) -> Sampling:
        """Decide about the trace of one execution.

        Args:
            trace_id: 32 hexadecimal digits.
            caller: The caller's span; None if it named none.
            attributes: Those of the execution's span that are known at its beginning.
        """
        ...


class FollowCaller:
    """A sampler that does as the caller does, and records what nobody has decided about."""

    def sample(self, trace_id: str, caller: TraceContext | None, attributes: Mapping[str, str]) -> Sampling:
        """Do as the caller does."""
        del trace_id, attributes
        return Sampling(caller is None or caller.is_sampled, caller.tracestate if caller is not None else "")
