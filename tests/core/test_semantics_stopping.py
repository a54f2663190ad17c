"""Sections 8 and 9: retries, timeouts, cancel, locks; section 14 as far as the core has it."""

import pytest

from plait_server.core.run.commands import Disposition, TimerKind
from plait_server.core.run.events import CancelReceipt
from plait_server.core.run.states import AttemptOutcome, CancelStage, ExecutionState
from tests.core.driver import Driver
from tests.core.graph_text import build


def run(*lines: str) -> Driver:
    return Driver(build(*lines)).start()


def test_retry_backs_off_with_full_jitter_and_holds_no_slot() -> None:
    """T1: the delay is jitter times the exponential bound; no slot is held while backing off."""
    d = run("node a retry=4")
    for bound in (1.0, 2.0, 4.0):
        d.fail("a", "UNAVAILABLE", jitter=0.5)
        assert d.state("a").startswith("BACKING_OFF")
        d.advance(bound / 2 - 0.01)
        assert not d.running()
        d.advance(0.01)
        assert d.running() == ["a"]
    d.fail("a", "UNAVAILABLE")
    assert d.state("a") == "FAILED/UNAVAILABLE"


def test_retry_after_wins_over_the_computed_delay() -> None:
    """T1: the worker's `retry_after` wins over the computed delay."""
    d = run("node a retry=2")
    d.fail("a", "UNAVAILABLE", retry_after_s=17.0)
    d.advance(16.9)
    assert not d.running()
    d.advance(0.1)
    assert d.running() == ["a"]


def test_workers_own_word_decides_on_a_retry() -> None:
    """T1: retryable codes or the worker's own word."""
    d = run("node a retry=2")
    d.fail("a", "ODD", retryable=True)
    assert d.state("a").startswith("BACKING_OFF")
    d = run("node a retry=2")
    d.fail("a", "UNAVAILABLE", retryable=False)
    assert d.state("a") == "FAILED/UNAVAILABLE"


def test_lost_attempts_are_redone_three_times_then_poison() -> None:
    """T2: without using up max_attempts, at most `max_lost_attempts` [3] times; the next loss FAILS as
    POISON.
    """
    d = run("a -> b")
    for attempt in (1, 2, 3):
        d.lose("a")
        assert d.attempt("a") == attempt + 1
    d.lose("a")
    assert d.state("a") == "FAILED/POISON"
    assert d.starts("a") == 4


def test_loss_and_return_cost_no_attempt() -> None:
    """T2, T3: RETURNED costs no attempt, nor does LOST."""
    d = run("node a retry=2")
    d.lose("a")
    for _ in range(10):
        d.hand_back("a")
    d.fail("a", "UNAVAILABLE")
    d.advance(1)
    d.succeed("a")
    assert d.ended == "SUCCEEDED"


@pytest.mark.parametrize(
    ("codes", "state"),
    [
        ("", "BACKING_OFF/DEADLINE_EXCEEDED"),
        (" codes=DEADLINE_EXCEEDED", "BACKING_OFF/DEADLINE_EXCEEDED"),
        (" codes=UNAVAILABLE", "TIMED_OUT/DEADLINE_EXCEEDED"),
    ],
)
def test_attempt_timeout_is_a_failed_attempt_with_deadline_exceeded(codes: str, state: str) -> None:
    """T5: an attempt timeout is a failed attempt with DEADLINE_EXCEEDED, retried as T1 says."""
    d = run("node a retry=2" + codes)
    d.time_out_attempt("a")
    assert d.state("a") == state


def test_node_timeout_counts_over_all_attempts_and_backoffs_and_is_not_retried() -> None:
    """T4: node (RUNNING and BACKING_OFF over all attempts); T5: the others never are retried."""
    d = run("a -> b", "node a node_timeout=10 retry=9 codes=DEADLINE_EXCEEDED,UNAVAILABLE")
    d.advance(6)
    d.fail("a", "UNAVAILABLE", retry_after_s=3)
    d.advance(3)
    assert d.running() == ["a"]
    d.advance(0.9)
    assert d.running() == ["a"]
    d.advance(0.1)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"
    assert [stop.reason for stop in d.stopped] == ["TIMED_OUT"]
    assert d.named == ("a", "DEADLINE_EXCEEDED")


def test_node_timeout_while_backing_off() -> None:
    """T4, S2.2: BACKING_OFF -> TIMED_OUT."""
    d = run("a -> b", "node a node_timeout=5 retry=9")
    d.fail("a", "UNAVAILABLE", retry_after_s=60)
    d.advance(5)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"


def test_node_timeout_does_not_count_the_wait_before_the_first_attempt() -> None:
    """T4: node (RUNNING and BACKING_OFF): the queue wait has a timeout of its own."""
    d = Driver(build("node a node_timeout=5"), grants=False).start()
    d.advance(100)
    assert d.state("a") == "IDLE"
    d.grant("a")
    d.advance(4.9)
    assert d.running() == ["a"]


def test_node_timeout_survives_a_restart_of_the_server() -> None:
    """T4, A1: what time has passed is in the journal."""
    d = run("node a node_timeout=5")
    d.advance(3)
    d.restart()
    d.advance(2)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"


