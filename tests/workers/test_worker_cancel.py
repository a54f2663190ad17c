"""Tests of cancelling, against a scripted server on a real socket."""

import asyncio
import contextlib
import logging
from datetime import timedelta

import grpc
import pytest

from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker import Context
from tests.workers.scripted_hub import (
    ScriptedHub,
    assign,
    cancel,
    duration,
    recorded,
    run,
)
from tests.workers.serving import finish, make_worker, serving

REPORTS = ("progress", "log", "usage", "heartbeat")


# Cancels.


def test_cancelled_coroutine_exits_without_a_result() -> None:
    worker = make_worker()
    started = asyncio.Event()

    @worker.node("t")
    async def work(context: Context, input: object) -> object:
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            context.usage("seconds", 1)
        return "too late"

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a"))
            await started.wait()
            await stream.send(cancel("a"))
            await stream.expect("cancel_ack")
            exited = await stream.expect("exited", skipping=REPORTS)
            assert dict(exited.usage.amounts) == {"seconds": "1"}
            await finish(worker, stream, task)

    run(test)


def test_cancelled_thread_sees_the_flag() -> None:
    worker = make_worker()

    @worker.node("t")
    def work(context: Context, input: object) -> None:
        context.progress(0.0)
        context.cancelled.wait()
        context.raise_if_cancelled()

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a"))
            await stream.expect("progress")
            await stream.send(cancel("a"))
            await stream.expect("cancel_ack")
            await stream.expect("exited")
            await finish(worker, stream, task)

    run(test)


def test_cancel_that_comes_with_the_assign_starts_nothing() -> None:
    worker = make_worker()
    started: list[object] = []

    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        started.append(input)

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a"), cancel("a"))
            await stream.expect("cancel_ack")
            await stream.expect("exited")
            await finish(worker, stream, task)

    run(test)
    assert started == []


def test_attempt_whose_time_ran_out_is_cancelled_and_told_when_the_server_asks() -> None:
    worker = make_worker()
    ended = asyncio.Event()

    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            assert context.time_left == timedelta()
            ended.set()

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a", time_left=duration(0.01)))
            await ended.wait()
            await stream.send(cancel("a", "TIMED_OUT"))
            await stream.expect("cancel_ack")
            await stream.expect("exited")
            await finish(worker, stream, task)

    run(test)


def test_attempt_that_asked_for_more_time_is_not_cancelled_here() -> None:
    """The request is sent again on a new stream; it may have been lost with the one before."""
    worker = make_worker()
    go_on = asyncio.Event()

    @worker.node("t")
    async def work(context: Context, input: object) -> str:
        context.extend(timedelta(hours=1))
        await asyncio.sleep(0.02)  # Longer than its time was; the clock is asyncio's own.
        await go_on.wait()
        return "in time"

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a", time_left=duration(0.01)))
            assert (await stream.expect("extend")).duration.seconds == 3600
            stream.end(grpc.StatusCode.UNAVAILABLE, "restarting")
            stream = await server.next_stream()
            await stream.greet()
            assert 3590 < (await stream.expect("extend")).duration.seconds <= 3600
            go_on.set()
            assert (await stream.expect("complete")).output.json == '"in time"'
            await stream.send(recorded("a"))
            await finish(worker, stream, task)

    run(test)


def test_cancel_of_a_handler_whose_time_ran_out_does_not_disturb_its_end() -> None:
    """Both come at the same instant as a rule; a second CancelledError would tear what the first began."""
    worker = make_worker()
    ending = asyncio.Event()
    go_on = asyncio.Event()
    ended: list[str] = []

    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ending.set()
            await go_on.wait()
            ended.append("in peace")
            raise

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a", time_left=duration(0.01)))
            await ending.wait()
            await stream.send(cancel("a", "TIMED_OUT"))
            await stream.expect("cancel_ack")
            go_on.set()
            await stream.expect("exited")
            await finish(worker, stream, task)

    run(test)
    assert ended == ["in peace"]


def test_stale_cancels_the_handler() -> None:
    """FAILURES 19: told STALE, the SDK cancels the handler."""
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.tell(assign("a"))
            await stream.send(recorded("a", hub.RECORDED_RESULT_STALE))
            await stream.expect("exited")
            await finish(worker, stream, task)

    run(test)


@pytest.mark.parametrize("is_async", [True, False])
def test_handler_that_is_cancelled_and_goes_on_is_told_of_and_cancelled_again(
    is_async: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("plait_worker.attempts.INSIST_S", 0.0)
    worker = make_worker()
    swallowed = 0

    if is_async:

        @worker.node("t")
        async def coroutine(context: Context, input: object) -> None:
            nonlocal swallowed
            while swallowed < 3:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
                swallowed += 1
            await asyncio.Event().wait()

    else:

        @worker.node("t")
        def plain(context: Context, input: object) -> None:
            while not caplog.records:
                context.cancelled.wait()

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.tell(assign("a", execution_id="e", node_path="n"))
            await stream.send(cancel("a", grace_s=0.01))
            await stream.expect("cancel_ack")
            await stream.expect("exited")
            await finish(worker, stream, task)

    caplog.set_level(logging.WARNING, "plait_worker")
    run(test)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.startswith("the handler of t has not ended 0.01 s after it was cancelled (n of e): ")
    assert told.endswith("let CancelledError pass" if is_async else "look at context.cancelled now and then")
