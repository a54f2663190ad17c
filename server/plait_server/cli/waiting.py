"""`plait wait`: until an execution has ended; and `plait health`: whether a server is ready."""

from __future__ import annotations

import click

from plait.v1 import execution_pb2
from plait_client import Client, Unavailable, has_ended
from plait_server.cli.connecting import Target, echo_json, json_option, server_options
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.lookout import Lookout
from plait_server.cli.summary import state_of, succeeded, summary
from plait_server.cli.text import complain, duration, echo, one_line


@click.command("wait")
@click.argument("execution_id", metavar="ID")
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="How long.  [default: for ever]",
)
@server_options
@json_option
def wait_command(*, execution_id: str, timeout_s: float | None, target: Target, as_json: bool) -> int:
    """Wait for the end of an execution, and show it.

    The exit code is 0 if it SUCCEEDED, 1 if it ended in another state or goes on when the time is over.
    """
    with target.open() as client:
        execution = client.get(execution_id)
        return wait_for_end(client, target, execution, timeout_s=timeout_s, as_json=as_json)


def wait_for_end(
    client: Client,
    target: Target,
    execution: execution_pb2.Execution,
    *,
    timeout_s: float | None = None,
    as_json: bool,
) -> int:
    """Wait for the end of an execution, and show it; return the exit code."""
    id_ = execution.execution_id
    try:
        ended = execution
        if not has_ended(execution):
            with Lookout(target, id_):
                ended = client.wait(id_, timeout_s)
    except KeyboardInterrupt:
        complain(f"\n{id_} goes on. {target.command(f'watch {id_}')} follows it,")
        complain(f"{target.command(f'cancel {id_}')} stops it.")
        return ExitCode.INTERRUPTED
    except Unavailable as error:
        if not client.has_answered:
            raise
        complain(f"plait: {one_line(error.message)}")
        complain(f"{target.command(f'wait {id_}')} goes on waiting.")
        return ExitCode.UNREACHABLE
    if as_json:
        echo_json(ended)
    else:
        for line in summary(ended):
            echo(line)
    if timeout_s is not None and not has_ended(ended):
        complain(f"plait: {id_} is {state_of(ended)} after {duration(timeout_s)}")
    return ExitCode.SUCCESS if succeeded(ended) else ExitCode.NOT_SUCCEEDED


@click.command("health")
@server_options
def health_command(*, target: Target) -> int:
    """Ask a server whether it serves: for health checks of containers and load balancers.

    The exit code is 0 if it does, 1 if it does not (it reads its store back, or stops), 4 if it is not reached.
    """
    with target.open() as client:
        if client.is_serving():
            return ExitCode.SUCCESS
    complain(f"plait: {target.server} is not serving")
    return ExitCode.NOT_SUCCEEDED
