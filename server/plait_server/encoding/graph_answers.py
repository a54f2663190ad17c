"""The answers of GraphService: what validation found, and what a valid graph would do."""

from __future__ import annotations

from plait.v1 import graph_service_pb2
from plait_server.core.definition.analysis import Adjacency, longest_path
from plait_server.core.definition.branches import assign_branches
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
    analysis, adjacency = validation.analysis, validation.adjacency
    assert analysis is not None
    assert adjacency is not None  # a valid graph has both
    branches = assign_branches(graph, adjacency, analysis.levels)
    layout = _layout(graph, adjacency, analysis)
    widths: dict[int, int] = {}
    for level in analysis.levels:
        widths[level] = widths.get(level, 0) + 1
    return graph_service_pb2.PlanGraphResponse(
        level_count=len(widths),
        width=max(widths.values()),
        longest_path=[graph.nodes[index].id for index in longest_path(adjacency, analysis)],
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
