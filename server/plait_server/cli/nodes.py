"""`plait node`: all that is known of one node."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Final, cast

import click

from plait.v1 import execution_pb2, failure_pb2, graph_pb2, payload_pb2, state_pb2
from plait_client import Client
from plait_server.cli.connecting import Target, echo_json, json_option, server_options
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.logs import log_lines
from plait_server.cli.summary import failure_lines, node_state_of
from plait_server.cli.text import (
    between,
    color_of,
    colored,
    count,
    dim,
    duration,
    echo,
    local_time,
    name_of,
    one_line,
)

PAYLOAD_CHARS_MAX: Final = 2_000
ATTEMPTS_MAX: Final = 10
LOG_LINES_MAX: Final = 50
TRACEBACK_LINES_MAX: Final = 40


@click.command("node")
@click.argument("execution_id", metavar="ID")
@click.argument("node_path", metavar="NODE")
@server_options
@json_option
def node_command(*, execution_id: str, node_path: str, target: Target, as_json: bool) -> int:
    """Show a node: its input, output and attempts, its failure with the traceback, and the end of its log."""
    with target.open() as client:
        node = client.node(execution_id, node_path)
        if as_json:
            echo_json(node)
            return ExitCode.SUCCESS
        for line in _lines(client, target, execution_id, node):
            echo(line)
    return ExitCode.SUCCESS


def _lines(
    client: Client, target: Target, execution_id: str, node: execution_pb2.ExecutionNode
) -> Iterator[str]:
    state = node_state_of(node)
    reason = f"  {one_line(node.reason)}" if node.reason else ""
    kind = name_of(graph_pb2.NodeKind, node.kind, "NODE_KIND_").lower()
    yield _line("node", f"{node.path} ({f'{kind} {node.type}'.strip()}, branch {node.branch})")
    yield _line("state", f"{colored(state, color_of(state))}{reason}")
    in_full = target.command(f"node {execution_id} {node.path} --json")
    for name in ("input", "output"):
        if node.HasField(name):
            payload: payload_pb2.Payload = getattr(node, name)
            whole = target.command(f"export {execution_id}") if payload.digest else in_full
            yield _line(name, _payload_text(client, payload, whole))
    left_out = node.attempt_count - len(node.attempts[-ATTEMPTS_MAX:])
    if left_out > 0:
        yield _line("attempts", f"{count(left_out, 'earlier attempt')} not shown; {in_full} shows them")
    for attempt in node.attempts[-ATTEMPTS_MAX:]:
        yield _line(f"attempt {attempt.number}", _attempt_text(attempt))
    if node.HasField("failure"):
        first, *causes = failure_lines(node.failure)
        yield _line("failure", first)
        yield from (_line("", cause) for cause in causes)
        yield from _traceback_lines(client, node.failure, in_full)
    yield from _log(client, target, execution_id, node.path)


def _payload_text(client: Client, payload: payload_pb2.Payload, in_full: str) -> str:
    text = client.payload_text(payload)
    if len(text) <= PAYLOAD_CHARS_MAX:
        return one_line(text)
    return f"{one_line(text[:PAYLOAD_CHARS_MAX])}… ({len(text):,} characters; {in_full} shows all)"


def _attempt_text(attempt: execution_pb2.Attempt) -> str:
    outcome = name_of(state_pb2.AttemptOutcome, attempt.outcome, "ATTEMPT_OUTCOME_")
    if not attempt.outcome:
        outcome = "RUNNING"
    parts = [colored(outcome, color_of(outcome)), f"on {one_line(attempt.worker_id)}"]
    parts.append(f"at {local_time(attempt.start_time)}")
    if attempt.HasField("end_time"):
        parts.append(f"took {duration(between(attempt.start_time, attempt.end_time))}")
    if attempt.HasField("failure"):
        parts.append(next(failure_lines(attempt.failure)))
    return "  ".join(parts)


def _traceback_lines(client: Client, failure: failure_pb2.Failure, in_full: str) -> Iterator[str]:
    """Show the traceback in the details of a failure, if they have one."""
    if not failure.HasField("details"):
        return
    try:
        details: object = json.loads(client.payload_text(failure.details))
    except ValueError:
        return
    text = cast("dict[str, object]", details).get("traceback") if isinstance(details, dict) else None
    if not isinstance(text, str):
        return
    lines = text.rstrip().splitlines()
    if len(lines) > TRACEBACK_LINES_MAX:
        # The end says what happened.
        yield _line("", f"({len(lines) - TRACEBACK_LINES_MAX} lines before these; {in_full} shows them)")
    yield from (_line("", one_line(line)) for line in lines[-TRACEBACK_LINES_MAX:])


def _log(client: Client, target: Target, execution_id: str, node_path: str) -> Iterator[str]:
    kept = list(client.logs(execution_id, node_path=node_path))
    if len(kept) > LOG_LINES_MAX:
        whole = target.command(f"logs {execution_id} {node_path}")
        yield _line("log", f"the last {LOG_LINES_MAX} of {len(kept):,} lines; {whole} shows them all")
    shown = islice(kept, max(0, len(kept) - LOG_LINES_MAX), None)
    for number, text in enumerate(log_lines(shown, with_nodes=False)):
        yield _line("" if number or len(kept) > LOG_LINES_MAX else "log", text)


def _line(name: str, text: str) -> str:
    return f"{dim(name.ljust(10))} {text}"
