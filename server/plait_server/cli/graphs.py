"""`plait validate` and `plait plan`: by default here, with the same functions as the server has."""

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
from plait_server.encoding.graph_answers import plan_response, validation_response
from plait_server.encoding.graph_codec import graph_from_proto

_NAMES_SHOWN_MAX: Final = 20
_BRANCHES_SHOWN_MAX: Final = 20

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
        echo(f"{file}: valid, {count(len(graph.nodes), 'node')}, {count(len(graph.edges), 'edge')}")


def _complain_of_violations(file: str, response: graph_service_pb2.ValidateGraphResponse) -> None:
    problems = [f"{problem.field}: {problem.message}" for problem in response.violations]
    complain_of(file, problems, response.violation_count)


def _plan_lines(
    file: str, graph: graph_pb2.Graph, plan: graph_service_pb2.PlanGraphResponse
) -> Iterator[str]:
    sizes = (
        count(len(graph.nodes), "node"),
        count(len(graph.edges), "edge"),
        count(plan.level_count, "level"),
    )
    yield f"{graph.name or file}: {', '.join(sizes)}, at most {plan.width:,} side by side"
    yield ""
    for line in draw(graph_from_proto(graph), plan, terminal_width() - 2).splitlines():
        yield f"  {line}".rstrip()
    yield ""
    yield f"{dim('longest path')}  {_names(plan.longest_path, ' → ')}"
    guarded = [node.id for node in plan.nodes if node.guarded]
    yield f"{dim('guarded     ')}  {_names(guarded, ', ') or 'none'}"
    yield from _branch_lines(plan)
    for warning in plan.warnings:
        yield f"{dim('warning     ')}  {warning.field}: {warning.message}"


def _branch_lines(plan: graph_service_pb2.PlanGraphResponse) -> Iterator[str]:
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
