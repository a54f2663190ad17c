"""The trace of an execution (B2, B2.1)."""

from __future__ import annotations

import pytest

from plait_server.core.run.states import CancelStage
from plait_server.telemetry import spans as spans_module
from plait_server.telemetry.spans import SpanKind
from tests.core.driver import TRACEPARENT, Driver
from tests.core.graph_text import build
from tests.telemetry.tracing import Tree, attributes, label, trace_of


def run(*lines: str) -> Driver:
    d = Driver(build(*lines))
    d.now_s = 1_000.0  # a clock that shows 0 says of a node that it never began
    return d.start()


def ended(driver: Driver) -> Tree:
    """Return the trace of an execution that has ended, whose spans nest."""
    assert driver.execution.is_ended
    tree = trace_of(driver)
    tree.check_nesting()
    return tree


def test_tree_is_execution_branch_node_attempt() -> None:
    """B2: execution > branch > node > attempt; nested branches are below their parents."""
    d = run("a -> b; a -> c; c -> d; c -> e; b, d, e -> f")
    for path in "abcdef":
        d.advance(1)
        d.succeed(path)
    tree = ended(d)
    assert {label(span): tree.parent(label(span)) for span in tree if span.name != "execution"} == {
        "a": "execution",
        "attempt a 1": "a",
        "branch 0-001": "execution",
        "branch 0-002": "execution",
        "branch 0-002-001": "branch 0-002",
        "branch 0-002-002": "branch 0-002",
        "b": "branch 0-001",
        "attempt b 1": "b",
        "c": "branch 0-002",
        "attempt c 1": "c",
        "d": "branch 0-002-001",
        "attempt d 1": "d",
        "e": "branch 0-002-002",
        "attempt e 1": "e",
        "f": "execution",
        "attempt f 1": "f",
    }
    assert [
        span.name for span in tree if label(span) in ("execution", "branch 0-001", "a", "attempt a 1")
    ] == [
        "attempt t",
        "node t",
        "branch",
        "execution",
    ]


def test_spans_are_written_when_they_end() -> None:
    """B2: node and attempt spans are written when they end, branch and execution spans at the end of the run."""
    d = run("a -> b; a -> c")
    d.succeed("a", "b")
    assert trace_of(d).labels() == ["attempt a 1", "a", "attempt b 1", "b"]
    d.succeed("c")
    assert trace_of(d).labels()[4:] == ["attempt c 1", "c", "branch 0-001", "branch 0-002", "execution"]


def test_join_links_to_its_active_sources() -> None:
    """B2.1: links: a join's ACTIVE sources."""
    d = run("s -> a when=true; s -> b when=false; a, b -> j; s -> j")
    d.succeed("s", "a", "j")
    assert ended(d).links("j") == ["s", "a"] or ended(d).links("j") == ["a", "s"]
    assert ended(d).links("a") == []


def test_any_links_to_its_winner() -> None:
    """B2.1: ANY its winner."""
    d = run("a, b, c -> j", "node j join=ANY")
    d.fail("a")
    d.succeed("b")
    d.succeed("j")
    d.advance(1)
    tree = ended(d)
    assert tree.links("j") == ["b"]
    loser = tree.get("c")
    assert (loser.error, attributes(loser)["plait.reason"]) == (None, "RACE_LOST")


def test_collect_links_to_broken_sources_too() -> None:
    """B2.1: COLLECT the BROKEN ones as well; DEAD ones never."""
    d = run("s -> a; s -> b; s -> c when=false; a, b, c -> j", "node j join=COLLECT")
    d.succeed("s")
    d.fail("a")
    d.succeed("b", "j")
    assert ended(d).links("j") == ["a", "b"]


def test_source_with_several_edges_is_linked_to_once() -> None:
    d = run(
        "node c kind=condition:broken on_error=TOLERATE; c -true-> j; c -false-> j; b -> j",
        "node j join=COLLECT",
    )
    d.succeed("b", "j")
    assert ended(d).links("j") == ["c", "b"]


