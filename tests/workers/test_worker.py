"""Tests of the whole SDK against a scripted server on a real socket: results and failures."""

import asyncio
import json
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from datetime import timedelta
from decimal import Decimal
from typing import Any, TypeVar

import grpc
import pytest

from plait.v1 import log_pb2, payload_pb2
from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker import Context, NodeFailure, Worker
from tests.workers.scripted_hub import (
    ScriptedHub,
    assign,
    duration,
    recorded,
    run,
)
from tests.workers.serving import finish, make_worker, serving

T = TypeVar("T")

REPORTS = ("progress", "log", "usage", "heartbeat")


# Doing the work of nodes.


def test_worker_introduces_itself_and_delivers_a_result() -> None:
    worker = make_worker(namespace="studio", labels={"gpu": "a100"})

    @worker.node("image.generate", max_concurrency=4)
    async def generate(context: Context, input: dict[str, Any]) -> object:
        return {"prompt": input["prompt"], "who": [context.worker_id, context.attempt, context.run]}

    @worker.node("image.upscale", max_concurrency=2)
    def upscale(context: Context, input: object) -> None: ...

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            hello = await stream.greet()
            assert (hello.worker_id, hello.namespace, hello.slots) == ("w", "studio", 6)
            assert [(served.type, served.max_concurrency) for served in hello.types] == [
                ("image.generate", 4),
                ("image.upscale", 2),
            ]
            assert dict(hello.labels) == {"gpu": "a100"}
            await stream.send(assign("a", '{"prompt": "a fox ü"}', "image.generate"))
            complete = await stream.expect("complete")
            assert json.loads(complete.output.json) == {"prompt": "a fox ü", "who": ["w", 1, 1]}
            await stream.send(recorded("a"))
            await finish(worker, stream, task)
            statistics = worker.statistics()
            assert statistics is not None
            assert (statistics.assigned, statistics.completed, statistics.recorded) == (1, 1, 1)

    run(test)


def test_plain_function_runs_in_a_thread_and_knows_its_attempt() -> None:
    worker = make_worker()
    seen: list[tuple[object, ...]] = []

    @worker.node("t")
    def work(context: Context, input: object) -> object:
        time_left = context.time_left
        seen.append(
            (
                threading.current_thread() is threading.main_thread(),
                context.execution_id,
                context.node_path,
                context.attempt,
                context.run,
                context.type,
                context.idempotency_key,
                context.traceparent,
                time_left is not None and timedelta() < time_left <= timedelta(hours=1),
                context.deadline is not None,
                input,
            )
        )
        return None

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(
                assign(
                    "a",
                    "7",
                    execution_id="x",
                    node_path="loop[3]/n",
                    attempt=2,
                    run=3,
                    idempotency_key="key",
                    traceparent="00-1-2-01",
                    time_left=duration(3600),
                )
            )
            complete = await stream.expect("complete")
            assert complete.output.json == "null"
            await stream.send(recorded("a"))
            await finish(worker, stream, task)

    run(test)
    assert seen == [(False, "x", "loop[3]/n", 2, 3, "t", "key", "00-1-2-01", True, True, 7)]


def test_threads_are_a_seam() -> None:
    class InPlace:
        def submit(self, function: Callable[[], T]) -> Future[T]:
            future: Future[T] = Future()
            future.set_result(function())
            return future

        def shutdown(self) -> None:
            raise AssertionError("they are not the worker's own")

    worker = make_worker(threads=InPlace())

    @worker.node("t")
    def work(context: Context, input: object) -> object:
        return threading.current_thread() is threading.main_thread()

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a"))
            assert (await stream.expect("complete")).output.json == "true"
            await stream.send(recorded("a"))
            await finish(worker, stream, task)

    run(test)


def test_reports_come_from_the_loop_and_from_threads() -> None:
    """U1: amounts add up exactly, and the totals go with the result."""
    worker = make_worker()

    def report(context: Context) -> None:
        context.progress(0.5, "half")
        context.log("a line", level="WARNING")
        context.usage("tokens", 800)
        context.usage("tokens", "12")
        context.usage("dollars", Decimal("0.0025"))
        context.heartbeat({"row": 5})

    @worker.node("plain")
    def plain(context: Context, input: object) -> None:
        report(context)

    @worker.node("async")
    async def coroutine(context: Context, input: object) -> None:
        report(context)

    async def test(type_: str) -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a", type_=type_))
            found: dict[str, Any] = {}
            while "complete" not in found:
                message = await stream.next()
                assert message is not None
                kind = message.WhichOneof("message")
                assert kind is not None
                found[kind] = getattr(message, kind)
            assert (found["progress"].fraction, found["progress"].message) == (0.5, "half")
            assert (found["log"].level, found["log"].message) == (log_pb2.LOG_LEVEL_WARNING, "a line")
            assert found["log"].time.seconds > 0
            assert json.loads(found["heartbeat"].details.json) == {"row": 5}
            assert dict(found["complete"].usage.amounts) == {"tokens": "812", "dollars": "0.0025"}
            await stream.send(recorded("a"))
            await finish(worker, stream, task)

    run(lambda: test("plain"))
    run(lambda: test("async"))


