"""V6, V8: which nodes an expression may name, in graphs of any size."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from plait_server.core.definition.graph import (
    Graph,
)
from plait_server.core.definition.validation import validate
from tests.core.graph_shapes import dags
from tests.core.validating import check, edge, found, task


@given(dags(), st.data())
def test_v6_upstream_nodes_are_those_from_which_a_path_leads(graph: Graph, data: st.DataObject) -> None:
    ids = [node.id for node in graph.nodes]
    asking, named = data.draw(st.sampled_from(ids)), data.draw(st.sampled_from(ids))
    above = {asking}
    for _ in ids:
        above |= {edge.source for edge in graph.edges if edge.target in above}
    nodes = tuple(
        replace(node, input=f'"{{{{ nodes.{named} }}}}"') if node.id == asking else node
        for node in graph.nodes
    )
    validation = validate(replace(graph, nodes=nodes), check)
    assert validation.is_valid == (named in above - {asking})


def test_v8_distant_references_across_many_sweeps_are_answered() -> None:
    """Every node of a chain of 10,000 names the node two before it, and the last one all of another chain."""
    count = 10_000
    nodes = tuple(
        replace(task(f"n{position}"), input=f'"{{{{ nodes.n{position - 2} }}}}"' if position > 1 else None)
        for position in range(count)
    )
    edges = tuple(edge(f"n{position}", f"n{position + 1}") for position in range(count - 1))
    assert found(Graph(nodes=nodes, edges=edges)) == {}
    cut = tuple(edge for position, edge in enumerate(edges) if position != 5_000)
    assert set(found(Graph(nodes=nodes, edges=cut))) == {"graph.nodes[5001].input", "graph.nodes[5002].input"}


def test_v8_one_node_may_name_all_others() -> None:
    count = 9_000
    names = " ".join(f"{{{{ nodes.n{position} }}}}" for position in range(count))
    nodes = (*(task(f"n{position}") for position in range(count)), replace(task("end"), input=f'"{names}"'))
    edges = tuple(
        edge(f"n{position}", f"n{position + 1}" if position + 1 < count else "end")
        for position in range(count)
    )
    assert found(Graph(nodes=nodes, edges=edges)) == {}
    assert validate(Graph(nodes=nodes, edges=edges[:100] + edges[101:]), check).problem_count == 101
