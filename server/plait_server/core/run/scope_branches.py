"""The branches of a scope: those of its graph, under the branch of the node that the scope is in (B1, N6).

A scope continues the branch of its node, so branch 0 of its graph is that branch, and the branches opened directly
under it are numbered after those that were opened there before. All other ordinals are the graph's own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from plait_server.core.definition.branches import ELLIPSIS, MAIN, PATH_PARTS_MAX, Branches

_HEAD_PARTS: Final = 4
_TAIL_PARTS: Final = 3


class ScopeBranches:
    """The branches of one scope; a branch is a number, and 0 is the branch that the scope continues."""

    __slots__ = ("_before", "_extra", "_graph", "_is_cut", "_outer", "_outer_branch", "_parts")

    def __init__(
        self,
        graph: Branches,
        path: str = "0",
        before: int = 0,
        outer: ScopeBranches | None = None,
        outer_branch: int = MAIN,
    ) -> None:
        """Place the branches of a graph under a branch.

        Args:
            graph: The graph's branches.
            path: The display path of the branch that the scope continues.
            before: How many branches were opened under that branch before.
            outer: The branches of the scope around it; None for the execution, or for a scope rebuilt by itself.
            outer_branch: The continued branch, as a number in `outer`.
        """
        self._graph = graph
        self._parts = path.split("-")
        self._is_cut = ELLIPSIS in self._parts
        if self._is_cut:
            self._parts.remove(ELLIPSIS)
        self._before = before
        self._outer = outer
        self._outer_branch = outer_branch
        self._extra: dict[int, int] = {}
        """Branch -> how many branches scopes have opened under it."""

    @property
    def node_branch(self) -> Sequence[int]:
        """The branch of each node, in graph order."""
        return self._graph.node_branch

    @property
    def edge_branch(self) -> Sequence[int]:
        """The branch of each edge, in graph order."""
        return self._graph.edge_branch

    def parent(self, branch: int) -> int | None:
        """Return the parent of a branch within this scope; None for branch 0."""
        return self._graph.parent(branch)

    def name(self, branch: int) -> str:
        """Return the name of the edge that opened the branch, empty if it has none."""
        return self._graph.name(branch)

    def path(self, branch: int) -> str:
        """Return the path for display: all of it up to 8 parts, else 4, an ellipsis, and the last 3."""
        depth = self._graph.depth(branch)
        if not self._is_cut and len(self._parts) + depth <= PATH_PARTS_MAX:
            return "-".join(self._parts + self._own(branch, depth, depth))
        head = self._parts[:_HEAD_PARTS]
        missing = _HEAD_PARTS - len(head)
        if missing > 0:
            head += self._own(self._graph.ancestor(branch, missing), missing, missing)
        count = min(depth, _TAIL_PARTS)
        tail = (self._parts + self._own(branch, depth, count))[-_TAIL_PARTS:]
        return "-".join([*head, ELLIPSIS, *tail])

    def full_path(self, branch: int) -> str:
        """Return all parts of the path; requires that the enclosing scopes are open."""
        depth = self._graph.depth(branch)
        around = "-".join(self._parts) if self._outer is None else self._outer.full_path(self._outer_branch)
        return "-".join([around, *self._own(branch, depth, depth)])

    def opened_under(self, branch: int) -> int:
        """Return how many branches have been opened under a branch, by this scope and by others (B1)."""
        if branch == MAIN and self._outer is not None:
            return self._outer.opened_under(self._outer_branch)
        return self._graph.opened_under(branch) + self._extra.get(branch, 0)

    def take_numbers(self, branch: int, count: int) -> None:
        """Reserve the ordinals of branches that another scope opens under a branch."""
        if branch == MAIN and self._outer is not None:
            self._outer.take_numbers(self._outer_branch, count)
        else:
            self._extra[branch] = self._extra.get(branch, 0) + count

    @property
    def numbers_taken(self) -> Mapping[int, int]:
        """How many branches other scopes have opened under each branch, as `take_numbers` recorded it."""
        return self._extra

    def _own(self, branch: int, depth: int, count: int) -> list[str]:
        """Return the last `count` of the `depth` parts that a branch has below the scope's branch."""
        ordinals = self._graph.ordinals(branch, count)
        if count == depth and ordinals:
            ordinals[0] += self._before
        return [f"{ordinal:03}" for ordinal in ordinals]
