"""What is handed to the supervisor when a graph is submitted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from plait_server.core.run.trace import TraceContext
from plait_server.ports.graph_requests import CheckedGraph
from plait_server.ports.journal import RequestRecord


class Submission(NamedTuple):
    """A valid graph and what goes with it."""

    namespace: str
    execution_id: str
    """Empty: one is made."""
    graph: CheckedGraph
    input_json: str
    labels: Mapping[str, str]
    caller: TraceContext | None
    """The caller's trace context, the parent of the execution's span; None if it sent none."""
    request: RequestRecord | None
