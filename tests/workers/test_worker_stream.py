"""Tests of the stream, against a scripted server on a real socket."""

import asyncio
import logging
from pathlib import Path

import grpc
import grpc.aio
import pytest

from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker import Context, Worker, WorkerRefused
from plait_worker.backoff import Backoff
from plait_worker.session_events import SessionState
from plait_worker.stream_end import end_of_error
from tests.workers.scripted_hub import (
    ScriptedHub,
    assign,
    recorded,
    run,
)
from tests.workers.serving import finish, make_worker, serving


def test_attempts_and_results_outlive_a_stream() -> None:
    """A4: a worker keeps a result until it is told what became of it."""
    worker = make_worker()
    go_on = asyncio.Event()

    @worker.node("t")
    async def work(context: Context, input: object) -> object:
        if input == "slow":
            await go_on.wait()
        return input

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            first = await server.next_stream()
            await first.greet()
            await first.send(assign("slow", '"slow"'), assign("done", '"done"'))
            await first.expect("complete")
            first.end(grpc.StatusCode.UNAVAILABLE, "restarting")
            second = await server.next_stream()
            hello = await second.hello()
            held = [(attempt.token, attempt.finished) for attempt in hello.in_flight]
            assert held == [("slow", False), ("done", True)]
            go_on.set()
            await second.send(hub.ServerMessage(welcome=hub.Welcome(protocol_version=1)))
            results = [await second.expect("complete"), await second.expect("complete")]
            assert {complete.token for complete in results} == {"slow", "done"}
            await second.send(recorded("slow"), recorded("done"))
            await finish(worker, second, task)

    run(test)


def test_worker_waits_for_a_server_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "plait_worker")
    tries = 0
    enough = asyncio.Event()

    def jitter() -> float:
        nonlocal tries
        tries += 1
        if tries == 3:
            enough.set()
        return 0.0

    worker = Worker(worker_id="w", jitter=jitter)

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    async def test() -> None:
        server = ScriptedHub()
        await server.start()
        await server.stop()
        async with serving(worker, server) as task:
            await enough.wait()
            await server.start()
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a"))
            await stream.expect("complete")
            await stream.send(recorded("a"))
            await finish(worker, stream, task)
            await server.stop()

    run(test)
    messages = [record.getMessage() for record in caplog.records]
    assert sum("not reachable" in message for message in messages) == 1
    assert sum("attached to" in message for message in messages) == 1


