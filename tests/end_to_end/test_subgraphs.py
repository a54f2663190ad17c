"""Graphs that run in a node, over a real server: those that stand in it, and those that an output is (L4, N1, N7)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.end_to_end.service import Service, outcome, refusal_of

RUN_INPUT = """
nodes:
  - {id: plan, transform: , input: "{{ execution.input.graph }}"}
  - {id: run, subgraph: {output_of: plan}, input: "{{ execution.input.data }}"}
edges: [{source: plan, target: run}]
"""


def paths(service: Service, execution_id: str) -> set[str]:
    """The nodes of which events tell."""
    return {event.node_path for event in service.events(execution_id)}


def test_l4_an_inline_graph_runs_with_an_input_and_an_output_of_its_own(service: Service) -> None:
    execution = service.run(
        """
        nodes:
          - {id: first, task: {type: echo}, input: 2}
          - id: sub
            input: {n: "{{ nodes.first.output }}"}
            subgraph:
              graph:
                nodes:
                  - {id: a, task: {type: echo}, input: "{{ input.n + 1 }}"}
                  - {id: b, task: {type: echo}, input: "{{ input.n + 2 }}"}
                output: "[nodes.a.output, nodes.b.output, input.n]"
          - {id: last, task: {type: echo}}
        edges: [{source: first, target: sub}, {source: sub, target: last}]
        """
    )
    assert outcome(execution) == "SUCCEEDED"
    assert service.value(execution.output) == [3, 4, 2]
    assert service.states(execution.execution_id) == dict.fromkeys(
        ("first", "sub", "last", "sub/a", "sub/b"), "SUCCEEDED"
    )


def test_l4_the_output_of_a_node_runs_as_a_graph(service: Service) -> None:
    graph: dict[str, Any] = {
        "nodes": [
            {"id": "a", "task": {"type": "echo"}},
            {
                "id": "b",
                "task": {"type": "echo"},
                "input": {"twice": "{{ [nodes.a.output, nodes.a.output] }}"},
            },
        ],
        "edges": [{"source": "a", "target": "b"}],
    }
    execution = service.run(RUN_INPUT, {"graph": graph, "data": 7})
    assert outcome(execution) == "SUCCEEDED"
    assert service.value(execution.output) == {"twice": [7, 7]}


def test_l4_a_large_graph_is_read_elsewhere_and_runs(service: Service) -> None:
    nodes: list[Any] = [{"id": f"n{number}", "transform": {}, "input": number} for number in range(300)]
    edges = [{"source": f"n{number}", "target": f"n{number + 1}"} for number in range(299)]
    execution = service.run(RUN_INPUT, {"graph": {"nodes": nodes, "edges": edges}, "data": None})
    assert outcome(execution) == "SUCCEEDED"
    assert service.value(execution.output) == 299


NO_GRAPHS: list[tuple[Any, list[tuple[str, str]]]] = [
    ("nothing", [("graph", 'expected an object, found the text "nothing"')]),
    (
        {"nodes": [{"id": "a", "transform": {}}], "edges": [{"source": "a", "target": "plan"}]},
        [("graph.edges[0].target", 'there is no node "plan"; add it, or name another')],
    ),
    (
        {"nodes": [{"id": "a b", "transform": {}}, {"id": "c", "tsk": {}}]},
        [("graph.nodes[1]", 'unknown key "tsk"; did you mean "task"?')],
    ),
]


@pytest.mark.parametrize(("graph", "violations"), NO_GRAPHS, ids=["no object", "invalid", "unknown key"])
def test_n7_what_is_no_valid_graph_fails_the_node_with_all_violations(
    service: Service, graph: object, violations: list[tuple[str, str]]
) -> None:
    execution = service.run(RUN_INPUT, {"graph": graph, "data": None})
    assert outcome(execution) == "FAILED/INVALID_ARGUMENT"
    assert execution.failure.node_path == "run"
    assert execution.failure.message.startswith(
        f'the output of "plan" is no valid graph: {violations[0][0]}: '
    )
    assert json.loads(service.text(execution.failure.details)) == {
        "violations": [{"field": field, "message": message} for field, message in violations],
        "violation_count": len(violations),
    }


def test_f3_a_graph_of_an_absent_output_is_an_expression_that_fails(service: Service) -> None:
    execution = service.run(
        """
        nodes:
          - {id: way, condition: {expression: "false"}}
          - {id: plan, transform: }
          - {id: run, subgraph: {output_of: plan}}
        edges:
          - {source: way, handle: "true", target: plan}
          - {source: way, handle: "false", target: run}
          - {source: plan, target: run}
        """
    )
    assert outcome(execution) == "FAILED/EXPRESSION"


def test_n7_a_graph_that_runs_itself_ends_16_deep(service: Service) -> None:
    itself: dict[str, Any] = {
        "nodes": [
            {"id": "plan", "transform": {}, "input": "{{ input.graph }}"},
            {"id": "all", "transform": {}},
            {"id": "run", "subgraph": {"output_of": "plan"}, "input": "{{ nodes.all.output }}"},
        ],
        "edges": [{"source": "plan", "target": "run"}, {"source": "all", "target": "run"}],
    }
    execution = service.run(RUN_INPUT, {"graph": itself, "data": {"graph": itself}})
    assert outcome(execution) == "FAILED/BUDGET_EXCEEDED"
    assert max([path.count("/") for path in paths(service, execution.execution_id)]) == 16


def test_l4_graphs_nested_too_deep_are_refused_at_submission(alone: Service) -> None:
    graph: dict[str, Any] = {"nodes": [{"id": "a", "transform": {}}]}
    for _ in range(16):
        graph = {"nodes": [{"id": "s", "subgraph": {"graph": graph}}]}
    execution = alone.run(json.dumps(graph))
    assert outcome(execution) == "SUCCEEDED"
    outer = alone.plan(json.dumps(graph))
    assert outer.plan.nodes[0].inner.nodes[0].id == "s"
    with pytest.raises(ValueError, match="nested more than 16 deep"):
        alone.submit(json.dumps({"nodes": [{"id": "s", "subgraph": {"graph": graph}}]}))


def test_v5_problems_of_inner_graphs_are_told_by_their_whole_path(alone: Service) -> None:
    bad = """
        nodes:
          - id: s
            subgraph: {graph: {nodes: [{id: a, transform: , input: "{{ nodes.b.output }}"}]}}
    """
    refusal = refusal_of(lambda: alone.submit(bad))
    assert refusal.reason == "INVALID_GRAPH"
    assert list(refusal.fields) == ["graph.nodes[0].subgraph.graph.nodes[0].input"]