def test_failed_join_links_to_its_active_sources() -> None:
    d = run("a, b -> j", "node j join=QUORUM:2", "policy CONTINUE")
    d.succeed("a")
    d.fail("b")
    tree = ended(d)
    assert tree.links("j") == ["a"]
    assert (tree.get("j").error or "").startswith("QUORUM_UNREACHABLE: ")
    assert attributes(tree.get("j"))["error.type"] == "QUORUM_UNREACHABLE"


def test_skipped_join_links_to_nothing() -> None:
    """B2: a join links to what fed it, and nothing fed a join that was skipped."""
    d = run("a, b -> j", "policy CONTINUE")
    d.succeed("a")
    d.fail("b")
    tree = ended(d)
    assert attributes(tree.get("j"))["plait.reason"] == "UPSTREAM_FAILED"
    assert tree.links("j") == []


def test_many_links_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans_module, "LINKS_MAX", 2)
    d = run("a, b, c -> j")
    d.succeed("a", "b", "c", "j")
    tree = trace_of(d)
    assert tree.links("j") == ["a", "b"]
    assert tree.get("j").links_dropped == 1


def test_attempts_of_a_retried_node_each_have_a_span() -> None:
    """B2: retries are marked: each attempt with its failure, the node with an event for each."""
    d = run("node a retry=3")
    d.fail("a", "UNAVAILABLE")
    d.advance(1)
    d.fail("a", "ABORTED")
    d.advance(5)
    d.succeed("a")
    tree = ended(d)
    assert [tree.get(f"attempt a {number}").error for number in (1, 2, 3)] == [
        "UNAVAILABLE: a failed",
        "ABORTED: a failed",
        None,
    ]
    assert attributes(tree.get("attempt a 2"))["error.type"] == "ABORTED"
    (exception,) = tree.get("attempt a 1").events
    assert exception.name == "exception"
    assert dict(exception.attributes) == {
        "exception.type": "UNAVAILABLE",
        "exception.message": "a failed",
    }
    node = tree.get("a")
    assert node.error is None
    assert attributes(node)["plait.attempt.count"] == 3
    assert [event.name for event in node.events] == ["retry", "retry"]
    assert dict(node.events[1].attributes)["exception.type"] == "ABORTED"
    assert dict(node.events[1].attributes)["plait.attempt.number"] == 2


def test_many_retries_are_cut_to_the_newest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest events are kept, as OpenTelemetry's SDK does; the failure is one of them."""
    monkeypatch.setattr(spans_module, "EVENTS_MAX", 3)
    d = run("node a retry=5")
    for _ in range(5):
        d.fail("a", "UNAVAILABLE")
        d.advance(60)
    node = ended(d).get("a")
    assert [dict(event.attributes).get("plait.attempt.number") for event in node.events] == [3, 4, None]
    assert node.events_dropped == 2


def test_lost_attempt_is_no_retry() -> None:
    d = run("node a retry=2")
    d.lose("a")
    d.fail("a", "UNAVAILABLE")
    d.advance(5)
    d.succeed("a")
    (retry,) = ended(d).get("a").events
    assert (retry.name, dict(retry.attributes)["plait.attempt.number"]) == ("retry", 2)


def test_failure_is_told_at_the_end_of_its_attempt_its_node_and_its_execution() -> None:
    d = run("node a")
    d.advance(2)
    d.fail("a")
    tree = ended(d)
    for name in ("attempt a 1", "a", "execution"):
        (exception,) = tree.get(name).events
        assert (exception.name, exception.time_ns) == ("exception", 1_002_000_000_000)
        assert dict(exception.attributes) == {
            "exception.type": "INTERNAL",
            "exception.message": "a failed",
        }


