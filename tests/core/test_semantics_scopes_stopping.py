"""Stops that reach into scopes (E7, N4), cancels (C1), lost races (J1), and timeouts (N1, T4, T5)."""

from __future__ import annotations

import pytest

from plait_server.core.run.states import AttemptOutcome, CancelStage
from tests.core.driver import Driver
from tests.core.graph_text import build


def run(*lines: str) -> Driver:
    return Driver(build(*lines)).start()


def stopped(driver: Driver) -> list[str]:
    return [stop.node_path for stop in driver.stopped]


# E7.


@pytest.mark.parametrize("inner", ["CONTINUE", "STOP_DISPATCH", "FAIL_FAST"])
def test_fail_fast_aborts_what_runs_inside(inner: str) -> None:
    """E7: a stop reaches the scopes inside, whatever their own policies; FAIL_FAST aborts what runs there.

    N4: what ends a node with scopes ends the nodes in them first, in graph order.
    """
    d = run(f"sub x {{ a -> b; c; policy {inner} }}; y; z")
    known = len(d.story())
    d.fail("y", "BAD")
    assert d.story()[known:] == [
        "y FAILED/BAD",
        "x/a IDLE/SIBLING_FAILED",
        "x/b IDLE/SIBLING_FAILED",
        "x/c IDLE/SIBLING_FAILED",
        "x IDLE/SIBLING_FAILED",
        "z IDLE/SIBLING_FAILED",
    ]
    assert (d.ended, d.named) == ("FAILED", ("y", "BAD"))
    assert stopped(d) == ["x/a", "x/c", "z"]


def test_stop_dispatch_lets_finish_what_runs_inside_and_starts_nothing() -> None:
    """E7: nothing starts there; the node of any other goes to IDLE/SIBLING_FAILED once nothing in it runs."""
    d = run("sub x { a -> b; c; policy CONTINUE }; y; policy STOP_DISPATCH")
    known = len(d.story())
    d.fail("y", "BAD")
    assert d.story()[known:] == ["y FAILED/BAD", "x/b IDLE/SIBLING_FAILED"]
    assert (d.state("x"), d.ended) == ("RUNNING", "RUNNING")
    d.succeed("x/a")
    assert (d.state("x/b"), d.state("x")) == ("IDLE/SIBLING_FAILED", "RUNNING")
    d.succeed("x/c")
    assert d.story()[-2:] == ["x/c SUCCEEDED", "x IDLE/SIBLING_FAILED"]
    assert (d.ended, d.named) == ("FAILED", ("y", "BAD"))


@pytest.mark.parametrize(("fails", "end"), [(False, "SUCCEEDED"), (True, "PARTIALLY_SUCCEEDED")])
def test_scope_inside_a_stop_that_left_no_node_idle_ends_by_e5(fails: bool, end: str) -> None:
    """E7: under STOP_DISPATCH a scope inside that left no node IDLE ends by E5."""
    d = run("sub x { a; c; policy CONTINUE }; x -> z; y; policy STOP_DISPATCH")
    d.fail("y")
    d.fail("x/a") if fails else d.succeed("x/a")
    d.succeed("x/c")
    assert d.story()[-2:] == [f"x ends {end}", "x SUCCEEDED"]
    assert (d.ended, d.state("z")) == ("FAILED", "IDLE/SIBLING_FAILED")


@pytest.mark.parametrize("inner", ["FAIL_FAST", "STOP_DISPATCH"])
def test_scope_inside_a_stop_whose_own_failure_stopped_it_fails(inner: str) -> None:
    """E7: one whose own failure stopped it FAILS, though it left nodes IDLE."""
    d = run(f"sub x {{ a; b -> c; policy {inner} }}; y; policy STOP_DISPATCH")
    d.fail("y", "BAD")
    d.fail("x/a", "WORSE")
    if inner == "STOP_DISPATCH":
        assert d.state("x/b") == "RUNNING"
        d.succeed("x/b")
    else:
        assert d.state("x/b") == "IDLE/SIBLING_FAILED"
    assert d.story()[-2:] == ["x ends FAILED", "x FAILED/WORSE"]
    assert (d.ended, d.named) == ("FAILED", ("y", "BAD"))


def test_scope_that_was_stopping_when_the_stop_came_fails() -> None:
    """E7: its own failure stopped it, before the stop around it did."""
    d = run("sub x { a; b; policy STOP_DISPATCH }; y; z; policy STOP_DISPATCH")
    d.fail("x/a", "FIRST")
    d.fail("y", "SECOND")
    d.succeed("x/b", "z")
    assert d.state("x") == "FAILED/FIRST"
    assert d.named == ("y", "SECOND"), "E1: the earliest failure of a node of the scope: x FAILED later"


