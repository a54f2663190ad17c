"""`plait watch`: an execution as it happens."""

from __future__ import annotations

import click

from plait.v1 import event_pb2, execution_service_pb2, state_pb2
from plait_client import Client, Unavailable
from plait_server.cli.connecting import Target, echo_json, json_option, server_options
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.lookout import Lookout
from plait_server.cli.summary import node_state_of, state_of
from plait_server.cli.text import color_of, colored, complain, count, dim, echo, one_line
from plait_server.cli.timeline import NODE_CHARS_MAX, Timeline


@click.command("watch")
@click.argument("execution_id", metavar="ID")
@click.option(
    "--after-sequence",
    "after",
    type=click.IntRange(min=-1),
    default=0,
    show_default=True,
    metavar="N",
    help="Begin after the event of this number; -1 begins with the next one.",
)
@click.option("--snapshot", is_flag=True, help="Show the state of all nodes first, then what happens next.")
@server_options
@json_option
def watch_command(
    *,
    execution_id: str,
    after: int,
    snapshot: bool,
    target: Target,
    as_json: bool,
) -> int:
    """Follow an execution, a line an event, until it has ended."""
    with target.open() as client:
        return follow(client, target, execution_id, after=after, snapshot=snapshot, as_json=as_json)


def follow(
    client: Client,
    target: Target,
    execution_id: str,
    *,
    after: int = 0,
    snapshot: bool = False,
    as_json: bool = False,
) -> int:
    """Write the events of an execution until it has ended or Ctrl-C is pressed; return the exit code."""
    last = after
    state: int | None = None
    try:
        timeline = None if as_json else _timeline(client, execution_id)
        frames = client.watch_frames(execution_id, after_sequence=after, include_snapshot=snapshot)
        with Lookout(target, execution_id):
            for frame in frames:
                if frame.HasField("snapshot"):
                    last = frame.snapshot.sequence
                    _show_snapshot(frame.snapshot, as_json=as_json)
                for event in frame.events.events:
                    last = event.sequence
                    if event.execution_state:
                        state = event.execution_state
                    _show(event, timeline)
        if state is None:
            state = client.get(execution_id).state
    except KeyboardInterrupt:
        complain(f"\n{execution_id} goes on. {_resuming(target, execution_id, last)} follows it,")
        complain(f"{target.command(f'cancel {execution_id}')} stops it.")
        return ExitCode.INTERRUPTED
    except Unavailable as error:
        if not client.has_answered:
            raise
        complain(f"plait: {one_line(error.message)}")
        complain(f"{_resuming(target, execution_id, last)} goes on from here.")
        return ExitCode.UNREACHABLE
    succeeded = state == state_pb2.EXECUTION_STATE_SUCCEEDED
    return ExitCode.SUCCESS if succeeded else ExitCode.NOT_SUCCEEDED


def _resuming(target: Target, execution_id: str, last: int) -> str:
    return target.command(f"watch {execution_id}" + (f" --after-sequence {last}" if last > 0 else ""))


def _timeline(client: Client, execution_id: str) -> Timeline:
    """Make a timeline whose columns are as wide as the ids of the first nodes."""
    execution = client.get(execution_id)
    widest = 0
    for node in client.nodes(execution_id):
        widest = max(widest, len(node.path))
        if widest >= NODE_CHARS_MAX:
            break
    timeline = Timeline(widest)
    timeline.begin(execution.create_time)
    return timeline


def _show(event: event_pb2.Event, timeline: Timeline | None) -> None:
    if timeline is None:
        echo_json(event)
    else:
        echo(timeline.line(event))


def _show_snapshot(snapshot: execution_service_pb2.Snapshot, *, as_json: bool) -> None:
    if as_json:
        echo_json(snapshot)
        return
    if snapshot.HasField("execution"):
        execution = snapshot.execution
        state = state_of(execution)
        nodes = count(execution.node_count, "node")
        echo(
            f"{execution.execution_id}  {colored(state, color_of(state))}  {nodes}  event {snapshot.sequence}"
        )
    for node in snapshot.nodes:
        name = node_state_of(node)
        state = colored(name.lower().replace("_", " "), color_of(name))
        echo(f"  {node.path}  {state}  {dim(node.reason)}".rstrip())
