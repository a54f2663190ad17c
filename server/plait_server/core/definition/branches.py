"""Branches: the paths that forks open, numbered so that the whole of a graph can be drawn as a tree (B1).

Rules:

1. Branch 0 is the execution. One source stays on it; of several sources each opens a branch under it.
2. A node with several outgoing edges, error edges too, opens a branch for each edge under its own branch.
3. A node with one incoming edge is on that edge's branch; a join is on the longest common prefix, by parts,
   of the branches of its edges: their lowest common ancestor.
4. Ordinals under one parent go on and are never used again. Forks number their branches by level, then in
   graph order, so a branch's path depends on the graph alone and not on what an execution does.

A branch is a number with a parent and an ordinal. Paths are made for display, since forks nested thousands
deep would make them as long as the graph.

Lowest common ancestors are found in O(log depth) with one jump pointer a branch: E. W. Myers, "An applicative
random-access stack", Information Processing Letters 17 (1983). The jumps of two branches of equal depth span
equally far, so both climb in step. Binary lifting would take log(depth) pointers a branch; comparing paths
part by part is quadratic for forks nested in forks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from plait_server.core.definition.analysis import Adjacency
from plait_server.core.definition.graph import Graph
from plait_server.core.slices import ITEMS_PER_SLICE, Slices, batches, finish

MAIN: Final = 0
"""The branch of the execution."""

PATH_PARTS_MAX: Final = 8
"""The most parts that a path for display has; the ELLIPSIS in a shortened one counts as a part."""
ELLIPSIS: Final = "…"
_HEAD_PARTS: Final = 4
_TAIL_PARTS: Final = 3


class Branches:
    """The branches of a graph and what is on them. A branch is a number, lower than all branches under it."""

    __slots__ = (
        "_depths",
        "_jumps",
        "_names",
        "_opened",
        "_ordinals",
        "_parents",
        "edge_branch",
        "node_branch",
    )

    node_branch: Sequence[int]
    """The branch of each node, in graph order."""
    edge_branch: Sequence[int]
    """The branch of each edge, in graph order."""

    def __init__(self) -> None:
        self._parents = [MAIN]
        self._ordinals = [0]
        self._depths = [0]
        self._jumps = [MAIN]
        self._names: dict[int, str] = {}
        self._opened = [0]
        self.node_branch = self.edge_branch = ()

    def __len__(self) -> int:
        return len(self._parents)

    def __repr__(self) -> str:
        return f"<Branches {len(self)} over {len(self.node_branch)} nodes>"

    def parent(self, branch: int) -> int | None:
        """Return the branch under which this one was opened; None for branch 0."""
        return self._parents[branch] if branch else None

    def ordinal(self, branch: int) -> int:
        """Return the number of the branch under its parent, from 1; 0 for branch 0."""
        return self._ordinals[branch]

    def depth(self, branch: int) -> int:
        """Return how many branches this one is nested in; 0 for branch 0."""
        return self._depths[branch]

    def opened_under(self, branch: int) -> int:
        """Return how many branches were opened directly under a branch."""
        return self._opened[branch]

    def ordinals(self, branch: int, count: int) -> list[int]:
        """Return the ordinals in the last `count` parts of a branch's path; the branch's own comes last."""
        ordinals: list[int] = []
        for _ in range(count):
            ordinals.append(self._ordinals[branch])
            branch = self._parents[branch]
        return ordinals[::-1]

    def name(self, branch: int) -> str:
        """Return the name of the edge that opened the branch, empty if it has none."""
        return self._names.get(branch, "")

    def full_path(self, branch: int) -> str:
        """Return all parts of the path, such as `0-001-002`; its length grows with the branch's depth."""
        return "-".join(self._parts(branch, self._depths[branch] + 1))

    def path(self, branch: int) -> str:
        """Return the path for display: all of it up to 8 parts, else 4, an ellipsis, and the last 3.

        For example, `0-001-002-003-004-005-006-007-008-009` becomes `0-001-002-003-…-007-008-009`.
        """
        depth = self._depths[branch]
        if depth < PATH_PARTS_MAX:
            return self.full_path(branch)
        head = self._parts(self.ancestor(branch, _HEAD_PARTS - 1), _HEAD_PARTS)
        return "-".join([*head, ELLIPSIS, *self._parts(branch, _TAIL_PARTS)])

    def common(self, first: int, second: int) -> int:
        """Return the branch whose path is the longest common prefix, by parts, of two branches' paths."""
        depths, jumps, parents = self._depths, self._jumps, self._parents
        if depths[first] > depths[second]:
            first = self.ancestor(first, depths[second])
        else:
            second = self.ancestor(second, depths[first])
        while first != second:
            if jumps[first] == jumps[second]:
                first, second = parents[first], parents[second]
            else:
                first, second = jumps[first], jumps[second]
        return first

    def ancestor(self, branch: int, depth: int) -> int:
        """Return a branch's ancestor at a depth; at its own depth, the branch itself."""
        depths, jumps, parents = self._depths, self._jumps, self._parents
        while depths[branch] > depth:
            jump = jumps[branch]
            branch = parents[branch] if depths[jump] < depth else jump
        return branch

    def _parts(self, branch: int, count: int) -> list[str]:
        """Return the last parts of the path; the branch's own comes last."""
        parts: list[str] = []
        for _ in range(count):
            parts.append(f"{self._ordinals[branch]:03}" if branch else "0")
            branch = self._parents[branch]
        return parts[::-1]

    def _open(self, parent: int, ordinal: int) -> int:
        branch = len(self._parents)
        depths, jumps = self._depths, self._jumps
        jump = jumps[parent]
        # Two jumps of equal length merge into one, as two ones carry into the next digit.
        equal = depths[parent] - depths[jump] == depths[jump] - depths[jumps[jump]]
        self._parents.append(parent)
        self._ordinals.append(ordinal)
        depths.append(depths[parent] + 1)
        jumps.append(jumps[jump] if equal else parent)
        return branch

    def assign_in_slices(self, graph: Graph, adjacency: Adjacency, levels: Sequence[int]) -> Slices[None]:
        """Open the branches of a graph. Call this once, right after construction."""
        node_branch = [MAIN] * len(graph.nodes)
        edge_branch = [MAIN] * len(graph.edges)
        opened = self._opened

        def open_under(parent: int) -> int:
            opened[parent] += 1
            opened.append(0)
            return self._open(parent, opened[parent])

        yield
        sources = [node for node, incoming in enumerate(adjacency.incoming) if not incoming]
        yield
        if len(sources) > 1:
            for nodes in batches(sources):
                for node in nodes:
                    node_branch[node] = open_under(MAIN)
                yield
        # Sorting keeps the order of equal levels: by level, then in graph order.
        order = sorted(range(len(levels)), key=levels.__getitem__)
        yield
        done = 0
        for node in order:
            incoming = adjacency.incoming[node]
            if incoming:
                branch = edge_branch[incoming[0]]
                for edge in incoming[1:]:
                    if edge_branch[edge] != branch:
                        branch = self.common(branch, edge_branch[edge])
                    if branch == MAIN:
                        break
                    done += 1
                    if done % ITEMS_PER_SLICE == 0:
                        yield
                node_branch[node] = branch
            branch = node_branch[node]
            outgoing = adjacency.outgoing[node]
            done += 1
            if done % ITEMS_PER_SLICE == 0:
                yield
            if len(outgoing) == 1:
                edge_branch[outgoing[0]] = branch
                continue
            for edge in outgoing:
                edge_branch[edge] = open_under(branch)
                if name := graph.edges[edge].branch_name:
                    self._names[edge_branch[edge]] = name
                done += 1
                if done % ITEMS_PER_SLICE == 0:
                    yield
        self.node_branch = node_branch
        self.edge_branch = edge_branch


def assign_branches(graph: Graph, adjacency: Adjacency, levels: Sequence[int]) -> Branches:
    """Open the branches of a valid graph; `levels` are those of its analysis."""
    return finish(assign_branches_in_slices(graph, adjacency, levels))


def assign_branches_in_slices(graph: Graph, adjacency: Adjacency, levels: Sequence[int]) -> Slices[Branches]:
    """Do what `assign_branches` does, in slices."""
    branches = Branches()
    yield from branches.assign_in_slices(graph, adjacency, levels)
    return branches
