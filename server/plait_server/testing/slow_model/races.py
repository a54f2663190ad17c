"""J1: who has lost a race."""

from __future__ import annotations

from collections.abc import Sequence

from plait_server.core.run.states import Reason
from plait_server.testing.slow_model.nodes import ModelScope
from plait_server.testing.slow_model.paths import is_sink, join_of, plain_edges_out_of


def losers(scope: ModelScope) -> list[str]:
    """Return the nodes not ended all of whose plain edges lead to joins already decided or to losers, in graph order.

    It looks at all nodes again and again until a pass finds no further one.
    """
    found: list[str] = []
    is_growing = True
    while is_growing:
        is_growing = False
        for node_id, node in scope.nodes.items():
            if node_id in found or node.state.is_ended or is_sink(scope.graph, node_id):
                continue
            targets = [edge.target for edge in plain_edges_out_of(scope.graph, node_id)]
            if not any(_is_wanted(scope, target, found) for target in targets):
                found.append(node_id)
                is_growing = True
    return [node_id for node_id in scope.nodes if node_id in found]


def _is_wanted(scope: ModelScope, target_id: str, found: Sequence[str]) -> bool:
    """Return whether an edge into a node keeps the edge's source wanted."""
    target = scope.nodes[target_id]
    is_loser = target_id in found or target.reason == Reason.RACE_LOST
    is_decided = target.verdict is not None
    return not join_of(scope.graph, target_id).cancel_losers or not (is_decided or is_loser)