def test_status_is_an_error_for_failures_alone() -> None:
    """B2.1: never for losers, aborted, cancelled, skipped or locked nodes."""
    d = run("a -> x; node b; l -> m", "node l locked", "node c")
    d.fail("a")
    tree = ended(d)
    assert tree.get("execution").error == "INTERNAL: a failed"
    assert tree.get("a").error == "INTERNAL: a failed"
    assert tree.get("attempt b 1").error is None
    assert attributes(tree.get("attempt b 1"))["plait.attempt.outcome"] == "ABORTED"
    assert attributes(tree.get("b"))["plait.node.state"] == "IDLE"
    assert attributes(tree.get("b"))["plait.reason"] == "SIBLING_FAILED"
    assert tree.get("l").error is None
    assert attributes(tree.get("l"))["plait.reason"] == "LOCKED"
    assert [label(span) for span in tree if span.error is not None] == ["attempt a 1", "a", "execution"]


def test_lost_attempt_is_an_error_and_its_node_is_not() -> None:
    """B2.1: status ERROR is for FAILED, TIMED_OUT and LOST."""
    d = run("node a")
    d.lose("a")
    d.succeed("a")
    tree = ended(d)
    lost = tree.get("attempt a 1")
    assert (lost.error or "").startswith("WORKER_LOST")
    assert attributes(lost)["error.type"] == "WORKER_LOST"
    assert attributes(lost)["plait.attempt.outcome"] == "LOST"
    assert tree.get("a").error is None


def test_timeout_that_is_no_failure_is_an_error_with_a_code() -> None:
    """B2.1, E1: status ERROR is for TIMED_OUT, and its code is the node's reason (S2.1)."""
    d = run("node a attempt_timeout=1 on_timeout=CONTINUE")
    d.advance(2)
    tree = ended(d)
    for span in (tree.get("a"), tree.get("attempt a 1")):
        assert span.error == attributes(span)["error.type"] == "DEADLINE_EXCEEDED"
    assert tree.get("execution").error is None


def test_skipped_node_has_the_shortest_span_there_is() -> None:
    """B2.1: a skipped node has a span too. One of no length would be taken for an error by Jaeger."""
    d = run("a -> b when=false; b -> c")
    d.advance(2)
    d.succeed("a")
    tree = ended(d)
    for path in "bc":
        span = tree.get(path)
        assert (span.start_ns, span.end_ns) == (1_002_000_000_000, 1_002_000_000_001)
        assert attributes(span)["plait.node.state"] == "SKIPPED"
        assert attributes(span)["plait.reason"] == "DEAD_PATH"
        assert span.error is None


def test_node_that_never_began_and_its_branch_have_no_span() -> None:
    """B2.1: a node that never began may have none, a branch without nodes neither."""
    d = run("node a; b -> c; b -> d")
    d.fail("a")
    assert {"c", "d", "branch 0-002-001", "branch 0-002-002"}.isdisjoint(ended(d).labels())
    assert {"branch 0-001", "branch 0-002"} <= set(ended(d).labels())


def test_branches_above_a_node_have_spans_though_nothing_on_them_began() -> None:
    """B2: a loser far down ended, and the forks above it never began."""
    lines = "f -> g; f -> x; g -> h; g -> y; h -> m; h -> z; m, s -> k; node t", "node k join=ANY"
    d = Driver(build(*lines), grants=False).start()
    d.grant("s")
    d.succeed("s")
    d.grant("t")
    d.fail("t")
    tree = ended(d)
    assert attributes(tree.get("m"))["plait.reason"] == "RACE_LOST"
    assert {"f", "g", "h"}.isdisjoint(tree.labels())
    above = [tree.parent("m")]
    while above[-1] != "execution":
        above.append(tree.parent(above[-1]))
    assert above == [
        "branch 0-001-001-001-001",
        "branch 0-001-001-001",
        "branch 0-001-001",
        "branch 0-001",
        "execution",
    ]


def test_wait_in_the_queue_is_a_child_of_the_node() -> None:
    """B2.1: the queue wait lies under the node, if it took 1 ms or more."""
    d = Driver(build("node a"), grants=False).start()
    d.grant_after("a", 0.25)
    d.advance(1)
    d.succeed("a")
    tree = ended(d)
    wait = tree.get("queue a 1")
    assert tree.parent("queue a 1") == "a"
    assert (wait.name, wait.end_ns - wait.start_ns) == ("queue t", 250_000_000)
    assert wait.end_ns == tree.get("attempt a 1").start_ns
    assert tree.get("a").start_ns == wait.start_ns
    assert attributes(tree.get("attempt a 1"))["plait.queue_s"] == 0.25
    short = Driver(build("node a"), grants=False).start()
    short.grant_after("a", 0.0009)
    short.succeed("a")
    assert "queue a 1" not in ended(short).labels()


