"""`plait get`, `list`, `count`, `nodes` and `workers`: what there is."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence

import click

from plait.v1 import execution_pb2, worker_hub_service_pb2
from plait_server.cli.connecting import Target, echo_json, json_option, server_options
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.lookout import waiting_lines
from plait_server.cli.summary import elapsed, node_state_of, state_of, summary
from plait_server.cli.text import (
    between,
    complain,
    duration,
    echo,
    local_time,
    name_of,
    one_line,
    seconds_of,
    table,
)


@click.command("get")
@click.argument("execution_id", metavar="ID")
@click.option("--output", is_flag=True, help="Write the execution's output alone, as JSON.")
@server_options
@json_option
def get_command(*, execution_id: str, output: bool, target: Target, as_json: bool) -> int:
    """Show an execution: its state, how far it is, what it gave, why it failed."""
    with target.open() as client:
        execution = client.get(execution_id)
        if output:
            if not execution.HasField("output"):
                complain(f"plait: {execution_id} is {state_of(execution)} and has no output")
                return ExitCode.NOT_SUCCEEDED
            echo(client.payload_text(execution.output))
        elif as_json:
            echo_json(execution)
        else:
            for line in summary(execution, waiting_lines(client, execution)):
                echo(line)
    return ExitCode.SUCCESS


_filter_option = click.option(
    "--filter",
    default="",
    metavar="FILTER",
    help="The executions wanted, such as `state = RUNNING AND labels.team = core`; compares state, graph_name, "
    "labels.KEY, create_time and end_time, joined by AND, OR, NOT and parentheses.",
)


@click.command("list")
@click.option(
    "--limit", type=click.IntRange(min=0), default=50, show_default=True, help="How many; 0 lists them all."
)
@_filter_option
@click.option(
    "--order-by",
    default="",
    metavar="ORDER",
    help="`create_time desc` (newest first), `create_time`, `end_time desc` or `end_time`.",
)
@server_options
@json_option
def list_command(*, limit: int, filter: str, order_by: str, target: Target, as_json: bool) -> int:
    """List the executions of a namespace, newest first."""
    with target.open() as client:
        listed = client.list(filter=filter, order_by=order_by, page_size=min(limit, 1000))
        executions = itertools.islice(listed, limit or None)
        if as_json:
            for execution in executions:
                echo_json(execution)
            return ExitCode.SUCCESS
        rows = [
            (
                execution.execution_id,
                state_of(execution),
                execution.graph_name,
                f"{execution.node_count:,}",
                local_time(execution.create_time),
                elapsed(execution),
            )
            for execution in executions
        ]
    if not rows:
        complain(f"no executions in the namespace {target.namespace}" + " match the filter" * bool(filter))
    else:
        _echo_table(("EXECUTION", "STATE", "GRAPH", "NODES", "SUBMITTED", "TOOK"), rows, states=1)
    return ExitCode.SUCCESS


@click.command("count")
@_filter_option
@server_options
def count_command(*, filter: str, target: Target) -> int:
    """Count the executions of a namespace."""
    with target.open() as client:
        echo(str(client.count(filter)))
    return ExitCode.SUCCESS


@click.command("nodes")
@click.argument("execution_id", metavar="ID")
@server_options
@json_option
def nodes_command(*, execution_id: str, target: Target, as_json: bool) -> int:
    """List the nodes of an execution, in graph order, with why each is where it is."""
    with target.open() as client:
        nodes = client.nodes(execution_id, page_size=1000)
        if as_json:
            for node in nodes:
                echo_json(node)
            return ExitCode.SUCCESS
        rows = [_node_row(node) for node in nodes]
    heads = ("NODE", "STATE", "REASON", "LEVEL", "BRANCH", "ATTEMPTS", "TOOK", "WORKER")
    _echo_table(heads, rows, states=1)
    return ExitCode.SUCCESS


@click.command("workers")
@server_options
@json_option
def workers_command(*, target: Target, as_json: bool) -> int:
    """List the workers of a namespace: those that are attached, and those that are gone and may come back."""
    with target.open() as client:
        workers = list(client.workers(page_size=1000))
    if as_json:
        for worker in workers:
            echo_json(worker)
    elif not workers:
        complain(f"no workers in the namespace {target.namespace}")
        complain(f"attach one: plait worker MODULE:WORKER --connect {target.server}")
    else:
        heads = ("WORKER", "STATE", "BUSY", "TYPES", "HEARD", "SDK")
        _echo_table(heads, [_worker_row(worker) for worker in workers], states=1)
    return ExitCode.SUCCESS


def _echo_table(heads: Sequence[str], rows: Sequence[Sequence[str]], states: int) -> None:
    for line in table(heads, rows, states):
        echo(line)


def _node_row(node: execution_pb2.ExecutionNode) -> tuple[str, ...]:
    worker_id = node.attempts[-1].worker_id if node.attempts else ""
    took = ""
    if node.HasField("start_time") and node.HasField("end_time"):
        took = duration(between(node.start_time, node.end_time))
    return (
        node.path,
        node_state_of(node),
        one_line(node.reason, 60),
        str(node.level),
        node.branch,
        str(node.attempt_count or ""),
        took,
        worker_id,
    )


def _worker_row(worker: worker_hub_service_pb2.Worker) -> tuple[str, ...]:
    state = name_of(worker_hub_service_pb2.WorkerState, worker.state, "WORKER_STATE_")
    types = [
        f"{served.type} (at most {served.max_concurrency})" if served.max_concurrency else served.type
        for served in worker.types
    ]
    heard_s = max(0.0, time.time() - seconds_of(worker.last_heard_time))
    return (
        worker.worker_id,
        state,
        f"{worker.slots_in_use:,} of {worker.slots:,}",
        one_line(", ".join(types), 80),
        f"{duration(heard_s)} ago",
        one_line(worker.sdk, 40),
    )
