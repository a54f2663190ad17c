"""Section 7: failures; S2.3: outputs."""

import pytest

from plait_server.core.definition.graph import OnFailure
from plait_server.core.run.states import CancelStage
from tests.core.driver import Driver
from tests.core.graph_text import build


def run(*lines: str) -> Driver:
    return Driver(build(*lines)).start()


def test_all_failures_are_kept_in_order_and_the_earliest_unhandled_is_named() -> None:
    """E1: the summary names the earliest failure not handled, ignored or tolerated; a bystander never."""
    d = run(
        "policy CONTINUE",
        "h -error-> x; i -> y; t -> z; u -> v; w -> v",
        "node i on_error=IGNORE; node t on_error=TOLERATE",
    )
    for path in ("h", "i", "t", "w", "u"):
        d.fail(path)
    d.succeed("x", "y")
    assert d.treatments() == [
        ("h", "HANDLED"),
        ("i", "IGNORED"),
        ("t", "TOLERATED"),
        ("w", "UNHANDLED"),
        ("u", "UNHANDLED"),
    ]
    assert d.named == ("w", "INTERNAL")
    assert d.execution.failure_count == 5


def test_else_the_earliest_that_broke_a_counted_sink_is_named() -> None:
    """E1: else the earliest that broke a counted sink."""
    d = run(
        "other -> c1; a,b -> sink", "node c1 join=COLLECT; node a on_error=TOLERATE; node b on_error=TOLERATE"
    )
    d.fail("other")
    d.fail("b", "B")
    d.fail("a", "A")
    d.succeed("c1")
    assert (d.ended, d.named) == ("PARTIALLY_SUCCEEDED", ("b", "B"))


def test_failure_of_an_attempt_that_is_retried_is_no_failure_of_the_node() -> None:
    """E2, E1: a node has failed only when its retries are used up."""
    d = run("a -> b", "node a retry=2")
    d.fail("a", "UNAVAILABLE")
    assert d.treatments() == []
    assert d.running() == []
    d.advance(1)
    d.fail("a", "UNAVAILABLE")
    assert d.treatments() == [("a", "UNHANDLED")]
    assert d.ended == "FAILED"


@pytest.mark.parametrize(
    ("lines", "guarded"),
    [
        ("a -> j", True),
        ("a -> b; b -> j", True),
        ("a -> j; j -> x", True),
        ("a -> b; b -> j; b -> x", False),
        ("a -> j; a -> x", False),
        ("a -error-> j; a -> x", False),
        ("a -> j; a -error-> x when=false", True),
        ("a -> b; b -> j; b -error-> x when=false", True),
        ("a -error-> j when=false", False),
    ],
)
@pytest.mark.parametrize("mode", ["ANY", "QUORUM:1", "COLLECT"])
def test_failure_of_a_guarded_node_is_tolerated(lines: str, guarded: bool, mode: str) -> None:
    """E3: it has outgoing plain edges and every path of plain edges from it comes to another node that
    joins so.
    """
    d = run(
        lines, "k -> j", f"node j join={mode} keep_losers" if mode != "COLLECT" else "node j join=COLLECT"
    )
    d.fail("a") if "a -error-> j;" not in lines else None
    if "a -error-> j;" in lines:
        assert d.execution.record("a").index not in d.analysis.guarded
    else:
        assert d.treatments() == [("a", "TOLERATED" if guarded else "UNHANDLED")]


def test_guard_has_to_be_another_node() -> None:
    """E3: *another* node, the last included: a join does not guard itself."""
    d = run("a -> j; j -> x", "node j join=ANY")
    d.fail("a")
    assert d.treatments() == [("a", "TOLERATED"), ("j", "UNHANDLED")]


def test_on_error_fail_is_never_tolerated_and_tolerate_always() -> None:
    """E3: `on_error: FAIL` is never tolerated; TOLERATE always is."""
    d = run("a,b -> j", "node j join=ANY; node a on_error=FAIL")
    d.fail("a")
    assert (d.ended, d.treatments()) == ("FAILED", [("a", "UNHANDLED")])
    d = run("a -> x; b -> y", "node a on_error=TOLERATE")
    d.fail("a")
    assert d.treatments() == [("a", "TOLERATED")]
    assert d.state("b") == "RUNNING"


def test_fail_fast_aborts_what_runs_and_fails_at_once() -> None:
    """E4: running attempts are aborted, IDLE/SIBLING_FAILED; the scope FAILS at once; receipts go to the
    audit.
    """
    d = run("a -> x; run -> y; w -> z; back -> z", "node w kind=delay:9; node back retry=3")
    d.fail("back", "UNAVAILABLE")
    d.fail("a")
    idle = "IDLE/SIBLING_FAILED"
    assert d.states() == {
        "a": "FAILED/INTERNAL",
        "x": idle,
        "run": idle,
        "y": idle,
        "w": idle,
        "z": idle,
        "back": idle,
    }
    assert (d.ended, d.named) == ("FAILED", ("a", "INTERNAL"))
    assert [(stop.node_path, stop.reason) for stop in d.stopped] == [("run", "SIBLING_FAILED")]
    count = len(d.events)
    d.receipt("run", CancelStage.EXITED)
    d.succeed("run")
    assert len(d.events) == count
    assert [audit.kind for audit in d.audits] == ["CANCEL_RECEIPT", "STALE_RESULT"]


