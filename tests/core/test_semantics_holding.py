"""C2, C10: pause, resume and update; each sentence is quoted where it is tried."""

from __future__ import annotations

import pytest

from plait_server.core.definition.graph import OnFailure, Policy
from plait_server.core.run.commands import ChangeCapacity, Update
from plait_server.core.run.events import (
    ExecutionPaused,
    ExecutionResumed,
    ExecutionUpdated,
    NodeLock,
    PauseRequested,
)
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import AttemptOutcome, ExecutionState, NodeState, PauseMode
from tests.core.driver import Driver
from tests.core.graph_text import build


def state_of(driver: Driver) -> str:
    return driver.execution.state.name if driver.execution.state is not None else ""


def node_states(driver: Driver) -> dict[str, str]:
    return {record.path: record.state.name for record in driver.scope.records}


def lock(path: str, output: str | None = None) -> Update:
    return Update(None, None, (NodeLock(path, True, Payload(output) if output else None),))


def test_c2_nothing_new_is_dispatched_and_running_nodes_finish() -> None:
    """C2: nothing new is dispatched; running nodes finish (PAUSING, then PAUSED)."""
    driver = Driver(build("a -> b; c -> d; node d kind=transform")).start()
    driver.pause(message="maintenance")
    assert state_of(driver) == "PAUSING"
    assert driver.execution.reason == "maintenance"
    driver.succeed("a")
    assert not driver.offered
    assert state_of(driver) == "PAUSING"
    driver.succeed("c")
    assert state_of(driver) == "PAUSED"
    assert node_states(driver) == {"a": "SUCCEEDED", "b": "IDLE", "c": "SUCCEEDED", "d": "IDLE"}
    driver.resume()
    assert state_of(driver) == "RUNNING"
    driver.succeed("b")
    assert state_of(driver) == "SUCCEEDED"


def test_c2_the_events_of_a_pause() -> None:
    driver = Driver(build("a -> b")).start()
    driver.pause()
    driver.succeed("a")
    driver.resume('{"approved":true}')
    kinds = (PauseRequested, ExecutionPaused, ExecutionResumed)
    found = [(type(e.detail), e.execution_state) for e in driver.events if isinstance(e.detail, kinds)]
    assert found == [
        (PauseRequested, ExecutionState.PAUSING),
        (ExecutionPaused, ExecutionState.PAUSED),
        (ExecutionResumed, ExecutionState.RUNNING),
    ]
    assert driver.execution.resume_data == Payload('{"approved":true}')


def test_c2_a_paused_execution_that_waits_for_capacity_gives_up_its_offers() -> None:
    driver = Driver(build("a; b"), grants=False).start()
    assert set(driver.offered) == {"a", "b"}
    driver.pause()
    assert state_of(driver) == "PAUSED"
    assert not driver.offered
    driver.grant("a")  # The grant was under way when the pause came.
    assert driver.refused == ["a"]
    assert driver.machine.queued_counts()[NodeState.IDLE] == 2
    driver.resume()
    assert set(driver.offered) == {"a", "b"}


@pytest.mark.parametrize("restarts", [False, True])
def test_c2_an_abort_puts_running_nodes_back(restarts: bool) -> None:
    """C2: or are aborted to IDLE with `mode: ABORT`. Section 2: ABORTED does not use up max_attempts."""
    driver = Driver(build("a -> b; c -> b")).start()
    driver.succeed("c")
    driver.pause(PauseMode.ABORT)
    assert state_of(driver) == "PAUSED"
    assert node_states(driver)["a"] == "IDLE"
    assert driver.execution.record("a").attempts[0].outcome is AttemptOutcome.ABORTED
    assert [stop.reason for stop in driver.stopped] == ["PAUSED"]
    if restarts:
        driver.restart()
    driver.resume()
    assert driver.execution.record("a").used == 0
    driver.succeed("a", "b")
    assert state_of(driver) == "SUCCEEDED"


