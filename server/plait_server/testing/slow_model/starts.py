"""What starts when: levels (R2), the order in which attempts are given out (R4), retries (T1)."""

from __future__ import annotations

from typing import Final

from plait_server.core.definition.graph import DEFAULT_RETRY, Node, Scheduling, Task
from plait_server.core.run.states import NodeState
from plait_server.testing.slow_model.nodes import ModelNode, ModelScope
from plait_server.testing.slow_model.paths import levels, remaining
from plait_server.testing.slow_model.scopes import is_stopped, is_within, lineage, open_scopes

EXECUTION_LIMIT: Final = 10
"""Q1: attempts of an execution at once, if its graph names no limit; a graph inside has none then (N1)."""

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


def nodes_to_give_out(root: ModelScope) -> list[ModelNode]:
    """Return the nodes that wait for an attempt to be given out, in the order of R4 over all scopes (N3)."""
    waiting = [node for scope in open_scopes(root) for node in scope.nodes.values() if node.wants_worker]
    # Two are compared in the innermost scope that has both, for their places in those around it are equal.
    return sorted((node for node in waiting if not is_stopped(node.scope)), key=_places)


def is_permitted(root: ModelScope, node: ModelNode) -> bool:
    """Return whether each scope on the way to a node has a permit left for an attempt (N1, Q1)."""
    running = [
        each
        for scope in open_scopes(root)
        for each in scope.nodes.values()
        if each.state is NodeState.RUNNING and isinstance(each.node.kind, Task)
    ]
    for scope in lineage(node.scope):
        limit = scope.graph.policy.max_concurrency
        if scope is root and not limit:
            limit = EXECUTION_LIMIT
        if limit and sum(is_within(each.scope, scope) for each in running) >= limit:
            return False
    return True


def _places(node: ModelNode) -> list[tuple[int, int, int]]:
    """Return what R4 asks of a node and of those that it is in, the outermost first (N3)."""
    here = node.scope
    place = (
        -node.node.priority,
        -remaining(here.graph)[node.node.id],
        list(here.nodes).index(node.node.id),
    )
    return [*(_places(here.parent) if here.parent is not None else ()), place]


def is_retried(node: Node, used: int, code: str, *, retryable: bool | None) -> bool:
    """Return whether an attempt that failed with a code is followed by another (T1).

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
