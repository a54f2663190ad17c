"""`plait trace`: draws the trace of an execution, or sends it to a collector."""

from __future__ import annotations

import base64
import importlib.metadata
import json
import os
from collections.abc import Iterable, Iterator
from typing import Any, Final

import click
from google.protobuf import json_format
from opentelemetry.proto.trace.v1 import trace_pb2

from plait.v1 import execution_pb2
from plait_client import has_ended
from plait_server.adapters.otlp.send_once import send_once
from plait_server.adapters.otlp.settings import OtlpSettings, read_settings_for
from plait_server.cli.connecting import Target, json_option, server_options
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.summary import elapsed, failure_lines, state_of
from plait_server.cli.text import color_of, colored, complain, count, dim, duration, echo, one_line
from plait_server.cli.trace_tree import TraceTree
from plait_server.core.run.trace import read_trace_context
from plait_server.ports.span_sender import SendFailed

_REQUEST_BYTES_MAX: Final = 2 * 1024 * 1024
"""Half of what a collector accepts by default."""
_ID_FIELDS: Final = ("traceId", "spanId", "parentSpanId")


@click.command("trace")
@click.argument("execution_id", metavar="ID")
@click.option("--all", "shows_all", is_flag=True, help="Draw every span, however many there are.")
@click.option(
    "--otlp",
    metavar="ENDPOINT",
    help="Send the trace to a collector instead, such as http://localhost:4317; the OTEL_EXPORTER_OTLP_ variables "
    "say how.",
)
@server_options
@json_option
def trace_command(
    *, execution_id: str, shows_all: bool, otlp: str | None, target: Target, as_json: bool
) -> int:
    """Draw the trace of an execution, sampled or not, as a tree.

    With --json write it in OTLP's JSON encoding, which collectors accept: one TracesData a line.
    """
    if otlp is not None and (as_json or shows_all):
        raise click.UsageError("--otlp goes with neither --json nor --all")
    code = ExitCode.SUCCESS
    with target.open() as client:
        settings = read_settings_for(otlp, os.environ) if otlp is not None else None
        execution = client.get(execution_id)
        parts = client.export_trace(execution_id)
        if settings is not None:
            code = _send(settings, parts)
        elif as_json:
            for part in parts:
                echo(_otlp_json(trace_pb2.TracesData.FromString(part)))
        else:
            tree = TraceTree()
            for part in parts:
                tree.add(trace_pb2.TracesData.FromString(part))
            for line in _head(execution, tree):
                echo(line)
            if len(tree):
                echo()
            for line in tree.lines(shows_all=shows_all):
                echo(line)
    if not has_ended(execution):
        complain(f"{execution.execution_id} is {state_of(execution)}: spans that have not ended are missing")
    return code


def _send(settings: OtlpSettings, parts: Iterable[bytes]) -> ExitCode:
    """Send a trace to a collector, and report how many spans were sent."""
    user_agent = f"plait-trace/{importlib.metadata.version('plait')}"
    sent = rejected = 0
    reason = ""
    for request, span_count in _requests(parts):
        try:
            answer = send_once(settings, request, user_agent)
        except SendFailed:
            if sent:
                complain(
                    f"{count(sent, 'span')} had been sent; it is safe to send all again, since the ids are the same"
                )
            raise
        sent += span_count
        rejected += min(max(0, answer.rejected), span_count)
        reason = reason or answer.message
    echo(f"sent {count(sent, 'span')} to {settings.describe()}")
    if reason or rejected:
        complain(
            f"the collector rejected {rejected:,} of them: {one_line(reason)}"
            if rejected
            else one_line(reason)
        )
    return ExitCode.FAILED if rejected else ExitCode.SUCCESS


def _requests(parts: Iterable[bytes]) -> Iterator[tuple[bytes, int]]:
    """Join parts into requests; yield each with the number of its spans."""
    request, span_count = bytearray(), 0
    for part in parts:
        if request and len(request) + len(part) > _REQUEST_BYTES_MAX:
            yield bytes(request), span_count
            request, span_count = bytearray(), 0
        # Concatenated protobuf messages are one message, whose lists are concatenated.
        request += part
        span_count += _count_spans(trace_pb2.TracesData.FromString(part))
    if request:
        yield bytes(request), span_count


def _count_spans(data: trace_pb2.TracesData) -> int:
    scopes = [of_scope for of_resource in data.resource_spans for of_scope in of_resource.scope_spans]
    return sum(len(of_scope.spans) for of_scope in scopes)


def _head(execution: execution_pb2.Execution, tree: TraceTree) -> Iterator[str]:
    state = state_of(execution)
    yield _line("execution", execution.execution_id)
    if execution.graph_name:
        yield _line("graph", one_line(execution.graph_name))
    yield _line(
        "state",
        colored(state, color_of(state)) + (f"  {one_line(execution.reason)}" if execution.reason else ""),
    )
    if execution.HasField("failure"):
        yield _line("failure", next(failure_lines(execution.failure)))
    span = tree.execution()
    if has_ended(execution) and span is not None:
        length_s, work_s = _seconds(span, "plait.critical_path_s"), _seconds(span, "plait.node_time_s")
        speedup = span.get("plait.speedup", "")
        yield _line("took", f"{elapsed(execution)}, critical path {duration(length_s)}")
        if speedup:
            yield _line(
                "speed-up", f"{float(speedup):.2f}, {duration(work_s)} of nodes in {elapsed(execution)}"
            )
    context = read_trace_context(execution.traceparent)
    if context is not None:
        yield _line("trace", context.trace_id + ("" if context.is_sampled else ", not sampled"))


def _seconds(attributes: dict[str, str], key: str) -> float:
    return float(attributes.get(key, "0"))


def _line(name: str, text: str) -> str:
    return f"{dim(name.ljust(10))} {text}"


def _otlp_json(data: trace_pb2.TracesData) -> str:
    """Return OTLP's JSON encoding: that of protobuf, but with ids in hexadecimal and enums as numbers."""
    written: dict[str, Any] = json_format.MessageToDict(data, use_integers_for_enums=True)
    for of_resource in written.get("resourceSpans", []):
        for of_scope in of_resource.get("scopeSpans", []):
            for span in of_scope.get("spans", []):
                for named in (span, *span.get("links", [])):
                    for field in _ID_FIELDS:
                        if field in named:
                            named[field] = base64.b64decode(named[field]).hex()
    return json.dumps(written, separators=(",", ":"), ensure_ascii=False)
