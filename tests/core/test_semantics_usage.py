"""U1: an attempt's usage counts once, failed and aborted attempts included."""

from __future__ import annotations

import json

import pytest

from plait_server.core.run.commands import LATE_USAGE, AttemptResult, Receipt, TimerKind
from plait_server.core.run.events import AttemptEnded, UsageReported
from plait_server.core.run.states import AttemptOutcome, CancelStage, ExecutionState
from plait_server.core.run.usage import usage_text
from tests.core.driver import Driver
from tests.core.graph_text import build


def run(*lines: str) -> Driver:
    return Driver(build(*lines)).start()


def say(driver: Driver, path: str, amount: str, attempt: int = 1) -> None:
    driver.machine.note_usage(path, attempt, "tokens", amount)


def end(
    driver: Driver, path: str, outcome: AttemptOutcome, usage: dict[str, str] | None, attempt: int = 1
) -> None:
    result = AttemptResult(path, attempt, outcome, usage=usage, worker_id=f"worker-{path}", from_worker=True)
    driver.do(result)


def exit_(driver: Driver, path: str, usage: dict[str, str] | None, attempt: int = 1) -> None:
    driver.do(Receipt(path, attempt, CancelStage.EXITED, f"worker-{path}", usage))


def totals(driver: Driver) -> dict[str, str]:
    """The execution's totals, which must be the sum of its attempts."""
    attempts = [attempt.usage for record in driver.scope.records for attempt in record.attempts]
    summed = sum(float(usage.get("tokens", "0")) for usage in attempts)
    assert summed == float(driver.execution.usage.get("tokens", 0))
    return usage_text(driver.execution.usage)


def late(driver: Driver) -> list[dict[str, str]]:
    return [json.loads(audit.detail) for audit in driver.audits if audit.kind == LATE_USAGE]


@pytest.mark.parametrize(("final", "counted"), [(None, "3.75"), ({"tokens": "9"}, "9"), ({}, None)])
def test_final_report_replaces_the_running_ones_only_if_it_is_given(
    final: dict[str, str] | None, counted: str | None
) -> None:
    """U1: a final report replaces the running ones only if it is given."""
    d = run("a -> b")
    say(d, "a", "1.25")
    say(d, "a", "2.5")
    end(d, "a", AttemptOutcome.SUCCEEDED, final)
    detail = next(event.detail for event in d.events if isinstance(event.detail, AttemptEnded))
    assert detail.usage.get("tokens") == counted
    assert totals(d).get("tokens") == counted


@pytest.mark.parametrize("outcome", [AttemptOutcome.LOST, AttemptOutcome.RETURNED])
def test_what_a_lost_or_returned_attempt_said_before_counts(outcome: AttemptOutcome) -> None:
    """U1: what an attempt reported before it ended stands in the event that ends it."""
    d = run("a -> b")
    say(d, "a", "5")
    end(d, "a", outcome, None)
    end(d, "a", AttemptOutcome.SUCCEEDED, {"tokens": "2"}, attempt=2)
    assert totals(d) == {"tokens": "7"}


@pytest.mark.parametrize("overtaken", ["cancel", "timeout"])
def test_usage_of_a_result_that_something_overtook_counts(overtaken: str) -> None:
    """U1, T6: the result changes nothing, and what its attempt reported before it ended stands in its end."""
    d = Driver(build("a -> b when=true", "node a node_timeout=5 on_timeout=CONTINUE"), answers=False).start()
    say(d, "a", "1")
    if overtaken == "cancel":
        end(d, "a", AttemptOutcome.SUCCEEDED, {"tokens": "4"})  # Its edge is being judged.
        d.cancel()
    else:
        d.fire(TimerKind.NODE_TIMEOUT, "a")
        end(d, "a", AttemptOutcome.SUCCEEDED, {"tokens": "4"})
        d.answer()
    detail = next(event.detail for event in d.events if isinstance(event.detail, AttemptEnded))
    assert (detail.outcome is AttemptOutcome.SUCCEEDED, detail.usage) == (False, {"tokens": "4"})
    assert totals(d) == {"tokens": "4"}