def test_task_cancelled_before_it_began_shows_how_long_it_waited() -> None:
    d = Driver(build("a -> b"), grants=False).start()
    d.grant("a")
    d.advance(1)
    d.succeed("a")
    d.advance(2)
    d.cancel()
    tree = ended(d)
    assert (tree.get("b").start_ns, tree.get("b").end_ns) == (1_000_000_000, 3_000_000_000)


def test_node_that_was_put_back_ends_then() -> None:
    """E4: under STOP_DISPATCH others run on; a delay and a backoff that were put back do not."""
    d = run("policy STOP_DISPATCH; node w kind=delay:9; node r retry=2; node slow; node f")
    d.advance(1)
    d.fail("r", "UNAVAILABLE")
    d.advance(0.25)
    d.fail("f")
    d.advance(5)
    d.succeed("slow")
    tree = ended(d)
    assert (tree.get("w").end_ns, tree.get("r").end_ns) == (1_001_250_000_000, 1_001_250_000_000)
    assert tree.get("execution").end_ns == 1_006_250_000_000
    assert dict(tree.get("execution").attributes)["plait.node_time_s"] == 1.25 + 1.0 + 1.25 + 6.25


@pytest.mark.parametrize("attempts", [1, 2])
def test_node_that_was_cancelled_in_its_backoff_ends_then(attempts: int) -> None:
    d = run("node a retry=3")
    for _ in range(attempts):
        d.advance(100)
        d.fail("a", "UNAVAILABLE", jitter=1.0)
    failed_ns = 1_000_000_000_000 + attempts * 100_000_000_000
    d.advance(0.5)
    d.cancel()
    tree = ended(d)
    assert tree.get(f"attempt a {attempts}").end_ns == failed_ns
    assert tree.get("a").end_ns == failed_ns + 500_000_000


def test_locked_task_waits_for_no_capacity() -> None:
    """R2, C4: under LEVELS a lock waits as a start does, but not for a worker."""
    d = run("scheduling LEVELS; a -> l; node slow; node l locked")
    d.succeed("a")
    d.advance(3)
    d.succeed("slow")
    lock = ended(d).get("l")
    assert (attributes(lock)["plait.reason"], lock.end_ns - lock.start_ns) == ("LOCKED", 1)


def test_task_is_ready_when_the_last_edge_of_its_join_resolved() -> None:
    """The wait of a task that never began starts when its join was decided, by whatever edge."""
    d = Driver(build("a -> b; x -> b when=false"), grants=False)
    d.now_s = 1.0
    d.start()
    d.grant("a")
    d.grant("x")
    d.advance(1)
    d.succeed("a")
    d.advance(2)
    d.succeed("x")
    d.advance(4)
    d.cancel()
    tree = ended(d)
    assert (tree.get("b").start_ns, tree.get("b").end_ns) == (4_000_000_000, 8_000_000_000)


def test_join_that_runs_with_nothing_but_failures_is_ready_when_the_last_came() -> None:
    d = Driver(build("a -> j", "node j join=COLLECT"), grants=False)
    d.now_s = 1.0
    d.start()
    d.grant("a")
    d.advance(3)
    d.fail("a")
    d.advance(4)
    d.cancel()
    tree = ended(d)
    assert (tree.get("j").start_ns, tree.get("j").end_ns) == (4_000_000_000, 8_000_000_000)


def test_cancelled_execution_is_no_error() -> None:
    d = run("a -> b")
    d.advance(1)
    d.cancel()
    for stage in (CancelStage.DELIVERED, CancelStage.ACKNOWLEDGED, CancelStage.EXITED):
        d.advance(1)
        d.receipt("a", stage)
    tree = ended(d)
    assert [span for span in tree if span.error is not None] == []
    assert attributes(tree.get("execution"))["plait.execution.state"] == "CANCELLED"
    assert tree.get("attempt a 1").end_ns == 1_001_000_000_000
    assert tree.get("execution").end_ns == 1_004_000_000_000


