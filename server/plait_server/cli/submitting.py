"""`plait submit`."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

import click

from plait.v1 import payload_pb2
from plait_client import InvalidArgument
from plait_server.cli.connecting import INT32, Target, echo_json, json_option, server_options
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.graph_files import complain_of, read_graph_file
from plait_server.cli.text import complain, echo
from plait_server.cli.waiting import wait_for_end
from plait_server.cli.watching import follow

FIRST_WAIT_S: Final = 1.0
"""How long the submission waits with `--wait`: a short execution costs one call, and whoever interrupts a long one is
told its id."""


def read_json(_: click.Context, __: click.Parameter, value: str | None) -> payload_pb2.Payload | None:
    """Read JSON, or the JSON of a file; it is sent as it stands, to the last digit."""
    if value is None:
        return None
    text = value
    if value.startswith("@"):
        try:
            text = Path(value[1:]).read_text(encoding="utf-8")
        except OSError as error:
            raise click.BadParameter(f"{value[1:]}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise click.BadParameter(f"{value[1:]} is not UTF-8") from None
    try:
        json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.BadParameter(f"this is no JSON: {error}; write @FILE to read a file") from None
    return payload_pb2.Payload(json=text)


def _read_labels(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> dict[str, str]:
    labels: dict[str, str] = {}
    for value in values:
        key, separator, text = value.partition("=")
        if not key or not separator:
            raise click.BadParameter(f"{value!r} is no label; write KEY=VALUE")
        labels[key] = text
    return labels


@click.command("submit")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("--input", metavar="JSON|@FILE", callback=read_json, help="The execution's input.")
@click.option(
    "--id",
    "execution_id",
    default="",
    metavar="ID",
    help="The execution's id.  [default: made by the server]",
)
@click.option("--request-id", default="", help="Makes a repeated submission the same one.")
@click.option(
    "--label", "labels", multiple=True, metavar="KEY=VALUE", callback=_read_labels, help="May be given often."
)
@click.option("--priority", type=INT32, default=0, help="Higher goes first among what waits for capacity.")
@click.option("--wait", "until_end", flag_value="wait", help="Wait for the end, and show it.")
@click.option("--watch", "until_end", flag_value="watch", help="Follow the execution, a line an event.")
@server_options
@json_option
def submit_command(  # noqa: PLR0913 -- one for each option
    *,
    file: str,
    input: payload_pb2.Payload | None,
    execution_id: str,
    request_id: str,
    labels: dict[str, str],
    priority: int,
    until_end: str | None,
    target: Target,
    as_json: bool,
) -> int:
    """Have the graph in FILE (YAML or JSON, - for stdin) carried out; write the execution's id.

    The variables TRACEPARENT and TRACESTATE, if set, name the parent of the execution's span.
    """
    graph = read_graph_file(file)
    with target.open() as client:
        try:
            execution = client.submit(
                graph,
                input=input,
                request_id=request_id,
                execution_id=execution_id,
                labels=labels,
                priority=priority,
                traceparent=os.environ.get("TRACEPARENT", ""),
                tracestate=os.environ.get("TRACESTATE", ""),
                wait_s=FIRST_WAIT_S if until_end == "wait" else 0.0,
            )
        except InvalidArgument as error:
            if error.reason != "INVALID_GRAPH":
                raise
            complain_of(file, [f"{violation.field}: {violation.message}" for violation in error.violations])
            return ExitCode.INVALID_GRAPH
        if until_end == "watch":
            return follow(client, target, execution.execution_id, as_json=as_json)
        if until_end == "wait":
            return wait_for_end(client, target, execution, as_json=as_json)
    if as_json:
        echo_json(execution)
    else:
        echo(execution.execution_id)
        complain(f"accepted; {target.command(f'watch {execution.execution_id}')} follows it")
    return ExitCode.SUCCESS