def test_failed_attempt_inside_a_stop_is_not_retried() -> None:
    """E4: one that fails with retries left is not retried: its node goes to IDLE/SIBLING_FAILED."""
    d = run("sub x { node a retry=3 }; y; policy STOP_DISPATCH")
    d.fail("y")
    d.fail("x/a", "UNAVAILABLE")
    assert d.story()[-2:] == ["x/a IDLE/SIBLING_FAILED", "x IDLE/SIBLING_FAILED"]
    assert d.ended == "FAILED"


@pytest.mark.parametrize("outcome", [AttemptOutcome.LOST, AttemptOutcome.RETURNED])
def test_attempt_inside_a_stop_that_came_back_is_not_given_out_again(outcome: AttemptOutcome) -> None:
    """E7: nothing starts there."""
    d = run("sub x { a }; y; policy STOP_DISPATCH")
    d.fail("y")
    d.result("x/a", outcome)
    assert d.story()[-2:] == ["x/a IDLE/SIBLING_FAILED", "x IDLE/SIBLING_FAILED"]


def test_stop_puts_back_what_waits_or_backs_off_inside() -> None:
    """E4: neither ended nor running (WAITING is not running); E7: its node follows, for nothing in it runs."""
    d = run("sub x { node w kind=delay:9 }; sub v { node a retry=2 backoff=9 }; y; z; policy STOP_DISPATCH")
    d.fail("v/a", "UNAVAILABLE")
    known = len(d.story())
    d.fail("y", "BAD")
    assert d.story()[known:] == [
        "y FAILED/BAD",
        "x/w IDLE/SIBLING_FAILED",
        "v/a IDLE/SIBLING_FAILED",
        "x IDLE/SIBLING_FAILED",
        "v IDLE/SIBLING_FAILED",
    ]
    d.succeed("z")
    assert d.ended == "FAILED"


def test_scope_that_was_stopping_is_put_back_by_fail_fast_and_does_not_end() -> None:
    """E7: FAIL_FAST aborts what runs there, so the scope has no end of its own, though a failure had stopped it."""
    d = run("sub x { a; b; policy STOP_DISPATCH }; y; policy FAIL_FAST")
    d.fail("x/a", "FIRST")
    known = len(d.story())
    d.fail("y", "SECOND")
    assert d.story()[known:] == ["y FAILED/SECOND", "x/b IDLE/SIBLING_FAILED", "x IDLE/SIBLING_FAILED"]
    assert d.named == ("y", "SECOND")


def test_failure_inside_stops_the_scopes_inside_its_own_and_no_others() -> None:
    """E4, E7: the scope that the failure is of, and those in it."""
    d = run("sub x { sub y { a; policy CONTINUE }; b; c }; z; policy CONTINUE")
    d.fail("x/b", "BAD")
    assert d.story()[-6:] == [
        "x/b FAILED/BAD",
        "x/y/a IDLE/SIBLING_FAILED",
        "x/y IDLE/SIBLING_FAILED",
        "x/c IDLE/SIBLING_FAILED",
        "x ends FAILED",
        "x FAILED/BAD",
    ]
    assert d.state("z") == "RUNNING"


def test_fail_fast_of_a_scope_within_a_stop_dispatch_aborts_there_alone() -> None:
    """E7: FAIL_FAST aborts what runs there: in its own scope, not beside it."""
    d = run("sub x { a; sub y { b } }; z; w; policy STOP_DISPATCH")
    d.fail("z", "BAD")
    d.fail("x/a", "WORSE")
    assert (d.state("x/y/b"), d.state("x/y"), d.state("x")) == (
        "IDLE/SIBLING_FAILED",
        "IDLE/SIBLING_FAILED",
        "FAILED/WORSE",
    )
    assert (d.state("w"), d.ended) == ("RUNNING", "RUNNING")


def test_stop_dispatch_reaches_two_scopes_deep() -> None:
    d = run("sub x { sub y { a -> b; policy CONTINUE }; y -> c }; z; policy STOP_DISPATCH")
    d.fail("z")
    assert (d.state("x/y/b"), d.state("x/c")) == ("IDLE/SIBLING_FAILED", "IDLE/SIBLING_FAILED")
    d.succeed("x/y/a")
    assert d.story()[-3:] == ["x/y/a SUCCEEDED", "x/y IDLE/SIBLING_FAILED", "x IDLE/SIBLING_FAILED"]
    assert d.ended == "FAILED"


def test_restart_within_a_stopped_scope_goes_on_the_same() -> None:
    """A1: that a scope is stopped follows from its events and those of the scopes around it."""
    d = run("sub x { a -> b; c; policy CONTINUE }; y; policy STOP_DISPATCH")
    d.fail("y")
    d.restart()
    d.succeed("x/a")
    d.restart()
    d.succeed("x/c")
    assert (d.state("x"), d.ended) == ("IDLE/SIBLING_FAILED", "FAILED")


# C1.


