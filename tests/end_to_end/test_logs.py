"""The log of a real server: each line about an execution says which, in which trace (B3)."""

from __future__ import annotations

import re
from collections.abc import Iterator

from plait_server.core.run.trace import SpanIds
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
    """Return message and fields of each line about an execution."""
    for line in server.stderr().splitlines():
        fields = dict(re.findall(r" (namespace|execution|node|branch|attempt|trace|span)=(\S*)", line))
        if fields.get("execution") == execution_id:
            message = line[24:].partition(" namespace=")[0]
            yield re.sub(r" after [0-9.]+ s$", "", message), fields


def test_each_line_about_an_execution_says_which(server: Server, service: Service) -> None:
    """B3."""
    caller = f"00-{TRACE}-00f067aa0ba902b7-01"
    execution_id = service.submit(GRAPH, metadata=(("traceparent", caller),))
    service.wait(execution_id)
    until(lambda: any(" ended: " in message for message, _ in lines_of(server, execution_id)))
    lines = dict(lines_of(server, execution_id))
    assert set(lines) == {
        "INFO    executing 2 parallel branches from start",
        "INFO    worker live: INFO: spent",
        "INFO    worker live: progress: 1 done",
        "WARNING node broken failed: UNKNOWN: LookupError: two\\nlines \\x1b[2J",
        f"INFO    execution {execution_id} ended: PARTIALLY_SUCCEEDED (UNKNOWN)",
    }
    assert {fields["trace"] for fields in lines.values()} == {TRACE}
    spans = SpanIds("default", execution_id, 1)
    assert lines["INFO    worker live: INFO: spent"] == {
        "namespace": "default",
        "execution": execution_id,
        "node": "spend",
        "branch": "0-001",
        "attempt": "1",
        "trace": TRACE,
        "span": spans.attempt("spend", 1).hex(),
    }
    assert lines["INFO    executing 2 parallel branches from start"]["node"] == "start"
    assert lines[f"INFO    execution {execution_id} ended: PARTIALLY_SUCCEEDED (UNKNOWN)"] == {
        "namespace": "default",
        "execution": execution_id,
        "trace": TRACE,
        "span": spans.execution().hex(),
    }
