"""V3, V8, V9, E3 and the words level, sink and remaining path of section 1."""

from functools import cache
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise

import pytest
from hypothesis import given

from plait_server.core.definition.analysis import (
    Adjacency,
    analyze,
    build_adjacency,
    find_cycle,
    longest_path,
    sinks,
)
from plait_server.core.definition.graph import Analysis, Graph, JoinMode
from tests.core.graph_shapes import chain, dags, digraphs, fan_out
from tests.core.graph_text import build


def analysis_of(graph: Graph) -> Analysis:
    return analyze(graph, build_adjacency(graph))


def by_id(graph: Graph, numbers: tuple[int, ...]) -> dict[str, int]:
    return {node.id: number for node, number in zip(graph.nodes, numbers, strict=True)}


def guarded_ids(*lines: str) -> list[str]:
    graph = build(*lines)
    return [graph.nodes[node].id for node in sorted(analysis_of(graph).guarded)]


def cycle_ids(graph: Graph) -> list[str] | None:
    cycle = find_cycle(build_adjacency(graph))
    return None if cycle is None else [graph.nodes[node].id for node in cycle]


def test_the_adjacency_lists_edges_in_graph_order() -> None:
    adjacency = build_adjacency(build("a -> c", "b -> c", "a -error-> b"))
    assert adjacency.index == {"a": 0, "c": 1, "b": 2}
    assert [list(edges) for edges in adjacency.outgoing] == [[0, 2], [], [1]]
    assert [list(edges) for edges in adjacency.incoming] == [[], [0, 1], [2]]
    assert list(adjacency.edge_sources) == [0, 2, 0]
    assert list(adjacency.edge_targets) == [1, 1, 2]
    assert adjacency.node_count == 3


def test_an_edge_from_nowhere_has_no_adjacency() -> None:
    graph = build("a -> b")
    with pytest.raises(KeyError, match="b"):
        build_adjacency(Graph(nodes=graph.nodes[:1], edges=graph.edges))


def test_a_level_is_the_longest_path_to_a_node_and_counts_error_edges() -> None:
    graph = build("a -> b", "b -> c", "a -> c", "c -error-> d", "a -> d")
    assert by_id(graph, analysis_of(graph).levels) == {"a": 0, "b": 1, "c": 2, "d": 3}


def test_remaining_is_the_longest_path_to_a_sink_and_counts_error_edges() -> None:
    graph = build("a -> b", "a -> c", "b -error-> d", "d -> e")
    assert by_id(graph, analysis_of(graph).remaining) == {"a": 3, "b": 2, "c": 0, "d": 1, "e": 0}


def test_a_sink_may_have_error_edges() -> None:
    graph = build("a -> b", "b -error-> c", "d -> b")
    assert [graph.nodes[node].id for node in sinks(graph, build_adjacency(graph))] == ["b", "c"]


def test_v3_a_cycle_is_given_in_the_order_of_its_edges() -> None:
    assert cycle_ids(build("start -> a", "c -> a", "a -> b", "b -> c", "c -> end")) == ["a", "b", "c"]


def test_v3_what_leads_into_or_out_of_a_cycle_is_not_part_of_it() -> None:
    assert cycle_ids(build("x -> y", "y -> p", "p -> q", "q -> p", "q -> z", "z -> w")) == ["p", "q"]


def test_v3_error_edges_make_cycles() -> None:
    assert cycle_ids(build("a -> b", "b -error-> a")) == ["a", "b"]


def test_v3_a_graph_without_a_cycle_has_none() -> None:
    assert cycle_ids(build("a -> b,c", "b,c -> d")) is None


@given(digraphs())
def test_v3_a_cycle_is_found_if_there_is_one(graph: Graph) -> None:
    sorter = TopologicalSorter[str]({node.id: [] for node in graph.nodes})
    for edge in graph.edges:
        sorter.add(edge.target, edge.source)
    try:
        sorter.prepare()
        expected = False
    except CycleError:
        expected = True
    cycle = cycle_ids(graph)
    assert (cycle is not None) == expected
    if cycle:
        ends = {(edge.source, edge.target) for edge in graph.edges}
        assert len(set(cycle)) == len(cycle)
        assert set(zip(cycle, cycle[1:] + cycle[:1], strict=True)) <= ends


@pytest.mark.parametrize("mode", ["ANY", "QUORUM:1", "QUORUM:0.5", "COLLECT"])
def test_e3_a_node_is_guarded_if_all_its_paths_come_to_such_a_join(mode: str) -> None:
    assert guarded_ids("a -> b", "b -> d", "c -> d", f"node d join={mode}") == ["a", "b", "c"]


def test_e3_all_is_no_guard() -> None:
    assert guarded_ids("a -> b", "node b join=ALL") == []


