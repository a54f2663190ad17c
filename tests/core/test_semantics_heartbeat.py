"""T4, T5: the heartbeat timeout of an attempt, what its heartbeats leave to the next one, and more time."""

from __future__ import annotations

import pytest

from plait_server.core.run import attempts
from plait_server.core.run.commands import ExtendAttempt, TimerKind
from plait_server.core.run.events import AttemptEnded, AttemptExtended
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import AttemptOutcome, ExecutionState
from tests.core.driver import Driver
from tests.core.graph_text import build


def run(*lines: str) -> Driver:
    return Driver(build(*lines)).start()


def ends(driver: Driver) -> list[AttemptEnded]:
    return [event.detail for event in driver.events if isinstance(event.detail, AttemptEnded)]


def test_an_attempt_without_heartbeats_times_out_and_is_retried() -> None:
    """T5: a heartbeat timeout is a failed attempt with DEADLINE_EXCEEDED, retried as T1 says."""
    d = run("node a heartbeat=5 retry=2")
    d.advance(5)
    assert d.attempt("a") == 2
    assert [(stop.attempt, stop.reason) for stop in d.stopped][-1:] == [(1, "TIMED_OUT")]
    failure = ends(d)[0].failure
    assert failure is not None
    assert failure.message.startswith("the worker has not sent a heartbeat of the attempt for 5 s")
    d.advance(100)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"
    assert [end.outcome for end in ends(d)] == [AttemptOutcome.TIMED_OUT] * 2


def test_heartbeats_keep_an_attempt_alive() -> None:
    """T4: the timeout counts from the last heartbeat."""
    d = run("node a heartbeat=5")
    for _ in range(10):
        d.advance(4.5)
        d.heartbeat("a")
    d.advance(4.9)
    assert d.state("a") == "RUNNING"
    d.advance(0.1)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"
    assert d.now_s == pytest.approx(50)


def test_after_a_restart_the_worker_has_the_whole_time_again() -> None:
    """FAILURES 3: open leases are granted anew in full; heartbeats are not in the journal."""
    d = run("node a heartbeat=5")
    d.advance(4)
    d.restart()
    d.advance(4)
    assert d.state("a") == "RUNNING"
    d.advance(1)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"


def test_a_node_timeout_bounds_the_heartbeats() -> None:
    """T4: what heartbeats prolong is no attempt and no node."""
    d = run("node a heartbeat=5 node_timeout=12 on_timeout=CONTINUE")
    for _ in range(3):
        d.advance(4)
        if d.execution.state is ExecutionState.RUNNING:
            d.heartbeat("a")
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"
    assert d.execution.state is ExecutionState.SUCCEEDED


@pytest.mark.parametrize(
    "outcome", [AttemptOutcome.FAILED, AttemptOutcome.LOST, AttemptOutcome.RETURNED, AttemptOutcome.SUCCEEDED]
)
def test_the_end_of_an_attempt_has_the_details_of_its_latest_heartbeat(outcome: AttemptOutcome) -> None:
    """T4: the next attempt goes on from there, also after a restart; a success needs none."""
    d = run("node a retry=3")
    d.heartbeat("a", '{"row":1}')
    d.heartbeat("a", '{"row":2}')
    d.heartbeat("a")
    d.result("a", outcome)
    details = None if outcome is AttemptOutcome.SUCCEEDED else Payload('{"row":2}')
    assert ends(d)[0].heartbeat_details == details
    d.restart()
    assert d.execution.record("a").attempts[0].heartbeat_details == details


def test_a_timeout_and_a_cancel_keep_the_details() -> None:
    d = run("node a attempt_timeout=5 retry=2; node b")
    d.heartbeat("a", "1")
    d.heartbeat("b", "2")
    d.fire(TimerKind.ATTEMPT_TIMEOUT, "a")
    d.cancel()
    assert [end.heartbeat_details for end in ends(d)] == [Payload("1"), Payload("2")]


def test_heartbeats_of_an_attempt_that_has_ended_change_nothing() -> None:
    d = run("node a retry=2; node b")
    d.fail("a", "UNAVAILABLE")
    d.machine.note_heartbeat("a", 1, Payload("1"))
    d.machine.note_heartbeat("nobody", 1, Payload("1"))
    d.advance(100)
    d.fail("a", "UNAVAILABLE")
    assert [end.heartbeat_details for end in ends(d)] == [None] * 3


# More time.


def extend(driver: Driver, path: str, seconds: float, attempt: int = 1) -> None:
    driver.do(ExtendAttempt(path, attempt, seconds))


def deadlines(driver: Driver) -> list[float]:
    return [event.detail.deadline_s for event in driver.events if isinstance(event.detail, AttemptExtended)]


def test_an_attempt_may_ask_for_more_time() -> None:
    """T4, T6: its timeout counts anew from the request; what was asked for survives a restart."""
    d = run("node a attempt_timeout=5")
    d.advance(4)
    extend(d, "a", 10)
    d.advance(6)
    assert d.state("a") == "RUNNING"
    d.restart()
    d.advance(3.9)
    assert d.state("a") == "RUNNING"
    d.advance(0.1)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"
    failure = ends(d)[0].failure
    assert failure is not None
    assert "its timeout of 5 s, which was extended to 14 s;" in failure.message


def test_a_request_for_more_time_takes_none_away() -> None:
    d = run("node a attempt_timeout=50; node b")
    extend(d, "a", 10)
    extend(d, "b", 10)
    extend(d, "a", 60, attempt=2)
    extend(d, "nobody", 60)
    assert deadlines(d) == []
    d.succeed("a")
    extend(d, "a", 60)
    assert deadlines(d) == []


def test_the_timeout_of_the_node_bounds_every_extension() -> None:
    """T4: the node's timeout is over all attempts."""
    d = run("node a attempt_timeout=5 node_timeout=12 retry=3 backoff=0")
    d.advance(5)
    extend(d, "a", 100, attempt=2)
    extend(d, "a", 1_000, attempt=2)
    assert deadlines(d) == [12]
    d.advance(7)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"
    assert d.attempt("a") == 2


def test_extensions_of_an_attempt_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """FAILURES 25: a worker cannot fill the journal."""
    monkeypatch.setattr(attempts, "EXTENSIONS_MAX", 3)
    d = run("node a attempt_timeout=5")
    for seconds in range(10, 20):
        extend(d, "a", seconds)
    assert deadlines(d) == [10, 11, 12]
    d.advance(12)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"
