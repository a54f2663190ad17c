"""Trace context: ids that follow from what they name, so that a trace can be written again from the journal (B2)."""

from __future__ import annotations

import hashlib
import re
from typing import Final

from plait_server.ports.workers import AttemptKey

_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def execution_traceparent(namespace: str, execution_id: str, caller: str) -> str:
    """Make the traceparent of an execution's root span, in the caller's trace if it names a valid one (W3C)."""
    root = hashlib.sha256(f"execution\0{namespace}\0{execution_id}".encode()).hexdigest()
    match = _TRACEPARENT.fullmatch(caller)
    if match is not None and set(match[1]) != {"0"} and set(match[2]) != {"0"}:
        return f"00-{match[1]}-{root[:16]}-{match[3]}"
    return f"00-{root[16:48]}-{root[:16]}-01"


def attempt_traceparent(execution: str, key: AttemptKey) -> str:
    """Make the traceparent of an attempt's span, which the worker's span is a child of."""
    match = _TRACEPARENT.fullmatch(execution)
    if match is None:
        return ""
    name = f"attempt\0{key.namespace}\0{key.execution_id}\0{key.run}\0{key.node_path}\0{key.attempt}"
    span = hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"00-{match[1]}-{span}-{match[3]}"
