"""The responses of GraphService: the result of a validation, and the plan of a valid graph."""

from __future__ import annotations

from plait.v1 import graph_service_pb2
from plait_server.core.definition.analysis import longest_path
from plait_server.core.definition.compiled import Definition, compile_graph
from plait_server.core.definition.graph import Graph
from plait_server.core.definition.problems import Problem
from plait_server.core.definition.validation import Validation
from plait_server.layering.layout import Layout, lay_out


def validation_response(validation: Validation) -> graph_service_pb2.ValidateGraphResponse:
    """Build the response with the result of a validation."""
    return graph_service_pb2.ValidateGraphResponse(
        violations=[_problem(problem) for problem in validation.problems],
        violation_count=validation.problem_count,
        warnings=[_problem(problem) for problem in validation.warnings],
    )


def plan_response(graph: Graph, validation: Validation) -> graph_service_pb2.PlanGraphResponse:
    """Build the plan of a valid graph; `validation` is the graph's."""
    assert validation.analysis is not None  # A valid graph has an analysis.
    definition = compile_graph(graph, validation.analysis)
    return graph_service_pb2.PlanGraphResponse(
        plan=_plan(definition, _size(definition)),
        warnings=[_problem(problem) for problem in validation.warnings],
    )


def _plan(definition: Definition, size: int) -> graph_service_pb2.GraphPlan:
    """Build the plan of a graph and of those inside it; `size` counts the nodes and edges of the whole request."""
    graph, analysis, branches = definition.graph, definition.analysis, definition.branches
    layout = _layout(definition, size)
    inner = {position: _plan(each, size) for position, each in definition.inner.items()}
    return graph_service_pb2.GraphPlan(
        level_count=len(definition.level_sizes),
        width=max(definition.level_sizes),
        longest_path=[graph.nodes[index].id for index in longest_path(definition.adjacency, analysis)],
        nodes=[
            graph_service_pb2.PlannedNode(
                id=node.id,
                level=analysis.levels[index],
                remaining=analysis.remaining[index],
                guarded=index in analysis.guarded,
                branch=branches.path(branches.node_branch[index]),
                rank=layout.ranks[index],
                order=layout.orders[index],
                inner=inner.get(index),
            )
            for index, node in enumerate(graph.nodes)
        ],
        edges=[
            graph_service_pb2.PlannedEdge(
                branch=branches.path(branches.edge_branch[index]),
                branch_name=edge.branch_name,
            )
            for index, edge in enumerate(graph.edges)
        ],
    )


def _size(definition: Definition) -> int:
    own = len(definition.graph.nodes) + len(definition.graph.edges)
    return own + sum(_size(inner) for inner in definition.inner.values())


def _layout(definition: Definition, size: int) -> Layout:
    graph, adjacency = definition.graph, definition.adjacency
    lines = [
        # Edges with the same source and handle, either all with or all without a `when`, are drawn as one forked line.
        (source, target, f"{edge.handle}{' if' if edge.when else ''}")
        for source, target, edge in zip(
            adjacency.edge_sources, adjacency.edge_targets, graph.edges, strict=True
        )
    ]
    share = (len(graph.nodes) + len(graph.edges)) / size
    return lay_out(definition.analysis.levels, lines, share=share)


def _problem(problem: Problem) -> graph_service_pb2.GraphProblem:
    return graph_service_pb2.GraphProblem(field=problem.field, message=problem.message)
