"""An execution in which nothing runs and no timer is near is a row and a due time, no task (DESIGN 1.3, Q3)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.core.run.commands import Disposition
from plait_server.core.run.states import ExecutionState
from plait_server.errors import EventDamaged
from plait_server.ports.workers import AttemptKey
from tests.runtime.world import EPOCH_S, NAMESPACE, Runtime, hangs, result_of, running

HOUR = 3_600.0
GRAPH = f"node nap kind=delay:{HOUR:g}; a -> nap; nap -> b"


async def fall_asleep(runtime: Runtime, id: str = "x") -> None:
    await runtime.submit(GRAPH, id=id)
    await wait_all_tasks_blocked()
    assert runtime.supervisor.statistics().asleep >= 1


async def test_it_is_put_to_sleep_and_wakes_when_its_time_has_come(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        await fall_asleep(runtime)
        statistics = runtime.supervisor.statistics()
        assert (statistics.live, statistics.asleep) == (0, 1)
        assert runtime.store.executions[NAMESPACE, "x"].row.due_time_s == EPOCH_S + HOUR
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        assert HOUR <= trio.current_time() <= HOUR + 2
        assert execution.ended_s == EPOCH_S + HOUR
        assert runtime.workers.paths == ["a", "b"]


async def test_a_near_timer_does_not_put_it_to_sleep(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        await runtime.submit("node nap kind=delay:59; nap -> b")
        await wait_all_tasks_blocked()
        assert runtime.supervisor.statistics().live == 1
        await runtime.wait_ended()
        assert trio.current_time() == 59


async def test_what_runs_keeps_it_awake(autojump_clock: MockClock) -> None:
    async with running(slots=0) as runtime:
        await runtime.submit("node nap kind=delay:7200; nap -> b; a -> b")
        await trio.sleep(1_000)
        assert runtime.supervisor.statistics().live == 1
        runtime.attach_worker()
        await trio.sleep(1_000)
        assert runtime.supervisor.statistics().live == 0
        await runtime.wait_ended()
        assert HOUR * 2 <= trio.current_time() <= HOUR * 2 + 2


async def test_what_runs_is_timed_out_however_far_its_timeout_is(autojump_clock: MockClock) -> None:
    """T4: an execution that sleeps has no timers, so it must not sleep while an attempt runs."""
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("node a node_timeout=7200; a -> b")
        await trio.sleep(1_000)
        assert runtime.supervisor.statistics().live == 1
        await runtime.wait_ended()
        assert HOUR * 2 <= trio.current_time() <= HOUR * 2 + 15


async def test_it_can_be_seen_while_it_sleeps(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        await fall_asleep(runtime)
        view = await runtime.supervisor.view(NAMESPACE, "x")
        assert view.feed is None
        assert view.execution.state is ExecutionState.RUNNING
        assert runtime.supervisor.statistics().live == 0


async def test_a_cancel_wakes_it(autojump_clock: MockClock) -> None:
    """C1."""
    async with running() as runtime:
        await fall_asleep(runtime)
        await trio.sleep(10)
        await runtime.cancel()
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.CANCELLED
        assert trio.current_time() == 10
        assert not runtime.store.executions[NAMESPACE, "x"].row.is_open


async def test_a_cancel_in_any_moment_of_falling_asleep_is_answered(autojump_clock: MockClock) -> None:
    """C1: there is no moment in which nobody listens."""
    for steps in range(25):
        async with running() as runtime:
            await runtime.submit(GRAPH)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            with trio.fail_after(30):
                await runtime.cancel()
                execution = await runtime.wait_ended()
            assert execution.state is ExecutionState.CANCELLED


async def test_a_late_result_in_any_moment_of_falling_asleep_is_answered(autojump_clock: MockClock) -> None:
    """A4: a worker is told what became of its result, whatever its execution does."""
    for steps in range(25):
        async with running() as runtime:
            await runtime.submit(GRAPH)
            for _ in range(steps):
                await trio.lowlevel.checkpoint()
            key = AttemptKey(NAMESPACE, "x", 1, "nap", 1)
            runtime.supervisor.deliver(key, result_of(key, worker_id="w"))
            await trio.sleep(1)
            assert ("nap", 1, Disposition.STALE) in runtime.workers.told


async def test_many_sleep_and_wake_in_their_order(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        for number in range(50):
            await runtime.submit(f"node nap kind=delay:{HOUR + number:g}; nap -> b", id=f"x{number}")
        await wait_all_tasks_blocked()
        assert runtime.supervisor.statistics().asleep == 50
        ends = [(await runtime.wait_ended(f"x{number}")).ended_s - EPOCH_S for number in range(50)]
        assert ends == [HOUR + number for number in range(50)]


async def test_a_wall_clock_that_jumps_forward_wakes_it_soon(autojump_clock: MockClock) -> None:
    """FAILURES 13: due times are wall times; a jump fires each timer once."""
    async with running() as runtime:
        await fall_asleep(runtime)
        await trio.sleep(30)
        runtime.seams.offset_s = 10 * HOUR
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        assert trio.current_time() < 120
        assert runtime.workers.paths == ["a", "b"]


async def test_it_sleeps_on_after_a_restart(autojump_clock: MockClock) -> None:
    """FAILURES 5: rows and due times are loaded; executions are read back when they are due."""
    async with running() as runtime:
        await fall_asleep(runtime)
        runtime.crash()
    async with running(runtime.store) as again:
        assert again.supervisor.statistics().asleep == 1
        await trio.sleep(HOUR / 2)
        assert again.supervisor.statistics().live == 0
        execution = await again.wait_ended()
        assert execution.ended_s == EPOCH_S + HOUR
        assert again.workers.paths == ["b"]


async def test_what_is_due_at_the_start_is_read_back_with_what_runs(autojump_clock: MockClock) -> None:
    """Q1: nothing is granted until all that goes on is read back."""
    async with running() as runtime:
        await fall_asleep(runtime)
        runtime.crash()
    await trio.sleep(2 * HOUR)
    async with running(runtime.store, reads_yield=True) as again:
        await again.supervisor.wait_whole()
        statistics = again.supervisor.statistics()
        assert (statistics.live, statistics.asleep) == (1, 0)


async def test_it_wakes_in_time_right_after_a_restart(autojump_clock: MockClock) -> None:
    """T4: the task that wakes sleepers looks again when they are known, not a minute later."""
    async with running() as runtime:
        await fall_asleep(runtime)
        await trio.sleep(HOUR - 10)
        runtime.crash()
    async with running(runtime.store, reads_yield=True) as again:
        execution = await again.wait_ended()
        assert HOUR <= execution.ended_s - EPOCH_S < HOUR + 1


async def test_it_wakes_in_time_though_falling_asleep_took_long(autojump_clock: MockClock) -> None:
    """T4: a slow store leaves less than the minute between two looks at the clock."""
    async with running() as runtime:
        await runtime.submit("node nap kind=delay:70")
        while not any(event.node_path == "nap" for event in runtime.events()):
            await trio.lowlevel.checkpoint()
        runtime.gate.close()
        await trio.sleep(65)
        assert runtime.gate.waiting == 1
        runtime.gate.open()
        await wait_all_tasks_blocked()
        assert runtime.supervisor.statistics().asleep == 1
        execution = await runtime.wait_ended()
        assert execution.ended_s == EPOCH_S + 70


async def test_those_who_watch_a_sleeper_learn_that_it_woke(autojump_clock: MockClock) -> None:
    """A3: a watcher gets everything."""
    async with running() as runtime:
        await fall_asleep(runtime)
        with trio.fail_after(1):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(runtime.supervisor.wait_moved, NAMESPACE, "x")
                await wait_all_tasks_blocked()
                await runtime.cancel()


async def test_a_due_time_that_passed_while_the_server_was_down_is_met_at_once(
    autojump_clock: MockClock,
) -> None:
    async with running() as runtime:
        await fall_asleep(runtime)
        runtime.crash()
    await trio.sleep(2 * HOUR)
    async with running(runtime.store) as again:
        await again.wait_ended()
        assert trio.current_time() == 2 * HOUR
        assert again.workers.paths == ["b"]


async def test_an_execution_that_is_found_damaged_while_it_sleeps_is_not_woken(
    autojump_clock: MockClock,
) -> None:
    """K4: it is shown as damaged from then on, also when its time has come."""
    async with running() as runtime:
        await fall_asleep(runtime)
        runtime.store.damage_event(NAMESPACE, "x", 2)
        with pytest.raises(EventDamaged):
            await runtime.supervisor.view(NAMESPACE, "x")
        statistics = runtime.supervisor.statistics()
        assert (statistics.asleep, statistics.damaged) == (0, 1)
        await trio.sleep(2 * HOUR)
        assert (NAMESPACE, "x") in runtime.supervisor.quarantine
        assert runtime.workers.paths == ["a"]
