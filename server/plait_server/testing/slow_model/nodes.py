"""What the slow model knows of nodes, edges and failures."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from plait_server.core.definition.graph import Graph, Node
from plait_server.core.json_text import JsonValue
from plait_server.core.run.failures import Failure
from plait_server.core.run.states import EdgeState, NodeState, Treatment


class Row(enum.Enum):
    """The rows of section 5's table, in its order."""

    SUCCEEDED = enum.auto()
    LOCKED = enum.auto()
    TIMED_OUT_CONTINUE = enum.auto()
    TIMED_OUT_CANCEL = enum.auto()
    HANDLED = enum.auto()
    IGNORED = enum.auto()
    BROKEN = enum.auto()
    """FAILED or TIMED_OUT otherwise."""
    DROPPED = enum.auto()
    """SKIPPED with all edges DEAD, or CANCELLED."""
    UPSTREAM_FAILED = enum.auto()


class Verdict(NamedTuple):
    """What a join says of its node."""

    state: NodeState
    """QUEUED if the node is to run, else how it ends: SKIPPED or FAILED."""
    reason: str = ""

    @property
    def is_run(self) -> bool:
        """Whether the join was decided in the node's favor."""
        return self.state is NodeState.QUEUED


class Change(NamedTuple):
    """One change of a node's state, as an event would tell it."""

    node_id: str
    state: NodeState
    reason: str = ""
    treatment: Treatment = Treatment.NONE
    """What became of the node's failure, if the node failed."""


@dataclass
class ModelNode:
    """What is known of one node so far."""

    node: Node
    state: NodeState = NodeState.IDLE
    """As events show it, so never QUEUED but after a lost or returned attempt (A1)."""
    reason: str = ""
    verdict: Verdict | None = None
    """None while the join is open."""
    active: tuple[int, ...] = ()
    """The incoming edges that were ACTIVE when the join was decided."""
    has_begun: bool = False
    """Whether J5's step "begins, or FAILS with its join" was taken."""
    wants_worker: bool = False
    """Whether the node waits for its next attempt to be given out."""
    input: JsonValue = None
    """What the node runs with, once it has begun."""
    clock_s: float = 0.0
    """Seconds that the node's timeout counts: RUNNING and BACKING_OFF (T4)."""
    attempts_used: int = 0
    attempts_lost: int = 0
    row: Row | None = None
    """The row of section 5, once the node has ended."""
    output: JsonValue = None
    has_output: bool = False
    failure: Failure | None = None
    treatment: Treatment = Treatment.NONE
    broken_by: int | None = None
    """Position of the earliest failure that FAILED or broke the node (E1, J4)."""


class KeptFailure(NamedTuple):
    """A failure of a node, in the list of all failures (E1)."""

    failure: Failure
    treatment: Treatment


@dataclass
class ModelScope:
    """The state of one scope: what the rules of sections 5 to 7 look at."""

    graph: Graph
    input: JsonValue
    """What nodes without incoming edges take (J2)."""
    nodes: Mapping[str, ModelNode]
    """By id, in graph order."""
    edges: list[EdgeState]
    """In graph order."""
    failures: list[KeptFailure] = field(default_factory=list[KeptFailure])
    """All failures of nodes, in order (E1)."""


def new_scope(graph: Graph, scope_input: JsonValue) -> ModelScope:
    """Return a scope in which nothing has happened."""
    return ModelScope(
        graph=graph,
        input=scope_input,
        nodes={node.id: ModelNode(node) for node in graph.nodes},
        edges=[EdgeState.UNRESOLVED] * len(graph.edges),
    )
