"""How the end of a node changes its edges, and which joins that decides (section 5, J1, J5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from plait_server.core.definition.analysis import ERROR_HANDLE
from plait_server.core.definition.graph import DEFAULT_JOIN, Edge, JoinMode
from plait_server.core.run.edges import EFFECTS, chosen_handle, row_of
from plait_server.core.run.joins import Verdict, judge
from plait_server.core.run.payload import NULL
from plait_server.core.run.states import EdgeState, NodeState

if TYPE_CHECKING:
    from plait_server.core.run.scope import NodeRecord, Scope

_BY_SINGLE_EDGE: Final = {
    state: judge(
        DEFAULT_JOIN,
        total=1,
        active=state is EdgeState.ACTIVE,
        active_error=0,
        dead=state is EdgeState.DEAD,
        broken=state is EdgeState.BROKEN,
    )
    for state in (EdgeState.ACTIVE, EdgeState.DEAD, EdgeState.BROKEN)
}
"""How the default join decides by the state of its only edge."""


def resolve_edges(scope: Scope, record: NodeRecord, edges_false: frozenset[int]) -> None:
    """Set the states of a node's outgoing edges by the table, and judge the joins they lead to."""
    positions = scope.adjacency.outgoing[record.index]
    if not positions:
        return
    effect = EFFECTS[row_of(record.node, record.state, record.reason, record.treatment)]
    handle = chosen_handle(record.node, record.output or NULL) if effect.asks_plain else None
    for place, position in enumerate(positions):
        edge = scope.graph.edges[position]
        if edge.handle == ERROR_HANDLE:
            state = EdgeState.DEAD if place in edges_false else effect.error
        elif effect.asks_plain and (edge.handle != handle or place in edges_false):
            state = effect.other
        else:
            state = effect.selected
        _settle(scope, position, edge, state)


def _settle(scope: Scope, position: int, edge: Edge, state: EdgeState) -> None:
    scope.edge_states[position] = state
    target = scope.records[scope.adjacency.edge_targets[position]]
    target.changed = scope.sequence
    if state is EdgeState.ACTIVE:
        target.active += 1
        if edge.handle == ERROR_HANDLE:
            target.active_error += 1
    elif state is EdgeState.DEAD:
        target.dead += 1
    else:
        target.broken += 1
    if target.verdict is not None or scope.is_closed or target.state is not NodeState.IDLE:
        return
    join = target.node.join
    if join is None and target.total == 1:
        # The plain case, without the rest: a node may have 100,000 such edges, all resolved in one step.
        target.verdict = verdict = _BY_SINGLE_EDGE[state]
        target.active_edges = (position,) if state is EdgeState.ACTIVE else ()
        _put(scope, target, is_skip=verdict is not Verdict.RUN)
        return
    join = join or DEFAULT_JOIN
    verdict = judge(
        join,
        total=target.total,
        active=target.active,
        active_error=target.active_error,
        dead=target.dead,
        broken=target.broken,
    )
    if verdict is None:
        return
    target.verdict = verdict
    if join.mode is JoinMode.ANY:
        target.active_edges = (position,) if verdict is Verdict.RUN else ()
    else:
        target.active_edges = tuple(
            edge
            for edge in scope.adjacency.incoming[target.index]
            if scope.edge_states[edge] is EdgeState.ACTIVE
        )
    _put(scope, target, is_skip=verdict.is_skip)
    if join.mode in (JoinMode.ANY, JoinMode.QUORUM):
        _release(scope, target)


def _put(scope: Scope, target: NodeRecord, *, is_skip: bool) -> None:
    if is_skip:
        scope.agenda.skip(target)
    else:
        scope.agenda.decide(target)


def _release(scope: Scope, decided: NodeRecord) -> None:
    """Stop wanting the edges into a decided join, and find the losers (J1)."""
    stack = [decided]
    while stack:
        target = stack.pop()
        if not (target.node.join or DEFAULT_JOIN).cancel_losers:
            continue
        for edge in scope.adjacency.incoming[target.index]:
            if scope.unwanted[edge] or scope.graph.edges[edge].handle == ERROR_HANDLE:
                continue
            scope.unwanted[edge] = 1
            source = scope.source(edge)
            source.wanted -= 1
            source.changed = scope.sequence
            if source.wanted == 0 and not source.state.is_ended and source.index not in scope.losers:
                scope.losers[source.index] = None
                scope.agenda.lose(source)
                scope.agenda.racing[scope] = None
                stack.append(source)
