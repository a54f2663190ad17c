"""L4, N1, N5: graphs in sub-graph nodes are checked as they would be alone, each problem with its whole path."""

from __future__ import annotations

from dataclasses import replace

import pytest

from plait_server.core import limits
from plait_server.core.definition.analysis import analyze, build_adjacency
from plait_server.core.definition.graph import (
    Condition,
    Graph,
    Join,
    JoinMode,
    Node,
    OnError,
    OnTimeout,
    Policy,
    RetryPolicy,
    Subgraph,
    Task,
    Timeouts,
)
from plait_server.core.definition.validation import ExpressionNames, validate
from tests.core.graph_text import build
from tests.core.validating import check, edge, found, one, task, warned

INNER = "graph.nodes[0].subgraph.graph"


def holding(graph: Graph, id: str = "sub") -> Node:
    return Node(id=id, kind=Subgraph(graph=graph))


def nested(depth: int, innermost: Graph) -> Graph:
    """A graph with `depth` graphs in one another inside it, the innermost of which is given."""
    graph = innermost
    for _ in range(depth):
        graph = one(holding(graph))
    return graph


def test_v9_the_analysis_of_an_inner_graph_stands_in_that_of_the_outer_one() -> None:
    inner = build("a -> b,c", "b,c -> d", "node d join=ANY")
    outer = Graph(
        nodes=(task("x"), holding(inner), holding(build("a -> b"), "two")), edges=(edge("x", "sub"),)
    )
    analysis = validate(outer, check).analysis
    assert analysis is not None
    assert list(analysis.inner) == [1, 2]
    assert analysis.inner[1] == analyze(inner, build_adjacency(inner))
    assert analysis == analyze(outer, build_adjacency(outer))


def test_r2_a_subgraph_is_one_node_of_the_levels_around_it() -> None:
    outer = Graph(nodes=(holding(build("a -> b", "b -> c")), task("x")), edges=(edge("sub", "x"),))
    analysis = validate(outer, check).analysis
    assert analysis is not None
    assert (analysis.levels, analysis.inner[0].levels) == ((0, 1), (0, 1, 2))


def test_v5_problems_of_all_graphs_are_reported_together_by_their_whole_path() -> None:
    innermost = Graph(nodes=(task("a"), task("a")), name="no name")
    inner = Graph(
        nodes=(task("b c"), holding(innermost), task("d", Condition(expression="a!"))),
        edges=(edge("d", "q", "true"), edge("d", "d", "x")),
        policy=Policy(timeout_s=-1),
        output="foo",
    )
    outer = Graph(nodes=(holding(inner), task("e", Task(type=""))), edges=(edge("sub", "f"),))
    assert set(found(outer)) == {
        f"{INNER}.policy.timeout",
        f"{INNER}.nodes[0].id",
        f"{INNER}.nodes[1].subgraph.graph.name",
        f"{INNER}.nodes[1].subgraph.graph.nodes[1].id",
        f"{INNER}.nodes[2].condition.expression",
        f"{INNER}.edges[0].target",
        f"{INNER}.edges[1].handle",
        f"{INNER}.edges[1].target",
        f"{INNER}.output",
        "graph.nodes[1].task.type",
        "graph.edges[0].target",
    }


def test_v5_messages_name_fields_by_their_whole_path_too() -> None:
    inner = Graph(nodes=(task("a"), task("a"), task("b")), edges=(edge("a", "b"), edge("a", "b")))
    assert found(one(holding(inner))) == {
        f"{INNER}.nodes[1].id": f'"a" is already the id of {INNER}.nodes[0]; choose another',
        f"{INNER}.edges[1]": f"{INNER}.edges[0] has the same source, target and handle; remove one of the two",
    }


def test_v5_the_first_50_problems_of_all_graphs_are_kept_and_all_are_counted() -> None:
    bad = Graph(nodes=tuple(task("a") for _ in range(40)))
    validation = validate(Graph(nodes=(holding(bad, "x"), holding(bad, "y"))), check)
    assert validation.problem_count == 78
    assert [problem.field for problem in validation.problems[38:41]] == [
        f"{INNER}.nodes[39].id",
        "graph.nodes[1].subgraph.graph.nodes[1].id",
        "graph.nodes[1].subgraph.graph.nodes[2].id",
    ]


