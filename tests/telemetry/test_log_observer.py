"""The log lines about executions and from workers, and their fields (B3)."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import trio
from trio.testing import MockClock

from plait_server.core.run.commands import AttemptResult
from plait_server.core.run.failures import Failure
from plait_server.core.run.states import AttemptOutcome
from plait_server.core.run.trace import SpanIds, own_trace_id
from plait_server.ports.log_fields import LOG_FIELDS
from plait_server.ports.workers import Assignment, AttemptKey
from plait_server.telemetry.log_observer import MESSAGE_CHARS_MAX, NODE_LINES_MAX, LogObserver
from tests.runtime.world import Script, fails, hangs, result_of, returns, running

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ASSIGNMENT = Assignment(
    key=AttemptKey("default", "x", 1, "a", 2),
    worker_id="w",
    worker_instance_id="w.1",
    type="work",
    input_json="null",
    input_digest="",
    input_size_bytes=4,
    time_left_s=0.0,
    traceparent=f"00-{TRACE}-{SPAN}-01",
    tracestate="",
    branch="0-001",
    recovered=False,
)


def lines_of(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str, dict[str, object]]]:
    """Return level, message and fields of each line."""
    return [
        (
            record.levelname,
            record.getMessage(),
            {name: vars(record)[name] for name in LOG_FIELDS if name in vars(record)},
        )
        for record in caplog.records
    ]


def test_what_a_worker_says_has_the_fields_of_its_attempt(caplog: pytest.LogCaptureFixture) -> None:
    """B3."""
    caplog.set_level("INFO")
    LogObserver().worker_said(ASSIGNMENT, "WARNING", "half done")
    fields = {
        "namespace": "default",
        "execution": "x",
        "node": "a",
        "branch": "0-001",
        "attempt": 2,
        "trace": TRACE,
        "span": SPAN,
    }
    assert lines_of(caplog) == [("WARNING", "worker w: half done", fields)]


@pytest.mark.parametrize("kind", ["progress", "heartbeat"])
def test_progress_and_heartbeats_are_details(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    LogObserver().worker_said(ASSIGNMENT, kind, "0.5")
    assert [line[:2] for line in lines_of(caplog)] == [("DEBUG", f"worker w: {kind}: 0.5")]


def test_nothing_is_logged_below_the_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("WARNING")
    LogObserver().worker_said(ASSIGNMENT, "INFO", "half done")
    LogObserver().worker_said(ASSIGNMENT, "progress", "0.5")
    assert caplog.records == []


async def told(
    caplog: pytest.LogCaptureFixture,
    graph: str,
    scripts: Mapping[str, Script] | None = None,
    *,
    level: str = "INFO",
    cancel: bool = False,
) -> list[str]:
    """Run a graph, and return what is logged when all of its events become durable at once."""
    async with running(scripts=scripts) as runtime:
        await runtime.submit(graph)
        if cancel:
            await trio.sleep(1)
            await runtime.cancel()
        execution = await runtime.wait_ended()
        events = runtime.events()
    caplog.set_level(level)
    caplog.clear()
    LogObserver().events_durable("default", execution, events)
    return [f"{level} {message}" for level, message, _ in lines_of(caplog)]


async def test_a_fork_tells_how_many_branches_it_executes(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    lines = await told(caplog, "a -> b, c, d; b -> e; c -> e; a -error-> f")
    assert lines == [
        "INFO executing 3 parallel branches from a",
        "INFO execution x ended: SUCCEEDED after 0.000 s",
    ]


async def test_each_node_tells_its_edges_at_debug(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    lines = await told(caplog, "a -> b, c; b -> d", level="DEBUG")
    assert lines[:3] == [
        "DEBUG node a has 2 outgoing edges",
        "INFO executing 2 parallel branches from a",
        "DEBUG node b has 1 outgoing edge",
    ]
    assert len(lines) == 4


async def test_sources_start_together(caplog: pytest.LogCaptureFixture, autojump_clock: MockClock) -> None:
    """R5."""
    lines = await told(caplog, "a -> c; b -> c")
    assert lines[0] == "INFO executing 2 parallel branches from the start"
    assert len(lines) == 2
    # Of the execution, as the other line is: it is about no node.
    (_, _, first), (_, _, last) = lines_of(caplog)
    assert first == last


async def test_edges_that_are_not_taken_are_no_branches(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    (line,) = await told(caplog, "node a kind=condition:true; a -true-> b; a -false-> c, d")
    assert line.startswith("INFO execution x ended")


async def test_a_fork_of_a_scope_that_was_stopped_executes_nothing(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """E4."""
    scripts = {"bad": fails(), "slow": returns("1", after_s=1)}
    lines = await told(caplog, "policy STOP_DISPATCH; node bad; slow -> a, b", scripts)
    assert lines == [
        "INFO executing 2 parallel branches from the start",
        "WARNING node bad failed: UNKNOWN: UNKNOWN of bad",
        "INFO execution x ended: FAILED (UNKNOWN) after 1.000 s",
    ]


async def test_a_cancelled_execution_executes_no_branches(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    """C1."""
    (line,) = await told(caplog, "a -> b, c", {"a": hangs}, cancel=True)
    assert line.startswith("INFO execution x ended: CANCELLED")


async def test_failed_nodes_are_warnings_whose_message_is_cut(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    async def fail(assignment: Assignment) -> AttemptResult:
        await trio.lowlevel.checkpoint()
        failure = Failure(code="SAD", message="x" * 1_000, node_path="a", attempt=1)
        return result_of(assignment.key, AttemptOutcome.FAILED, failure=failure)

    lines = await told(caplog, "node a", {"a": fail}, level="WARNING")
    assert lines == ["WARNING node a failed: SAD: " + "x" * (MESSAGE_CHARS_MAX - 5)]
    trace = own_trace_id("default", "x")
    span = SpanIds("default", "x", 1).attempt("a", 1).hex()
    ((*_, fields),) = lines_of(caplog)
    assert fields == {
        "namespace": "default",
        "execution": "x",
        "node": "a",
        "branch": "0",
        "attempt": 1,
        "trace": trace,
        "span": span,
    }


async def test_a_node_without_attempt_has_a_span_of_its_own(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    lines = await told(
        caplog, "a -> c; b -> c; node c join=ANY on_error=IGNORE", {"a": fails(), "b": fails()}
    )
    assert "WARNING node c failed: ALL_BRANCHES_FAILED: " in "\n".join(lines)
    (fields,) = [fields for *_, fields in lines_of(caplog) if fields.get("node") == "c"]
    assert "attempt" not in fields
    assert fields["span"] == SpanIds("default", "x", 1).node("c").hex()


async def test_a_graph_that_fails_everywhere_gets_few_lines(
    caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    nodes = [f"n{number}" for number in range(50)]
    lines = await told(
        caplog,
        "policy CONTINUE; " + "; ".join(f"node {node}" for node in nodes),
        dict.fromkeys(nodes, fails()),
    )
    assert len([line for line in lines if line.startswith("WARNING")]) == NODE_LINES_MAX - 1
    assert (
        f"INFO {50 - NODE_LINES_MAX + 1} more nodes at once forked or failed: `plait watch` shows them"
        in lines
    )