def test_usage_of_every_retry_counts() -> None:
    """U1: failed attempts included."""
    d = run("node a retry=2")
    end(d, "a", AttemptOutcome.FAILED, {"tokens": "1"})
    d.advance(2)
    end(d, "a", AttemptOutcome.SUCCEEDED, {"tokens": "2"}, attempt=2)
    assert totals(d) == {"tokens": "3"}


def test_what_a_loser_said_stands_in_its_end_and_what_follows_is_an_event_of_its_own() -> None:
    """U1: what its handler reports while it is being stopped is an event of its own while the run is open."""
    d = run("a, b -> j", "node j join=ANY")
    say(d, "a", "3")
    d.succeed("b")
    ended = next(e.detail for e in d.events if e.node_path == "a" and isinstance(e.detail, AttemptEnded))
    assert ended.usage == {"tokens": "3"}
    say(d, "a", "0.5")
    exit_(d, "a", None)
    assert [e.detail for e in d.events if isinstance(e.detail, UsageReported)] == [
        UsageReported({"tokens": "3.5"})
    ]
    assert totals(d) == {"tokens": "3.5"}
    d.restart()
    assert totals(d) == {"tokens": "3.5"}


def test_final_report_of_a_stopped_attempt_replaces_what_its_end_says() -> None:
    """U1: a final report replaces the running ones; the same once more changes nothing."""
    d = run("a, b -> j", "node j join=ANY")
    say(d, "a", "3")
    d.succeed("b")
    count = len(d.events)
    exit_(d, "a", {"tokens": "4"})
    exit_(d, "a", {"tokens": "4"})
    assert len(d.events) == count + 1
    assert totals(d) == {"tokens": "4"}


def test_result_that_came_too_late_still_says_what_its_attempt_used() -> None:
    """T6, U1: the result changes nothing, and what it cost counts."""
    d = run("a, b -> j", "node j join=ANY")
    d.succeed("b")
    end(d, "a", AttemptOutcome.SUCCEEDED, {"tokens": "6"})
    assert d.state("a") == "CANCELLED/RACE_LOST"
    assert totals(d) == {"tokens": "6"}


def test_timed_out_attempt_reports_while_the_next_one_runs() -> None:
    """U1: the event names its attempt, which is not the newest any more."""
    d = run("node a retry=2 attempt_timeout=5")
    d.time_out_attempt("a")
    d.advance(2)
    assert d.attempt("a") == 2
    exit_(d, "a", {"tokens": "1"})
    end(d, "a", AttemptOutcome.SUCCEEDED, {"tokens": "2"}, attempt=2)
    assert [attempt.usage for attempt in d.execution.record("a").attempts] == [
        {"tokens": "1"},
        {"tokens": "2"},
    ]
    assert totals(d) == {"tokens": "3"}


def test_usage_of_cancelled_attempts_is_an_event_before_the_run_ends() -> None:
    """U1, A5: the last receipt ends the run, and what came with it stands before the end."""
    d = run("a -> b")
    say(d, "a", "2")
    d.cancel()
    exit_(d, "a", {"tokens": "7"})
    assert d.execution.state is ExecutionState.CANCELLED
    assert totals(d) == {"tokens": "7"}


def test_usage_that_comes_after_the_end_is_late() -> None:
    """U1, A5: else `late_usage`, kept with the attempt and shown beside the totals."""
    d = run("node a; b -> c")
    say(d, "a", "2")
    d.fail("b")
    assert d.execution.state is ExecutionState.FAILED
    count = len(d.events)
    exit_(d, "a", {"tokens": "7"})
    assert len(d.events) == count
    exit_(d, "a", {"tokens": "7"})
    assert totals(d) == {"tokens": "2"}
    assert late(d) == [{"tokens": "5"}]


def test_what_comes_of_a_lost_attempt_is_late() -> None:
    """U1: ... as is what comes of a LOST attempt."""
    d = run("a -> b")
    say(d, "a", "2")
    d.lose("a")
    end(d, "a", AttemptOutcome.SUCCEEDED, {"tokens": "9"})
    assert totals(d) == {"tokens": "2"}
    assert late(d) == [{"tokens": "7"}]
    assert d.state("a") == "RUNNING"
