"""A graph ready to run: everything that the scopes running it share. Computed once, immutable."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from plait_server.core.definition.analysis import ERROR_HANDLE, Adjacency, build_adjacency_in_slices
from plait_server.core.definition.branches import Branches, assign_branches_in_slices
from plait_server.core.definition.graph import Analysis, Graph, Subgraph
from plait_server.core.slices import Slices, batches, finish

SHARED_MAX: Final = 16
"""The newest graphs inside a graph that a node with an equal one shares; whoever reads a graph makes equal ones one."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Definition:
    """A valid graph, with everything derived from it."""

    graph: Graph
    analysis: Analysis
    adjacency: Adjacency
    branches: Branches
    """Branch 0 is that of the scope."""
    plain_totals: Sequence[int]
    """How many plain edges leave each node."""
    sources: Sequence[int]
    """Positions of the nodes without incoming edges."""
    sinks: Sequence[int]
    """Positions of the nodes without outgoing plain edges."""
    level_sizes: Sequence[int]
    """How many nodes each level has."""
    inner: Mapping[int, Definition]
    """The compiled inline graphs of sub-graph nodes, by the position of the node, ascending."""

    def __repr__(self) -> str:
        return f"<Definition {self.graph.name!r}, {len(self.graph.nodes)} nodes>"


def compile_graph(graph: Graph, analysis: Analysis) -> Definition:
    """Compute what the scopes of a valid graph share."""
    return finish(compile_in_slices(graph, analysis))


def compile_in_slices(graph: Graph, analysis: Analysis) -> Slices[Definition]:
    """Do what `compile_graph` does, in slices."""
    adjacency = yield from build_adjacency_in_slices(graph)
    branches = yield from assign_branches_in_slices(graph, adjacency, analysis.levels)
    plain_totals = [0] * len(graph.nodes)
    sources = iter(adjacency.edge_sources)
    for edges in batches(graph.edges):
        for edge, source in zip(edges, sources):  # noqa: B905 # of the sources the next ones
            if edge.handle != ERROR_HANDLE:
                plain_totals[source] += 1
        yield
    level_sizes = [0] * (max(analysis.levels) + 1)
    for level in analysis.levels:
        level_sizes[level] += 1
    yield
    inner: dict[int, Definition] = {}
    newest: deque[Definition] = deque(maxlen=SHARED_MAX)
    for node, its in analysis.inner.items():
        kind = graph.nodes[node].kind
        if not isinstance(kind, Subgraph) or kind.graph is None:
            continue
        same = next((each for each in newest if each.graph is kind.graph), None)
        if same is None:
            same = yield from compile_in_slices(kind.graph, its)
            newest.append(same)
        inner[node] = same
    return Definition(
        graph=graph,
        analysis=analysis,
        adjacency=adjacency,
        branches=branches,
        plain_totals=plain_totals,
        sources=[node for node, incoming in enumerate(adjacency.incoming) if not incoming],
        sinks=[node for node, total in enumerate(plain_totals) if not total],
        level_sizes=level_sizes,
        inner=inner,
    )
