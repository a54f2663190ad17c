"""T4: waiting for capacity and for a worker, with the allocator's word."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from plait_server.core.run.states import NodeState
from tests.runtime.world import Runtime, hangs, running, with_limit


async def why(runtime: Runtime, path: str = "a") -> str:
    """Wait for the end; return what the node's failure says."""
    execution = await runtime.wait_ended()
    record = execution.record(path)
    assert (record.state, record.attempts) == (NodeState.TIMED_OUT, ())
    assert record.failure is not None
    assert runtime.allocator.statistics().waiting == 0
    return record.failure.message


async def test_the_failure_tells_what_a_node_lacked(autojump_clock: MockClock) -> None:
    """Q6: the first limit that it lacked when its wait was over."""
    async with running(scripts={"b": hangs}) as runtime:
        await runtime.submit(
            with_limit("policy CONTINUE; node a queue=5; node b priority=1 node_timeout=9", 1)
        )
        assert "lacked a permit of the execution" in await why(runtime)


async def test_a_type_that_no_worker_serves_ends_the_wait(autojump_clock: MockClock) -> None:
    """FAILURES 23: schedule-to-start timeout; both timers count from when the node became ready."""
    async with running(slots=0) as runtime:
        await runtime.submit("node a worker=30 queue=60")
        assert "its timeouts.worker, and no worker served t;" in await why(runtime)
        assert trio.current_time() == 30


async def test_a_worker_that_comes_and_goes_begins_the_wait_anew(autojump_clock: MockClock) -> None:
    async with running(slots=0) as runtime:
        await runtime.submit("node a worker=30")
        await trio.sleep(20)
        runtime.attach_worker(slots=1)
        runtime.allocator.set_worker_slots("default", "w.1", 0)
        await trio.sleep(5)
        runtime.allocator.remove_worker("default", "w.1")
        await why(runtime)
        assert trio.current_time() == 55


async def test_a_busy_worker_is_a_worker(autojump_clock: MockClock) -> None:
    """T4: the wait for a worker is not the wait for its slots."""
    async with running(scripts={"b": hangs}, slots=1) as runtime:
        await runtime.submit("policy CONTINUE; node a worker=5; node b priority=1 node_timeout=1000")
        execution = await runtime.wait_ended()
        assert execution.record("a").state is NodeState.SUCCEEDED


async def test_the_wait_for_a_worker_survives_a_restart(autojump_clock: MockClock) -> None:
    """T4: it counts on, but workers have a minute to come back."""
    async with running(slots=0) as runtime:
        await runtime.submit("node a worker=600; node b worker=600", id="x")
        await trio.sleep(590)
        runtime.crash()
    async with running(runtime.store, slots=0) as again:
        await why(again)
        assert trio.current_time() == 650
