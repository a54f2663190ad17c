"""Plans of graphs with graphs inside."""

from __future__ import annotations

from plait_server.core.definition.analysis import analyze, build_adjacency
from plait_server.core.definition.graph import Edge, Graph, Node, Subgraph, Task
from plait_server.core.definition.validation import Validation
from plait_server.encoding.graph_answers import plan_response
from tests.core.graph_text import build


def test_a_plan_holds_the_plans_of_inner_graphs_each_in_its_own_terms() -> None:
    inner = build("a -> b,c", "b,c -> d")
    nodes = (
        Node(id="first", kind=Task(type="t")),
        Node(id="sub", kind=Subgraph(graph=inner)),
        Node(id="later", kind=Subgraph(output_of="first")),
    )
    outer = Graph(
        nodes=nodes, edges=(Edge(source="first", target="sub"), Edge(source="first", target="later"))
    )
    plan = plan_response(outer, Validation(analysis=analyze(outer, build_adjacency(outer)))).plan
    assert (plan.level_count, plan.width, list(plan.longest_path)) == (2, 2, ["first", "sub"])
    assert [node.HasField("inner") for node in plan.nodes] == [False, True, False]
    assert [node.branch for node in plan.nodes] == ["0", "0-001", "0-002"]
    alone = plan_response(inner, Validation(analysis=analyze(inner, build_adjacency(inner)))).plan
    assert plan.nodes[1].inner == alone
    assert [node.branch for node in alone.nodes] == ["0", "0-001", "0-002", "0"]
