"""An execution, and failures, as lines for people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from plait.v1 import execution_pb2, failure_pb2, payload_pb2, state_pb2
from plait_client import has_ended
from plait_server.cli.text import (
    between,
    color_of,
    colored,
    count,
    dim,
    duration,
    local_time,
    name_of,
    one_line,
)

_PAYLOAD_CHARS_SHOWN: Final = 300
_CAUSES_SHOWN_MAX: Final = 10
_FAILURES_SHOWN_MAX: Final = 10
UNCHANGED_ETAG: Final = "settings-0"
"""The etag of an execution whose settings were never updated."""


def state_of(execution: execution_pb2.Execution) -> str:
    """Return the state without its prefix."""
    return name_of(state_pb2.ExecutionState, execution.state, "EXECUTION_STATE_")


def node_state_of(node: execution_pb2.ExecutionNode) -> str:
    """Return a node's state without its prefix."""
    return name_of(state_pb2.NodeState, node.state, "NODE_STATE_")


def succeeded(execution: execution_pb2.Execution) -> bool:
    """Return whether an execution SUCCEEDED."""
    return execution.state == state_pb2.EXECUTION_STATE_SUCCEEDED


def payload_line(payload: payload_pb2.Payload) -> str:
    """Show a payload in one line, cut."""
    if payload.digest:
        return f"{payload.size_bytes:,} bytes, sha256 {payload.digest}"
    return one_line(payload.json, _PAYLOAD_CHARS_SHOWN)


def failure_lines(failure: failure_pb2.Failure, indent: str = "") -> Iterator[str]:
    """Show a failure, and below it what led to it."""
    where = f" ({failure.node_path}{f', attempt {failure.attempt}' if failure.attempt else ''})"
    yield f"{indent}{failure.code}: {one_line(failure.message)}{where if failure.node_path else ''}"
    for cause in failure.causes[:_CAUSES_SHOWN_MAX]:
        yield from failure_lines(cause, f"{indent}  ")
    more = len(failure.causes[_CAUSES_SHOWN_MAX:]) + failure.causes_omitted
    if more:
        yield f"{indent}  and {more} more"


def elapsed(execution: execution_pb2.Execution) -> str:
    """Show how long an execution took; empty while it is open."""
    if not execution.HasField("end_time"):
        return ""
    return duration(between(execution.create_time, execution.end_time))


def summary(execution: execution_pb2.Execution, waiting: Iterable[str] = ()) -> Iterator[str]:
    """Show an execution, a line for each thing to be said; `waiting` says why its nodes wait."""
    state = state_of(execution)
    reason = f"  {one_line(execution.reason)}" if execution.reason else ""
    yield _line("execution", execution.execution_id)
    if execution.graph_name:
        yield _line("graph", execution.graph_name)
    yield _line("state", f"{colored(state, color_of(state))}{reason}")
    yield _line("submitted", local_time(execution.create_time))
    if has_ended(execution):
        yield _line("took", elapsed(execution))
    yield _line("nodes", _node_counts(execution))
    if execution.priority:
        yield _line("priority", str(execution.priority))
    if execution.etag not in ("", UNCHANGED_ETAG):
        yield _line("updated", f"settings changed since the submission, etag {one_line(execution.etag)}")
    for number, line in enumerate(waiting):
        yield _line("" if number else "waiting", line)
    if execution.labels:
        yield _line("labels", ", ".join(one_line(f"{k}={v}") for k, v in sorted(execution.labels.items())))
    if execution.usage:
        yield _line("used", _amounts(execution.usage))
    if execution.late_usage:
        yield _line(
            "used late", f"{_amounts(execution.late_usage)} (by attempts that were lost or had ended)"
        )
    if execution.HasField("input"):
        yield _line("input", payload_line(execution.input))
    if execution.HasField("output"):
        yield _line("output", payload_line(execution.output))
    if execution.HasField("failure"):
        first, *causes = failure_lines(execution.failure)
        yield _line("failure", first)
        yield from (_line("", cause) for cause in causes)
    others = [failure for failure in execution.failures if failure != execution.failure]
    for failure in others[:_FAILURES_SHOWN_MAX]:
        yield _line("failures", next(failure_lines(failure)))
    left_out = execution.failure_count - len(others[:_FAILURES_SHOWN_MAX]) - execution.HasField("failure")
    if left_out > 0:
        yield _line("", f"and {count(left_out, 'failure')} more")


def _line(name: str, text: str) -> str:
    return f"{dim(name.ljust(10))} {text}"


def _amounts(usage: Mapping[str, str]) -> str:
    return ", ".join(f"{amount} {one_line(unit)}" for unit, amount in sorted(usage.items()))


def _node_counts(execution: execution_pb2.Execution) -> str:
    counts = execution.node_counts
    named = [
        (descriptor.name.replace("_", " "), number)
        for descriptor, number in counts.ListFields()
        if isinstance(number, int) and descriptor.name != "ended"
    ]
    states = ", ".join(f"{number:,} {name}" for name, number in named)
    return f"{execution.node_count:,} ({states})" if states else f"{execution.node_count:,}"
