"""What follows from the shape of a graph: cycles, levels, remaining paths, guarded nodes, a longest path.

Nodes and edges are represented by their positions in the graph, because Python is fast with lists of numbers.
Everything is iterative and linear in nodes + edges (V8). All order is that of the graph, so equal graphs have
equal analyses.

"Plain" edges are those whose handle is not `error`. Levels and remaining paths count all edges, E3 only the
plain ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from plait_server.core.definition.graph import Analysis, Graph, JoinMode, Subgraph
from plait_server.core.slices import Slices, batches, finish

ERROR_HANDLE: Final = "error"
"""The handle that every node has; its edges carry the failure."""

GUARD_MODES: Final = (JoinMode.ANY, JoinMode.QUORUM, JoinMode.COLLECT)
"""The joins that a broken edge does not end (E3)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Adjacency:
    """A graph's edges by position. Built once and shared; never changed."""

    edge_sources: Sequence[int]
    """Position of each edge's source node."""
    edge_targets: Sequence[int]
    """Position of each edge's target node."""
    outgoing: Sequence[Sequence[int]]
    """For each node, the positions of its outgoing edges, ascending."""
    incoming: Sequence[Sequence[int]]
    """For each node, the positions of its incoming edges, ascending."""
    index: Mapping[str, int]
    """Position of each node by its id."""

    @property
    def node_count(self) -> int:
        """How many nodes there are."""
        return len(self.outgoing)


def build_adjacency(graph: Graph) -> Adjacency:
    """Resolve the ids of a graph whose ids are unique and whose edges name existing nodes.

    Raises:
        KeyError: An edge names an unknown node; `validation.validate` reports such graphs.
    """
    return finish(build_adjacency_in_slices(graph))


def build_adjacency_in_slices(graph: Graph) -> Slices[Adjacency]:
    """Do what `build_adjacency` does, in slices."""
    index: dict[str, int] = {}
    for nodes in batches(graph.nodes):
        index |= {node.id: position for position, node in enumerate(nodes, len(index))}
        yield
    sources: list[int] = []
    targets: list[int] = []
    leaving: list[list[int]] = []
    entering: list[list[int]] = []
    for nodes in batches(graph.nodes):
        leaving += [[] for _ in nodes]
        entering += [[] for _ in nodes]
        yield
    for edges in batches(graph.edges):
        for edge in edges:
            source, target = index[edge.source], index[edge.target]
            leaving[source].append(len(sources))
            entering[target].append(len(sources))
            sources.append(source)
            targets.append(target)
        yield
    # The garbage collector does not track tuples of numbers; as lists they would be half of all objects of a graph.
    outgoing: list[tuple[int, ...]] = []
    incoming: list[tuple[int, ...]] = []
    for lists in batches(leaving):
        outgoing += [tuple(edges) for edges in lists]
        yield
    for lists in batches(entering):
        incoming += [tuple(edges) for edges in lists]
        yield
    return Adjacency(
        edge_sources=sources, edge_targets=targets, outgoing=outgoing, incoming=incoming, index=index
    )


def connect(
    index: Mapping[str, int], node_count: int, edge_sources: Sequence[int], edge_targets: Sequence[int]
) -> Adjacency:
    """Build an adjacency from edges given as positions of their nodes."""
    outgoing: list[list[int]] = [[] for _ in range(node_count)]
    incoming: list[list[int]] = [[] for _ in range(node_count)]
    for edge, (source, target) in enumerate(zip(edge_sources, edge_targets, strict=True)):
        outgoing[source].append(edge)
        incoming[target].append(edge)
    return Adjacency(
        edge_sources=edge_sources,
        edge_targets=edge_targets,
        outgoing=[tuple(edges) for edges in outgoing],
        incoming=[tuple(edges) for edges in incoming],
        index=index,
    )


def find_cycle(adjacency: Adjacency) -> list[int] | None:
    """Return the nodes of one cycle in order, the earliest in the graph first; None without a cycle (V3)."""
    _, unresolved = _levels(adjacency)
    if not any(unresolved):
        return None
    # Every remaining node has a remaining predecessor, so walking backwards must reach a node twice.
    node = next(position for position, count in enumerate(unresolved) if count)
    walk: list[int] = []
    seen_at: dict[int, int] = {}
    while node not in seen_at:
        seen_at[node] = len(walk)
        walk.append(node)
        node = next(
            source for edge in adjacency.incoming[node] if unresolved[source := adjacency.edge_sources[edge]]
        )
    cycle = walk[seen_at[node] :][::-1]
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]


