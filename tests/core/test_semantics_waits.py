"""T4, T5: the timeouts of waiting for capacity, and for a worker that serves the type."""

from __future__ import annotations

import pytest

from plait_server.core.run.commands import TimerKind, WithdrawNode
from plait_server.core.run.events import NodeEnded
from plait_server.core.run.failures import Failure
from plait_server.core.run.states import ExecutionState
from tests.core.driver import Driver
from tests.core.graph_text import build


def run(*lines: str) -> Driver:
    return Driver(build(*lines), grants=False).start()


def failure(driver: Driver, path: str) -> Failure:
    found = driver.execution.record(path).failure
    assert found is not None
    return found


def test_a_node_that_waits_too_long_for_capacity_times_out() -> None:
    """T4, T5: it is TIMED_OUT with DEADLINE_EXCEEDED, whatever its retries, and its offer is withdrawn."""
    d = run("node a queue=5 retry=9")
    d.advance(4.9)
    assert list(d.offered) == ["a"]
    d.advance(0.1)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"
    assert d.offered == {}
    assert WithdrawNode("a") in d.commands
    assert failure(d, "a").message.startswith(
        "the node waited 5 s for capacity, its timeouts.queue, and lacked a permit of the execution;"
    )
    assert d.execution.state is ExecutionState.FAILED
    assert d.execution.record("a").attempts == ()


@pytest.mark.parametrize(
    ("on_timeout", "end", "after"),
    [("CONTINUE", "SUCCEEDED", "IDLE"), ("CANCEL", "SUCCEEDED", "SKIPPED/DEAD_PATH")],
)
def test_on_timeout_says_what_follows(on_timeout: str, end: str, after: str) -> None:
    """T5: ERROR is a failure; CONTINUE goes on with null, CANCEL drops what follows."""
    d = run(f"a -> b; node a queue=5 on_timeout={on_timeout}")
    d.advance(5)
    assert (d.state("a"), d.state("b")) == ("TIMED_OUT/DEADLINE_EXCEEDED", after)
    if after == "IDLE":
        d.grant("b")
        d.succeed("b")
    assert d.execution.state is ExecutionState[end]


def test_each_wait_counts_anew() -> None:
    """T4: a backoff is no wait, and a wait after it or after a loss has the whole time."""
    d = run("node a queue=5 retry=3 backoff=60")
    d.advance(4)
    d.grant("a")
    d.fail("a", "UNAVAILABLE", retry_after_s=30.0)
    d.advance(34)
    d.restart()
    d.advance(0)
    assert list(d.offered) == ["a"]
    d.advance(0.9)
    d.grant("a")
    d.lose("a")
    d.advance(4)
    d.restart()
    d.advance(0.9)
    assert list(d.offered) == ["a"]
    d.advance(0.1)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"


def test_a_granted_node_does_not_time_out() -> None:
    d = run("node a queue=5 worker=5")
    d.advance(4)
    d.grant("a")
    d.served_s = -100
    d.advance(100)
    assert d.state("a") == "RUNNING"


def test_a_wait_counts_from_when_the_node_became_ready_also_after_a_restart() -> None:
    """T4: from the decision of its join, and under LEVELS from the opening of its level (R2)."""
    d = run("scheduling LEVELS; a -> c; b; node c queue=5")
    d.grant("a")
    d.grant("b")
    d.succeed("a")
    d.advance(100)
    d.succeed("b")
    d.advance(3)
    d.restart()
    d.advance(1.9)
    assert list(d.offered) == ["c"]
    d.advance(0.1)
    assert d.state("c") == "TIMED_OUT/DEADLINE_EXCEEDED"


def test_a_pause_stops_the_clocks_of_the_waits() -> None:
    """T4: a pause stops the clocks of the two waits only."""
    d = run("node a queue=5; node b worker=5")
    d.served_s = -100
    d.advance(3)
    d.pause()
    d.advance(100)
    d.restart()
    d.advance(100)
    assert (d.state("a"), d.state("b")) == ("IDLE", "IDLE")
    d.resume()
    d.served_s = 50
    d.advance(1.9)
    assert (d.state("a"), d.state("b")) == ("IDLE", "IDLE")
    d.advance(0.1)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"


def test_a_wait_for_a_worker_ends_if_none_serves_the_type() -> None:
    """T4: and if one does, whatever the node lacks, it goes on."""
    d = run("node a worker=5; node b queue=50")
    d.advance(20)
    assert set(d.offered) == {"a", "b"}
    d.served_s = 20
    d.advance(4.9)
    assert set(d.offered) == {"a", "b"}
    d.advance(0.2)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"
    assert d.now_s == pytest.approx(25.1)
    message = (
        "the node waited 5 s, its timeouts.worker, and no worker served t; start a worker that does, or "
    )
    assert failure(d, "a").message == message + "correct the type"


def test_a_worker_that_comes_in_between_begins_the_wait_anew() -> None:
    d = run("node a worker=5")
    d.served_s = -100
    d.advance(4)
    d.served_s = 4  # One came and went.
    d.advance(4.9)
    assert list(d.offered) == ["a"]
    d.advance(0.1)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"


def test_after_a_restart_workers_have_a_minute_to_come_back() -> None:
    """T4: no worker is attached then, and that says nothing."""
    d = run("node a worker=600")
    d.advance(700)
    d.served_s = -100
    d.restart()
    d.advance(59.9)
    assert list(d.offered) == ["a"]
    d.advance(0.1)
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"


def test_a_short_wait_for_a_worker_makes_no_busy_loop() -> None:
    """A livelock: while the type is served, the timer looks again not more often than once a second."""
    d = run("node a worker=0.000001")
    fired = 0
    while d.now_s < 60:
        assert d.fire_next()
        fired += 1
    assert fired <= 61


def test_a_wait_may_end_while_the_edges_of_its_node_are_judged() -> None:
    """T6: a grant that comes too late goes back."""
    d = Driver(build("a -error-> b when=true; node a queue=5 worker=7"), grants=False, answers=False).start()
    d.served_s = -100
    while d.answer():
        pass
    d.fire(TimerKind.QUEUE_TIMEOUT, "a")
    d.fire(TimerKind.WORKER_TIMEOUT, "a")
    d.grant("a")
    assert d.refused == ["a"]
    d.answer()
    assert d.state("a") == "TIMED_OUT/DEADLINE_EXCEEDED"
    assert sum(isinstance(event.detail, NodeEnded) for event in d.events) == 1