def test_cancel_cancels_the_nodes_in_scopes_first() -> None:
    """C1: every node not ended is CANCELLED at the decision. N4: the nodes in them first, in graph order."""
    d = run("sub x { a -> b; sub y { c } }; z")
    known = len(d.story())
    d.cancel()
    assert d.story()[known:] == [
        "x/a CANCELLED",
        "x/b CANCELLED",
        "x/y/c CANCELLED",
        "x/y CANCELLED",
        "x CANCELLED",
        "z CANCELLED",
    ]
    assert d.ended == "CANCELLING"
    assert stopped(d) == ["x/a", "x/y/c", "z"]
    for path in ("x/a", "z"):
        d.receipt(path, CancelStage.EXITED)
    assert d.ended == "CANCELLING", "x/y/c has not exited"
    d.receipt("x/y/c", CancelStage.ABANDONED)
    assert d.ended == "CANCELLED"


def test_cancel_leaves_a_scope_that_has_ended_as_it_is() -> None:
    """E7: a cancel leaves a scope that has ended as it is."""
    d = run("sub x { a; b; policy CONTINUE }; x -> z")
    d.fail("x/a")
    d.succeed("x/b")
    known = len(d.story())
    d.cancel()
    assert d.story()[known:] == ["z CANCELLED"]
    assert d.state("x/b") == "SUCCEEDED"


def test_cancel_of_a_stopped_execution_cancels_what_was_put_back_inside_too() -> None:
    """C1: every node not ended is CANCELLED at the decision; what is IDLE has not ended."""
    d = run("sub x { a -> b; policy CONTINUE }; y; z; policy STOP_DISPATCH")
    d.fail("y")
    d.succeed("x/a")
    assert d.state("x") == "IDLE/SIBLING_FAILED"
    known = len(d.story())
    d.cancel()
    assert d.story()[known:] == ["x/b CANCELLED", "x CANCELLED", "z CANCELLED"]


# J1.


def test_loser_that_is_a_sub_graph_ends_with_its_nodes() -> None:
    """J1: every node not ended, whatever its state. N4: the nodes in them first, in graph order."""
    d = run("sub x { a -> b; c }; y; x, y -> j; node j join=ANY")
    known = len(d.story())
    d.succeed("y")
    assert d.story()[known:] == [
        "y SUCCEEDED",
        "x/a CANCELLED/RACE_LOST",
        "x/b CANCELLED/RACE_LOST",
        "x/c CANCELLED/RACE_LOST",
        "x CANCELLED/RACE_LOST",
        "j RUNNING",
    ]
    assert stopped(d) == ["x/a", "x/c"]
    known = len(d.events)
    d.result("x/a", AttemptOutcome.SUCCEEDED)
    assert len(d.events) == known, "T6: the other goes to the audit"
    d.succeed("j")
    assert d.ended == "SUCCEEDED"


def test_sub_graph_that_wins_a_race() -> None:
    d = run("sub x { a }; y; x, y -> j; node j join=ANY")
    d.succeed("x/a", output="1")
    assert d.story()[-5:] == [
        "x/a SUCCEEDED",
        "x ends SUCCEEDED",
        "x SUCCEEDED",
        "y CANCELLED/RACE_LOST",
        "j RUNNING",
    ]
    assert d.inputs["j"].json.replace(" ", "") == '{"winner":"x","output":1}'


def test_sub_graph_that_has_not_begun_loses_without_a_scope() -> None:
    d = run("a -> x; sub x { b }; y; x, y -> j; node j join=ANY")
    d.succeed("y")
    assert d.story()[-4:] == ["y SUCCEEDED", "a CANCELLED/RACE_LOST", "x CANCELLED/RACE_LOST", "j RUNNING"]


def test_ended_scope_in_a_loser_is_left_as_it_is() -> None:
    """J1: every node not ended."""
    d = run("sub x { sub w { a }; w -> b }; y; x, y -> j; node j join=ANY")
    d.succeed("x/w/a")
    known = len(d.story())
    d.succeed("y")
    assert d.story()[known:] == [
        "y SUCCEEDED",
        "x/b CANCELLED/RACE_LOST",
        "x CANCELLED/RACE_LOST",
        "j RUNNING",
    ]


# T4, T5.