def analyze(graph: Graph, adjacency: Adjacency, inner: Mapping[int, Analysis] | None = None) -> Analysis:
    """Analyze an acyclic graph for its executions (V9).

    Args:
        graph: The graph.
        adjacency: Its edges.
        inner: The analyses of the graphs in its sub-graph nodes, by position, if they are known already.
    """
    if inner is None:
        inner = {
            position: analyze(inner_graph, build_adjacency(inner_graph))
            for position, inner_graph in inner_graphs(graph)
        }
    levels, _ = _levels(adjacency)
    outgoing, targets = adjacency.outgoing, adjacency.edge_targets
    is_plain = [edge.handle != ERROR_HANDLE for edge in graph.edges]
    is_guard = [node.join is not None and node.join.mode in GUARD_MODES for node in graph.nodes]
    remaining = [0] * len(levels)
    is_guarded = [False] * len(levels)
    # Levels rise along every edge, so descending levels visit every target before its sources.
    for node in sorted(range(len(levels)), key=levels.__getitem__, reverse=True):
        longest = 0
        has_plain = False
        every_path_is_guarded = True
        for edge in outgoing[node]:
            target = targets[edge]
            if remaining[target] >= longest:
                longest = remaining[target] + 1
            if is_plain[edge]:
                has_plain = True
                if not (is_guard[target] or is_guarded[target]):
                    every_path_is_guarded = False
        remaining[node] = longest
        is_guarded[node] = has_plain and every_path_is_guarded
    return Analysis(
        levels=tuple(levels),
        remaining=tuple(remaining),
        guarded=frozenset(node for node, guarded in enumerate(is_guarded) if guarded),
        inner=inner,
    )


def inner_graphs(graph: Graph) -> list[tuple[int, Graph]]:
    """Return the inline graphs of sub-graph nodes, each with its node's position, ascending."""
    return [
        (position, node.kind.graph)
        for position, node in enumerate(graph.nodes)
        if isinstance(node.kind, Subgraph) and node.kind.graph is not None
    ]


def longest_path(adjacency: Adjacency, analysis: Analysis) -> list[int]:
    """Return the nodes of a longest path in order; of several, the one that is earliest in the graph."""
    if not analysis.remaining:
        return []
    left = max(analysis.remaining)
    node = analysis.remaining.index(left)
    path = [node]
    while left:
        left -= 1
        node = next(
            target
            for edge in adjacency.outgoing[node]
            if analysis.remaining[target := adjacency.edge_targets[edge]] == left
        )
        path.append(node)
    return path


def sinks(graph: Graph, adjacency: Adjacency) -> list[int]:
    """Return the sinks in graph order: nodes whose only outgoing edges, if any, are error edges."""
    edges = graph.edges
    return [
        node
        for node, outgoing in enumerate(adjacency.outgoing)
        if all(edges[edge].handle == ERROR_HANDLE for edge in outgoing)
    ]


def _levels(adjacency: Adjacency) -> tuple[list[int], list[int]]:
    """Return each node's level, and how many of its incoming edges come from a cycle or from nodes after one.

    Without a cycle the latter are all zero. Source: A. B. Kahn, Topological sorting of large networks, 1962.
    """
    unresolved = [len(edges) for edges in adjacency.incoming]
    levels = [0] * len(unresolved)
    outgoing, targets = adjacency.outgoing, adjacency.edge_targets
    level = 0
    reached = [node for node, count in enumerate(unresolved) if not count]
    while reached:
        level += 1
        following: list[int] = []
        for node in reached:
            for edge in outgoing[node]:
                target = targets[edge]
                unresolved[target] -= 1
                if not unresolved[target]:
                    # The last edge to be resolved comes from the highest of the sources' levels.
                    levels[target] = level
                    following.append(target)
        reached = following
    return levels, unresolved
