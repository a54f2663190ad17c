"""What starts when: levels (R2), the order in which attempts are given out (R4), retries (T1)."""

from __future__ import annotations

from typing import Final

from plait_server.core.definition.graph import DEFAULT_RETRY, Node, Scheduling
from plait_server.testing.slow_model.nodes import ModelScope
from plait_server.testing.slow_model.paths import levels, remaining

NOT_RETRIED: Final = frozenset(
    {
        *("INVALID_ARGUMENT", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "UNAUTHENTICATED"),
        *("FAILED_PRECONDITION", "OUT_OF_RANGE", "UNIMPLEMENTED", "DATA_LOSS", "CANCELLED"),
        *("INVALID_RESULT", "TOO_LARGE", "EXPRESSION"),
    }
)
"""T1: the codes that another attempt cannot help."""


def held_nodes(scope: ModelScope) -> list[str]:
    """Return the nodes whose start waits for lower levels, in graph order (R2)."""
    if scope.graph.scheduling is not Scheduling.LEVELS:
        return []
    level = levels(scope.graph)
    unfinished = [level[node_id] for node_id, node in scope.nodes.items() if not node.state.is_ended]
    return [node_id for node_id in scope.nodes if any(other < level[node_id] for other in unfinished)]


def nodes_to_give_out(scope: ModelScope) -> list[str]:
    """Return the nodes that wait for an attempt to be given out, in the order of R4."""
    path = remaining(scope.graph)
    waiting = [node_id for node_id, node in scope.nodes.items() if node.wants_worker]
    # The sort is stable: equal ones stay in graph order.
    return sorted(waiting, key=lambda node_id: (-scope.nodes[node_id].node.priority, -path[node_id]))


def is_retried(node: Node, used: int, code: str, *, retryable: bool | None) -> bool:
    """Tell whether an attempt that failed with a code is followed by another (T1).

    Args:
        node: The attempt's node.
        used: Attempts used up so far, this one included.
        code: The failure's.
        retryable: The worker's own word; None if it said nothing.
    """
    policy = node.retry or DEFAULT_RETRY
    if used >= policy.max_attempts:
        return False
    if retryable is not None:
        return retryable
    return code in policy.retryable_codes if policy.retryable_codes else code not in NOT_RETRIED
