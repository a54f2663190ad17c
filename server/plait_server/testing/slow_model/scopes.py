"""Section 10: the tree of scopes: which are open, which rules reach from one into those inside, what a scope may be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from plait_server.core.definition.graph import Graph, OnFailure
from plait_server.core.run.states import NodeState, Reason
from plait_server.testing.slow_model.nodes import ModelNode, ModelScope

DEPTH_MAX: Final = 16
"""N7: how deep scopes may be below the execution."""
NODES_MAX: Final = 1_000_000
"""L4: how many nodes an execution may have."""


def lineage(scope: ModelScope) -> Iterator[ModelScope]:
    """Yield a scope and those around it, the execution last."""
    yield scope
    while scope.parent is not None:
        scope = scope.parent.scope
        yield scope


def is_within(scope: ModelScope, other: ModelScope) -> bool:
    """Return whether a scope is another or lies in it."""
    return any(each is other for each in lineage(scope))


def open_scopes(scope: ModelScope) -> Iterator[ModelScope]:
    """Yield a scope and the open ones in it, those around others first, in graph order."""
    yield scope
    for node in scope.nodes.values():
        if node.inner is not None and not node.inner.is_over:
            yield from open_scopes(node.inner)


def inner_first(scope: ModelScope) -> Iterator[ModelNode]:
    """Yield the nodes of a scope in graph order, before each those of its open scope (N4)."""
    for node in scope.nodes.values():
        if node.inner is not None and not node.inner.is_over:
            yield from inner_first(node.inner)
        yield node


def is_stopped(scope: ModelScope) -> bool:
    """Return whether a failure stopped a scope or one around it (E4, E7)."""
    return any(each.is_stopped for each in lineage(scope))


def is_aborted(scope: ModelScope) -> bool:
    """Return whether what runs in a scope is aborted: by FAIL_FAST, its own or around it (E4, E7)."""
    return any(each.is_stopped and is_fail_fast(each) for each in lineage(scope))


def is_fail_fast(scope: ModelScope) -> bool:
    """Return whether a scope's own policy is FAIL_FAST."""
    return scope.graph.policy.on_failure is OnFailure.FAIL_FAST


def is_running(scope: ModelScope) -> bool:
    """Return whether a node of a scope is RUNNING; one with an open scope is (N2)."""
    return any(node.state is NodeState.RUNNING for node in scope.nodes.values())


def is_swept(node: ModelNode) -> bool:
    """Return whether E4's sweep puts a node back: none that ended; what runs only where it is aborted (E4, E7)."""
    if node.state.is_ended or (node.state, node.reason) == (NodeState.IDLE, Reason.SIBLING_FAILED):
        return False
    return is_aborted(node.scope) or (is_stopped(node.scope) and node.state is not NodeState.RUNNING)


def is_over(scope: ModelScope, is_output_made: Callable[[str], bool]) -> bool:
    """Return whether nothing more happens in a scope (E4, E5, E7), and its output, if it needs one, is there."""
    if scope.is_stopped:
        return is_fail_fast(scope) or not is_running(scope)
    if all(node.state.is_ended for node in scope.nodes.values()):
        return is_output_made(scope.path)
    return is_stopped(scope) and not is_running(scope)


def innermost_first(root: ModelScope) -> list[ModelScope]:
    """Return the open scopes below the execution, the deepest first; equally deep ones in graph order (N4)."""
    below = [scope for scope in open_scopes(root) if scope is not root]
    return sorted(below, key=lambda scope: -depth(scope))


def depth(scope: ModelScope) -> int:
    """Return how many scopes are around a scope."""
    return len(list(lineage(scope))) - 1


def is_within_budget(root: ModelScope, parent: ModelScope, graph: Graph) -> bool:
    """Return whether a graph may open as a scope in another: by its depth, and by the number of all nodes (L4, N7)."""
    return depth(parent) < DEPTH_MAX and _count(root) + len(graph.nodes) <= NODES_MAX


def _count(scope: ModelScope) -> int:
    inside = (_count(node.inner) for node in scope.nodes.values() if node.inner is not None)
    return len(scope.nodes) + sum(inside)
