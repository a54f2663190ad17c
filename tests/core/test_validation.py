"""V1 to V6: what is wrong with a graph as a whole, in which field, and in which words."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_server.core import limits
from plait_server.core.definition.analysis import analyze, build_adjacency
from plait_server.core.definition.graph import (
    Condition,
    Delay,
    Graph,
    Node,
    Policy,
    Switch,
)
from plait_server.core.definition.validation import ExpressionNames, Problem, Validation, validate
from tests.core.graph_shapes import digraphs
from tests.core.graph_text import build
from tests.core.validating import check, edge, found, one, task


def test_a_valid_graph_comes_with_its_analysis() -> None:
    graph = build("a -> b,c", "b,c -> d", "node d join=ANY")
    assert validate(graph, check) == Validation(analysis=analyze(graph, build_adjacency(graph)))


@pytest.mark.parametrize("id", ["a", "A-1.b_c", "x" * 128, "..."])
def test_v1_an_id_is_1_to_128_of_its_characters(id: str) -> None:
    assert found(one(task(id))) == {}


@pytest.mark.parametrize(
    ("id", "shown"),
    [
        ("", '""'),
        ("a b", '"a b"'),
        ("a\n", '"a\\n"'),
        ("\u00e9", '"\u00e9"'),
        ("a\u202eb", '"a\\u202eb"'),
        ("x" * 129, '"' + "x" * 80 + '\u2026"'),
        ("nul\x00", '"nul\\u0000"'),
    ],
)
def test_v1_other_ids_are_refused_and_quoted_safely(id: str, shown: str) -> None:
    assert found(one(task(id))) == {
        "graph.nodes[0].id": f"{shown} is no id: write 1 to 128 letters, digits, `_`, `.` or `-`"
    }


def test_v1_ids_are_unique() -> None:
    graph = Graph(nodes=(task("a"), task("b"), task("a")))
    assert found(graph) == {"graph.nodes[2].id": '"a" is already the id of graph.nodes[0]; choose another'}


def test_v2_edges_name_existing_nodes() -> None:
    graph = Graph(nodes=(task("resize"), task("store")), edges=(edge("resise", "store"), edge("resize", "q")))
    assert found(graph) == {
        "graph.edges[0].source": 'there is no node "resise"; did you mean "resize"?',
        "graph.edges[1].target": 'there is no node "q"; add it, or name another',
    }


def test_v2_an_edge_leads_to_another_node() -> None:
    assert found(build("a -> a")) == {
        "graph.edges[0].target": 'the edge leads from "a" to itself; name another node, or remove the edge'
    }


def test_v2_edges_with_equal_source_target_and_handle_are_duplicates() -> None:
    graph = Graph(
        nodes=(task("a"), task("b")),
        edges=(edge("a", "b"), edge("a", "b", "error"), edge("a", "b", when="input")),
    )
    assert found(graph) == {
        "graph.edges[2]": "graph.edges[0] has the same source, target and handle; remove one of the two"
    }


def test_v3_a_cycle_is_named_in_order() -> None:
    assert found(build("s -> a", "a -> b", "b -> c", "c -> a")) == {
        "graph.edges": 'the edges lead in a circle: "a" -> "b" -> "c" -> "a"; remove one of them'
    }


def test_v3_a_long_cycle_is_cut_in_its_middle() -> None:
    lines = [f"n{number} -> n{(number + 1) % 50}" for number in range(50)]
    message = found(build(*lines))["graph.edges"]
    assert message.startswith('the edges lead in a circle: "n0" -> "n1"')
    assert '"n9" -> (31 more) -> "n41"' in message
    assert message.endswith('"n49" -> "n0"; remove one of them')


def test_v4_a_graph_has_a_node() -> None:
    assert found(Graph(nodes=())) == {"graph.nodes": "there is no node; add at least one"}


def test_v5_all_problems_are_reported_together() -> None:
    graph = Graph(
        name="my graph",
        nodes=(task("a b"), Node(id="c", kind=None, priority=5000), task("d"), task("e")),
        edges=(edge("d", "x"), edge("d", "d"), edge("d", "e"), edge("e", "d"), edge("c", "d", "true")),
        policy=Policy(max_concurrency=-1),
    )
    assert set(found(graph)) == {
        "graph.name",
        "graph.policy.max_concurrency",
        "graph.nodes[0].id",
        "graph.nodes[1]",
        "graph.nodes[1].priority",
        "graph.edges[0].target",
        "graph.edges[1].target",
        "graph.edges",
    }


def test_v5_the_first_50_problems_are_kept_and_all_are_counted() -> None:
    validation = validate(Graph(nodes=tuple(task("a") for _ in range(100))), check)
    assert validation.problem_count == 99
    assert [problem.field for problem in validation.problems] == [
        f"graph.nodes[{position}].id" for position in range(1, 51)
    ]


def test_v5_what_was_found_in_decoding_comes_first_and_is_said_once() -> None:
    first = Problem(field="graph.nodes[0].delay.duration", message="odd")
    graph = Graph(nodes=(task("a", Delay(duration_s=0.0)), task("b c")))
    assert found(graph, [first]) == {
        "graph.nodes[0].delay.duration": "odd",
        "graph.nodes[1].id": '"b c" is no id: write 1 to 128 letters, digits, `_`, `.` or `-`',
    }
    assert validate(graph, check, [first] * 60).problem_count == 61


def test_of_a_graph_past_its_limits_nothing_else_is_said() -> None:
    nodes = (task("a b"),) * (limits.NODES_MAX + 1)
    assert found(Graph(nodes=nodes)) == {
        "graph.nodes": "there are 100,001 nodes; at most 100,000 are allowed"
    }
    edges = (edge("x", "y"),) * (limits.EDGES_MAX + 1)
    assert found(Graph(nodes=(task(),), edges=edges)) == {
        "graph.edges": "there are 500,001 edges; at most 500,000 are allowed"
    }


# Expressions.


@pytest.mark.parametrize(
    ("graph", "field"),
    [
        (one(task("a", Condition(expression="a!"))), "graph.nodes[0].condition.expression"),
        (one(task("a", Switch(expression="a!", cases=()))), "graph.nodes[0].switch.expression"),
        (one(replace(task(), input='"{{ a! }}"')), "graph.nodes[0].input"),
        (Graph(nodes=(task("a"), task("b")), edges=(edge("a", "b", when="a!"),)), "graph.edges[0].when"),
        (replace(one(task()), output="a!"), "graph.output"),
    ],
)
def test_v6_expressions_compile(graph: Graph, field: str) -> None:
    assert found(graph) == {field: "unexpected `!`; remove it"}


def test_v6_conditions_and_switches_have_an_expression() -> None:
    graph = Graph(nodes=(task("a", Condition(expression="")), task("b", Switch(expression="", cases=("x",)))))
    assert found(graph) == {
        "graph.nodes[0].condition.expression": "the expression is missing; write CEL that gives a boolean",
        "graph.nodes[1].switch.expression": "the expression is missing; write CEL that gives a string",
    }


def test_v6_an_expression_has_at_most_4_kib() -> None:
    source = "input" + " " * (limits.EXPRESSION_BYTES_MAX - 5)
    assert found(one(task("a", Condition(expression=source)))) == {}
    assert found(one(task("a", Condition(expression=source + "\u00e9")))) == {
        "graph.nodes[0].condition.expression": "the expression has 4,098 bytes; at most 4,096 are allowed"
    }


def test_v6_a_template_may_be_longer_than_an_expression() -> None:
    assert found(one(replace(task(), input='"' + "x" * 10_000 + '"'))) == {}


def test_v6_a_text_as_concurrency_key_is_quoted() -> None:
    assert found(one(replace(task(), concurrency_key="gpu"))) == {
        "graph.nodes[0].concurrency_key": (
            'there is no variable "gpu" here; there are input, execution, nodes, resume; '
            "a key that is always the same text is that text in quotes: 'gpu'"
        )
    }


def test_v6_variables_are_known() -> None:
    graph = Graph(
        nodes=(task("a", Condition(expression="inputs")), replace(task("b"), input='"{{ output }}"')),
        edges=(edge("a", "b", "true", when="output && input && execution && foo"),),
        output="output",
    )
    of_output = (
        "`output` is what an edge would carry, and only its `when` knows it; "
        "write nodes.<id>.output for the output of a node"
    )
    assert found(graph) == {
        "graph.nodes[0].condition.expression": (
            'there is no variable "inputs" here; there are input, execution, nodes, resume'
        ),
        "graph.nodes[1].input": of_output,
        "graph.edges[0].when": 'there is no variable "foo" here; there are input, execution, nodes, resume, output',
        "graph.output": of_output,
    }


def test_v6_expressions_name_upstream_nodes() -> None:
    graph = Graph(
        nodes=(
            task("a"),
            task("b"),
            replace(task("c"), input='"{{ nodes.a nodes.b nodes.c nodes.d nodes.e nodes.bb }}"'),
            task("d"),
            task("e"),
        ),
        edges=(edge("a", "b"), edge("b", "c"), edge("c", "d")),
    )
    validation = validate(graph, check)
    # The unknown one is said first: what is upstream is asked once the whole graph is known.
    assert [(problem.field, problem.message) for problem in validation.problems] == [
        ("graph.nodes[2].input", 'there is no node "bb"; did you mean "b"?'),
        (
            "graph.nodes[2].input",
            '"c" names its own output, which is not there yet; name a node upstream of it',
        ),
        (
            "graph.nodes[2].input",
            '"d" is not upstream of "c": no path leads from it there; add an edge, or name another',
        ),
        (
            "graph.nodes[2].input",
            '"e" is not upstream of "c": no path leads from it there; add an edge, or name another',
        ),
    ]


def test_v6_upstream_counts_error_edges() -> None:
    graph = Graph(
        nodes=(task("a"), task("b"), replace(task("c"), input='"{{ nodes.a }}"')),
        edges=(edge("a", "b", "error"), edge("b", "c")),
    )
    assert found(graph) == {}


def test_v6_a_when_may_name_its_source_and_what_is_upstream_of_it_and_not_its_target() -> None:
    graph = Graph(
        nodes=(task("a"), task("b"), task("c"), task("d")),
        edges=(edge("a", "b"), edge("b", "c", when="nodes.a nodes.b"), edge("d", "c")),
    )
    assert found(graph) == {}
    bad = replace(graph, edges=(*graph.edges[:2], edge("d", "c", when="nodes.b nodes.c")))
    assert [problem.message.partition(":")[0] for problem in validate(bad, check).problems] == [
        '"b" is not upstream of "d"',
        '"c" is not upstream of "d"',
    ]


def test_v6_the_output_of_the_graph_may_name_any_node() -> None:
    assert found(replace(build("a -> b", "c -> d"), output="nodes.a nodes.d input")) == {}
    assert found(replace(build("alpha -> b"), output="nodes.alhpa")) == {
        "graph.output": 'there is no node "alhpa"; did you mean "alpha"?'
    }


def test_what_is_upstream_is_not_asked_of_a_graph_whose_edges_are_unsound() -> None:
    graph = Graph(nodes=(task("a"), replace(task("b"), input='"{{ nodes.a }}"')), edges=(edge("aa", "b"),))
    assert set(found(graph)) == {"graph.edges[0].source"}


@given(digraphs(nodes_max=5), st.data())
def test_validation_says_nothing_against_a_sound_graph_and_something_against_others(
    graph: Graph, data: st.DataObject
) -> None:
    """Edges are bent at random; whatever comes out is judged, and is valid only if it can be analyzed."""
    ids = ["n0", "n1", "n9", ""]
    bent = tuple(
        replace(edge, target=data.draw(st.sampled_from([edge.target, edge.target, *ids])))
        for edge in graph.edges
    )
    graph = replace(graph, edges=bent)
    validation = validate(graph, check)
    known = {node.id for node in graph.nodes}
    ends = [(edge.source, edge.target) for edge in graph.edges]
    is_sound = len(set(ends)) == len(ends) and all(
        source in known and target in known and source != target for source, target in ends
    )
    if not is_sound:
        assert not validation.is_valid
    elif not validation.is_valid:
        assert [problem.field for problem in validation.problems] == ["graph.edges"]
    else:
        assert validation.analysis == analyze(graph, build_adjacency(graph))


def test_each_distinct_source_is_checked_once() -> None:
    asked: list[tuple[str, bool]] = []

    def counting(source: str, *, template: bool) -> ExpressionNames | str:
        asked.append((source, template))
        return ExpressionNames()

    nodes = tuple(task(f"n{number}", Condition(expression="input")) for number in range(10))
    assert validate(Graph(nodes=(*nodes, replace(task("t"), input="1"))), counting).is_valid
    assert asked == [("input", False), ("1", True)]


def test_a_template_that_is_no_json_is_not_handed_to_the_check() -> None:
    def refuse(source: str, *, template: bool) -> ExpressionNames | str:
        raise AssertionError(source)

    assert not validate(one(replace(task(), input="{")), refuse).is_valid
