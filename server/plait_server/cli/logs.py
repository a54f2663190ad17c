"""`plait logs`: what the handlers of an execution log, and the progress that they report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC

import click

from plait.v1 import execution_service_pb2, log_pb2
from plait_server.cli.connecting import Target, echo_json, json_option, server_options
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.text import colored, complain, count, dim, echo, name_of, one_line

Line = execution_service_pb2.ExecutionLogLine

_COLORS = {"WARNING": "yellow", "ERROR": "red"}


@click.command("logs")
@click.argument("execution_id", metavar="ID")
@click.argument("node_path", metavar="[NODE]", required=False, default="")
@click.option(
    "--attempt", type=click.IntRange(min=0), default=0, metavar="N", help="One attempt of the node."
)
@click.option("--follow", "-f", is_flag=True, help="Show lines as they come, until the execution has ended.")
@server_options
@json_option
def logs_command(
    *, execution_id: str, node_path: str, attempt: int, follow: bool, target: Target, as_json: bool
) -> int:
    """Show what the handlers of an execution, or of one of its nodes, log; the lines of a node stand together."""
    if attempt and not node_path:
        message = "--attempt goes with a node: plait logs ID NODE --attempt N"
        raise click.UsageError(message)
    with target.open() as client:
        try:
            lines = client.logs(execution_id, node_path=node_path, attempt=attempt, follow=follow)
            if as_json:
                for line in lines:
                    echo_json(line)
                return ExitCode.SUCCESS
            shown = last = 0
            for line in lines:
                for text in log_lines([line], with_nodes=not node_path):
                    echo(text)
                shown += 1
                last = max(last, line.sequence)
        except KeyboardInterrupt:
            complain(f"\n{execution_id} goes on.")
            return ExitCode.INTERRUPTED
        if not node_path and last > shown:
            complain(f"{count(last - shown, 'other line')} of {execution_id} were dropped")
        if not shown:
            complain(f"no lines of {node_path or execution_id} are kept")
    return ExitCode.SUCCESS


def log_lines(lines: Iterable[Line], *, with_nodes: bool) -> Iterator[str]:
    """Show lines: the time, the level, the node and the attempt, the text."""
    for line in lines:
        level = name_of(log_pb2.LogLevel, line.level, "LOG_LEVEL_")
        if line.kind == execution_service_pb2.LOG_LINE_KIND_PROGRESS:
            level = "PROGRESS"
        time = line.time.ToDatetime(UTC).astimezone().strftime("%H:%M:%S.%f")[:-3]
        where = f"{line.node_path} " if with_nodes else ""
        again = f"#{line.attempt} " if line.attempt > 1 else ""
        text = one_line(line.text)
        yield f"{dim(time)} {colored(level.ljust(8), _COLORS.get(level))} {dim(where + again)}{text}"
