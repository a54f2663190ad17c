"""What comes late, twice or out of turn: results, timers, receipts, answers (A4, C1, T4, T6)."""

import pytest

from plait_server.core.run.commands import Disposition, TimerKind
from plait_server.core.run.states import AttemptOutcome, CancelStage
from tests.core.driver import Driver
from tests.core.graph_text import build


def run(*lines: str) -> Driver:
    return Driver(build(*lines)).start()


def test_result_that_comes_again_is_known_whether_it_succeeded_or_failed() -> None:
    """A4: a worker keeps a result until it is told RECORDED, ALREADY_RECORDED or STALE."""
    d = run("node a on_error=IGNORE; a -> c; b -> c")
    d.fail("a")
    d.succeed("b")
    d.result("a", AttemptOutcome.FAILED)
    d.result("b", AttemptOutcome.SUCCEEDED)
    told = [(each.node_path, each.disposition) for each in d.told]
    assert told == [
        ("a", Disposition.RECORDED),
        ("b", Disposition.RECORDED),
        ("a", Disposition.ALREADY_RECORDED),
        ("b", Disposition.ALREADY_RECORDED),
    ]
    assert not d.audits


@pytest.mark.parametrize("attempt", [-1, 0, 2])
def test_result_of_an_attempt_that_never_was_is_stale(attempt: int) -> None:
    """A4: a result is taken from the current attempt alone."""
    d = run("a -> b")
    d.result("a", AttemptOutcome.SUCCEEDED, attempt=attempt)
    assert d.state("a") == "RUNNING"
    assert [each.disposition for each in d.told] == [Disposition.STALE]


def test_retry_after_nothing_is_a_retry_at_once() -> None:
    """T1: the worker's `retry_after` wins over the computed delay, 0 too."""
    d = run("node a retry=2 backoff=9")
    d.fail("a", retry_after_s=0.0)
    d.advance(0)
    assert d.running() == ["a"]


def test_timeout_of_an_earlier_attempt_does_not_end_the_next() -> None:
    """T4: the timeout of an attempt counts from the attempt's own start."""
    d = run("node a retry=2 backoff=2 attempt_timeout=5")
    d.advance(3)
    d.fail("a", jitter=0.5)
    d.advance(1)
    assert d.attempt("a") == 2
    d.advance(4.9)
    assert d.state("a") == "RUNNING"
    d.advance(0.1)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"


def test_wait_for_a_worker_between_two_attempts_is_not_counted() -> None:
    """T4: node (RUNNING and BACKING_OFF over all attempts): not what lies between."""
    d = Driver(build("node a node_timeout=5 retry=2 backoff=2"), grants=False).start()
    d.grant("a")
    d.advance(1)
    d.fail("a", jitter=0.5)
    d.advance(7)
    assert d.state("a").startswith("BACKING_OFF"), "its backoff is over, and no worker was free"
    d.grant("a")
    d.advance(2.9)
    assert d.state("a") == "RUNNING"
    d.advance(0.1)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"


@pytest.mark.parametrize("kind", [TimerKind.ATTEMPT_TIMEOUT, TimerKind.NODE_TIMEOUT])
def test_timeout_after_the_result_changes_nothing_while_its_edges_are_judged(kind: TimerKind) -> None:
    """T6: whichever is journaled first wins; the result was there before the timeout."""
    d = Driver(build("a -> b when=true", "node a attempt_timeout=5 node_timeout=5 retry=2"), answers=False)
    d.start()
    d.succeed("a")
    d.fire(kind, "a")
    assert len(d.questions) == 1
    d.answer()
    assert d.state("a") == "SUCCEEDED"
    assert [told.disposition for told in d.told] == [Disposition.RECORDED]


def test_result_that_a_cancel_overtook_is_answered_once() -> None:
    """T6, A4: a result whose edges were being judged when the cancel came goes to the audit."""
    d = Driver(build("a -> b when=true"), answers=False).start()
    d.succeed("a")
    d.succeed("a")
    d.cancel()
    d.answer()
    assert d.state("a") == "CANCELLED"
    assert [told.disposition for told in d.told] == [Disposition.STALE]
    assert [audit.kind for audit in d.audits] == ["STALE_RESULT"]


def test_result_that_comes_twice_while_its_edges_are_judged_is_answered_once() -> None:
    """A4: a result is in the journal exactly once."""
    d = Driver(build("a -> b when=true"), answers=False).start()
    d.succeed("a")
    d.succeed("a")
    d.answer()
    assert [told.disposition for told in d.told] == [Disposition.RECORDED]


def test_output_that_is_made_after_a_cancel_changes_nothing() -> None:
    """T6, A5: the cancel was journaled first."""
    d = Driver(build("output 1; node a"), answers=False).start()
    d.succeed("a")
    d.cancel()
    assert d.ended == "CANCELLED"
    count = len(d.events)
    d.answer()
    assert len(d.events) == count


def test_worker_that_has_exited_is_not_told_again() -> None:
    """C1: a worker that comes back is told again, unless its handler has ended."""
    d = run("a, b -> c")
    d.cancel()
    d.receipt("a", CancelStage.EXITED)
    d.stopped.clear()
    d.restart()
    assert [stop.node_path for stop in d.stopped] == ["b"]


def test_cancel_before_the_start_ends_every_node() -> None:
    """C1: every node not ended is CANCELLED at the decision, also of an execution that is QUEUED."""
    d = Driver(build("a -> b"))
    d.cancel()
    assert d.ended == "CANCELLED"
    assert set(d.states().values()) == {"CANCELLED"}
    d.start()
    assert d.ended == "CANCELLED"


def test_backoff_that_is_over_is_not_shown_any_more() -> None:
    """Q6: backoff until when, and no longer."""
    d = run("node a retry=2")
    d.fail("a", jitter=0.5)
    assert d.execution.record("a").due_s == 0.5
    d.advance(0.5)
    assert d.execution.record("a").due_s == 0.0


def test_node_timeout_set_with_a_lost_attempt_does_not_end_the_next_too_early() -> None:
    """T4: the wait for another worker is not counted, so the timer of the lost attempt is not the node's any more."""
    d = Driver(build("node a node_timeout=5"), grants=False).start()
    d.grant("a")
    d.advance(1)
    d.lose("a")
    d.advance(3)
    d.grant("a")
    d.advance(3.9)
    assert d.state("a") == "RUNNING"
    d.advance(0.1)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"


def test_node_timeout_survives_a_restart_while_it_backs_off() -> None:
    """T4, A1: it counts RUNNING and BACKING_OFF, and what is not durable follows from what is."""
    d = run("node a node_timeout=5 retry=2 backoff=20")
    d.advance(1)
    d.fail("a", jitter=0.5)
    d.restart()
    d.advance(3.9)
    assert d.state("a").startswith("BACKING_OFF")
    d.advance(0.1)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"


def test_receipt_after_the_end_goes_to_the_audit() -> None:
    """A5, C1: nothing follows the terminal event, a later stage of a cancel neither."""
    d = run("a -> b")
    d.cancel()
    d.receipt("a", CancelStage.EXITED)
    count = len(d.events)
    d.receipt("a", CancelStage.ABANDONED)
    assert len(d.events) == count
    assert [audit.kind for audit in d.audits] == ["CANCEL_RECEIPT"]


def test_timer_that_was_due_before_a_restart_fires_at_once() -> None:
    """T4: a delay is never negative, however late the replay is."""
    d = run("node a attempt_timeout=5; a -> b")
    d.now_s = 20.0
    d.restart()
    d.advance(0)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"
