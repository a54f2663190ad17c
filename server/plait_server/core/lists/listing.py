"""What lists, counts and watchers of a namespace filter, order and wait by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from plait_server.core.run.execution import Execution
from plait_server.core.run.states import ExecutionState


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """The fields of an execution that stores keep apart from its summary. Watchers see a change of any of them."""

    state: ExecutionState = ExecutionState.QUEUED
    reason: str = ""
    graph_name: str = ""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])
    create_time_s: float = 0.0
    """Wall time, seconds since 1970."""
    end_time_s: float = 0.0
    """Wall time, seconds since 1970; 0 until it has ended."""


def listing_of(execution: Execution) -> Listing:
    """Return the listing of an execution as it stands."""
    return Listing(
        state=execution.state or ExecutionState.QUEUED,
        reason=execution.reason,
        graph_name=execution.root.graph.name,
        labels=execution.labels,
        create_time_s=execution.created_s,
        end_time_s=execution.ended_s,
    )
