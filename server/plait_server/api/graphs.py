"""GraphService: checks graphs and shows what they would do. The command line uses the same functions offline."""

from __future__ import annotations

from plait.v1 import graph_pb2, graph_service_pb2
from plait_server.api.call import Call
from plait_server.api.checks import Checks
from plait_server.core.analysis import longest_path
from plait_server.core.branches import assign_branches
from plait_server.core.graph import Graph
from plait_server.core.problems import Problem
from plait_server.core.validation import ExpressionNames, Validation, validate
from plait_server.encoding.graph_codec import graph_from_proto
from plait_server.errors import FieldViolation, InvalidGraph
from plait_server.ports.evaluator import Evaluator, InvalidExpression


def check_graph(message: graph_pb2.Graph, evaluator: Evaluator) -> tuple[Graph, Validation]:
    """Read and check a graph; the validation says all that is wrong with it."""

    def check(source: str, *, template: bool) -> ExpressionNames | str:
        try:
            facts = (evaluator.compile_template(source) if template else evaluator.compile(source)).facts
        except InvalidExpression as error:
            return str(error)
        return ExpressionNames(roots=facts.roots, node_ids=facts.node_ids)

    problems: list[Problem] = []
    graph = graph_from_proto(message, problems)
    return graph, validate(graph, check, problems)


def require_valid(validation: Validation) -> None:
    """Refuse an invalid graph.

    Raises:
        InvalidGraph: with the first 50 problems.
    """
    if not validation.is_valid:
        violations = [
            FieldViolation(field=problem.field, message=problem.message) for problem in validation.problems
        ]
        raise InvalidGraph(violations, validation.problem_count)


def validation_response(validation: Validation) -> graph_service_pb2.ValidateGraphResponse:
    """Write what validation found."""
    return graph_service_pb2.ValidateGraphResponse(
        violations=[_problem(problem) for problem in validation.problems],
        violation_count=validation.problem_count,
        warnings=[_problem(problem) for problem in validation.warnings],
    )


def plan_response(graph: Graph, validation: Validation) -> graph_service_pb2.PlanGraphResponse:
    """Write what a valid graph would do.

    Raises:
        InvalidGraph: it is not valid.
    """
    require_valid(validation)
    analysis, adjacency = validation.analysis, validation.adjacency
    assert analysis is not None
    assert adjacency is not None  # a valid graph has both
    branches = assign_branches(graph, adjacency, analysis.levels)
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


class GraphServicer:
    """Serves GraphService."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    async def validate_graph(
        self, request: graph_service_pb2.ValidateGraphRequest, call: Call
    ) -> graph_service_pb2.ValidateGraphResponse:
        """Check a graph and report all its problems."""
        del call
        _check(request.namespace, is_given=request.HasField("graph"))
        return validation_response(check_graph(request.graph, self._evaluator)[1])

    async def plan_graph(
        self, request: graph_service_pb2.PlanGraphRequest, call: Call
    ) -> graph_service_pb2.PlanGraphResponse:
        """Show what a valid graph would do."""
        del call
        _check(request.namespace, is_given=request.HasField("graph"))
        return plan_response(*check_graph(request.graph, self._evaluator))


def _check(namespace: str, *, is_given: bool) -> None:
    checks = Checks()
    checks.namespace(namespace)
    if not is_given:
        checks.add("graph", "is missing; give the graph")
    checks.finish()


def _problem(problem: Problem) -> graph_service_pb2.GraphProblem:
    return graph_service_pb2.GraphProblem(field=problem.field, message=problem.message)
