"""A2: nothing leaves the server before the event that caused it is durable."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.core.run.commands import Disposition
from plait_server.core.run.states import ExecutionState
from plait_server.errors import JournalFull
from tests.runtime.world import NAMESPACE, Runtime, returns, running


async def test_a_submission_is_answered_when_it_is_durable(autojump_clock: MockClock) -> None:
    """A2."""
    async with running() as runtime, trio.open_nursery() as nursery:
        runtime.gate.close()
        answered = trio.Event()

        async def submit() -> None:
            await runtime.submit("a -> b")
            answered.set()

        nursery.start_soon(submit)
        await wait_all_tasks_blocked()
        assert runtime.gate.waiting == 1
        assert not answered.is_set()
        assert runtime.supervisor.statistics().live == 0
        runtime.gate.open()
        await answered.wait()
        await runtime.wait_ended()


async def test_an_attempt_starts_when_its_start_is_durable(autojump_clock: MockClock) -> None:
    """A2."""
    async with running() as runtime:
        await runtime.submit("a -> b")
        runtime.gate.close()
        await trio.sleep(1_000)
        assert runtime.workers.assigned == []
        assert runtime.observer.events == []
        runtime.gate.open()
        await runtime.wait_ended()
        assert runtime.workers.paths == ["a", "b"]


async def test_a_result_is_told_and_published_when_it_is_durable(autojump_clock: MockClock) -> None:
    """A2, FAILURES 40."""
    async with running(scripts={"a": returns("1", 5)}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        view = await runtime.supervisor.view(NAMESPACE, "x")
        assert view.feed is not None
        published = view.feed.last_sequence
        runtime.gate.close()
        await trio.sleep(1_000)
        assert runtime.gate.waiting == 1
        assert runtime.workers.told == []
        assert runtime.workers.paths == ["a"]
        assert view.feed.last_sequence == published
        assert len(runtime.observer.events) == published - 1
        runtime.gate.open()
        await runtime.wait_ended()
        assert runtime.workers.told[0] == ("a", 1, Disposition.RECORDED)


async def test_a_worker_is_told_to_stop_when_the_cancel_is_durable(autojump_clock: MockClock) -> None:
    """A2."""
    async with running(scripts={"a": returns("1", 10_000)}) as runtime, trio.open_nursery() as nursery:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        runtime.gate.close()
        nursery.start_soon(runtime.cancel)
        await trio.sleep(1_000)
        assert runtime.workers.stopped == []
        runtime.gate.open()
        await wait_all_tasks_blocked()
        assert runtime.workers.stopped == [("a", 1, "CANCELLED")]


async def test_what_is_shown_is_durable(autojump_clock: MockClock) -> None:
    """A2: a look at an execution in the midst of an append waits for it."""
    async with running(scripts={"a": returns("1", 5)}) as runtime, trio.open_nursery() as nursery:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        runtime.gate.close()
        await trio.sleep(10)
        seen: list[ExecutionState | None] = []

        async def look() -> None:
            view = await runtime.supervisor.view(NAMESPACE, "x")
            seen.append(view.execution.state)
            assert view.execution.sequence == len(runtime.events())

        nursery.start_soon(look)
        await trio.sleep(100)
        assert seen == []
        runtime.gate.open()
        await wait_all_tasks_blocked()
        assert len(seen) == 1


async def test_a_full_disk_stops_nothing_for_good(autojump_clock: MockClock) -> None:
    """FAILURES 7: writes resume by themselves when there is space again; nothing is lost or doubled."""
    async with running(scripts={"a": returns("1", 5)}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        runtime.gate.breaks = [JournalFull() for _ in range(30)]
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        assert trio.current_time() >= 35
        assert runtime.workers.paths == ["a", "b"]


async def test_stopping_in_the_midst_of_an_append_is_no_error(autojump_clock: MockClock) -> None:
    """A server that is asked to stop does so quietly, and leaves attempts to their workers."""

    async def live() -> Runtime:
        async with running(scripts={"a": returns("1", 5), "b": returns("1", 5)}) as runtime:
            await runtime.submit("a -> b")
            await trio.sleep(1)
            runtime.gate.close()
            await trio.sleep(10)
            runtime.scope.cancel()
            runtime.gate.open()
        return runtime

    runtime = await live()
    assert runtime.workers.stopped == []
    runtime.assert_nothing_is_held()
