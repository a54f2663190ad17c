"""The W3C trace context (https://www.w3.org/TR/trace-context/), and the ids of spans.

A span's id is computed from what the span represents, so that a trace can be rebuilt from the journal, bit for
bit (B2): it is the first 8 bytes of a SHA-256 over namespace, execution, run and the rest. The trace id is the
caller's; if the caller has none, it is computed from the execution's id.
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
"""The sampled flag and the random-trace-id flag (W3C level 2); other bits are not passed on."""
TRACESTATE_CHARS_MAX: Final = 512
"""The recommendation requires that at least this many characters are passed on."""
TRACESTATE_MEMBERS_MAX: Final = 32
"""The recommendation allows no more members."""


class TraceContext(NamedTuple):
    """What identifies a span to other services."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    flags: int
    tracestate: str = ""

    @property
    def is_sampled(self) -> bool:
        """Whether the spans of the trace are to be recorded."""
        return bool(self.flags & _SAMPLED)

    @property
    def traceparent(self) -> str:
        """The `traceparent` header."""
        return f"00-{self.trace_id}-{self.span_id}-{self.flags:02x}"

    def child(self, span_id: str, *, is_sampled: bool, tracestate: str) -> TraceContext:
        """Return the context of another span of the same trace."""
        flags = self.flags & ~_SAMPLED | is_sampled
        return TraceContext(self.trace_id, span_id, flags, tracestate)


def read_trace_context(traceparent: str, tracestate: str = "") -> TraceContext | None:
    """Read a caller's headers; return None if `traceparent` is invalid. An invalid `tracestate` is dropped."""
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
        """Return the id of the run's own span, which is branch 0's as well."""
        return self._id("\0execution")

    def branch(self, scope_path: str, branch: int) -> bytes:
        """Return the id of a branch's span; branches are numbered within their scope."""
        return self._id(f"\0branch\0{scope_path}\0{branch}") if branch or scope_path else self.execution()

    def node(self, node_path: str) -> bytes:
        """Return the id of a node's span."""
        return self._id(f"\0node\0{node_path}")

    def attempt(self, node_path: str, attempt: int) -> bytes:
        """Return the id of an attempt's span."""
        return self._id(f"\0attempt\0{node_path}\0{attempt}")

    def queue(self, node_path: str, attempt: int) -> bytes:
        """Return the id of the span of the wait before an attempt."""
        return self._id(f"\0queue\0{node_path}\0{attempt}")

    def _id(self, name: str) -> bytes:
        hashed = self._run.copy()
        hashed.update(name.encode())
        return hashed.digest()[:8]


def own_trace_id(namespace: str, execution_id: str) -> str:
    """Return the trace id of an execution whose caller has none, 32 hexadecimal digits."""
    return hashlib.sha256(f"trace\0{namespace}\0{execution_id}".encode()).hexdigest()[:32]
