"""Trace context: who a trace's spans are, by W3C Trace Context (https://www.w3.org/TR/trace-context/).

The ids of spans follow from what they name, so that a trace can be written again from the journal, equal to
the bit (B2): the first 8 bytes of a SHA-256 over execution, run and the rest. The trace id is the caller's; an
execution whose caller has none makes one of its own name.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_NO_TRACE: Final = "0" * 32
_NO_SPAN: Final = "0" * 16
_SAMPLED: Final = 1
_KNOWN_FLAGS: Final = 3
"""Sampled, and that the trace id is random (W3C level 2); other bits are not handed on."""
TRACESTATE_CHARS_MAX: Final = 512
"""What the recommendation asks to be handed on at least."""
TRACESTATE_MEMBERS_MAX: Final = 32


class TraceContext(NamedTuple):
    """One span, named to others."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    flags: int
    tracestate: str = ""

    @property
    def is_sampled(self) -> bool:
        """Whether its spans are to be recorded."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The header that names it."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def child(self, span_id: str, *, is_sampled: bool, tracestate: str) -> TraceContext:
        """Name a span of the same trace."""
        flags = self.flags & ~_SAMPLED | is_sampled
        return TraceContext(self.trace_id, span_id, flags, tracestate)


def read_trace_context(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """Read the headers of a caller; None if the first is not valid. A `tracestate` that is not valid is dropped."""
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest) or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return None
    return TraceContext(trace_id, span_id, int(flags, 16) & _KNOWN_FLAGS, _read_tracestate(tracestate))


def _read_tracestate(text: str) -> str:
    is_whole = len(text) <= TRACESTATE_CHARS_MAX and text.isascii() and text.isprintable()
    members = [member.strip() for member in text.split(",")] if is_whole else []
    if len(members) > TRACESTATE_MEMBERS_MAX or not all("=" in member for member in members if member):
        return ""
    return ",".join(member for member in members if member)


class SpanIds:
    """The ids of the spans of one run of an execution, 8 bytes each."""

    __slots__ = ("_run",)

    def __init__(self, namespace: str, execution_id: str, run: int) -> None:
        self._run = hashlib.sha256(f"{namespace}\0{execution_id}\0{run}".encode())

    def execution(self) -> bytes:
        """Name the run's own span, which is that of branch 0."""
        return self._id("\0execution")

    def branch(self, scope_path: str, branch: int) -> bytes:
        """Name the span of a branch, by its number in its scope."""
        return self._id(f"\0branch\0{scope_path}\0{branch}") if branch or scope_path else self.execution()

    def node(self, node_path: str) -> bytes:
        """Name the span of a node."""
        return self._id(f"\0node\0{node_path}")

    def attempt(self, node_path: str, attempt: int) -> bytes:
        """Name the span of an attempt."""
        return self._id(f"\0attempt\0{node_path}\0{attempt}")

    def queue(self, node_path: str, attempt: int) -> bytes:
        """Name the span of the wait before an attempt."""
        return self._id(f"\0queue\0{node_path}\0{attempt}")

    def _id(self, name: str) -> bytes:
        whole = self._run.copy()
        whole.update(name.encode())
        return whole.digest()[:8]


def own_trace_id(namespace: str, execution_id: str) -> str:
    """Name the trace of an execution whose caller has none."""
    return hashlib.sha256(f"trace\0{namespace}\0{execution_id}".encode()).hexdigest()[:32]