def test_execution_timeout_cancels_everything_and_ends_at_once() -> None:
    """T5: every node not ended is CANCELLED/EXECUTION_TIMEOUT, workers are told, it is TIMED_OUT at once."""
    d = run("policy timeout=5", "a -> b; c -> b; w -> b; r -> b", "node w kind=delay:9; node r retry=3")
    d.succeed("a")
    d.fail("r", "UNAVAILABLE", retry_after_s=99)
    d.advance(5)
    timeout = "CANCELLED/EXECUTION_TIMEOUT"
    assert d.states() == {"a": "SUCCEEDED", "b": timeout, "c": timeout, "w": timeout, "r": timeout}
    assert (d.ended, [stop.node_path for stop in d.stopped]) == ("TIMED_OUT", ["c"])
    count = len(d.events)
    d.receipt("c", CancelStage.EXITED)
    assert len(d.events) == count, "receipts go to the audit"


def test_execution_timeout_counts_from_the_start_even_after_a_restart() -> None:
    """T4: execution (from its start)."""
    d = run("policy timeout=5", "a -> b")
    d.advance(4)
    d.restart()
    d.advance(0.9)
    assert d.ended == "RUNNING"
    d.advance(0.1)
    assert d.ended == "TIMED_OUT"


def test_late_result_is_stale_and_changes_nothing() -> None:
    """T6, A4: whichever is journaled first wins; the other goes to the audit and changes nothing."""
    d = run("a -> b; c -> b", "node a node_timeout=5 on_error=TOLERATE retry=1")
    d.advance(5)
    count = len(d.events)
    d.succeed("a")
    assert len(d.events) == count
    assert d.told[-1].disposition is Disposition.STALE
    assert d.audits[-1].kind == "STALE_RESULT"


def test_result_of_an_earlier_attempt_is_stale() -> None:
    """A4: a result is taken from the current attempt alone."""
    d = run("a -> b")
    d.lose("a")
    count = len(d.events)
    d.result("a", AttemptOutcome.SUCCEEDED, attempt=1)
    assert (len(d.events), d.told[-1].disposition) == (count, Disposition.STALE)
    d.succeed("a")
    d.result("a", AttemptOutcome.SUCCEEDED, attempt=2)
    assert d.told[-1].disposition is Disposition.ALREADY_RECORDED
    assert d.starts("b") == 1


def test_result_of_an_attempt_that_was_handed_back_is_stale() -> None:
    """T3, A4: the worker gave it up; its word afterwards was never recorded, and is not said to be."""
    d = run("node a")
    d.hand_back("a")
    count = len(d.events)
    d.result("a", AttemptOutcome.SUCCEEDED, attempt=1)
    assert (len(d.events), d.told[-1].disposition) == (count, Disposition.STALE)
    assert [audit.kind for audit in d.audits] == ["STALE_RESULT"]
    d.result("a", AttemptOutcome.RETURNED, attempt=1)
    assert (len(d.events), len(d.audits)) == (count, 1)
    d.succeed("a")
    assert d.ended == "SUCCEEDED"


def test_timeout_after_the_result_changes_nothing() -> None:
    """T6: the other way round."""
    d = run("a -> b", "node a node_timeout=5")
    d.succeed("a")
    d.advance(5)
    assert d.state("a") == "SUCCEEDED"


def test_cancel_cancels_every_node_at_the_decision_and_waits_for_receipts() -> None:
    """C1: REQUESTED, DELIVERED, ACKNOWLEDGED, then EXITED, or ABANDONED; after the last it is CANCELLED."""
    d = run("a -> b; c -> b; w -> b", "node w kind=delay:9")
    d.cancel()
    assert d.ended == "CANCELLING"
    assert set(d.states().values()) == {"CANCELLED"}
    for stage in (CancelStage.DELIVERED, CancelStage.ACKNOWLEDGED, CancelStage.EXITED):
        d.receipt("a", stage)
    assert d.ended == "CANCELLING"
    d.receipt("c", CancelStage.ABANDONED)
    assert d.ended == "CANCELLED"
    receipts = [event.detail for event in d.events if event.node_path == "a"]
    stages = [detail.stage.name for detail in receipts if isinstance(detail, CancelReceipt)]
    assert stages == ["REQUESTED", "DELIVERED", "ACKNOWLEDGED", "EXITED"]


def test_cancel_is_idempotent() -> None:
    """C1: idempotent; on an ended execution it changes nothing."""
    d = run("a -> b")
    d.cancel()
    count = len(d.events)
    d.cancel()
    assert len(d.events) == count
    d.receipt("a", CancelStage.EXITED)
    count = len(d.events)
    d.cancel()
    assert (len(d.events), d.ended) == (count, "CANCELLED")


def test_cancel_with_nothing_running_ends_at_once() -> None:
    """C1: there is no receipt to wait for; before the start as well."""
    d = Driver(build("a -> b"), grants=False).start()
    d.cancel()
    assert d.ended == "CANCELLED"
    d = Driver(build("a -> b"))
    d.cancel()
    assert (d.ended, set(d.states().values())) == ("CANCELLED", {"CANCELLED"})