def test_c2_an_abort_may_follow_a_pause_that_waits() -> None:
    driver = Driver(build("a")).start()
    driver.pause()
    driver.pause()
    assert sum(isinstance(event.detail, PauseRequested) for event in driver.events) == 1
    driver.pause(PauseMode.ABORT)
    assert state_of(driver) == "PAUSED"


def test_c2_an_abort_reaches_nested_scopes() -> None:
    driver = Driver(build("s", "sub s { a -> b }")).start()
    driver.pause(PauseMode.ABORT)
    assert state_of(driver) == "PAUSED"
    assert driver.execution.record("s").state is NodeState.RUNNING
    assert driver.execution.record("s/a").state is NodeState.IDLE
    driver.restart()
    driver.resume()
    driver.succeed("s/a", "s/b")
    assert state_of(driver) == "SUCCEEDED"


def test_c2_a_crash_in_the_middle_of_an_abort_is_made_up_for() -> None:
    driver = Driver(build("a; b"))
    first = Driver(build("a; b")).start()
    first.pause(PauseMode.ABORT)
    until = next(i for i, e in enumerate(first.events) if isinstance(e.detail, PauseRequested))
    driver.adopt(first.events[: until + 1])
    driver.restart()
    assert state_of(driver) == "PAUSED"
    assert node_states(driver) == {"a": "IDLE", "b": "IDLE"}


def test_c2_skips_and_races_are_decided_while_paused() -> None:
    driver = Driver(build("a -> w; b -> w; node w join=ANY")).start()
    driver.pause()
    driver.succeed("a")
    assert node_states(driver)["b"] == "CANCELLED"
    assert node_states(driver)["w"] == "IDLE"
    assert state_of(driver) == "PAUSED"


def test_c2_backoffs_and_delays_run_on() -> None:
    """T4: a pause stops the clocks of the two waits only."""
    driver = Driver(build("a; node a retry=3; d -> e; node d kind=delay:5")).start()
    driver.fail("a", "UNAVAILABLE")
    driver.pause()
    driver.advance(60)
    assert node_states(driver) == {"a": "BACKING_OFF", "d": "SUCCEEDED", "e": "IDLE"}
    assert not driver.offered
    driver.resume()
    driver.succeed("a", "e")
    assert state_of(driver) == "SUCCEEDED"


def test_c2_what_has_nothing_left_to_do_ends_although_it_is_paused() -> None:
    driver = Driver(build("a")).start()
    driver.pause()
    driver.succeed("a")
    assert state_of(driver) == "SUCCEEDED"


def test_t4_the_timeout_of_the_execution_runs_on() -> None:
    driver = Driver(build("policy FAIL_FAST timeout=9", "a -> b")).start()
    driver.pause()
    driver.succeed("a")
    driver.advance(9)
    assert state_of(driver) == "TIMED_OUT"


def test_c1_a_paused_execution_can_be_cancelled() -> None:
    driver = Driver(build("a -> b")).start()
    driver.pause()
    driver.succeed("a")
    driver.cancel()
    assert state_of(driver) == "CANCELLED"


def test_c2_a_queued_execution_is_paused_and_queued_again() -> None:
    driver = Driver(build("a"))
    driver.pause()
    assert state_of(driver) == "PAUSED"
    driver.start()
    assert state_of(driver) == "PAUSED"
    driver.resume()
    assert state_of(driver) == "QUEUED"
    driver.start()
    driver.succeed("a")
    assert state_of(driver) == "SUCCEEDED"


def test_c2_the_time_that_pauses_took_is_known() -> None:
    driver = Driver(build("a -> b")).start()
    driver.pause()
    driver.advance(5)
    driver.resume()
    driver.advance(2)
    driver.pause()
    driver.advance(1)
    assert driver.execution.paused_total_s(driver.now_s) == 6