@pytest.mark.parametrize(
    "graph",
    [
        "sub x { a -> b; sub y { c }; policy timeout=3 }",
        "sub x { a -> b; sub y { c } }; node x node_timeout=3",
    ],
    ids=["of the graph", "of the node"],
)
def test_timeout_of_a_scope_is_that_of_an_execution(graph: str) -> None:
    """N1: its `timeout` bounds its scope as T5 says, and its node is TIMED_OUT/DEADLINE_EXCEEDED.

    T4: a node's counts while it is RUNNING, and N2: it is while its scope is open.
    """
    d = run(graph, "x -> z; k; policy CONTINUE")
    d.advance(1)
    d.succeed("x/a")
    known = len(d.story())
    d.advance(2)
    assert d.story()[known:] == [
        "x ends TIMED_OUT",
        "x/b CANCELLED/EXECUTION_TIMEOUT",
        "x/y/c CANCELLED/EXECUTION_TIMEOUT",
        "x/y CANCELLED/EXECUTION_TIMEOUT",
        "x TIMED_OUT/DEADLINE_EXCEEDED",
        "z SKIPPED/UPSTREAM_FAILED",
    ]
    assert stopped(d) == ["x/b", "x/y/c"]
    d.succeed("k")
    assert d.named == ("x", "DEADLINE_EXCEEDED")


@pytest.mark.parametrize(("choice", "state"), [("CONTINUE", "RUNNING"), ("CANCEL", "SKIPPED/DEAD_PATH")])
def test_timeout_of_a_scope_is_taken_by_on_timeout(choice: str, state: str) -> None:
    """N1: its node is TIMED_OUT, which `on_timeout` may take."""
    d = run(f"sub x {{ a; policy timeout=3 }}; node x on_timeout={choice}; x -> z")
    d.advance(3)
    assert (d.state("x"), d.state("z")) == ("TIMED_OUT/DEADLINE_EXCEEDED", state)
    if choice == "CONTINUE":
        assert d.inputs["z"].json == "null"
        d.succeed("z")
    assert d.ended == "SUCCEEDED"


def test_timeout_of_a_scope_counts_from_its_opening() -> None:
    """T4: an execution's from its start; a scope's alike."""
    d = run("a -> x; sub x { b; policy timeout=3 }")
    d.advance(2)
    d.succeed("a")
    d.advance(2.5)
    assert d.state("x") == "RUNNING"
    d.advance(0.5)
    assert d.state("x") == "TIMED_OUT/DEADLINE_EXCEEDED"


def test_timeout_of_a_scope_survives_a_restart() -> None:
    """A1: what is not durable follows from what is."""
    d = run("sub x { a; policy timeout=3 }; sub y { b }; node y node_timeout=4; policy CONTINUE")
    d.advance(2)
    d.restart()
    d.advance(1)
    assert (d.state("x"), d.state("y")) == ("TIMED_OUT/DEADLINE_EXCEEDED", "RUNNING")
    d.restart()
    d.advance(1)
    assert d.state("y") == "TIMED_OUT/DEADLINE_EXCEEDED"


def test_timeout_of_a_scope_that_has_ended_changes_nothing() -> None:
    """T6: whichever is journaled first wins."""
    d = run("sub x { a; policy timeout=3 }; node x node_timeout=4; x -> z")
    d.succeed("x/a")
    known = len(d.story())
    d.advance(9)
    assert len(d.story()) == known
    d.succeed("z")
    assert d.ended == "SUCCEEDED"


def test_timeout_of_a_node_in_a_scope_is_its_own() -> None:
    d = run("sub x { node a node_timeout=2; b; policy CONTINUE }")
    d.advance(2)
    assert (d.state("x/a"), d.state("x/b"), d.state("x")) == (
        "TIMED_OUT/DEADLINE_EXCEEDED",
        "RUNNING",
        "RUNNING",
    )


def test_delay_in_a_scope_waits() -> None:
    d = run("sub x { node w kind=delay:5; w -> a }")
    assert (d.state("x"), d.state("x/w")) == ("RUNNING", "WAITING")
    d.restart()
    d.advance(5)
    assert d.state("x/a") == "RUNNING"


def test_timeout_of_the_execution_ends_what_is_in_scopes() -> None:
    """T5: every node not ended is CANCELLED/EXECUTION_TIMEOUT, and it is TIMED_OUT at once."""
    d = run("sub x { a -> b }; policy timeout=3")
    d.advance(3)
    assert d.story()[-3:] == [
        "x/a CANCELLED/EXECUTION_TIMEOUT",
        "x/b CANCELLED/EXECUTION_TIMEOUT",
        "x CANCELLED/EXECUTION_TIMEOUT",
    ]
    assert d.ended == "TIMED_OUT"


def test_timeout_of_a_scope_that_is_stopping_wins() -> None:
    """T5: at once, though STOP_DISPATCH waits for what runs; what was put back has not ended."""
    d = run("sub x { a; b -> c; policy STOP_DISPATCH timeout=3 }; policy CONTINUE; k")
    d.fail("x/a", "BAD")
    known = len(d.story())
    d.advance(3)
    assert d.story()[known:] == [
        "x ends TIMED_OUT",
        "x/b CANCELLED/EXECUTION_TIMEOUT",
        "x/c CANCELLED/EXECUTION_TIMEOUT",
        "x TIMED_OUT/DEADLINE_EXCEEDED",
    ]