def test_large_input_is_fetched_by_its_digest() -> None:
    worker = make_worker()
    large = json.dumps({"text": "ü" * 200_000}, ensure_ascii=False)

    @worker.node("t")
    async def work(context: Context, input: dict[str, str]) -> int:
        return len(input["text"])

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            digest = server.add_payload(large)
            await stream.send(assign("a", input=payload_pb2.Payload(digest=digest)))
            assert (await stream.expect("complete")).output.json == "200000"
            await stream.send(recorded("a"), assign("b", input=payload_pb2.Payload(digest="0" * 64)))
            fail = await stream.expect("fail")
            assert (fail.code, "NOT_FOUND" in fail.message) == ("INPUT_UNAVAILABLE", True)
            server.payloads["f" * 64] = b"null"
            await stream.send(recorded("b"), assign("c", input=payload_pb2.Payload(digest="f" * 64)))
            reject = await stream.expect("reject")
            assert (reject.token, reject.code) == ("c", hub.REJECT_CODE_INPUT_UNAVAILABLE)
            await finish(worker, stream, task)

    run(test)


def test_input_is_fetched_again_while_the_server_is_away() -> None:
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> object:
        return input

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            digest = server.add_payload("7")
            server.payload_refusals = [grpc.StatusCode.UNAVAILABLE] * 7
            await stream.send(assign("a", input=payload_pb2.Payload(digest=digest)))
            assert (await stream.expect("complete")).output.json == "7"
            # At last another worker, or another time, may have more luck.
            server.payload_refusals = [grpc.StatusCode.UNAVAILABLE] * 8
            await stream.send(recorded("a"), assign("b", input=payload_pb2.Payload(digest=digest)))
            reject = await stream.expect("reject")
            assert (reject.token, reject.code) == ("b", hub.REJECT_CODE_INPUT_UNAVAILABLE)
            await finish(worker, stream, task)

    run(test)


# Failures.


async def one_failure(worker: Worker, payload_bytes_max: int) -> hub.Fail:
    async with ScriptedHub() as server, serving(worker, server) as task:
        stream = await server.next_stream()
        await stream.greet(payload_bytes_max=payload_bytes_max)
        await stream.send(assign("a", "1"))
        fail: hub.Fail = await stream.expect("fail", skipping=REPORTS)
        await stream.send(recorded("a"))
        await finish(worker, stream, task)
        return fail


def check_failure(
    worker: Worker, check: Callable[[hub.Fail], None], payload_bytes_max: int = 1 << 20
) -> None:
    async def test() -> None:
        check(await one_failure(worker, payload_bytes_max))

    run(test)


@pytest.mark.parametrize("is_async", [True, False])
def test_exception_fails_the_attempt_with_its_traceback(is_async: bool) -> None:
    worker = make_worker()

    def break_down() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise ValueError("no prompt\ud800") from error

    if is_async:

        @worker.node("t")
        async def coroutine(context: Context, input: object) -> None:
            context.usage("tokens", 3)
            break_down()

    else:

        @worker.node("t")
        def plain(context: Context, input: object) -> None:
            context.usage("tokens", 3)
            break_down()

    def check(fail: hub.Fail) -> None:
        assert (fail.code, fail.message) == ("UNKNOWN", "ValueError: no prompt\\ud800")
        details = json.loads(fail.details.json)
        assert details["exception"] == "ValueError"
        assert "break_down" in details["traceback"]
        assert not fail.HasField("retryable")
        assert [(cause.code, cause.message) for cause in fail.causes] == [("UNKNOWN", "KeyError: 'first'")]
        assert dict(fail.usage.amounts) == {"tokens": "3"}

    check_failure(worker, check)


def test_node_failure_has_a_code_and_advice_of_its_own() -> None:
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        raise NodeFailure(
            "RATE_LIMITED",
            "too fast",
            details={"limit": 10},
            retryable=True,
            retry_after=timedelta(seconds=2, milliseconds=500),
        )

    def check(fail: hub.Fail) -> None:
        assert (fail.code, fail.message, fail.retryable) == ("RATE_LIMITED", "too fast", True)
        assert json.loads(fail.details.json) == {"limit": 10}
        assert fail.retry_after.ToMilliseconds() == 2500

    check_failure(worker, check)


