"""The answers of GraphService: what validation found, and what a valid graph would do."""

from __future__ import annotations

from plait.v1 import graph_service_pb2
from plait_server.core.definition.analysis import Adjacency, longest_path
from plait_server.core.definition.compiled import compile_graph
from plait_server.core.definition.graph import Analysis, Graph
from plait_server.core.definition.problems import Problem
from plait_server.core.definition.validation import Validation
from plait_server.layering.layout import Layout, lay_out


def validation_response(validation: Validation) -> graph_service_pb2.ValidateGraphResponse:
    """Write what validation found."""
    return graph_service_pb2.ValidateGraphResponse(
        violations=[_problem(problem) for problem in validation.problems],
        violation_count=validation.problem_count,
        warnings=[_problem(problem) for problem in validation.warnings],
    )


def plan_response(graph: Graph, validation: Validation) -> graph_service_pb2.PlanGraphResponse:
    """Write what a valid graph would do; `validation` is that of the graph."""
    analysis = validation.analysis
    assert analysis is not None  # a valid graph has one
    definition = compile_graph(graph, analysis)
    branches = definition.branches
    layout = _layout(graph, definition.adjacency, analysis)
    return graph_service_pb2.PlanGraphResponse(
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
        warnings=[_problem(problem) for problem in validation.warnings],
    )


def _layout(graph: Graph, adjacency: Adjacency, analysis: Analysis) -> Layout:
    lines = [
        # What leaves a node by the same handle, and as surely, is drawn as one line that forks.
        (source, target, f"{edge.handle}{' if' if edge.when else ''}")
        for source, target, edge in zip(
            adjacency.edge_sources, adjacency.edge_targets, graph.edges, strict=True
        )
    ]
    return lay_out(analysis.levels, lines)


def _problem(problem: Problem) -> graph_service_pb2.GraphProblem:
    return graph_service_pb2.GraphProblem(field=problem.field, message=problem.message)