def test_execution_that_partially_succeeded_is_no_error() -> None:
    """B2.1: status ERROR is for FAILED and TIMED_OUT."""
    d = run("policy CONTINUE; node a; node b")
    d.succeed("a")
    d.fail("b")
    execution = ended(d).get("execution")
    assert attributes(execution)["plait.execution.state"] == "PARTIALLY_SUCCEEDED"
    assert execution.error is None


def test_timed_out_execution_is_an_error() -> None:
    d = run("policy timeout=2; a -> b")
    d.advance(3)
    tree = ended(d)
    assert tree.get("execution").error == "EXECUTION_TIMEOUT"
    assert tree.get("a").error is None


def test_execution_span_tells_how_parallel_it_was() -> None:
    """On the execution: node count, limit, outcome, critical path, sum of node times, speed-up over sequential."""
    d = run("a -> c; b -> c")
    d.advance(2)
    d.succeed("b")
    d.advance(1)
    d.succeed("a")
    d.advance(1)
    d.succeed("c")
    span = ended(d).get("execution")
    has = attributes(span)
    assert span.name == "execution"
    assert span.kind is SpanKind.CONSUMER
    assert (has["plait.node.count"], has["plait.limit"], has["plait.execution.state"]) == (3, 10, "SUCCEEDED")
    assert (has["plait.critical_path_s"], has["plait.node_time_s"], has["plait.speedup"]) == (4.0, 6.0, 1.5)


def test_backoff_counts_as_work_and_waiting_does_not() -> None:
    d = Driver(build("node a retry=2"), grants=False).start()
    d.grant_after("a", 3.0)
    d.fail("a", "UNAVAILABLE", jitter=1.0)
    d.advance(2)
    d.grant_after("a", 0.0)
    d.advance(4)
    d.succeed("a")
    has = attributes(ended(d).get("execution"))
    backoff_s = d.execution.record("a").attempts[0].retry_time_s
    assert has["plait.node_time_s"] == has["plait.critical_path_s"] == backoff_s + 4.0


def test_all_spans_share_the_trace() -> None:
    d = run("a -> b; a -> c")
    d.succeed("a", "b", "c")
    traces = {span.trace for span in ended(d)}
    (trace,) = traces
    assert trace.trace_id.hex() == TRACEPARENT[3:35]
    assert dict(trace.attributes) == {"plait.namespace": "n", "plait.execution.id": "e1", "plait.run": 1}


def test_every_span_lasts_at_least_1_ns() -> None:
    """Rule 3; `check_nesting` checks it."""
    d = run("node a kind=condition:true; a -true-> b; a -false-> c; node b kind=condition:true")
    ends = [(span.start_ns, span.end_ns) for span in ended(d) if span.name != "execution"]
    assert ends == [(1_000_000_000_000, 1_000_000_000_001)] * 5
    assert ended(d).get("execution").end_ns == 1_000_000_000_001


def test_no_span_ends_before_it_starts_if_the_clock_jumps_back() -> None:
    """Rule 3: a span encloses its children, even if the wall clock jumped."""
    d = run("a -> b; a -> c; b, c -> d")
    d.advance(100)
    d.succeed("a")
    d.now_s = 10.0
    d.succeed("b")
    d.now_s = 200.0
    d.succeed("c")
    d.now_s = 1.0
    d.succeed("d")
    ended(d)


def test_engine_nodes_have_their_kind_for_a_type() -> None:
    d = run("node c kind=condition:true; node w kind=delay:5; c -true-> w; c -false-> x")
    d.advance(6)
    tree = ended(d)
    assert tree.get("c").name == "node condition"
    wait = tree.get("w")
    assert (wait.name, wait.end_ns - wait.start_ns) == ("node delay", 5_000_000_000)
    assert attributes(wait)["plait.node.level"] == 1
