"""Layouts: where the nodes of a graph stand in a picture of it."""

from collections import Counter

import pytest
from hypothesis import given

from plait_server.core.definition.analysis import analyze, build_adjacency
from plait_server.core.definition.graph import Graph
from plait_server.layering import layout
from plait_server.layering.construction import Line
from plait_server.layering.layout import Layout, lay_out
from tests.core.graph_shapes import dags
from tests.core.graph_text import build


def laid_out(graph: Graph, items_max: int = layout.ITEMS_MAX) -> Layout:
    adjacency = build_adjacency(graph)
    return lay_out(analyze(graph, adjacency).levels, lines_of(graph), items_max=items_max)


def lines_of(graph: Graph) -> list[Line]:
    index = build_adjacency(graph).index
    return [(index[edge.source], index[edge.target], edge.handle) for edge in graph.edges]


def shown(*lines: str) -> list[str]:
    """The nodes of each rank in their order."""
    graph = build(*lines)
    found = laid_out(graph)
    ranks = [""] * (1 + max(found.ranks))
    for _, rank, node in sorted(zip(found.orders, found.ranks, graph.nodes, strict=True), key=lambda n: n[0]):
        ranks[rank] += node.id
    return ranks


def test_lines_are_uncrossed() -> None:
    assert shown("a -> x", "b -> y", "node z", "a -> z", "node y") == ["ab", "xzy"]
    assert shown(
        "node a; node b; node c; node x; node y; node z", "a -> z", "b -> y", "c -> x", "a -> y"
    ) == [
        "abc",
        "zyx",
    ]


def test_groups_that_nothing_connects_stand_in_the_order_of_the_graph() -> None:
    assert shown("node a; node p; node b; node q", "a -> b", "p -> q", "node x", "p -> r") == ["apx", "bqr"]


def test_a_line_over_several_ranks_takes_its_place_between_the_nodes() -> None:
    assert shown("a -> b,c; c -> d; b -> e; d -> f; e -> f; a -> f", "c -> g") == ["a", "bc", "edg", "f"]


def test_an_empty_graph_has_an_empty_layout() -> None:
    assert lay_out([], []) == Layout(ranks=[], orders=[])


@pytest.mark.parametrize("items_max", [0, layout.ITEMS_MAX])
@given(graph=dags())
def test_orders_have_no_gaps_and_ranks_rise_along_edges(items_max: int, graph: Graph) -> None:
    """With no room for waypoints, a graph is laid out as a large one is."""
    found = laid_out(graph, items_max)
    assert found == laid_out(graph, items_max)
    size_of = Counter(found.ranks)
    assert sorted(zip(found.ranks, found.orders, strict=True)) == [
        (rank, order) for rank in sorted(size_of) for order in range(size_of[rank])
    ]
    assert all(found.ranks[source] < found.ranks[target] for source, target, _ in lines_of(graph))


def test_a_large_graph_is_uncrossed_too() -> None:
    """Its lines are more than are drawn: sources and targets in opposite orders, each tied to its neighbors."""
    size, reach = 400, 26
    count = 2 * size
    lines = [
        (source, count - 1 - target, "")
        for source in range(size)
        for target in range(source - reach, source + reach + 1)
        if 0 <= target < size
    ]
    assert len(lines) > layout.ITEMS_MAX
    found = lay_out([0] * size + [1] * size, lines)
    sources, targets = found.orders[:size], found.orders[size:]
    assert sorted(sources) == sorted(targets) == list(range(size))
    assert list(targets) == [size - 1 - order for order in range(size)]
    assert list(sources) == list(range(size))
