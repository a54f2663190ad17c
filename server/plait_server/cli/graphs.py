"""`plait validate` and `plait plan`: run locally by default, with the server's own functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import click

from plait.v1 import graph_pb2, graph_service_pb2
from plait_client import GraphFileError
from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.requests.reading import check_graph
from plait_server.cli.connecting import Target, echo_json, json_option, server_options
from plait_server.cli.drawing import draw
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.graph_files import complain_of, read_graph_file
from plait_server.cli.text import complain, count, dim, echo, terminal_width
from plait_server.core.definition.analysis import inner_graphs
from plait_server.core.definition.graph import Graph
from plait_server.encoding.graph_answers import plan_response, validation_response
from plait_server.encoding.graph_codec import graph_from_proto

_NAMES_SHOWN_MAX: Final = 20
_BRANCHES_SHOWN_MAX: Final = 20
_SUBGRAPHS_SHOWN_MAX: Final = 20

_online = click.option("--online", is_flag=True, help="Ask the server, instead of checking here.")


@click.command("validate")
@click.argument(
    "files",
    nargs=-1,
    required=True,
    metavar="FILE...",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True),
)
@_online
@server_options
@json_option
def validate_command(*, files: tuple[str, ...], online: bool, target: Target, as_json: bool) -> int:
    """Check graph files and report all their problems, each with the path of the field."""
    code = ExitCode.SUCCESS
    for file in files:
        try:
            graph = read_graph_file(file)
        except GraphFileError as error:
            complain_of(file, [str(problem) for problem in error.problems])
            code = ExitCode.INVALID_GRAPH
            continue
        response = _validate(graph, target if online else None)
        if response.violation_count:
            code = ExitCode.INVALID_GRAPH
        if as_json:
            echo_json(response)
        else:
            _tell(file, graph, response)
    return code


@click.command("plan")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@_online
@server_options
@json_option
def plan_command(*, file: str, online: bool, target: Target, as_json: bool) -> int:
    """Show what a graph would do: its drawing, levels, longest path, guarded nodes and branches."""
    graph = read_graph_file(file)
    response = _validate(graph, target if online else None)
    if response.violation_count:
        _complain_of_violations(file, response)
        return ExitCode.INVALID_GRAPH
    plan = _plan(graph, target if online else None)
    if as_json:
        echo_json(plan)
        return ExitCode.SUCCESS
    for line in _plan_lines(file, graph, plan):
        echo(line)
    return ExitCode.SUCCESS


def _validate(graph: graph_pb2.Graph, target: Target | None) -> graph_service_pb2.ValidateGraphResponse:
    if target is None:
        return validation_response(check_graph(graph, CelEvaluator())[1])
    with target.open() as client:
        return client.validate(graph)


def _plan(graph: graph_pb2.Graph, target: Target | None) -> graph_service_pb2.PlanGraphResponse:
    if target is None:
        return plan_response(*check_graph(graph, CelEvaluator()))
    with target.open() as client:
        return client.plan(graph)


def _tell(file: str, graph: graph_pb2.Graph, response: graph_service_pb2.ValidateGraphResponse) -> None:
    _complain_of_violations(file, response)
    for warning in response.warnings:
        complain(f"{file}: warning: {warning.field}: {warning.message}")
    if not response.violation_count:
        sizes = [count(len(graph.nodes), "node"), count(len(graph.edges), "edge")]
        inner = _inner_sizes(graph)
        if inner:
            sizes.append(f"{count(len(inner), 'sub-graph')} with {count(sum(inner), 'node')}")
        echo(f"{file}: valid, {', '.join(sizes)}")


def _inner_sizes(graph: graph_pb2.Graph) -> list[int]:
    """Count the nodes of each graph inside a graph."""
    sizes: list[int] = []
    rest = [graph]
    while rest:
        inner = [node.subgraph.graph for node in rest.pop().nodes if node.subgraph.HasField("graph")]
        sizes += [len(each.nodes) for each in inner]
        rest += inner
    return sizes


def _complain_of_violations(file: str, response: graph_service_pb2.ValidateGraphResponse) -> None:
    problems = [f"{problem.field}: {problem.message}" for problem in response.violations]
    complain_of(file, problems, response.violation_count)


def _plan_lines(
    file: str, graph: graph_pb2.Graph, response: graph_service_pb2.PlanGraphResponse
) -> Iterator[str]:
    core = graph_from_proto(graph)
    yield from _graph_lines(graph.name or file, core, response.plan)
    inner = list(_inner("", core, response.plan))
    for path, inner_graph, inner_plan in inner[:_SUBGRAPHS_SHOWN_MAX]:
        name = f" ({inner_graph.name})" if inner_graph.name else ""
        yield ""
        yield from _graph_lines(f"in {path}{name}", inner_graph, inner_plan)
    if len(inner) > _SUBGRAPHS_SHOWN_MAX:
        yield ""
        yield f"and {count(len(inner) - _SUBGRAPHS_SHOWN_MAX, 'sub-graph')} more"
    for warning in response.warnings:
        yield f"{dim('warning     ')}  {warning.field}: {warning.message}"


def _inner(
    path: str, graph: Graph, plan: graph_service_pb2.GraphPlan
) -> Iterator[tuple[str, Graph, graph_service_pb2.GraphPlan]]:
    """Yield the graphs inside a graph, outer before inner, each with the path of its node and its plan."""
    for position, inner in inner_graphs(graph):
        inner_path = f"{path}{graph.nodes[position].id}"
        inner_plan = plan.nodes[position].inner
        yield inner_path, inner, inner_plan
        yield from _inner(f"{inner_path}/", inner, inner_plan)


def _graph_lines(title: str, graph: Graph, plan: graph_service_pb2.GraphPlan) -> Iterator[str]:
    sizes = (
        count(len(graph.nodes), "node"),
        count(len(graph.edges), "edge"),
        count(plan.level_count, "level"),
    )
    yield f"{title}: {', '.join(sizes)}, at most {plan.width:,} side by side"
    yield ""
    for line in draw(graph, plan, terminal_width() - 2).splitlines():
        yield f"  {line}".rstrip()
    yield ""
    yield f"{dim('longest path')}  {_names(plan.longest_path, ' → ')}"
    guarded = [node.id for node in plan.nodes if node.guarded]
    yield f"{dim('guarded     ')}  {_names(guarded, ', ') or 'none'}"
    yield from _branch_lines(plan)


def _branch_lines(plan: graph_service_pb2.GraphPlan) -> Iterator[str]:
    members: dict[str, list[str]] = {}
    for node in plan.nodes:
        members.setdefault(node.branch, []).append(node.id)
    names = {edge.branch: edge.branch_name for edge in plan.edges if edge.branch_name}
    head = "branches    "
    for shown, branch in enumerate(sorted(members)):
        if shown == _BRANCHES_SHOWN_MAX:
            yield f"{dim(head)}  and {len(members) - shown:,} more"
            return
        name = f" ({names[branch]})" if branch in names else ""
        yield f"{dim(head)}  {branch}{name}: {_names(members[branch], ', ')}"
        head = " " * len(head)


def _names(names: Sequence[str], separator: str) -> str:
    if len(names) <= _NAMES_SHOWN_MAX:
        return separator.join(names)
    return separator.join([*names[: _NAMES_SHOWN_MAX - 1], f"… {len(names) - _NAMES_SHOWN_MAX + 1:,} more"])