def test_v3_a_cycle_is_found_in_an_inner_graph() -> None:
    assert found(one(holding(build("a -> b", "b -> a")))) == {
        f"{INNER}.edges": 'the edges lead in a circle: "a" -> "b" -> "a"; remove one of them'
    }


def test_v1_ids_are_unique_in_their_own_graph_alone() -> None:
    assert found(Graph(nodes=(holding(one(task("sub")), "sub"), holding(one(task("sub")), "two")))) == {}


def test_l4_a_subgraph_has_a_graph_or_an_output_and_not_both() -> None:
    nodes = (
        task("a"),
        Node(id="none", kind=Subgraph()),
        Node(id="both", kind=Subgraph(graph=one(task()), output_of="a")),
    )
    assert found(Graph(nodes=nodes, edges=(edge("a", "both"),))) == {
        "graph.nodes[1].subgraph": "a sub-graph needs one of `graph` and `output_of`, and neither is given",
        "graph.nodes[2].subgraph": "a sub-graph needs one of `graph` and `output_of`, and both are given",
    }


def test_v6_output_of_names_an_upstream_node() -> None:
    def of(id: str) -> Node:
        return Node(id="sub", kind=Subgraph(output_of=id))

    field = "graph.nodes[1].subgraph.output_of"
    nodes, edges = (task("plan"), of("plan"), task("late")), (edge("plan", "sub"), edge("sub", "late"))
    assert found(Graph(nodes=nodes, edges=edges)) == {}
    for id, message in (
        ("plam", 'there is no node "plam"; did you mean "plan"?'),
        (
            "late",
            '"late" is not upstream of "sub": no path leads from it there; add an edge, or name another',
        ),
        ("sub", '"sub" names its own output, which is not there yet; name a node upstream of it'),
    ):
        assert found(Graph(nodes=(nodes[0], of(id), nodes[2]), edges=edges)) == {field: message}


def test_n1_a_subgraph_takes_everything_but_retries() -> None:
    node = replace(
        holding(one(task())),
        input='{"x": "{{ nodes.first }}"}',
        join=Join(mode=JoinMode.ANY),
        timeouts=Timeouts(node_s=5),
        on_error=OnError.IGNORE,
        on_timeout=OnTimeout.CONTINUE,
        priority=3,
        locked=True,
        locked_output="1",
    )
    graph = Graph(nodes=(task("first"), node), edges=(edge("first", "sub"),))
    assert found(graph) == {}
    assert warned(graph) == {}
    assert found(replace(graph, nodes=(task("first"), replace(node, retry=RetryPolicy(max_attempts=2))))) == {
        "graph.nodes[1].retry": (
            "a sub-graph has no attempts of its own; remove it, and let the tasks in it retry"
        )
    }


def test_n1_an_inner_graph_needs_no_limit_of_its_own() -> None:
    assert found(one(holding(replace(one(task()), policy=Policy(max_concurrency=0))))) == {}


def test_v5_an_attempt_timeout_of_a_subgraph_is_warned_of() -> None:
    node = replace(holding(one(task())), timeouts=Timeouts(attempt_s=5))
    assert warned(one(node)) == {
        "graph.nodes[0].timeouts.attempt": (
            "it has no effect, for a sub-graph has no attempts; set `timeouts.node` instead"
        )
    }


def test_v5_warnings_of_inner_graphs_have_their_whole_path() -> None:
    inner = build("a,b -> c", "node a on_error=IGNORE", "node c join=ANY")
    assert set(warned(nested(2, inner))) == {f"{INNER}.nodes[0].subgraph.graph.edges[0]"}


# What an inner graph sees (N5).


