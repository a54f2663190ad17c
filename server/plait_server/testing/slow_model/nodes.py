"""What the slow model knows of nodes, edges, failures and scopes."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import NamedTuple

from plait_server.core.definition.graph import Graph, Node
from plait_server.core.json_text import JsonValue
from plait_server.core.run.failures import Failure
from plait_server.core.run.states import EdgeState, ExecutionState, NodeState, Treatment
from plait_server.testing.slow_model.paths import BranchTree, branches


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

    node_path: str
    state: NodeState
    reason: str = ""
    treatment: Treatment = Treatment.NONE
    """What became of the node's failure, if the node failed."""


class Outcome(NamedTuple):
    """How an execution or a scope inside it ended."""

    state: ExecutionState
    failure: Failure | None = None
    """The failure that the summary names."""
    output: JsonValue = None
    """Null as well where there is none."""


class ScopeEnd(NamedTuple):
    """The end of a scope below the execution, as an event would tell it."""

    scope_path: str
    outcome: Outcome


@dataclass(eq=False)
class ModelNode:
    """What is known of one node so far."""

    node: Node
    scope: ModelScope = field(repr=False)
    """The scope that the node lies in."""
    inner: ModelScope | None = field(default=None, repr=False)
    """The scope that the node opened, which may have ended."""
    state: NodeState = NodeState.IDLE
    """As events show it, so never QUEUED but after a lost or returned attempt (A1)."""
    reason: str = ""
    verdict: Verdict | None = None
    """None while the join is open."""
    active: tuple[int, ...] = ()
    """The incoming edges that were ACTIVE when the join was decided."""
    has_begun: bool = False
    """Whether J5's step "begins, or FAILS with its join" was taken."""
    has_started: bool = False
    """Whether an attempt of it has started."""
    wants_worker: bool = False
    waited_s: float = 0.0
    """For how long it has wanted one (T4)."""
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

    @property
    def path(self) -> str:
        """The node's path in the execution."""
        return f"{self.scope.path}/{self.node.id}" if self.scope.path else self.node.id


class KeptFailure(NamedTuple):
    """A failure of a node, in the list of all failures (E1)."""

    failure: Failure
    treatment: Treatment


@dataclass(eq=False)
class ModelScope:
    """The state of one scope: what the rules of sections 5 to 7 look at."""

    graph: Graph
    input: JsonValue
    """What nodes without incoming edges take (J2)."""
    path: str
    """Empty for the execution's own; of a sub-graph that of its node."""
    parent: ModelNode | None
    """The node that opened it; None for the execution's own."""
    tree: BranchTree = field(repr=False)
    """The branches of its nodes and edges (B1, N6)."""
    nodes: dict[str, ModelNode] = field(default_factory=dict[str, ModelNode])
    """By id, in graph order."""
    edges: list[EdgeState] = field(default_factory=list[EdgeState])
    """In graph order."""
    failures: list[KeptFailure] = field(default_factory=list[KeptFailure])
    """All failures of its own nodes, in order (E1)."""
    is_stopped: bool = False
    """Whether a failure of its own stopped it (E4)."""
    is_over: bool = False
    """Whether it ended, or its node was ended or put back from outside."""
    outcome: Outcome | None = None
    """How it ended; None before, and if its node was ended or put back from outside."""
    ended_within_stop: bool = False
    """Whether it ended when a failure had stopped a scope around it (E7)."""


def new_scope(
    graph: Graph, scope_input: JsonValue, counts: dict[str, int], parent: ModelNode | None = None
) -> ModelScope:
    """Return a scope in which nothing has happened.

    Args:
        graph: What runs in it.
        scope_input: Its input.
        counts: Branch -> how many branches were opened directly under it so far; those of this scope are added (N6).
        parent: The node that opens it; None for the execution's own.
    """
    branch = "0" if parent is None else parent.scope.tree.of_nodes[parent.node.id]
    scope = ModelScope(
        graph=graph,
        input=scope_input,
        path="" if parent is None else parent.path,
        parent=parent,
        tree=branches(graph, branch, counts),
        edges=[EdgeState.UNRESOLVED] * len(graph.edges),
    )
    for node in graph.nodes:
        scope.nodes[node.id] = ModelNode(node, scope)
    return scope
