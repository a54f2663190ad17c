"""A submission and the first step of its execution are one append; SEMANTICS A2 and K3 hold of both."""

from __future__ import annotations

from functools import partial

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.errors import ExecutionNotFound, JournalFull, RequestIdReused, ShuttingDown
from plait_server.ports.journal import AppendItem, RequestConflict, RequestRecord
from tests.runtime.world import NAMESPACE, Runtime, hangs, running


def record(fingerprint: bytes = b"1", execution_id: str = "") -> RequestRecord:
    return RequestRecord(
        method="SubmitGraph", request_id="r", fingerprint=fingerprint, execution_id=execution_id
    )


async def test_first_attempts_start_with_the_append_of_the_submission(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.supervisor.wait_whole()
        execution = await runtime.submit("a, b -> c", id="")
        ((item,),) = runtime.gate.batches
        names = runtime.names(execution.execution_id)
        assert names[0] == "ExecutionSubmitted"
        assert names.count("AttemptStarted") == 2
        assert (item.expected_sequence, len(item.events)) == (0, len(names))
        await trio.sleep(1)
        assert sorted(runtime.workers.paths) == ["a", "b"]


async def test_nothing_is_seen_of_it_before(autojump_clock: MockClock) -> None:
    """A2."""
    async with running() as runtime, trio.open_nursery() as nursery:
        await runtime.supervisor.wait_whole()
        runtime.gate.close()
        nursery.start_soon(partial(runtime.submit, "a -> b", id=""))
        await wait_all_tasks_blocked()
        assert runtime.gate.waiting == 1
        assert runtime.allocator.statistics().running == 1
        assert runtime.supervisor.statistics().live == 0
        assert runtime.workers.assigned == []
        assert runtime.observer.events == []
        with pytest.raises(ExecutionNotFound):
            await runtime.supervisor.view(NAMESPACE, "id-1")
        runtime.gate.open()
        await trio.sleep(1)
        assert runtime.workers.paths == ["a", "b"]
    runtime.assert_nothing_is_held()


async def test_full_disk_refuses_it_and_takes_back_what_was_granted(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        await runtime.supervisor.wait_whole()
        runtime.gate.breaks.append(JournalFull())
        with pytest.raises(JournalFull):
            await runtime.submit("a -> b", id="")
        await wait_all_tasks_blocked()
        runtime.assert_nothing_is_held()
        assert runtime.workers.assigned == []
        execution = await runtime.submit("a -> b", id="")
        await runtime.wait_ended(execution.execution_id)


async def test_request_that_was_recorded_meanwhile_is_answered_with_its_execution(
    autojump_clock: MockClock,
) -> None:
    """K3: the second is decided before it is known that the first was accepted."""
    async with running(scripts={"a": hangs}) as runtime:
        first = await runtime.submit("a -> b", id="")
        await trio.sleep(1)

        def refuse(item: AppendItem) -> RequestConflict | None:
            assert item.request is not None
            return RequestConflict(record=record(execution_id=first.execution_id))

        runtime.gate.breaks += [refuse, refuse]
        again = await runtime.submit("a -> b", id="", request=record())
        assert again.execution_id == first.execution_id
        with pytest.raises(RequestIdReused):
            await runtime.submit("a -> b", id="", request=record(b"2"))
        await wait_all_tasks_blocked()
        assert runtime.workers.paths == ["a"]
        assert runtime.allocator.statistics().running == 1


async def test_caller_that_leaves_takes_nothing_with_it(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        runtime.gate.close()
        with trio.move_on_after(1):
            await runtime.submit("a -> b", id="")
        runtime.gate.open()
        await trio.sleep(1)
        await runtime.wait_ended("id-1")


async def test_caller_is_told_when_the_server_stops_before_the_first_step(autojump_clock: MockClock) -> None:
    async with trio.open_nursery() as nursery:

        async def submit(runtime: Runtime) -> None:
            with pytest.raises(ShuttingDown):
                await runtime.submit("a -> b", id="")

        async with running() as runtime:
            nursery.start_soon(submit, runtime)
            await trio.lowlevel.checkpoint()
            runtime.scope.cancel()
