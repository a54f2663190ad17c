"""K3: request ids. The same id and content gives the same answer; other content is refused."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from plait_server.core.run.states import ExecutionState
from plait_server.errors import ExecutionExists, ExecutionNotFound, RequestIdReused
from plait_server.ports.journal import RequestRecord
from tests.runtime.world import hangs, running


def record(
    fingerprint: bytes = b"1", *, method: str = "SubmitGraph", execution_id: str = ""
) -> RequestRecord:
    return RequestRecord(method=method, request_id="r", fingerprint=fingerprint, execution_id=execution_id)


async def test_the_same_submission_again_gives_the_same_execution(autojump_clock: MockClock) -> None:
    """K3, FAILURES 2, 36: also after its end, and after a restart."""
    async with running() as runtime:
        first = await runtime.submit("a -> b", id="", request=record())
        again = await runtime.submit("a -> b", id="", request=record())
        assert again.execution_id == first.execution_id
        await runtime.wait_ended(first.execution_id)
        assert (await runtime.submit("a -> b", id="", request=record())).execution_id == first.execution_id
        assert len(runtime.store.executions) == 1
        assert runtime.workers.paths == ["a", "b"]
        runtime.crash()
    async with running(runtime.store) as restarted:
        later = await restarted.submit("a -> b", id="", request=record())
        assert later.execution_id == first.execution_id
        assert restarted.workers.assigned == []


async def test_submissions_in_the_same_instant_make_one_execution(autojump_clock: MockClock) -> None:
    """K3: recorded in the same append."""
    async with running() as runtime:
        made: list[str] = []

        async def submit() -> None:
            made.append((await runtime.submit("a -> b", id="", request=record())).execution_id)

        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(submit)
        assert len(set(made)) == 1
        await runtime.wait_ended(made[0])
        assert len(runtime.store.executions) == 1


async def test_other_content_under_the_same_id_is_refused(autojump_clock: MockClock) -> None:
    """K3."""
    async with running() as runtime:
        await runtime.submit("a -> b", request=record(b"1"))
        with pytest.raises(RequestIdReused):
            await runtime.submit("a -> c", id="y", request=record(b"2"))
        with pytest.raises(ExecutionNotFound):
            await runtime.replay("y")


async def test_an_execution_id_that_is_taken_is_refused(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        await runtime.submit("a -> b")
        with pytest.raises(ExecutionExists):
            await runtime.submit("a -> b")
        await runtime.wait_ended()


async def test_the_same_cancel_again_is_answered_the_same(autojump_clock: MockClock) -> None:
    """K3."""
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("a -> b")
        cancel = record(method="CancelExecution", execution_id="x")
        await runtime.cancel(request=cancel)
        await runtime.cancel(request=cancel)
        with pytest.raises(RequestIdReused):
            await runtime.cancel(request=record(b"2", method="CancelExecution", execution_id="x"))
        await runtime.wait_ended()
        await runtime.cancel(request=cancel)
        assert runtime.names().count("CancelRequested") == 1


async def test_the_same_cancel_in_the_same_instant_is_answered_the_same(autojump_clock: MockClock) -> None:
    """K3: whichever is first makes the record; the other is answered from it."""
    async with running(scripts={"a": hangs}) as runtime:
        runtime.workers.exit_s = {"a": 8}
        await runtime.submit("a -> b")
        await trio.sleep(1)
        cancel = record(method="CancelExecution", execution_id="x")
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(4):
                    nursery.start_soon(lambda: runtime.cancel(request=cancel))
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.CANCELLED
        assert runtime.names().count("CancelRequested") == 1


async def test_one_request_id_for_two_cancels_in_the_same_instant_is_refused_for_one(
    autojump_clock: MockClock,
) -> None:
    """K3: the other execution goes on as if nobody had asked."""
    async with running(scripts={"a": hangs}) as runtime:
        for id in ("x", "y"):
            await runtime.submit("a -> b", id=id)
        await trio.sleep(1)
        refused: list[str] = []

        async def cancel(id: str) -> None:
            try:
                await runtime.cancel(
                    id, request=record(id.encode(), method="CancelExecution", execution_id=id)
                )
            except RequestIdReused:
                refused.append(id)

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(cancel, "x")
                nursery.start_soon(cancel, "y")
        assert len(refused) == 1
        await trio.sleep(50)
        assert (await runtime.replay(refused[0])).state is ExecutionState.RUNNING
        other = "y" if refused == ["x"] else "x"
        assert (await runtime.replay(other)).state is ExecutionState.CANCELLED


async def test_a_cancel_of_what_is_not_there_is_refused(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        with pytest.raises(ExecutionNotFound):
            await runtime.cancel("nobody")
