"""Section 6: when a join is decided, and what it gives its node."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from plait_server.core.definition.graph import Edge, Join, JoinMode
from plait_server.core.json_text import JsonValue, dump_json
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import EdgeState, NodeState, Reason
from plait_server.testing.slow_model.edges import failure_value
from plait_server.testing.slow_model.nodes import ModelNode, ModelScope, Verdict
from plait_server.testing.slow_model.paths import edges_into, join_of

RUN: Final = Verdict(NodeState.QUEUED)
DEAD_PATH: Final = Verdict(NodeState.SKIPPED, Reason.DEAD_PATH)
UPSTREAM_FAILED: Final = Verdict(NodeState.SKIPPED, Reason.UPSTREAM_FAILED)
ALL_BRANCHES_FAILED: Final = Verdict(NodeState.FAILED, "ALL_BRANCHES_FAILED")
QUORUM_UNREACHABLE: Final = Verdict(NodeState.FAILED, "QUORUM_UNREACHABLE")
MIN_SUCCESS_RATE: Final = Verdict(NodeState.FAILED, "MIN_SUCCESS_RATE")


def verdict_of(join: Join, edges: Sequence[Edge], states: Sequence[EdgeState]) -> Verdict | None:
    """Decide a join by its incoming edges and their states; None while it is open."""
    active, dead, broken, unresolved = (
        states.count(state)
        for state in (EdgeState.ACTIVE, EdgeState.DEAD, EdgeState.BROKEN, EdgeState.UNRESOLVED)
    )
    if dead == len(states):
        return DEAD_PATH
    match join.mode:
        case JoinMode.ALL:
            if unresolved:
                return None
            return UPSTREAM_FAILED if broken else RUN
        case JoinMode.ANY:
            if active:
                return RUN
            return None if unresolved else ALL_BRANCHES_FAILED
        case JoinMode.QUORUM:
            needed = quorum_of(join, len(states) - dead)
            if active >= needed:
                return RUN
            return QUORUM_UNREACHABLE if active + unresolved < needed and active + broken else None
        case JoinMode.COLLECT:
            if unresolved:
                return None
            successes = sum(is_success(edge, state) for edge, state in zip(edges, states, strict=True))
            is_enough = Fraction(successes, active + broken) >= Fraction(str(join.min_success_rate))
            return RUN if is_enough else MIN_SUCCESS_RATE


def quorum_of(join: Join, not_dead: int) -> int:
    """Return how many ACTIVE edges a quorum needs: `count`, or `rate` rounded up, at least 1."""
    if join.count is not None:
        return join.count
    return max(1, math.ceil(Fraction(str(join.rate)) * not_dead))


def is_success(edge: Edge, state: EdgeState) -> bool:
    """Return whether COLLECT counts an edge as a success: an ACTIVE plain edge (J4)."""
    return state is EdgeState.ACTIVE and edge.handle != "error"


def joined(scope: ModelScope, node: ModelNode) -> JsonValue:
    """Return what a node's join gives it (J2)."""
    incoming = edges_into(scope.graph, node.node.id)
    mode = join_of(scope.graph, node.node.id).mode
    if not incoming:
        return scope.input
    if mode is JoinMode.COLLECT:
        return collected(scope, node)
    carried = {scope.graph.edges[each].source: _carried(scope, each) for each in node.active}
    if mode is JoinMode.ANY:
        ((winner, output),) = carried.items()
        return {"winner": winner, "output": output}
    if mode is JoinMode.ALL and len(incoming) == 1:
        return next(iter(carried.values()))
    return carried


def collected(scope: ModelScope, node: ModelNode) -> JsonValue:
    """Return the object of COLLECT: its edges in order, without the DEAD ones (J4)."""
    branch_of = scope.tree.of_edges
    results: list[JsonValue] = []
    successes = 0
    for position in edges_into(scope.graph, node.node.id):
        edge, state = scope.graph.edges[position], scope.edges[position]
        if state is EdgeState.DEAD:
            continue
        success = is_success(edge, state)
        successes += success
        results.append(
            {
                "source": edge.source,
                "branch": branch_of[position],
                "success": success,
                "data" if success else "error": _carried(scope, position),
            }
        )
    return {
        "results": results,
        "success_count": successes,
        "failure_count": len(results) - successes,
    }


def failed_join(scope: ModelScope, node: ModelNode, code: str) -> Failure:
    """Return the failure of a node that FAILS with its join; the failures behind its edges are the causes (J3, E1)."""
    is_collect = join_of(scope.graph, node.node.id).mode is JoinMode.COLLECT
    return Failure(
        code=code,
        details=Payload(dump_json(collected(scope, node))) if is_collect else None,
        causes=tuple(causes_of(scope, node)),
        node_path=node.path,
    )


def causes_of(scope: ModelScope, node: ModelNode) -> list[Failure]:
    """Return the failures behind a node's edges, each once, in the order of the edges (E1)."""
    causes: list[Failure] = []
    for position in edges_into(scope.graph, node.node.id):
        cause = _failure_behind(scope, position)
        if cause is not None and cause not in causes:
            causes.append(cause)
    return causes


def earliest_break(scope: ModelScope, node: ModelNode) -> int:
    """Return the position of the earliest failure behind a node's BROKEN edges (E1, J4)."""
    broken = [
        scope.nodes[scope.graph.edges[each].source].broken_by
        for each in edges_into(scope.graph, node.node.id)
        if scope.edges[each] is EdgeState.BROKEN
    ]
    return min(each for each in broken if each is not None)


def _carried(scope: ModelScope, position: int) -> JsonValue:
    """Return what an edge carries; a BROKEN one shows the earliest failure that broke it (J2, J4)."""
    failure = _failure_behind(scope, position)
    if failure is not None:
        return failure_value(failure)
    return scope.nodes[scope.graph.edges[position].source].output


def _failure_behind(scope: ModelScope, position: int) -> Failure | None:
    edge = scope.graph.edges[position]
    source = scope.nodes[edge.source]
    if scope.edges[position] is EdgeState.BROKEN and source.broken_by is not None:
        return scope.failures[source.broken_by].failure
    if scope.edges[position] is EdgeState.ACTIVE and edge.handle == "error":
        return source.failure
    return None