def test_stop_dispatch_lets_running_attempts_finish() -> None:
    """E4: running attempts finish (retries left: IDLE/SIBLING_FAILED; none left: FAILED), then the scope
    FAILS.
    """
    d = run("policy STOP_DISPATCH", "a -> x; r1 -> y; r2,r3,r4,r5 -> z", "node r2 retry=2")
    d.fail("a")
    assert d.running() == ["r1", "r2", "r3", "r4", "r5"]
    d.succeed("r1")
    assert d.state("y") == "IDLE/SIBLING_FAILED", "no join is decided"
    d.fail("r2", "UNAVAILABLE")
    assert d.state("r2") == "IDLE/SIBLING_FAILED"
    d.fail("r3", "UNAVAILABLE")
    assert d.state("r3") == "FAILED/UNAVAILABLE"
    d.lose("r4")
    assert d.state("r4") == "IDLE/SIBLING_FAILED", "nothing starts"
    assert d.ended == "RUNNING"
    d.hand_back("r5")
    assert (d.ended, d.named) == ("FAILED", ("a", "INTERNAL"))


def test_stop_dispatch_puts_back_what_waits() -> None:
    """E4: every node neither ended nor running goes to IDLE/SIBLING_FAILED (WAITING is not running)."""
    d = Driver(
        build("policy STOP_DISPATCH", "a -> x; w -> x; queued -> x", "node w kind=delay:9"), grants=False
    ).start()
    d.grant("a")
    d.fail("a")
    assert d.state("w") == d.state("queued") == "IDLE/SIBLING_FAILED"
    assert d.ended == "FAILED"


def test_continue_goes_on_as_joins_decide() -> None:
    """E4: CONTINUE: the node's edges are BROKEN, everything else goes on as its joins decide."""
    d = run("policy CONTINUE", "a -> x; x -> y; b -> c")
    d.fail("a")
    assert (d.state("x"), d.state("y"), d.state("b")) == ("SKIPPED/UPSTREAM_FAILED",) * 2 + ("RUNNING",)
    d.succeed("b")
    d.succeed("c", output="1")
    assert (d.ended, d.output, d.named) == ("PARTIALLY_SUCCEEDED", {"c": 1}, ("a", "INTERNAL"))


@pytest.mark.parametrize(("rate", "ended"), [("0.5", "PARTIALLY_SUCCEEDED"), ("0.51", "FAILED")])
def test_share_of_counted_sinks_decides(rate: str, ended: str) -> None:
    """E5: PARTIALLY_SUCCEEDED if at least one counted sink succeeded and their share is at least the rate."""
    d = run(f"policy CONTINUE min={rate}", "a -> x; b -> y; c -> z when=false")
    d.fail("a")
    d.succeed("b", "c")
    d.succeed("y")
    assert d.ended == ended


def test_sinks_that_count_as_successes_and_those_that_do_not_count() -> None:
    """E5: LOCKED, ignored, `on_timeout: CONTINUE` count as successes; dead, dropped, handled are not
    counted.
    """
    d = run(
        "policy CONTINUE min=0.75",
        "a -> l; a -> i; a -> t; a -> bad; a -> dead when=false",
        "a -> h; h -error-> hh when=true; hh -> q when=false",
        "a -> drop; drop -> dropped",
        "node l locked=1; node i on_error=IGNORE; node t on_timeout=CONTINUE; node drop on_timeout=CANCEL",
    )
    d.succeed("a")
    d.fail("i")
    d.time_out_attempt("t")
    d.time_out_attempt("drop")
    d.fail("h")
    d.succeed("hh")
    d.fail("bad")
    assert (d.ended, d.output) == ("PARTIALLY_SUCCEEDED", {"l": 1, "i": None, "t": None})


def test_no_counted_sink_and_no_failure_left_succeeded() -> None:
    """E5: with no counted sink and every failure handled, ignored or tolerated it SUCCEEDED; S2.3: null."""
    d = run("a -> b when=false")
    d.succeed("a")
    assert (d.ended, d.output) == ("SUCCEEDED", None)
    assert d.execution.output is not None
    assert d.execution.output.json == "null"


def test_broken_sink_alone_fails() -> None:
    """E5: else it FAILED: no counted sink succeeded."""
    d = run("a -> b", "node a on_error=TOLERATE")
    d.fail("a")
    assert (d.ended, d.named) == ("FAILED", ("a", "INTERNAL"))


@pytest.mark.parametrize("policy", list(OnFailure), ids=lambda policy: policy.name)
def test_execution_without_failures_succeeds_under_any_policy(policy: OnFailure) -> None:
    d = run(f"policy {policy.name}", "a -> b")
    d.succeed("a", "b")
    assert d.ended == "SUCCEEDED"


def test_collect_errors_puts_errors_beside_the_output() -> None:
    """E5: with `collect_errors` the output is `{output, errors: [failure, ...]}`."""
    d = run("policy CONTINUE collect_errors", "a -> x; b -> y")
    d.fail("a")
    d.succeed("b")
    d.succeed("y", output="1")
    # The runtime puts the output together; the core must hold what it needs, in order.
    assert [failure.node_path for failure in d.scope.failures] == ["a"]
    assert d.ended == "PARTIALLY_SUCCEEDED"


def test_output_is_the_expression_the_sink_or_the_sinks() -> None:
    """S2.3."""
    d = run('output "done"', "a -> b")
    d.succeed("a", "b")
    assert d.output == "done"
    d = run("a -> b")
    d.succeed("a")
    d.succeed("b", output="5")
    assert d.output == 5
    d = run("a -> b; a -> c; a -> dead when=false; c -error-> e")
    d.succeed("a")
    d.succeed("b", output="5")
    d.succeed("c", output="6")
    assert d.output == {"b": 5, "c": 6}


def test_output_that_cannot_be_evaluated_fails_the_execution() -> None:
    """S2.3: if it cannot be evaluated, the execution FAILED with EXPRESSION."""
    d = run("output broken", "a -> b")
    d.succeed("a", "b")
    assert d.ended == "FAILED"
    assert d.named is not None
    assert d.named[1] == "EXPRESSION"
    assert d.execution.output is None
