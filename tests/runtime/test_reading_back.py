"""FAILURES 5: a server is ready when it knows what is open; it reads it back while it answers calls."""

from __future__ import annotations

import gc

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.bootstrap import _collect_no_garbage_until_whole
from plait_server.core.run.states import ExecutionState
from plait_server.runtime.recovery import replay
from tests.runtime.world import NAMESPACE, Runtime, hangs, returns, running

COUNT = 40


async def leave_open(graph: str = "a -> b", count: int = COUNT) -> MemoryStore:
    """Make a store with executions x0, x1, ... whose node `a` runs."""
    async with running(scripts={"a": hangs}) as runtime:
        for number in range(count):
            await runtime.submit(graph, id=f"x{number}")
        await trio.sleep(1)
        runtime.crash()
    return runtime.store


def unread(runtime: Runtime) -> int:
    return runtime.supervisor.statistics().unread


async def test_a_start_is_ready_before_anything_is_read_back(autojump_clock: MockClock) -> None:
    store = await leave_open()
    async with running(store, scripts={"a": hangs}, reads_yield=True) as again:
        assert again.supervisor.statistics().is_ready
        assert unread(again) == COUNT - 1
        await trio.sleep(1)
        assert unread(again) == 0
        assert len(again.workers.assigned) == COUNT
        assert all(each.recovered for each in again.workers.assigned)


async def test_what_a_call_asks_for_is_read_back_first(autojump_clock: MockClock) -> None:
    store = await leave_open()
    last = f"x{COUNT - 1}"
    async with running(store, scripts={"a": hangs}, reads_yield=True) as again:
        view = await again.supervisor.view(NAMESPACE, last)
        assert view.executor is not None
        assert unread(again) > COUNT // 2
        await again.cancel(f"x{COUNT - 2}")
        assert unread(again) > COUNT // 2
        await trio.sleep(1)
        assert len(again.workers.assigned) == COUNT, "each is read back once"


async def test_a_call_that_is_given_up_leaves_the_execution_to_be_read_back(
    autojump_clock: MockClock,
) -> None:
    store = await leave_open(count=1)
    async with running(store, scripts={"a": returns("1")}, reads_yield=True) as again:
        with trio.move_on_after(0):
            await again.cancel("x0")
        assert (await again.wait_ended("x0")).state is ExecutionState.SUCCEEDED


async def test_nothing_is_granted_until_what_runs_holds_its_permits(autojump_clock: MockClock) -> None:
    """Q1: the first to be read back waits for slots that the others hold."""
    async with running(slots=0, scripts={"a": hangs}) as runtime:
        await runtime.submit("node w priority=0", id="waits")
        for name in ("one", "two"):
            await runtime.submit("node a priority=1", id=name)
        await wait_all_tasks_blocked()
        runtime.attach_worker(2)
        runtime.allocator.dispatch()
        await trio.sleep(1)
        assert runtime.workers.paths == ["a", "a"]
        runtime.crash()
    scripts = {"a": returns("1", 9)}
    async with running(runtime.store, slots=2, scripts=scripts, reads_yield=True) as again:
        await trio.sleep(5)
        assert again.workers.paths == ["a", "a"]
        assert again.allocator.slots_in_use("default", "w.1") == 2
        await again.wait_ended("waits")
        assert trio.current_time() >= 9


async def test_no_garbage_is_collected_until_all_is_read_back(autojump_clock: MockClock) -> None:
    """Its stops would be the longest by far; afterwards it is on again."""
    store = await leave_open()
    async with (
        running(store, scripts={"a": hangs}, reads_yield=True) as again,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(_collect_no_garbage_until_whole, again.supervisor)
        await wait_all_tasks_blocked()
        assert unread(again)
        assert not gc.isenabled()
        await again.supervisor.wait_whole()
        await wait_all_tasks_blocked()
        assert not unread(again)
        assert gc.isenabled()


async def test_a_replay_shows_the_execution_right_after_each_event(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": returns("1"), "b": returns("2")}) as runtime:
        await runtime.submit("a -> b")
        ended = await runtime.wait_ended()
        journal = runtime.journal.inner.namespace(NAMESPACE)
        replayed = [(execution, execution.sequence, event) async for execution, event in replay(journal, "x")]
    assert [event for _, _, event in replayed] == runtime.events()
    assert all(sequence == event.sequence for _, sequence, event in replayed)
    assert replayed[-1][0].digest() == ended.digest()
