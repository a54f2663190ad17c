"""What stays in memory of a scope whose node has ended: enough to find its events and to answer late results."""

from __future__ import annotations

from typing import NamedTuple

from plait_server.core.definition.graph import Node
from plait_server.core.run.attempt_record import AttemptRecord
from plait_server.core.run.failures import Failure
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.states import AttemptOutcome, ExecutionState, NodeState

_LATE = (AttemptOutcome.TIMED_OUT, AttemptOutcome.CANCELLED, AttemptOutcome.ABORTED, AttemptOutcome.LOST)
"""The outcomes of attempts whose handlers may still report usage or receipts."""


class NodeAttempt(NamedTuple):
    """An attempt with the facts about its node that are still needed once its scope is gone."""

    node_path: str
    node: Node
    branch: str
    attempt: AttemptRecord


class ClosedScope:
    """A scope that is over; it keeps 300 bytes for its nodes, where each record took 400."""

    __slots__ = (
        "failure",
        "first_sequence",
        "graph_digests",
        "graph_name",
        "last_sequence",
        "node_count",
        "outcomes",
        "path",
        "state",
    )

    def __init__(self, scope: Scope, last_sequence: int) -> None:
        self.path = scope.path
        self.graph_name = scope.graph.name
        opened = scope.opened
        self.graph_digests = (opened.graph_digest, opened.analysis_digest) if opened is not None else ("", "")
        """The digests of its graph and of the analysis, if an output was its graph (N7)."""
        self.node_count = len(scope.records)
        self.state = scope.ended_as or _state_of(scope.parent)
        """How it ended; for a scope that was stopped from outside, the state of its node."""
        self.failure: Failure | None = scope.failure
        """The failure that its summary names."""
        self.first_sequence = scope.first_sequence
        """The event that opened it."""
        self.last_sequence = last_sequence
        """The event that ended its node."""
        self.outcomes = outcomes_of(scope)

    def __repr__(self) -> str:
        return f"<ClosedScope {self.path} {self.state.name}>"

    def outcome(self, node_id: str, attempt: int) -> AttemptOutcome | None:
        """Return how an attempt of a node ended; None if there was none of this number."""
        _, found, rest = self.outcomes.partition(b"\xff%b/" % node_id.encode())
        outcomes = rest.partition(b"\xff")[0] if found else b""
        return AttemptOutcome(outcomes[attempt - 1]) if 0 < attempt <= len(outcomes) else None


def outcomes_of(scope: Scope) -> bytes:
    """Encode each node that had attempts: a byte that is not text, its id, a slash, and a byte for each outcome."""
    return b"".join(
        b"\xff%b/%b" % (record.node.id.encode(), bytes([each.outcome or 0 for each in record.attempts]))
        for record in scope.records
        if record.attempts
    )


def stopped_attempts(scope: Scope) -> list[NodeAttempt]:
    """Return the attempts of a scope whose handlers may still report something."""
    return [
        NodeAttempt(record.path, record.node, scope.branch(record.index), attempt)
        for record in scope.records
        for attempt in record.attempts
        if attempt.outcome in _LATE
    ]


def _state_of(parent: NodeRecord | None) -> ExecutionState:
    timed_out = parent is not None and parent.state is NodeState.TIMED_OUT
    return ExecutionState.TIMED_OUT if timed_out else ExecutionState.CANCELLED
