"""Counts over all scopes of an execution, kept up to date with each event, so that nothing counts 100,000 nodes."""

from __future__ import annotations

from plait_server.core.run.failures import Failure
from plait_server.core.run.states import NodeState


class Totals:
    """The counts of one execution, over all its scopes, those that have ended included."""

    __slots__ = ("failures", "node_count", "state_counts")

    def __init__(self) -> None:
        self.node_count = 0
        """Nodes of all scopes that have been opened."""
        self.state_counts = dict.fromkeys(NodeState, 0)
        """How many nodes are in each state, by their recorded states."""
        self.failures: list[tuple[str, Failure]] = []
        """(scope path, failure) of every node that failed, in the order in which they failed (E1, E6)."""

    def failures_in(self, scope_path: str) -> list[Failure]:
        """Return the failures of a scope and of those inside it."""
        if not scope_path:
            return [failure for _, failure in self.failures]
        inside = f"{scope_path}/"
        return [failure for path, failure in self.failures if path == scope_path or path.startswith(inside)]
