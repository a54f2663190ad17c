"""Restarts, refused appends and damage: nothing acknowledged is lost, and nothing is done twice."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.core.run.commands import AttemptResult, Disposition
from plait_server.core.run.states import AttemptOutcome, CancelStage, ExecutionState, NodeState
from plait_server.errors import EventDamaged
from plait_server.ports.journal import AppendItem, AppendResult, EpochConflict
from plait_server.ports.workers import Assignment, AttemptKey
from tests.runtime.world import (
    NAMESPACE,
    Runtime,
    ends_as,
    fails,
    hangs,
    in_turn,
    result_of,
    returns,
    running,
)

BIG = '"' + "x" * 100_000 + '"'


async def test_running_attempts_go_on_after_a_restart(autojump_clock: MockClock) -> None:
    """FAILURES 3: the same attempts, as recovered ones; nothing new is started for them."""
    async with running(scripts={"a": hangs, "b": hangs}) as runtime:
        await runtime.submit("a, b -> c")
        await trio.sleep(5)
        runtime.crash()
    assert runtime.workers.stopped == []
    async with running(runtime.store, scripts={"a": returns("1", 3), "b": returns("2", 3)}) as again:
        execution = await again.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        taken = [(each.key.node_path, each.key.attempt, each.recovered) for each in again.workers.assigned]
        assert sorted(taken) == [("a", 1, True), ("b", 1, True), ("c", 1, False)]
        assert again.names().count("AttemptStarted") == 3
        assert again.names().count("ExecutionSubmitted") == 1
        again.assert_nothing_is_held()


async def test_recovered_attempts_hold_their_permits(autojump_clock: MockClock) -> None:
    """Q1: nothing starts past the limits because the server forgot what runs."""
    async with running(slots=2, scripts={"a": hangs, "b": hangs}) as runtime:
        await runtime.submit("a, b, c -> d")
        await trio.sleep(5)
        runtime.crash()
    async with running(runtime.store, slots=2, scripts={"a": returns("1", 9), "b": hangs}) as again:
        await trio.sleep(1)
        assert again.allocator.statistics().running == 2
        assert again.allocator.slots_in_use("default", "w.1") == 2
        assert "c" not in again.workers.paths
        await trio.sleep(9)
        assert "c" in again.workers.paths


async def test_a_crash_before_the_append_leaves_no_trace(autojump_clock: MockClock) -> None:
    """FAILURES 1: a start that was not durable is decided anew."""
    async with running() as runtime:
        await runtime.submit("a -> b")
        runtime.gate.close()
        await trio.sleep(1)
        runtime.crash()
        runtime.gate.open()
    assert runtime.names() == ["ExecutionSubmitted"]
    async with running(runtime.store) as again:
        execution = await again.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        assert again.workers.paths == ["a", "b"]


async def test_a_crash_between_the_append_and_the_start_sends_the_attempt_again(
    autojump_clock: MockClock,
) -> None:
    """FAILURES 3: it is in the journal and no worker has it; the lease or the in-flight list decides."""
    async with running() as runtime:
        await runtime.submit("a -> b")
        runtime.workers.on_assign = lambda _: runtime.crash()
        await trio.sleep(1)
    async with running(
        runtime.store, scripts={"a": in_turn(ends_as(AttemptOutcome.LOST), returns("1"))}
    ) as again:
        execution = await again.wait_ended()
        assert [attempt.outcome for attempt in execution.record("a").attempts] == [
            AttemptOutcome.LOST,
            AttemptOutcome.SUCCEEDED,
        ]


async def test_timers_go_on_after_a_restart(autojump_clock: MockClock) -> None:
    """T4: timeouts count from where they began; T1: a backoff is not begun anew."""
    async with running(scripts={"a": hangs, "b": fails("ABORTED")}) as runtime:
        await runtime.submit(
            "policy CONTINUE; node a attempt_timeout=30; node b retry=2 backoff=40; a, b -> c"
        )
        await trio.sleep(10)
        runtime.crash()
    async with running(runtime.store, scripts={"a": hangs, "b": fails("ABORTED")}) as again:
        starts: list[tuple[str, float]] = []
        again.workers.on_assign = lambda each: starts.append((each.key.node_path, trio.current_time()))
        execution = await again.wait_ended()
        assert trio.current_time() == 30
        assert execution.record("a").state is NodeState.TIMED_OUT
        assert ("b", 20.0) in starts


async def test_a_cancel_goes_on_after_a_restart(autojump_clock: MockClock) -> None:
    """C1: a worker that comes back is told again, and the execution ends with the last receipt."""
    async with running(scripts={"a": hangs}) as runtime:
        runtime.workers.exit_s = {"a": 9}
        await runtime.submit("a -> b")
        await trio.sleep(1)
        await runtime.cancel()
        await trio.sleep(1)
        runtime.crash()
    async with running(runtime.store, scripts={"a": hangs}) as again:
        again.workers.exit_s = {"a": 4}
        execution = await again.wait_ended()
        assert execution.state is ExecutionState.CANCELLED
        assert again.workers.stopped == [("a", 1, "CANCELLED")]
        assert execution.receipts["a", 1] is CancelStage.EXITED
        await wait_all_tasks_blocked()
        again.assert_nothing_is_held()


async def test_an_attempt_that_is_being_cancelled_holds_its_slot_alone_after_a_restart(
    autojump_clock: MockClock,
) -> None:
    """Q1: the engine's permits came back at the decision, the worker's slot does when the handler has exited."""
    async with running(slots=1, scripts={"a": hangs}) as runtime:
        runtime.workers.exit_s = {"a": 9}
        await runtime.submit("a -> b")
        await trio.sleep(1)
        await runtime.cancel()
        await trio.sleep(1)
        runtime.crash()
    async with running(runtime.store, slots=1, scripts={"a": hangs}) as again:
        again.workers.exit_s = {"a": 4}
        await again.submit("c -> d", id="other")
        await trio.sleep(2)
        assert again.allocator.statistics().running == 0
        assert again.allocator.slots_in_use("default", "w.1") == 1
        assert again.allocator.reason(NAMESPACE, "other", "c") == "WORKER_SLOTS"
        assert (await again.wait_ended("other")).state is ExecutionState.SUCCEEDED
        assert (await again.wait_ended()).state is ExecutionState.CANCELLED
        again.assert_nothing_is_held()


async def test_a_cancel_goes_on_though_the_input_must_be_read_first(autojump_clock: MockClock) -> None:
    """C1: from a store far away, a worker is told nonetheless."""
    async with running(scripts={"a": returns(BIG), "b": hangs}) as runtime:
        await runtime.submit("a, c -> b; b -> d")
        await trio.sleep(1)
        await runtime.cancel()
        runtime.crash()
    async with running(runtime.store, scripts={"b": hangs}) as again:
        again.gate.reads_yield = True
        execution = await again.wait_ended(within_s=100)
        assert execution.state is ExecutionState.CANCELLED
        assert again.workers.stopped == [("b", 1, "CANCELLED")]


async def test_a_result_that_comes_right_after_a_restart_is_taken(autojump_clock: MockClock) -> None:
    """A4: results that a worker holds are taken, whether or not the execution was read back."""
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        runtime.crash()
    async with running(runtime.store, scripts={"a": hangs}) as again:
        key = AttemptKey(NAMESPACE, "x", 1, "a", 1)
        again.supervisor.deliver(key, result_of(key, output_json="7", worker_id="w"))
        execution = await again.wait_ended()
        assert execution.output is not None
        assert execution.output.json == "7"
        assert ("a", 1, Disposition.RECORDED) in again.workers.told
        again.assert_nothing_is_held()


async def test_an_attempt_is_wanted_only_under_its_own_run_and_number(autojump_clock: MockClock) -> None:
    """A4: a worker that comes back goes on with the current attempt alone."""
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        keys = [AttemptKey(NAMESPACE, "x", run, "a", attempt) for run in (1, 2) for attempt in (1, 2)]
        assert [await runtime.supervisor.is_current(key) for key in keys] == [True, False, False, False]


async def test_recovery_of_a_recovery_is_the_same(autojump_clock: MockClock) -> None:
    """FAILURES 4."""
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        runtime.crash()
    for _ in range(5):
        async with running(runtime.store, scripts={"a": hangs}) as again:
            await wait_all_tasks_blocked()
            again.crash()
    assert runtime.names() == ["ExecutionSubmitted", "ExecutionStarted", "AttemptStarted"]
    async with running(runtime.store) as last:
        assert (await last.wait_ended()).state is ExecutionState.SUCCEEDED


# Appends that are refused.


def fenced(item: AppendItem) -> AppendResult | None:
    return EpochConflict(owner_epoch=item.owner_epoch + 1)


async def test_an_execution_whose_append_is_refused_is_read_again(autojump_clock: MockClock) -> None:
    """DESIGN 3.4: the grants are undone, the state in memory is dropped and read again from the journal."""
    async with running(scripts={"a": returns("1", 5)}) as runtime:
        await runtime.submit("a -> b; c -> b")
        await trio.sleep(1)
        runtime.gate.breaks = [fenced]
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        assert runtime.workers.stopped == []
        assert runtime.names().count("AttemptEnded") == 3
        runtime.assert_nothing_is_held()


async def test_grants_of_a_refused_step_are_given_back(autojump_clock: MockClock) -> None:
    """Q1: what was granted in a step that did not become durable is free again, at once."""
    async with running(slots=2) as runtime:
        runtime.gate.breaks = [lambda _: None, fenced]
        await runtime.submit("a, b -> c")
        await trio.sleep(0.5)
        assert runtime.workers.assigned == []
        runtime.assert_nothing_is_held()
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        assert sorted(runtime.workers.paths) == ["a", "b", "c"]
        runtime.assert_nothing_is_held()


async def test_offers_of_an_execution_that_is_read_again_are_taken_back(autojump_clock: MockClock) -> None:
    """Q1: a slot that comes free is not given to an execution that is not live here any more."""
    async with running(slots=1, scripts={"a": returns("1", 5)}) as runtime:
        await runtime.submit("a, b, c -> d")
        await trio.sleep(4.9)
        assert runtime.allocator.statistics().waiting == 2
        runtime.gate.breaks = [fenced]
        await trio.sleep(0.2)
        runtime.assert_nothing_is_held()
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        runtime.assert_nothing_is_held()


async def test_a_grant_that_comes_during_a_refused_append_is_given_back(autojump_clock: MockClock) -> None:
    """Q1: what was granted from outside while a step was being appended is free again, at once."""
    async with running(slots=1, scripts={"other": returns("1", 5.5)}) as runtime:
        await runtime.submit("node other", id="y")
        await wait_all_tasks_blocked()
        await runtime.submit("nap -> end; node nap kind=delay:5; node c")
        await trio.sleep(4.9)
        runtime.gate.close()
        await trio.sleep(1)
        granted = runtime.allocator.statistics().grants
        runtime.gate.breaks = [lambda item: fenced(item) if item.execution_id == "x" else None]
        runtime.gate.open()
        assert granted == 2, "c was granted what came free"
        await trio.sleep(0.5)
        runtime.assert_nothing_is_held()
        await runtime.wait_ended()
        runtime.assert_nothing_is_held()


async def test_an_execution_whose_last_report_came_another_way_is_over(autojump_clock: MockClock) -> None:
    """The task that waited for the report ends without one, after everything else; then it is looked at again."""

    async def takes_long_to_leave(assignment: Assignment) -> AttemptResult:
        try:
            return await hangs(assignment)
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(5)

    async with running(scripts={"a": takes_long_to_leave}) as runtime:
        await runtime.submit("node a")
        await trio.sleep(1)
        key = AttemptKey(NAMESPACE, "x", 1, "a", 1)
        runtime.supervisor.deliver(key, result_of(key, output_json="1", worker_id="w"))
        await trio.sleep(1)
        assert runtime.names()[-1] == "ExecutionEnded"
        assert runtime.supervisor.statistics().live == 1
        await trio.sleep(5)
        assert runtime.supervisor.statistics().live == 0


async def test_a_cancelled_attempt_holds_its_slot_alone_after_a_restart(autojump_clock: MockClock) -> None:
    """Q1, C1: the engine's permits come back at the decision, the worker's slot when the handler has EXITED."""
    async with running(scripts={"a": hangs, "b": hangs}) as runtime:
        runtime.workers.exit_s = {"a": 9}
        await runtime.submit("a, b -> c")
        await trio.sleep(1)
        await runtime.cancel()
        await trio.sleep(1)
        runtime.crash()
    async with running(runtime.store, scripts={"a": hangs}) as again:
        again.workers.exit_s = {"a": 4}
        await trio.sleep(1)
        assert again.allocator.statistics().running == 0
        assert again.allocator.slots_in_use("default", "w.1") == 1, "that of b, which has EXITED, is free"
        await again.wait_ended()
        await wait_all_tasks_blocked()
        again.assert_nothing_is_held()


async def test_a_cancel_whose_append_is_refused_is_tried_again(autojump_clock: MockClock) -> None:
    """C1."""
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        runtime.gate.breaks = [fenced]
        await runtime.cancel()
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.CANCELLED


async def test_a_look_at_an_execution_that_is_read_again_sees_what_is_durable(
    autojump_clock: MockClock,
) -> None:
    """A2."""
    async with running(scripts={"a": returns("1", 5)}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        runtime.gate.breaks = [fenced]
        await trio.sleep(4)
        for _ in range(30):
            view = await runtime.supervisor.view(NAMESPACE, "x")
            assert view.execution.sequence <= len(runtime.events())
            await trio.sleep(0.1)
        await runtime.wait_ended()


async def test_a_look_at_an_execution_whose_append_is_refused_is_answered(autojump_clock: MockClock) -> None:
    """A2: who waits for the append of a state hears that there is another."""
    async with running(scripts={"a": returns("1", 5)}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(4)
        runtime.gate.close()
        await trio.sleep(2)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def look() -> None:
                with trio.fail_after(10):
                    view = await runtime.supervisor.view(NAMESPACE, "x")
                assert view.execution.record("a").state is NodeState.RUNNING

            await wait_all_tasks_blocked()
            runtime.gate.breaks = [fenced]
            runtime.gate.open()
        await runtime.wait_ended()


# Damage.


async def run_to_a_stop(runtime: Runtime) -> None:
    await runtime.submit("a, c -> b; b -> d")
    await runtime.submit("e -> f", id="sound")
    await trio.sleep(1)
    runtime.crash()


async def test_a_damaged_event_quarantines_its_execution_alone(autojump_clock: MockClock) -> None:
    """K4, FAILURES 9."""
    async with running(scripts={"b": hangs, "e": hangs}) as runtime:
        await run_to_a_stop(runtime)
    runtime.store.damage_event(NAMESPACE, "x", 2)
    async with running(runtime.store) as again:
        assert (await again.wait_ended("sound")).state is ExecutionState.SUCCEEDED
        with pytest.raises(EventDamaged):
            await again.supervisor.view(NAMESPACE, "x")
        with pytest.raises(EventDamaged):
            await again.cancel()
        assert again.supervisor.statistics().damaged == 1
        key = AttemptKey(NAMESPACE, "x", 1, "b", 1)
        again.supervisor.deliver(key, result_of(key, worker_id="w"))
        await wait_all_tasks_blocked()
        assert again.workers.told[-1] == ("b", 1, Disposition.STALE)


async def test_a_damaged_row_quarantines_its_execution_alone(autojump_clock: MockClock) -> None:
    """K4: it is found before anyone asks for it."""
    async with running(scripts={"b": hangs, "e": hangs}) as runtime:
        await run_to_a_stop(runtime)
    runtime.store.damage_row(NAMESPACE, "x")
    async with running(runtime.store) as again:
        assert again.supervisor.statistics().damaged == 1
        assert (await again.wait_ended("sound")).state is ExecutionState.SUCCEEDED
        with pytest.raises(EventDamaged, match="plait store check"):
            await again.supervisor.view(NAMESPACE, "x")


async def test_an_execution_whose_row_says_that_it_ended_is_found(autojump_clock: MockClock) -> None:
    """K4: it is not claimed, so only who reads every row finds it."""
    async with running(scripts={"b": hangs, "e": hangs}) as runtime:
        await run_to_a_stop(runtime)
    damaged = runtime.store.executions[NAMESPACE, "x"]
    damaged.head = damaged.head._replace(is_open=False)
    runtime.store.damage_row(NAMESPACE, "x")
    async with running(runtime.store) as again:
        await trio.sleep(1)
        assert again.supervisor.statistics().damaged == 1
        assert (NAMESPACE, "x") in again.supervisor.quarantine


@pytest.mark.parametrize("loss", ["missing", "damaged"])
async def test_a_lost_content_quarantines_its_execution_alone(autojump_clock: MockClock, loss: str) -> None:
    """K4: the server goes on with the others, and nothing is guessed."""
    async with running(scripts={"a": returns(BIG), "b": hangs, "e": hangs}) as runtime:
        await run_to_a_stop(runtime)
    digest = next(digest for digest, content in runtime.store.contents.items() if len(content) > 100_000)
    if loss == "missing":
        del runtime.store.contents[digest]
    else:
        runtime.store.contents[digest] = b'"other"'
    async with running(runtime.store, scripts={"b": hangs}) as again:
        assert (await again.wait_ended("sound")).state is ExecutionState.SUCCEEDED
        with pytest.raises(EventDamaged):
            await again.supervisor.view(NAMESPACE, "x")
        assert again.names() == runtime.names()
