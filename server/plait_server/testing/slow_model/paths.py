"""What follows from the edges of a graph alone. Every function searches the whole graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from plait_server.core.definition.graph import DEFAULT_JOIN, Edge, Graph, Join, JoinMode, Node


def node_of(graph: Graph, node_id: str) -> Node:
    """Return the node with an id."""
    return next(node for node in graph.nodes if node.id == node_id)


def join_of(graph: Graph, node_id: str) -> Join:
    """Return the join of a node; ALL is the default."""
    return node_of(graph, node_id).join or DEFAULT_JOIN


def edges_into(graph: Graph, node_id: str) -> list[int]:
    """Return the positions of a node's incoming edges, in graph order."""
    return [position for position, edge in enumerate(graph.edges) if edge.target == node_id]


def edges_out_of(graph: Graph, node_id: str) -> list[int]:
    """Return the positions of a node's outgoing edges, in graph order."""
    return [position for position, edge in enumerate(graph.edges) if edge.source == node_id]


def plain_edges_out_of(graph: Graph, node_id: str) -> list[Edge]:
    """Return a node's outgoing edges that are no `error` edges."""
    return [edge for edge in graph.edges if edge.source == node_id and edge.handle != "error"]


def is_sink(graph: Graph, node_id: str) -> bool:
    """Return whether a node's only outgoing edges, if any, are `error` edges (section 1)."""
    return not plain_edges_out_of(graph, node_id)


def levels(graph: Graph) -> Mapping[str, int]:
    """Return node id -> the longest path to it in edges, `error` edges counted (section 1)."""
    found = dict.fromkeys((node.id for node in graph.nodes), 0)
    for _ in graph.nodes:  # No path is longer than the graph has nodes.
        for edge in graph.edges:
            found[edge.target] = max(found[edge.target], found[edge.source] + 1)
    return found


def remaining(graph: Graph) -> Mapping[str, int]:
    """Return node id -> the longest path from it in edges, `error` edges counted (section 1, R4)."""
    found = dict.fromkeys((node.id for node in graph.nodes), 0)
    for _ in graph.nodes:
        for edge in graph.edges:
            found[edge.source] = max(found[edge.source], found[edge.target] + 1)
    return found


def is_guarded(graph: Graph, node_id: str) -> bool:
    """Return whether every path of plain edges comes to another node that joins by ANY, QUORUM or COLLECT (E3)."""
    plain = plain_edges_out_of(graph, node_id)
    return bool(plain) and all(
        join_of(graph, edge.target).mode is not JoinMode.ALL or is_guarded(graph, edge.target)
        for edge in plain
    )


class BranchTree(NamedTuple):
    """The branches of a graph (B1), each by its uncut path."""

    of_nodes: Mapping[str, str]
    """By node id."""
    of_edges: list[str]
    """In graph order."""
    opened: list[str]
    """In the order in which they were opened, first the one that the scope goes on in: a branch's place is its number
    in the scope."""
    names: Mapping[str, str]
    """Of those that a named edge opened."""


def branches(graph: Graph, within: str = "0", counts: dict[str, int] | None = None) -> BranchTree:
    """Return the branches of every node and edge of a scope (B1, N6).

    Args:
        graph: What runs in the scope.
        within: The branch of the scope's node, in which the scope goes on; 0 for the execution.
        counts: Branch -> how many branches were opened directly under it before: numbering goes on from there. What
            this scope opens is added.
    """
    level = levels(graph)
    of_edges = [""] * len(graph.edges)
    ordinals = counts if counts is not None else {}
    opened = [within]
    names: dict[str, str] = {}

    def open_branch(parent: str) -> str:
        ordinals[parent] = ordinals.get(parent, 0) + 1
        opened.append(f"{parent}-{ordinals[parent]:03}")
        return opened[-1]

    sources = [node.id for node in graph.nodes if not edges_into(graph, node.id)]
    of_nodes = {each: open_branch(within) if len(sources) > 1 else within for each in sources}
    for node in sorted(graph.nodes, key=lambda node: level[node.id]):  # Equal levels stay in graph order.
        if node.id not in of_nodes:
            of_nodes[node.id] = _common([of_edges[edge] for edge in edges_into(graph, node.id)])
        outgoing = edges_out_of(graph, node.id)
        for edge in outgoing:
            of_edges[edge] = of_nodes[node.id]
            if len(outgoing) > 1:
                of_edges[edge] = open_branch(of_nodes[node.id])
                if graph.edges[edge].branch_name:
                    names[of_edges[edge]] = graph.edges[edge].branch_name
    return BranchTree(of_nodes, of_edges, opened, names)


def _common(branches: list[str]) -> str:
    """Return the longest common prefix, by parts."""
    parts = [branch.split("-") for branch in branches]
    count = 0
    while all(len(each) > count and each[count] == parts[0][count] for each in parts):
        count += 1
    return "-".join(parts[0][:count])