@pytest.mark.parametrize(
    ("value", "said", "problem"),
    [
        ({"a": [1, float("nan")]}, "$.a[1] is nan", hub.RESULT_PROBLEM_NOT_JSON),
        ({"a": {1, 2}}, "$.a is a set", hub.RESULT_PROBLEM_NOT_JSON),
        ("x" * 101, "103 bytes", hub.RESULT_PROBLEM_TOO_LARGE),
        ([1] * 200, "more than 100 parts", hub.RESULT_PROBLEM_TOO_LARGE),
    ],
    ids=["nan", "set", "large", "many"],
)
def test_result_that_is_no_payload_fails_the_attempt(
    value: object, said: str, problem: hub.ResultProblem
) -> None:
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> object:
        return value

    def check(fail: hub.Fail) -> None:
        assert fail.result_problem == problem
        assert said in fail.message

    check_failure(worker, check, payload_bytes_max=100)


@pytest.mark.parametrize("is_async", [True, False])
def test_handler_that_cancels_itself_fails(is_async: bool) -> None:
    worker = make_worker()

    if is_async:

        @worker.node("t")
        async def coroutine(context: Context, input: object) -> None:
            raise asyncio.CancelledError

    else:

        @worker.node("t")
        def plain(context: Context, input: object) -> None:
            raise asyncio.CancelledError

    def check(fail: hub.Fail) -> None:
        assert fail.code == "CANCELLED_BY_WORKER"

    check_failure(worker, check)


@pytest.mark.parametrize("is_async", [True, False])
def test_handler_that_ends_its_process_fails_and_the_worker_goes_on(is_async: bool) -> None:
    worker = make_worker()

    if is_async:

        @worker.node("t")
        async def coroutine(context: Context, input: object) -> None:
            sys.exit(f"done with {input}")

    else:

        @worker.node("t")
        def plain(context: Context, input: object) -> None:
            sys.exit(f"done with {input}")

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            for token in ("1", "2"):
                await stream.send(assign(token, token))
                fail = await stream.expect("fail")
                assert (fail.token, fail.code) == (token, "UNKNOWN")
                assert fail.message.startswith(f"SystemExit: done with {token}; a handler ends its attempt")
                await stream.send(recorded(token))
            await finish(worker, stream, task)

    run(test)


def test_reports_of_other_types_are_taken_as_text_and_number() -> None:
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        context.progress(Decimal("0.5"), KeyError("half"))  # type: ignore[arg-type] # the point of it
        context.log(ValueError("broken"))  # type: ignore[arg-type] # as before

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a"))
            progress = await stream.expect("progress", skipping=REPORTS)
            assert (progress.fraction, progress.message) == (0.5, "'half'")
            assert (await stream.expect("log", skipping=REPORTS)).message == "broken"
            await stream.expect("complete", skipping=REPORTS)
            await stream.send(recorded("a"))
            await finish(worker, stream, task)

    run(test)


def test_bug_of_the_sdk_fails_the_attempt_and_the_worker_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            monkeypatch.delattr("plait_worker.session.WorkerSession.complete")
            await stream.send(assign("a"))
            fail = await stream.expect("fail")
            assert fail.code == "INTERNAL"
            assert "please report" in fail.message
            await stream.send(recorded("a"))
            await finish(worker, stream, task)

    run(test)
    assert "please report" in caplog.text


# Registering.


def test_registration_is_checked() -> None:
    worker = Worker()

    @worker.node("t")
    def work(context: Context, input: object) -> None: ...

    with pytest.raises(ValueError, match="already"):
        worker.node("t")
    with pytest.raises(ValueError, match="node type"):
        worker.node("no type")
    with pytest.raises(ValueError, match="max_concurrency"):
        worker.node("u", max_concurrency=-1)
    with pytest.raises(ValueError, match="slots"):
        Worker(slots=0)

    async def several(context: Context, input: object) -> AsyncGenerator[int, None]:
        yield 1

    with pytest.raises(TypeError, match="is a generator, which has no result: return a list"):
        worker.node("generator")(several)
    with pytest.raises(ValueError, match="worker id"):
        Worker(worker_id="no id")


def test_worker_that_serves_nothing_does_not_run() -> None:
    with pytest.raises(ValueError, match="at least one node type"):
        Worker().run_sync("127.0.0.1:1")


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "localhost", ":7480", "localhost:http", "a:70000"])
def test_address_is_host_and_port(address: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        Worker().run_sync(address)


@pytest.mark.parametrize(
    ("counts", "slots"), [([4, 2], 6), ([0], 64), ([4, 0, 0], 68), ([10_000, 5], 10_000)], ids=str
)
def test_slots_follow_from_the_types(counts: list[int], slots: int) -> None:
    worker = Worker()
    for ordinal, count in enumerate(counts):
        worker.node(f"t{ordinal}", max_concurrency=count)(print)
    assert worker.slots == slots
