"""The log of a real server: each line about an execution says which, in which trace (B3)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from plait_server.core.run.trace import SpanIds
from plait_server.ports.log_fields import LOG_FIELDS
from tests.end_to_end.processes import Server
from tests.end_to_end.service import Service, until

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
GRAPH = """
policy: {on_failure: continue}
nodes:
  - {id: start, task: {type: echo}}
  - {id: spend, task: {type: spend}, input: {tokens: "1"}}
  - {id: broken, task: {type: raise}, input: "two\\nlines \\e[2J"}
edges:
  - {source: start, target: spend}
  - {source: start, target: broken}
"""


def lines_of(server: Server, execution_id: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Return level and message, and the fields of each line about an execution."""
    for line in server.stderr().splitlines():
        fields: dict[str, str] = {name: str(value) for name, value in json.loads(line).items()}
        if fields.get("execution") == execution_id:
            message = f"{fields['level']} {fields['event']}"
            kept: dict[str, str] = {name: fields[name] for name in LOG_FIELDS if name in fields}
            yield re.sub(r" after [0-9.]+ s$", "", message), kept


def test_each_line_about_an_execution_says_which(server: Server, service: Service) -> None:
    """B3."""
    caller = f"00-{TRACE}-00f067aa0ba902b7-01"
    execution_id = service.submit(GRAPH, metadata=(("traceparent", caller),))
    service.wait(execution_id)
    until(lambda: any(" ended: " in message for message, _ in lines_of(server, execution_id)))
    lines = dict(lines_of(server, execution_id))
    assert set(lines) == {
        "info executing 2 parallel branches from start",
        "info worker live: spent",
        "warning node broken failed: UNKNOWN: LookupError: two\nlines \x1b[2J",
        f"info execution {execution_id} ended: PARTIALLY_SUCCEEDED (UNKNOWN)",
    }
    assert {fields["trace"] for fields in lines.values()} == {TRACE}
    spans = SpanIds("default", execution_id, 1)
    assert lines["info worker live: spent"] == {
        "namespace": "default",
        "execution": execution_id,
        "node": "spend",
        "branch": "0-001",
        "attempt": "1",
        "trace": TRACE,
        "span": spans.attempt("spend", 1).hex(),
    }
    assert lines["info executing 2 parallel branches from start"]["node"] == "start"
    assert lines[f"info execution {execution_id} ended: PARTIALLY_SUCCEEDED (UNKNOWN)"] == {
        "namespace": "default",
        "execution": execution_id,
        "trace": TRACE,
        "span": spans.execution().hex(),
    }
