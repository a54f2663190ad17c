"""`plait export` and `plait delete`: all that there is of an execution, written down, and deleted.

An export is a text of JSON lines, each an object with one key that says what it is. The first is `format`, with the
version of the format; the last is `end`, so that one that was cut off can be told. Between them are the execution, its
nodes, its events and graphs, the payloads that are kept by digest, what its handlers logged, and its audit, or
`omitted` if the caller may not read that. Messages are in the proto JSON mapping.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import click
from google.protobuf import json_format
from google.protobuf.message import Message

from plait.v1 import event_pb2, graph_pb2, payload_pb2
from plait_client import Client, PlaitError, has_ended
from plait_server.cli.connecting import Target, server_options
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.summary import state_of
from plait_server.cli.text import complain, echo

FORMAT: Final = "plait.export"
VERSION: Final = 1


@click.command("export")
@click.argument("execution_id", metavar="ID")
@click.option("--output", metavar="PATH", help="Write to a new file instead of stdout.")
@server_options
def export_command(*, execution_id: str, output: str | None, target: Target) -> int:
    """Write all that there is of an execution as JSON lines: graph, nodes, events, payloads, audit.

    The trace is written by `plait trace ID --json`.
    """
    with target.open() as client:
        execution = client.get(execution_id)
        if not has_ended(execution):
            complain(f"{execution_id} is {state_of(execution)}: what happens from now on may be missing")
        lines = export_lines(client, execution_id)
        if output is None:
            for line in lines:
                echo(line)
        else:
            path = Path(output)
            if os.path.lexists(path):
                raise _exists(path)
            try:
                _write(path, lines)
            except FileExistsError:
                raise _exists(path) from None
            complain(f"exported {execution_id} to {path} ({path.stat().st_size:,} bytes)")
    return ExitCode.SUCCESS


@click.command("delete")
@click.argument("execution_id", metavar="ID")
@server_options
def delete_command(*, execution_id: str, target: Target) -> int:
    """Delete an ended execution, with its events and payloads; `plait export ID` writes them down before."""
    with target.open() as client:
        client.delete(execution_id)
    complain(f"deleted {execution_id}")
    return ExitCode.SUCCESS


def _exists(path: Path) -> click.UsageError:
    return click.UsageError(f"{path} exists, and is not overwritten; name another file, or remove it first")


def export_lines(client: Client, execution_id: str) -> Iterator[str]:
    """Yield the lines of an export; only the digests of its payloads are kept in memory, and one payload at a time."""
    count = 0
    for kind, value in _parts(client, execution_id):
        count += 1
        content = json_format.MessageToDict(value) if isinstance(value, Message) else value
        yield json.dumps({kind: content}, ensure_ascii=False, separators=(",", ":"))
    yield json.dumps({"end": {"lines": count}})


def _parts(client: Client, execution_id: str) -> Iterator[tuple[str, Message | dict[str, object]]]:
    yield (
        "format",
        {"name": FORMAT, "version": VERSION, "namespace": client.namespace, "executionId": execution_id},
    )
    execution = client.get(execution_id)
    yield "execution", execution
    graphs: dict[str, None] = {}
    payloads: dict[str, None] = dict.fromkeys(_digests_in(execution))
    for node in client.nodes(execution_id, page_size=1000):
        payloads.update(dict.fromkeys(_digests_in(node)))
        yield "node", node
    for event in client.events(execution_id, page_size=1000):
        graph_digest = _graph_of(event)
        if graph_digest and graph_digest not in graphs:
            graphs[graph_digest] = None
            graph = graph_pb2.Graph.FromString(client.content(graph_digest))
            yield "graph", {"digest": graph_digest, "graph": json_format.MessageToDict(graph)}
        payloads.update(dict.fromkeys(_digests_in(event)))
        yield "event", event
    for digest in payloads:
        yield "payload", {"digest": digest, "json": client.content(digest).decode()}
    for line in client.logs(execution_id):
        yield "log", line
    try:
        for entry in client.audit(execution_id, page_size=1000):
            yield "audit", entry
    except PlaitError as error:
        if error.reason != "PERMISSION_DENIED":
            raise
        yield "omitted", {"kind": "audit", "reason": error.reason}


def _graph_of(event: event_pb2.Event) -> str:
    if event.HasField("execution_submitted"):
        return event.execution_submitted.graph_digest
    return event.scope_opened.graph_digest if event.HasField("scope_opened") else ""


def _digests_in(message: Message) -> Iterator[str]:
    """Yield the digests of the payloads in a message."""
    if isinstance(message, payload_pb2.Payload):
        if message.digest:
            yield message.digest
        return
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        each: Iterable[Message] = value if field.is_repeated else [value]
        for inner in each:
            yield from _digests_in(inner)


def _write(path: Path, lines: Iterable[str]) -> None:
    """Write a new file, which appears complete or not at all.

    Raises:
        FileExistsError: there is something at the path.
        OSError: the operating system refuses.
    """
    part = path.with_name(path.name + ".part")
    # Payloads may be nobody else's business.
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            for line in lines:
                file.write(line + "\n")
        # Unlike a rename, a link does not replace a file.
        path.hardlink_to(part)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()
