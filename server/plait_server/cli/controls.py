"""`plait cancel`, `plait pause`, `plait resume` and `plait update`."""

from __future__ import annotations

import json
from typing import Final

import click

from plait.v1 import execution_pb2, execution_service_pb2, graph_pb2, payload_pb2
from plait_server.cli.connecting import INT32, Target, echo_json, json_option, server_options
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.submitting import read_json
from plait_server.cli.summary import state_of
from plait_server.cli.text import color_of, colored, complain, echo

_POLICIES: Final = {
    "FAIL_FAST": graph_pb2.ON_FAILURE_FAIL_FAST,
    "STOP_DISPATCH": graph_pb2.ON_FAILURE_STOP_DISPATCH,
    "CONTINUE": graph_pb2.ON_FAILURE_CONTINUE,
}


@click.command("cancel")
@click.argument("execution_id", metavar="ID")
@click.option("--reason", default="", help="Why, for people.")
@server_options
@json_option
def cancel_command(*, execution_id: str, reason: str, target: Target, as_json: bool) -> int:
    """Cancel an execution. Nothing happens to one that has ended."""
    with target.open() as client:
        execution = client.cancel(execution_id, reason=reason)
    return _show(execution, as_json=as_json)


@click.command("pause")
@click.argument("execution_id", metavar="ID")
@click.option("--abort", is_flag=True, help="Stop what runs; it runs again after the resume.")
@click.option("--reason", default="", help="Why, for people.")
@server_options
@json_option
def pause_command(*, execution_id: str, abort: bool, reason: str, target: Target, as_json: bool) -> int:
    """Pause an execution: what runs ends, and nothing starts until it is resumed."""
    with target.open() as client:
        execution = client.pause(execution_id, abort=abort, reason=reason)
    code = _show(execution, as_json=as_json)
    if not as_json:
        complain(f"{target.command(f'resume {execution_id}')} lets it go on")
    return code


@click.command("resume")
@click.argument("execution_id", metavar="ID")
@click.option("--data", metavar="JSON|@FILE", callback=read_json, help="What expressions read as `resume`.")
@click.option("--reason", default="", help="Why, for people.")
@server_options
@json_option
def resume_command(
    *, execution_id: str, data: payload_pb2.Payload | None, reason: str, target: Target, as_json: bool
) -> int:
    """Resume a paused execution."""
    with target.open() as client:
        execution = client.resume(execution_id, data=data, reason=reason)
    return _show(execution, as_json=as_json)


def _read_lock(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> list[graph_pb2.NodeLock]:
    locks: list[graph_pb2.NodeLock] = []
    for value in values:
        path, separator, text = value.partition("=")
        lock = graph_pb2.NodeLock(node_path=path, locked=True)
        if separator:
            try:
                json.loads(text)
            except (ValueError, RecursionError) as error:
                raise click.BadParameter(f"{text!r} is no JSON: {error}; write NODE=JSON") from None
            lock.locked_output.json = text
        locks.append(lock)
    return locks


@click.command("update")
@click.argument("execution_id", metavar="ID")
@click.option("--priority", type=INT32, help="Higher goes first among what waits for capacity.")
@click.option("--max-concurrency", type=INT32, help="Attempts at once; 0 is the default.")
@click.option(
    "--on-failure",
    type=click.Choice(list(_POLICIES), case_sensitive=False),
    help="What an unhandled failure does from now on.",
)
@click.option("--min-success-rate", type=float, help="The share of sinks that has to succeed.")
@click.option("--timeout", type=float, help="Seconds from the start; 0 is no limit.")
@click.option(
    "--lock",
    "locks",
    multiple=True,
    metavar="NODE[=JSON]",
    callback=_read_lock,
    help="Skip a node that has not started.",
)
@click.option("--unlock", "unlocks", multiple=True, metavar="NODE", help="Let a locked node run.")
@click.option("--etag", default="", help="Refuse if the settings are others than those that were read.")
@server_options
@json_option
def update_command(  # noqa: PLR0913 -- one for each option
    *,
    execution_id: str,
    priority: int | None,
    max_concurrency: int | None,
    on_failure: str | None,
    min_success_rate: float | None,
    timeout: float | None,
    locks: list[graph_pb2.NodeLock],
    unlocks: tuple[str, ...],
    etag: str,
    target: Target,
    as_json: bool,
) -> int:
    """Change the settings of an open execution. It takes effect at once, and stops nothing that runs."""
    settings = execution_service_pb2.ExecutionSettings()
    paths: list[str] = []
    if priority is not None:
        settings.priority = priority
        paths.append("priority")
    if max_concurrency is not None:
        settings.policy.max_concurrency = max_concurrency
        paths.append("policy.max_concurrency")
    if on_failure is not None:
        settings.policy.on_failure = _POLICIES[on_failure]
        paths.append("policy.on_failure")
    if min_success_rate is not None:
        settings.policy.min_success_rate = min_success_rate
        paths.append("policy.min_success_rate")
    if timeout is not None:
        settings.policy.timeout.FromMicroseconds(round(timeout * 1e6))
        paths.append("policy.timeout")
    settings.locks.extend(locks)
    settings.locks.extend(graph_pb2.NodeLock(node_path=path) for path in unlocks)
    if settings.locks:
        paths.append("locks")
    if not paths:
        raise click.UsageError(
            "there is nothing to change; give --priority, --max-concurrency or another option"
        )
    with target.open() as client:
        execution = client.update(execution_id, settings, paths=paths, etag=etag)
    return _show(execution, as_json=as_json)


def _show(execution: execution_pb2.Execution, *, as_json: bool) -> int:
    if as_json:
        echo_json(execution)
    else:
        state = state_of(execution)
        echo(f"{execution.execution_id}  {colored(state, color_of(state))}")
    return ExitCode.SUCCESS