def test_n5_expressions_name_nodes_of_their_own_graph() -> None:
    inner = Graph(
        nodes=(
            replace(task("c"), input='"{{ nodes.plan }}"'),
            task("d", Condition(expression="nodes.c nodes.x")),
        ),
        edges=(edge("c", "d", when="nodes.sub"), edge("plan", "d")),
        output="nodes.plan nodes.c",
    )
    outer = Graph(nodes=(task("plan"), holding(inner)), edges=(edge("plan", "sub"),))
    field = "graph.nodes[1].subgraph.graph"
    around = "is a node of a graph around this one, and only nodes of the same graph can be named"
    assert found(outer) == {
        f"{field}.nodes[0].input": f'"plan" {around}; pass what it gives by the `input` of "sub"',
        f"{field}.nodes[1].condition.expression": 'there is no node "x"; add it, or name another',
        f"{field}.edges[0].when": f'"sub" {around}; pass what it gives by the `input` of "sub"',
        f"{field}.edges[1].source": f'"plan" {around}; pass what it gives by the `input` of "sub"',
        f"{field}.output": f'"plan" {around}; pass what it gives by the `input` of "sub"',
    }


def test_n5_the_way_in_is_the_sub_graph_node_beside_the_named_one() -> None:
    innermost = one(replace(task("x"), input='"{{ nodes.far nodes.near }}"'))
    inner = Graph(nodes=(task("near"), holding(innermost, "deep")), edges=(edge("near", "deep"),))
    outer = Graph(nodes=(task("far"), holding(inner, "sub")), edges=(edge("far", "sub"),))
    messages = [problem.message for problem in validate(outer, check).problems]
    assert [message.rpartition(" ")[2] for message in messages] == ['"sub"', '"deep"']


def test_n5_nodes_of_an_inner_graph_are_not_seen_outside() -> None:
    reader = replace(task("b"), input='"{{ nodes.inside }}"')
    outer = Graph(nodes=(holding(one(task("inside"))), reader), edges=(edge("sub", "b"),))
    assert found(outer) == {"graph.nodes[1].input": 'there is no node "inside"; add it, or name another'}


def test_each_distinct_source_of_all_graphs_is_checked_once() -> None:
    asked: list[str] = []

    def counting(source: str, *, template: bool) -> ExpressionNames | str:
        del template
        asked.append(source)
        return ExpressionNames()

    graph = replace(nested(5, one(task("a", Condition(expression="input")))), output="input")
    assert validate(graph, counting).is_valid
    assert asked == ["input"]


# Sizes.


def test_l4_graphs_are_nested_16_deep_and_no_deeper() -> None:
    assert found(nested(16, one(task()))) == {}
    path = "graph" + ".nodes[0].subgraph.graph" * 16
    assert found(nested(17, one(task("not looked at")))) == {
        f"{path}.nodes[0].subgraph": (
            "graphs are nested more than 16 deep here; put its nodes into the graph around it"
        )
    }


def test_a_thousand_levels_of_graphs_end_no_stack() -> None:
    assert len(found(nested(1_000, one(task())))) == 1


@pytest.mark.parametrize("each", [1, 1_000])
def test_v8_nodes_are_counted_over_all_graphs(each: int) -> None:
    """Whatever is shared in memory, every graph counts where it stands."""
    inner = Graph(nodes=tuple(task(f"n{number}") for number in range(each)))
    count = limits.NODES_MAX // (each + 1) + 1
    outer = Graph(nodes=tuple(holding(inner, f"s{number}") for number in range(count)), name="no name")
    assert found(outer) == {
        "graph.nodes": f"there are {count * (each + 1):,} nodes in all graphs together; at most 100,000 are allowed",
        "graph.name": found(replace(one(task()), name="no name"))["graph.name"],
    }


def test_v8_edges_are_counted_over_all_graphs() -> None:
    inner = Graph(nodes=(task("a"),), edges=(edge("a", "b"),) * (limits.EDGES_MAX // 2))
    outer = Graph(nodes=(holding(inner, "x"), holding(inner, "y")), edges=(edge("x", "y"),))
    assert found(outer) == {
        "graph.edges": "there are 500,001 edges in all graphs together; at most 500,000 are allowed"
    }