def test_worker_that_comes_back_is_told_again() -> None:
    """C1: a worker that comes back is told again: a resumed machine repeats the stop."""
    d = run("a -> b")
    d.cancel()
    d.restart()
    assert [stop.node_path for stop in d.stopped] == ["a", "a"]
    d.receipt("a", CancelStage.EXITED)
    assert d.ended == "CANCELLED"


def test_receipts_after_a_restart_do_not_go_back() -> None:
    """C1: a receipt for a stage already passed is no new event."""
    d = run("a -> b")
    d.cancel()
    d.receipt("a", CancelStage.ACKNOWLEDGED)
    count = len(d.events)
    d.receipt("a", CancelStage.DELIVERED)
    d.receipt("a", CancelStage.ACKNOWLEDGED)
    assert len(d.events) == count


def test_cancel_under_stop_dispatch() -> None:
    """C1, E4: every node not ended is CANCELLED at the decision, those put back too."""
    d = run("policy STOP_DISPATCH", "a -> x; b -> x")
    d.fail("a")
    d.cancel()
    assert (d.state("b"), d.state("x")) == ("CANCELLED", "CANCELLED")
    d.receipt("b", CancelStage.EXITED)
    assert d.ended == "CANCELLED"


@pytest.mark.parametrize(
    ("lines", "act", "state"),
    [
        ("a -> l", "succeed", "SKIPPED/LOCKED"),
        ("a -> l when=false", "succeed", "SKIPPED/DEAD_PATH"),
        ("policy CONTINUE; a -> l", "fail", "SKIPPED/UPSTREAM_FAILED"),
        ("a -> l; node l join=ANY", "fail", "FAILED/ALL_BRANCHES_FAILED"),
    ],
)
def test_lock_replaces_the_run_not_the_join(lines: str, act: str, state: str) -> None:
    """C4: once its join is decided in its favour, it is SKIPPED/LOCKED; otherwise it ends as if unlocked."""
    d = run(lines, "node l locked=1; l -> z; b -> z")
    assert d.state("l") == "IDLE"
    getattr(d, act)("a")
    assert d.state("l") == state
    assert d.starts("l") == 0


def test_nothing_follows_the_terminal_event_of_a_run() -> None:
    """A5: late results and receipts go to the audit; timers find nothing to do."""
    d = run("a -> x; b -> x; w -> x", "node a node_timeout=9; node w kind=delay:3")
    d.fail("b")
    count = len(d.events)
    d.succeed("a")
    d.receipt("a", CancelStage.EXITED)
    d.advance(100)
    d.grant("x")
    d.cancel()
    assert (len(d.events), d.refused) == (count, ["x"])


@pytest.mark.parametrize("policy", ["FAIL_FAST", "STOP_DISPATCH"])
def test_nothing_follows_the_terminal_event_after_a_replay(policy: str) -> None:
    """A5, A1: resuming an execution that ended decides nothing."""
    d = run(f"policy {policy}", "a -> x; b -> x")
    d.fail("a")
    if policy == "STOP_DISPATCH":
        d.succeed("b")
    count = len(d.events)
    d.restart()
    assert len(d.events) == count


def test_replay_does_not_put_nodes_back_twice() -> None:
    """A1: a replay decides nothing that was decided; E4's sweep is in the journal."""
    d = run("policy STOP_DISPATCH", "a -> x; b -> y")
    d.fail("a")
    count = len(d.events)
    d.restart()
    assert len(d.events) == count


def test_sequence_starts_at_one_without_gaps() -> None:
    """A1: numbers its events 1, 2, 3 without gaps."""
    d = run("a -> b")
    d.succeed("a", "b")
    assert [e.sequence for e in d.events] == list(range(1, len(d.events) + 1))
    assert d.execution.state is ExecutionState.SUCCEEDED


def test_start_is_in_the_journal_once() -> None:
    """A4: starts are in the journal exactly once."""
    d = run("a -> b")
    count = len(d.events)
    d.start()
    assert len(d.events) == count


def test_no_worker_is_told_to_stop_before_the_journal_says_so() -> None:
    """A2: nothing leaves the server before the event that caused it: no act without its event."""
    d = Driver(build("a -> b when=true", "node a node_timeout=5 on_timeout=CONTINUE"), answers=False).start()
    d.fire(TimerKind.NODE_TIMEOUT, "a")
    for stop in d.stopped:
        assert d.execution.record(stop.node_path).attempts[0].outcome is not None
    d.answer()
    assert [stop.node_path for stop in d.stopped] == ["a"]


def test_result_that_a_timeout_overtook_is_answered() -> None:
    """T6, A4: the other goes to the audit; a worker keeps a result until it is told, so it has to be told."""
    d = Driver(build("a -> b when=true", "node a node_timeout=5 on_timeout=CONTINUE"), answers=False).start()
    d.fire(TimerKind.NODE_TIMEOUT, "a")
    d.succeed("a")
    d.answer()
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"
    assert [told.disposition for told in d.told] == [Disposition.STALE]
    assert [audit.kind for audit in d.audits] == ["STALE_RESULT"]
