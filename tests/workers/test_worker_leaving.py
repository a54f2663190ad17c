"""Tests of how a worker leaves, against a scripted server on a real socket."""

import asyncio
import contextlib
import logging
import os
import signal
import threading
from datetime import timedelta

import grpc
import pytest

from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker import Context, Worker, WorkerRefused
from tests.workers.scripted_hub import (
    ScriptedHub,
    assign,
    cancel,
    recorded,
    run,
)
from tests.workers.serving import make_worker, serving


def test_draining_worker_takes_nothing_new_and_finishes_what_runs(caplog: pytest.LogCaptureFixture) -> None:
    """T3: a worker that drains takes nothing new; what runs finishes."""
    worker = make_worker()
    go_on = asyncio.Event()

    @worker.node("t")
    async def work(context: Context, input: object) -> object:
        await go_on.wait()
        return "done"

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.tell(assign("a"))
            with caplog.at_level(logging.INFO, "plait_worker"):
                worker.drain()
                await stream.expect("drain")
            assert "may run on until they end" in caplog.text
            await stream.send(assign("b"))
            reject = await stream.expect("reject")
            assert (reject.token, reject.code) == ("b", hub.REJECT_CODE_DRAINING)
            go_on.set()
            await stream.expect("complete")
            await stream.send(recorded("a"))
            await stream.expect_end()
            await task

    run(test)


def test_attempt_that_does_not_end_in_time_is_handed_back(caplog: pytest.LogCaptureFixture) -> None:
    """T3: or is RETURNED; the worker names it."""
    worker = make_worker(drain_timeout=timedelta())

    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        await asyncio.Event().wait()

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.tell(assign("a"))
            worker.drain()
            await stream.expect("drain")
            assert (await stream.expect("reject")).code == hub.REJECT_CODE_DRAINING
            await stream.expect_end()
            await task

    run(test)
    (warning,) = (each.getMessage() for each in caplog.records if each.levelno == logging.WARNING)
    assert warning.startswith("the drain timeout of 0 s is over")
    assert "a of e" in warning


def test_reports_of_an_attempt_go_ahead_of_its_hand_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait_worker.worker.CANCEL_S", 0.0)
    # The first report goes out; the next waits.
    monkeypatch.setattr("plait_worker.reports.REPORT_INTERVAL_S", 3600.0)
    worker = make_worker(drain_timeout=timedelta())
    said, logged, release = threading.Event(), threading.Event(), threading.Event()

    @worker.node("t")
    def work(context: Context, input: object) -> None:
        context.progress(0.5)
        said.wait()
        context.log("last words")
        logged.set()
        release.wait()

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a"))
            await stream.expect("progress")
            said.set()
            await asyncio.to_thread(logged.wait)
            worker.drain()
            await stream.expect("drain")
            assert (await stream.expect("log")).message == "last words"
            assert (await stream.expect("reject")).token == "a"
            await stream.expect_end()
            await task

    run(test)
    release.set()


def test_thread_that_looks_away_does_not_keep_the_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait_worker.worker.CANCEL_S", 0.0)
    worker = make_worker(drain_timeout=timedelta())
    release = threading.Event()
    ended = threading.Event()

    @worker.node("t")
    def work(context: Context, input: object) -> None:
        release.wait()
        ended.set()

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.tell(assign("a"))
            worker.drain()
            await stream.expect("drain")
            assert (await stream.expect("reject")).token == "a"
            await stream.expect_end()
            await task

    run(test)
    release.set()
    ended.wait()


@pytest.mark.parametrize("leaving", ["drain", "refusal", "cancel"])
def test_coroutine_that_swallows_every_cancellation_does_not_keep_the_worker(
    leaving: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plait_worker.worker.CANCEL_S", 0.0)
    monkeypatch.setattr("plait_worker.worker.GIVE_UP_S", 0.0)
    worker = make_worker(drain_timeout=timedelta())
    released = False
    ended = asyncio.Event()

    @worker.node("t")
    async def work(context: Context, input: object) -> str:
        while not released:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(60)
        ended.set()
        return "nobody hears this"

    async def test() -> None:
        nonlocal released
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.tell(assign("a"))
            match leaving:
                case "drain":
                    worker.drain()
                    await stream.expect("drain")
                    assert (await stream.expect("reject")).token == "a"
                    await stream.expect_end()
                    await task
                case "refusal":
                    stream.end(grpc.StatusCode.PERMISSION_DENIED, "not you")
                    with pytest.raises(WorkerRefused):
                        await task
                case _:
                    task.cancel()
                    with pytest.raises(asyncio.CancelledError):
                        await task
                    stream.end()
            # The test is to end, too.
            released = True
            (left,) = (other for other in asyncio.all_tasks() if "Attempts" in repr(other))
            left.cancel()
            await ended.wait()

    run(test)


def test_draining_worker_does_not_wait_for_a_handler_that_ignores_its_cancel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The server has given it up after the grace time; the worker holds nothing else."""
    monkeypatch.setattr("plait_worker.worker.GIVE_UP_S", 0.0)
    worker = make_worker(drain_timeout=timedelta(hours=1))
    release = threading.Event()

    @worker.node("t")
    def work(context: Context, input: object) -> None:
        release.wait()

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.tell(assign("a"))
            await stream.send(cancel("a", grace_s=0.01))
            await stream.expect("cancel_ack")
            worker.drain()
            await stream.expect("drain")
            assert (await stream.expect("exited")).token == "a"
            await stream.expect_end()
            await task

    run(test)
    release.set()


def test_first_signal_drains() -> None:
    worker = make_worker()
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    async def test() -> None:
        async with ScriptedHub() as server:
            task = asyncio.create_task(worker.run(server.address))
            stream = await server.next_stream()
            await stream.greet()
            # Answered: the worker has read the welcome.
            await stream.send(hub.ServerMessage(ping=hub.Ping(number=1)))
            await stream.expect("pong")
            os.kill(os.getpid(), signal.SIGTERM)
            await stream.expect("drain")
            await stream.expect_end()
            await task

    run(test)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before


def test_worker_leaves_while_the_server_is_away() -> None:
    def drain_and_go_on() -> float:
        worker.drain()
        return 0.0

    worker = Worker(worker_id="w", jitter=drain_and_go_on)

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    async def test() -> None:
        server = ScriptedHub()
        await server.start()
        await server.stop()
        async with serving(worker, server) as task:
            await task

    run(test)


def test_drain_before_run_holds_for_it() -> None:
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    worker.drain()

    async def test() -> None:
        async with ScriptedHub() as server:
            await worker.run(server.address, handle_signals=False)

    run(test)