def test_e3_one_path_past_the_join_is_enough_to_be_unguarded() -> None:
    assert guarded_ids("a -> b", "a -> c", "b -> d", "node d join=ANY") == ["b"]


def test_e3_a_path_may_end_at_the_join_itself() -> None:
    assert guarded_ids("a -> b", "node b join=COLLECT") == ["a"]


def test_e3_the_join_has_to_be_another_node() -> None:
    assert guarded_ids("a -> b", "b -> c", "node b join=ANY") == ["a"]


def test_e3_a_join_behind_a_join_guards_it() -> None:
    assert guarded_ids("a -> b", "b -> c", "node b join=ANY", "node c join=COLLECT") == ["a", "b"]


def test_e3_a_node_without_plain_edges_is_not_guarded() -> None:
    assert guarded_ids("a -error-> b", "node b join=ANY") == []


def test_e3_error_edges_are_no_paths() -> None:
    assert guarded_ids("a -> j", "b -> j", "a -error-> x", "node j join=ANY") == ["a", "b"]


@given(dags())
def test_an_analysis_agrees_with_its_definitions(graph: Graph) -> None:
    adjacency = build_adjacency(graph)
    analysis = analyze(graph, adjacency)
    assert analysis == Analysis(
        levels=tuple(len(longest(adjacency, node, forward=False)) for node in range(len(graph.nodes))),
        remaining=tuple(len(longest(adjacency, node, forward=True)) for node in range(len(graph.nodes))),
        guarded=frozenset(node for node in range(len(graph.nodes)) if is_guarded(graph, adjacency, node)),
    )


@given(dags())
def test_the_longest_path_is_a_path_and_as_long_as_there_are_levels(graph: Graph) -> None:
    adjacency = build_adjacency(graph)
    analysis = analyze(graph, adjacency)
    path = longest_path(adjacency, analysis)
    assert len(path) == 1 + max(analysis.levels)
    ends = set(zip(adjacency.edge_sources, adjacency.edge_targets, strict=True))
    assert set(pairwise(path)) <= ends


def test_of_several_longest_paths_the_earliest_in_the_graph_is_given() -> None:
    graph = build("a -> c,b", "b,c -> d")
    adjacency = build_adjacency(graph)
    assert [graph.nodes[node].id for node in longest_path(adjacency, analyze(graph, adjacency))] == [
        "a",
        "c",
        "d",
    ]


def test_an_empty_graph_has_no_path() -> None:
    graph = Graph(nodes=())
    adjacency = build_adjacency(graph)
    assert longest_path(adjacency, analyze(graph, adjacency)) == []
    assert find_cycle(adjacency) is None


def test_v8_a_chain_of_100_000_nodes_is_analyzed() -> None:
    graph = chain(100_000)
    adjacency = build_adjacency(graph)
    analysis = analyze(graph, adjacency)
    assert analysis.levels == tuple(range(100_000))
    assert analysis.remaining == tuple(reversed(range(100_000)))
    assert len(longest_path(adjacency, analysis)) == 100_000
    assert find_cycle(adjacency) is None


def test_v8_a_cycle_of_100_000_nodes_is_found() -> None:
    graph = chain(100_000)
    closed = Graph(nodes=graph.nodes, edges=(*graph.edges, *build("n99999 -> n0").edges))
    assert find_cycle(build_adjacency(closed)) == list(range(100_000))


def test_v8_a_fan_out_of_100_000_nodes_is_analyzed() -> None:
    analysis = analysis_of(fan_out(99_999))
    assert analysis.levels == (0, *[1] * 99_999)
    assert analysis.remaining == (1, *[0] * 99_999)


def longest(adjacency: Adjacency, node: int, *, forward: bool) -> list[int]:
    """The edges of a longest path from the node, or to it; exponential."""
    edges = adjacency.outgoing[node] if forward else adjacency.incoming[node]
    ends = adjacency.edge_targets if forward else adjacency.edge_sources
    paths = [[edge, *longest(adjacency, ends[edge], forward=forward)] for edge in edges]
    return max(paths, key=len) if paths else []


def is_guarded(graph: Graph, adjacency: Adjacency, node: int) -> bool:
    """E3 by its words: follows every path of plain edges to its end."""
    guards = {
        position
        for position, member in enumerate(graph.nodes)
        if member.join is not None and member.join.mode in {JoinMode.ANY, JoinMode.QUORUM, JoinMode.COLLECT}
    }

    @cache
    def paths(start: int) -> list[list[int]]:
        following = [
            adjacency.edge_targets[edge]
            for edge in adjacency.outgoing[start]
            if graph.edges[edge].handle != "error"
        ]
        return [[start, *rest] for target in following for rest in paths(target)] or [[start]]

    all_paths = [path[1:] for path in paths(node)]
    return all(path and not guards.isdisjoint(path) for path in all_paths)