@pytest.mark.parametrize(("stable_s", "is_reset"), [(0.0, True), (3600.0, False)], ids=["long", "short"])
def test_wait_between_tries_begins_anew_after_a_stream_that_lived(
    stable_s: float, is_reset: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that takes a worker in and hangs up at once is not hammered."""
    resets: list[None] = []

    class ToldBackoff(Backoff):
        def reset(self) -> None:
            resets.append(None)

    monkeypatch.setattr("plait_worker.connection.Backoff", ToldBackoff)
    monkeypatch.setattr("plait_worker.connection.STABLE_S", stable_s)
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            first = await server.next_stream()
            await first.greet()
            await first.send(hub.ServerMessage(ping=hub.Ping(number=1)))
            await first.expect("pong")
            first.end(grpc.StatusCode.UNAVAILABLE, "restarting")
            second = await server.next_stream()
            await second.greet()
            await finish(worker, second, task)
            statistics = worker.statistics()
            assert statistics is not None
            assert statistics.state is SessionState.DETACHED

    run(test)
    assert bool(resets) is is_reset


def test_silent_server_is_left_and_found_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FAILURES 20: liveness is judged on the stream itself."""
    # From `welcome` on, the lease is what counts.
    monkeypatch.setattr("plait_worker.connection.GREETING_S", 3600.0)
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            silent = await server.next_stream()
            await silent.greet(lease_s=0.05)
            second = await server.next_stream()
            silent.end()
            await second.greet()
            await finish(worker, second, task)

    run(test)
    assert any("nothing was heard for 0.05 s" in record.getMessage() for record in caplog.records)


def test_ping_is_answered() -> None:
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(hub.ServerMessage(ping=hub.Ping(number=7)))
            assert (await stream.expect("pong")).number == 7
            await finish(worker, stream, task)

    run(test)


def test_a_replaced_token_is_shown_in_the_next_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that is revoked after another was put into its file costs a worker nothing but the stream."""
    path = tmp_path / "token"
    path.write_text("first\n")
    monkeypatch.setenv("PLAIT_TOKEN_FILE", str(path))
    monkeypatch.delenv("PLAIT_TOKEN", raising=False)
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            first = await server.next_stream()
            await first.greet()
            assert first.metadata["authorization"] == "Bearer first"
            path.write_text("second\n")
            first.end(grpc.StatusCode.UNAUTHENTICATED, "revoked")
            second = await server.next_stream()
            await second.hello()
            assert second.metadata["authorization"] == "Bearer second"
            second.end(grpc.StatusCode.UNAUTHENTICATED, "revoked as well")
            with pytest.raises(WorkerRefused, match="revoked as well"):
                await task

    run(test)


@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (grpc.StatusCode.FAILED_PRECONDITION, "upgrade"),
        (grpc.StatusCode.INVALID_ARGUMENT, "correct"),
        (grpc.StatusCode.PERMISSION_DENIED, "plait token create --role work"),
        (grpc.StatusCode.UNAUTHENTICATED, "PLAIT_TOKEN"),
    ],
    ids=lambda value: value.name if isinstance(value, grpc.StatusCode) else "",
)
def test_refusal_ends_the_worker_with_a_remedy(code: grpc.StatusCode, remedy: str) -> None:
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.hello()
            stream.end(code, "not you", "SOME_REASON")
            with pytest.raises(WorkerRefused, match=r"not you \(SOME_REASON\)") as caught:
                await task
            assert (caught.value.code, remedy in caught.value.message) == (code.name, True)
            assert caught.value.reason == "SOME_REASON"

    run(test)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (grpc.StatusCode.ABORTED, "LEASE_EXPIRED"),
        (grpc.StatusCode.ABORTED, "INSTANCE_REPLACED"),
        (grpc.StatusCode.ABORTED, "STREAM_REPLACED"),
        (grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "SLOW_CONSUMER"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"),
        (grpc.StatusCode.INTERNAL, "INTERNAL"),
        (grpc.StatusCode.OK, ""),
    ],
)
def test_worker_whose_stream_was_ended_attaches_again(
    code: grpc.StatusCode, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is logged; a bare OK that the worker did not ask for, of a proxy perhaps, is an end like any."""
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            first = await server.next_stream()
            await first.greet()
            await first.send(hub.ServerMessage(ping=hub.Ping(number=1)))
            await first.expect("pong")
            first.end(code, "for a reason", reason)
            second = await server.next_stream()
            await second.greet()
            await finish(worker, second, task)

    caplog.set_level(logging.WARNING, "plait_worker")
    run(test)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told.endswith(f"retrying: for a reason ({reason})" if reason else "the server ended the stream")


def test_trailers_that_are_not_of_the_server_are_no_reason() -> None:
    error = grpc.aio.AioRpcError(
        grpc.StatusCode.UNAVAILABLE,
        grpc.aio.Metadata(),
        grpc.aio.Metadata(("grpc-status-details-bin", b"\xff\xff")),
        details="no healthy upstream",
    )
    assert str(end_of_error(error)) == "no healthy upstream"


def test_worker_whose_id_is_in_use_tries_again_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    """T2: a live instance that still answers keeps its worker id, and the newcomer is refused."""
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            for _ in range(3):
                stream = await server.next_stream()
                await stream.hello()
                stream.end(grpc.StatusCode.ALREADY_EXISTS, "instance i of w answers")
            stream = await server.next_stream()
            await stream.greet()
            await finish(worker, stream, task)

    caplog.set_level(logging.WARNING, "plait_worker")
    run(test)
    (told,) = [record.getMessage() for record in caplog.records]
    assert told == (
        "not attached, trying again for 120 s in case the other process is leaving: instance i of w answers"
        " (`--id ID`, or `Worker(worker_id=...)`)"
    )


def test_worker_whose_id_stays_in_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is counted anew after another answer: the server was away, and the other process may be, too."""
    monkeypatch.setattr("plait_worker.connection.IN_USE_S", 1e-9)
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            for code in (
                grpc.StatusCode.ALREADY_EXISTS,
                grpc.StatusCode.UNAVAILABLE,
                grpc.StatusCode.ALREADY_EXISTS,
                grpc.StatusCode.ALREADY_EXISTS,
            ):
                assert not task.done()
                stream = await server.next_stream()
                await stream.hello()
                stream.end(code, "instance i of w answers")
            with pytest.raises(WorkerRefused, match="instance i of w answers; `--id ID`, or") as caught:
                await task
            assert caught.value.code == "ALREADY_EXISTS"

    run(test)


def test_broken_protocol_drops_the_stream() -> None:
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            broken = await server.next_stream()
            await broken.hello()
            await broken.send(assign("a"))
            stream = await server.next_stream()
            broken.end()
            await stream.greet()
            await finish(worker, stream, task)

    run(test)
