"""The layout of a graph: the rank and the order of each node, by which every client draws it alike.

Groups of nodes that nothing connects stand below each other: within a rank, the nodes of an earlier group come
first. A small group is laid out as it is drawn, with labels and waypoints; in a larger one, where the waypoints
could be as many as nodes times ranks, nodes alone are ordered. The work is bounded: a graph of 100,000 nodes and
as many edges takes about 2 s, one with 500,000 edges 6 s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from plait_server.layering.construction import Line, build_coarse_layers, build_layers, split_components
from plait_server.layering.layers import NO_NODE, ORDER_SWEEPS

ITEMS_MAX: Final = 20_000
"""The items of all groups that are laid out with labels and waypoints: 1 s."""
_VISITS_MAX: Final = 500_000
"""Lines times sweeps, at 2 us each."""
_SWEEPS_MIN: Final = 2
"""One forwards, one backwards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Where the nodes of a graph stand, in graph order."""

    ranks: Sequence[int]
    """The rank of each node, from 0; it rises along every edge."""
    orders: Sequence[int]
    """The place of each node among those of its rank, from 0 without gaps."""


def lay_out(
    levels: Sequence[int], lines: Sequence[Line], *, items_max: int = ITEMS_MAX, share: float = 1.0
) -> Layout:
    """Lay out a graph so that few lines cross.

    Args:
        levels: The level of each node, which becomes its rank.
        lines: The edges; those that leave a node by the same label run together.
        items_max: How much of the picture may be laid out with labels and waypoints.
        share: How much of the work of one picture this one may take, where several are made together.
    """
    orders = [0] * len(levels)
    taken = [0] * (1 + max(levels, default=-1))
    items_left = int(items_max * share)
    sweeps = min(ORDER_SWEEPS, max(_SWEEPS_MIN, int(_VISITS_MAX * share) // (len(lines) + 1)))
    for nodes, own_lines in split_components(len(levels), lines):
        columns = [[0]]
        if len(nodes) > 1:
            ranks = [levels[node] for node in nodes]
            layers = build_layers(ranks, own_lines, items_left)
            if layers is None:
                layers = build_coarse_layers(ranks, own_lines)
            else:
                items_left -= len(layers.items)
            layers.order(sweeps=sweeps)
            columns = [[layers.items[item].node for item in column] for column in layers.columns]
        for column in columns:
            for member in column:
                if member != NO_NODE:
                    node = nodes[member]
                    orders[node] = taken[levels[node]]
                    taken[levels[node]] += 1
    return Layout(ranks=levels, orders=orders)