def test_c10_an_update_takes_effect_at_once_and_aborts_nothing() -> None:
    """C10: an update (concurrency, policies, locks) is an event, takes effect at once, and aborts nothing."""
    driver = Driver(build("a; b; c"), grants=False).start()
    driver.grant("a")
    driver.do(Update(5, Policy(max_concurrency=3)))
    assert driver.capacity == ChangeCapacity(limit=3, priority=5)
    assert set(driver.offered) == {"b", "c"}
    assert node_states(driver)["a"] == "RUNNING"
    assert isinstance(driver.events[-1].detail, ExecutionUpdated)
    assert driver.execution.settings_sequence == driver.events[-1].sequence


def test_c10_a_new_policy_decides_later_failures() -> None:
    driver = Driver(build("policy FAIL_FAST", "a; b")).start()
    driver.do(Update(None, Policy(on_failure=OnFailure.CONTINUE)))
    driver.fail("a", "BROKEN")
    assert state_of(driver) == "RUNNING"
    driver.succeed("b")
    assert state_of(driver) == "PARTIALLY_SUCCEEDED"


def test_c10_a_scope_that_a_failure_has_stopped_ends_as_it_was_stopped() -> None:
    driver = Driver(build("policy STOP_DISPATCH", "a; b")).start()
    driver.fail("a", "BROKEN")
    driver.do(Update(None, Policy(on_failure=OnFailure.FAIL_FAST)))
    assert state_of(driver) == "RUNNING"
    driver.succeed("b")
    assert state_of(driver) == "FAILED"


def test_c10_a_new_timeout_counts_from_the_start() -> None:
    driver = Driver(build("policy FAIL_FAST timeout=9", "a")).start()
    driver.advance(5)
    driver.do(Update(None, Policy(timeout_s=20)))
    driver.advance(10)
    assert state_of(driver) == "RUNNING"
    driver.restart()
    driver.advance(5)
    assert state_of(driver) == "TIMED_OUT"


def test_c4_a_lock_acts_on_nodes_that_have_not_started() -> None:
    """C4: once a locked node's join is decided in its favour, it is SKIPPED/LOCKED, with `locked_output`."""
    driver = Driver(build("a -> c; b -> c"), grants=False).start()
    driver.grant("a")
    driver.do(lock("a"))
    driver.do(lock("b", "7"))
    driver.do(lock("c"))
    driver.succeed("a")
    assert node_states(driver) == {"a": "SUCCEEDED", "b": "SKIPPED", "c": "SKIPPED"}
    assert driver.execution.record("b").output == Payload("7")
    assert state_of(driver) == "SUCCEEDED"


def test_c4_a_lock_while_the_input_is_made() -> None:
    driver = Driver(build("a -> c; b -> c"), answers=False).start()
    driver.succeed("a", "b")
    driver.do(lock("c", "7"))
    while driver.answer():
        pass
    assert node_states(driver)["c"] == "SKIPPED"
    assert driver.execution.record("c").output == Payload("7")


def test_c10_a_lock_of_the_graph_can_be_removed() -> None:
    driver = Driver(build("a -> b; node b locked")).start()
    driver.do(Update(None, None, (NodeLock("b", False),)))
    driver.succeed("a", "b")
    assert node_states(driver) == {"a": "SUCCEEDED", "b": "SUCCEEDED"}


def test_n10_a_lock_by_path_applies_when_the_scope_opens() -> None:
    driver = Driver(build("t -> s", "sub s { a -> b }")).start()
    driver.do(lock("s/b", "7"))
    driver.restart()
    driver.succeed("t", "s/a")
    assert driver.execution.record("s").output == Payload("7")


def test_c10_an_update_of_an_ended_execution_changes_nothing() -> None:
    driver = Driver(build("a")).start()
    driver.succeed("a")
    before = len(driver.events)
    driver.do(Update(1, None))
    driver.pause()
    driver.resume()
    assert len(driver.events) == before
