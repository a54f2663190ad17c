"""What became of the scopes of an execution, for the coverage (section 10)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from plait_server.core.definition.graph import Scheduling, Subgraph
from plait_server.core.run.events import ScopeOpened
from plait_server.core.run.states import NodeState, Reason
from plait_server.testing.simulation.store import Durable
from plait_server.testing.slow_model import SlowModel
from plait_server.testing.slow_model.nodes import ModelNode, ModelScope
from plait_server.testing.slow_model.scopes import depth, is_aborted

SCOPE_ROWS: Final = (
    "one deep",
    "two deep",
    "three deep",
    "LEVELS inside LEVELS",
    "of an output",
    "SUCCEEDED",
    "PARTIALLY_SUCCEEDED",
    "FAILED",
    "TIMED_OUT",
    "ends by E5 within a stop",
    "FAILED within a stop",
    "put back by FAIL_FAST",
    "put back by STOP_DISPATCH",
    "lost a race",
    "cut by a timeout around it",
    "cancelled",
    "open over a start of the server",
    "an output that is no graph",
    "an output that is absent",
    "a limit of its own",
)
_DEPTHS: Final = ("", "one deep", "two deep", "three deep")


def scope_rows(model: SlowModel) -> Iterator[str]:
    """Yield a row for each thing that a scope below the execution met."""
    for scope in model.scopes.values():
        if scope.parent is not None:
            yield from (f"scope: {row}" for row in _rows_of(scope, scope.parent))
    for node in model.nodes():
        is_of_output = isinstance(node.node.kind, Subgraph) and node.node.kind.graph is None
        if is_of_output and node.state is NodeState.FAILED and node.inner is None:
            if node.reason == "INVALID_ARGUMENT":
                yield "scope: an output that is no graph"
            elif node.reason == "EXPRESSION" and node.node.input is None:
                yield "scope: an output that is absent"


def open_over_starts(durable: Durable) -> Iterator[str]:
    """Yield a row for each scope that was open while the server was started again."""
    opened = dict[str, int]()
    for event, written in zip(durable.events, durable.written, strict=True):
        if isinstance(event.detail, ScopeOpened):
            opened[event.node_path] = written.start
        elif event.node_path in opened and event.node_state is not None:
            is_over_start = opened.pop(event.node_path) < written.start
            yield from ["scope: open over a start of the server"] * is_over_start


def _rows_of(scope: ModelScope, node: ModelNode) -> Iterator[str]:
    yield _DEPTHS[min(depth(scope), 3)]
    if isinstance(node.node.kind, Subgraph) and node.node.kind.graph is None:
        yield "of an output"
    if scope.graph.scheduling is node.scope.graph.scheduling is Scheduling.LEVELS:
        yield "LEVELS inside LEVELS"
    if scope.graph.policy.max_concurrency:
        yield "a limit of its own"
    if scope.outcome is not None:
        yield scope.outcome.state.name
        if scope.ended_within_stop:
            yield "FAILED within a stop" if scope.is_stopped else "ends by E5 within a stop"
    elif node.state is NodeState.IDLE:
        yield "put back by FAIL_FAST" if is_aborted(node.scope) else "put back by STOP_DISPATCH"
    elif node.state is NodeState.CANCELLED and node.reason == Reason.RACE_LOST:
        yield "lost a race"
    elif node.state is NodeState.CANCELLED and node.reason == Reason.EXECUTION_TIMEOUT:
        yield "cut by a timeout around it"
    elif node.state is NodeState.CANCELLED:
        yield "cancelled"
