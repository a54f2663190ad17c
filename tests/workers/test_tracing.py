"""Tests of the spans of handlers (B2), with OpenTelemetry's SDK in the worker's process."""

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind, StatusCode

from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker import Context, NodeFailure, Worker, tracing
from tests.spans import (
    ATTEMPT,
    TRACE,
    TRACEPARENT,
    Spans,
    context_of,
    parent_id,
    provide_spans,
    span_id,
    trace_id,
)
from tests.workers.scripted_hub import ScriptedHub, Stream, assign, cancel, duration, recorded, run
from tests.workers.serving import finish, make_worker, serving


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    return provide_spans(monkeypatch)


def tracer() -> trace.Tracer:
    # Of the provider of this test.
    return trace.get_tracer(__name__)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def run_attempts(
    worker: Worker, *attempts: hub.ServerMessage, cancels: Sequence[hub.ServerMessage] = ()
) -> None:
    """Have a worker run attempts, all at once, and drain it."""

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            if cancels:
                await stream.tell(*attempts)
                await stream.send(*cancels)
            else:
                await stream.send(*attempts)
            for _ in attempts:
                await ended(stream)
            await finish(worker, stream, task)

    run(test)


async def ended(stream: Stream) -> None:
    while (message := await stream.next()) is not None:
        match message.WhichOneof("message"):
            case "complete":
                return await stream.send(recorded(message.complete.token))
            case "fail":
                return await stream.send(recorded(message.fail.token))
            case "exited":
                return None
            case _:
                pass
    raise AssertionError("the worker has ended")


@pytest.mark.parametrize("is_async", [True, False])
def test_handler_runs_in_a_span_below_the_attempts(spans: Spans, is_async: bool) -> None:
    """B2: the worker's span is a child of the attempt."""
    worker = make_worker(namespace="studio")
    seen: list[trace.SpanContext] = []

    def note() -> None:
        seen.append(trace.get_current_span().get_span_context())

    if is_async:

        @worker.node("t")
        async def work(context: Context, input: object) -> None:
            await asyncio.create_task(asyncio.to_thread(note))
            assert (context.branch, context.tracestate) == ("0-002", "a=b")
    else:

        @worker.node("t")
        def work_in_thread(context: Context, input: object) -> None:
            assert threading.current_thread() is not threading.main_thread()
            note()

    run_attempts(
        worker,
        assign(
            "a",
            execution_id="x",
            node_path="loop[3]/n",
            attempt=2,
            run=3,
            branch="0-002",
            traceparent=TRACEPARENT,
            tracestate="a=b",
        ),
    )
    (span,) = spans.all
    assert (span.name, span.kind, trace_id(span), parent_id(span)) == (
        "handle t",
        SpanKind.SERVER,
        TRACE,
        ATTEMPT,
    )
    assert seen == [span.get_span_context()]
    assert context_of(span).trace_state.to_header() == "a=b"
    assert attributes(span) == {
        "plait.namespace": "studio",
        "plait.execution.id": "x",
        "plait.run": 3,
        "plait.node.path": "loop[3]/n",
        "plait.node.type": "t",
        "plait.branch.id": "0-002",
        "plait.attempt.number": 2,
        "plait.worker.id": "w",
    }
    assert span.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("is_async", [True, False])
def test_spans_of_attempts_in_parallel_do_not_mix(spans: Spans, is_async: bool) -> None:
    worker = make_worker()
    barrier = threading.Barrier(8)
    all_began = asyncio.Event()
    begun: list[int] = []

    if is_async:

        @worker.node("t")
        async def work(context: Context, input: object) -> None:
            with tracer().start_as_current_span(f"outer {input}"):
                begun.append(1)
                if len(begun) == 8:
                    all_began.set()
                await all_began.wait()
                with tracer().start_as_current_span(f"inner {input}"):
                    await asyncio.sleep(0)
    else:

        @worker.node("t")
        def work_in_thread(context: Context, input: object) -> None:
            with tracer().start_as_current_span(f"outer {input}"):
                barrier.wait()
                with tracer().start_as_current_span(f"inner {input}"):
                    barrier.wait()

    traces = [f"{number:032x}" for number in range(1, 9)]
    run_attempts(
        worker,
        *(
            assign(str(number), str(number), traceparent=f"00-{id_}-{ATTEMPT}-01")
            for number, id_ in enumerate(traces)
        ),
    )
    for number, id_ in enumerate(traces):
        outer, inner = spans.named(f"outer {number}"), spans.named(f"inner {number}")
        (handle,) = [span for span in spans.all if span.name == "handle t" and trace_id(span) == id_]
        assert {trace_id(outer), trace_id(inner)} == {id_}
        assert (parent_id(outer), parent_id(inner)) == (span_id(handle), span_id(outer))
        assert handle.start_time <= outer.start_time <= outer.end_time <= handle.end_time  # type: ignore[operator]


def test_thread_of_a_handler_keeps_nothing_for_the_next_one(spans: Spans) -> None:
    worker = make_worker()
    seen: list[trace.SpanContext] = []
    variable: ContextVar[str] = ContextVar("variable", default="")

    @worker.node("t", max_concurrency=1)
    def work(context: Context, input: object) -> None:
        seen.append(trace.get_current_span().get_span_context())
        assert variable.get() == ""
        variable.set("left")
        # Never ended, and current until the end.
        trace.use_span(tracer().start_span("left")).__enter__()

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            for token in ("a", "b"):
                await stream.send(assign(token, traceparent=TRACEPARENT))
                await ended(stream)
            await finish(worker, stream, task)

    run(test)
    assert seen == [span.get_span_context() for span in spans.all]
    assert [span.status.status_code for span in spans.all] == [StatusCode.UNSET] * 2


@pytest.mark.parametrize("is_async", [True, False])
def test_failures_are_errors(spans: Spans, is_async: bool) -> None:
    """B2.1: status ERROR is for failures."""
    worker = make_worker()

    def fail(kind: str) -> object:
        match kind:
            case "own":
                raise NodeFailure("UNAVAILABLE", "no renderer")
            case "result":
                return {1, 2}
            case "cancelled":
                raise asyncio.CancelledError
            case _:
                raise ValueError("boom")

    if is_async:

        @worker.node("t")
        async def work(context: Context, input: str) -> object:
            return fail(input)
    else:

        @worker.node("t")
        def work_in_thread(context: Context, input: str) -> object:
            return fail(input)

    for kind in ("own", "result", "cancelled", "other"):
        run_attempts(worker, assign(kind, f'"{kind}"', traceparent=TRACEPARENT))
    found = [
        (
            attributes(span)["error.type"],
            span.status.description,
            span.events[0].name,
            dict(span.events[0].attributes or {}),
        )
        for span in spans.all
        if span.status.status_code is StatusCode.ERROR and len(span.events) == 1
    ]
    stacktrace = found[-1][3].pop("exception.stacktrace")
    assert isinstance(stacktrace, str)
    assert 'raise ValueError("boom")' in stacktrace
    unfit = "the handler of t returned what cannot be a result: "
    assert str(found[1][1]).startswith(unfit)
    assert [(code, event, details["exception.type"]) for code, _, event, details in found] == [
        ("UNAVAILABLE", "exception", "NodeFailure"),
        ("INVALID_RESULT", "exception", "INVALID_RESULT"),
        ("CANCELLED_BY_WORKER", "exception", "CANCELLED_BY_WORKER"),
        ("UNKNOWN", "exception", "ValueError"),
    ]
    assert all(message == details["exception.message"] for _, message, _, details in found)


@pytest.mark.parametrize("way", ["coroutine", "coroutine that fails", "thread"])
def test_cancelled_handler_is_no_error(spans: Spans, way: str) -> None:
    """B2.1: never for cancelled nodes, nor for losers."""
    worker = make_worker()

    if way == "thread":

        @worker.node("t")
        def work_in_thread(context: Context, input: object) -> None:
            context.cancelled.wait()
            context.raise_if_cancelled()
    else:

        @worker.node("t")
        async def work(context: Context, input: object) -> None:
            try:
                await asyncio.Event().wait()
            finally:
                if way == "coroutine that fails":
                    raise OSError("closed")

    run_attempts(worker, assign("a", traceparent=TRACEPARENT), cancels=[cancel("a", "RACE_LOST")])
    (span,) = spans.all
    assert span.status.status_code is StatusCode.UNSET
    assert attributes(span)["plait.cancel.reason"] == "RACE_LOST"
    assert "error.type" not in attributes(span)
    assert [event.name for event in span.events] == (["exception"] if way == "coroutine that fails" else [])


@pytest.mark.parametrize("by", ["server", "worker"])
def test_timeout_is_an_error(spans: Spans, by: str) -> None:
    """B2.1: TIMED_OUT is a failure, whoever is first to say so."""
    worker = make_worker()

    async def test() -> None:
        began, ended = asyncio.Event(), asyncio.Event()

        @worker.node("t")
        async def work(context: Context, input: object) -> None:
            try:
                began.set()
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(
                assign("a", traceparent=TRACEPARENT, time_left=duration(3600 if by == "server" else 0.01))
            )
            await (began if by == "server" else ended).wait()
            await stream.send(cancel("a", "TIMED_OUT"))
            await stream.expect("exited", skipping=("cancel_ack",))
            await finish(worker, stream, task)

    run(test)
    (span,) = spans.all
    assert span.status.status_code is StatusCode.ERROR
    assert attributes(span)["error.type"] == "DEADLINE_EXCEEDED"
    assert attributes(span)["plait.cancel.reason"] == ("TIMED_OUT" if by == "server" else "DEADLINE")


@pytest.mark.parametrize("is_async", [True, False])
def test_handler_that_does_not_end_has_its_span_when_the_worker_leaves(
    spans: Spans, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    monkeypatch.setattr("plait_worker.worker.CANCEL_S", 0.0)
    monkeypatch.setattr("plait_worker.worker.GIVE_UP_S", 0.0)
    worker = make_worker(drain_timeout=timedelta())
    has_begun = threading.Event()
    is_over = asyncio.Event() if is_async else threading.Event()

    if isinstance(is_over, asyncio.Event):

        @worker.node("t")
        async def work(context: Context, input: object) -> None:
            has_begun.set()
            while not is_over.is_set():
                with contextlib.suppress(asyncio.CancelledError):
                    await is_over.wait()
    else:

        @worker.node("t")
        def work_in_thread(context: Context, input: object) -> None:
            has_begun.set()
            is_over.wait()

    async def test() -> None:
        async with ScriptedHub() as server, serving(worker, server) as task:
            stream = await server.next_stream()
            await stream.greet()
            await stream.send(assign("a", traceparent=TRACEPARENT))
            await asyncio.to_thread(has_begun.wait)
            worker.drain()
            await stream.expect("reject", skipping=("drain",))
            await stream.expect_end()
            await task
            is_over.set()

    run(test)
    (span,) = spans.all
    assert (span.status.status_code, attributes(span)["plait.cancel.reason"]) == (StatusCode.UNSET, "DRAIN")


def test_each_attempt_has_a_span_of_its_own(spans: Spans) -> None:
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        if context.attempt == 1:
            raise NodeFailure("UNAVAILABLE", "not yet")

    attempts = ("1" * 16, "2" * 16)
    run_attempts(
        worker,
        *(
            assign(str(number), node_path="n", attempt=number, traceparent=f"00-{TRACE}-{id_}-01")
            for number, id_ in enumerate(attempts, 1)
        ),
    )
    assert {
        (attributes(span)["plait.attempt.number"], parent_id(span), span.status.status_code)
        for span in spans.all
    } == {(1, attempts[0], StatusCode.ERROR), (2, attempts[1], StatusCode.UNSET)}


def test_trace_that_is_not_sampled_has_no_spans_but_goes_on(spans: Spans) -> None:
    worker = make_worker()
    seen: list[trace.SpanContext] = []

    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        with tracer().start_as_current_span("inner") as span:
            seen.append(span.get_span_context())

    run_attempts(worker, assign("a", traceparent=f"00-{TRACE}-{ATTEMPT}-00"))
    assert list(spans.all) == []
    (context,) = seen
    assert trace.format_trace_id(context.trace_id) == TRACE
    assert not context.trace_flags.sampled


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-{ATTEMPT}-01"])
def test_attempt_without_a_trace_begins_one(spans: Spans, traceparent: str) -> None:
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    with tracer().start_as_current_span("of the program"):
        run_attempts(worker, assign("a", traceparent=traceparent))
    assert spans.named("handle t").parent is None


class Broken(SpanProcessor):
    def on_start(self, span: object, parent_context: object = None) -> None:
        if self.when == "start":
            raise ValueError("no spans today")

    def on_end(self, span: object) -> None:
        raise ValueError("no spans today")

    def __init__(self, when: str) -> None:
        self.when = when


@pytest.mark.parametrize("when", ["start", "end"])
def test_exception_of_a_span_processor_does_not_fail_the_attempt(
    spans: Spans, caplog: pytest.LogCaptureFixture, when: str
) -> None:
    provider = trace.get_tracer_provider()
    assert isinstance(provider, TracerProvider)
    provider.add_span_processor(Broken(when))
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    run_attempts(worker, assign("a", traceparent=TRACEPARENT), assign("b", traceparent=TRACEPARENT))
    statistics = worker.statistics()
    assert statistics is not None
    assert statistics.recorded == 2
    assert (
        caplog.text.count("spans of handlers are lost: OpenTelemetry raised ValueError('no spans today')")
        == 1
    )


# Without a provider, and without OpenTelemetry.


def test_span_that_nobody_could_see_is_not_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.propagate", raising=False)
    worker = make_worker()
    seen: list[trace.SpanContext] = []

    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        seen.append(trace.get_current_span().get_span_context())

    with trace.use_span(trace.NonRecordingSpan(trace.SpanContext(1, 1, is_remote=False))):
        run_attempts(worker, assign("a", traceparent=TRACEPARENT))
    assert seen == [trace.INVALID_SPAN_CONTEXT]


def test_worker_does_without_opentelemetry(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "opentelemetry"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "plait_worker.spans", raising=False)
    assert tracing.load_tracer("default", "w") is None
    worker = make_worker()

    @worker.node("t")
    async def work(context: Context, input: object) -> None: ...

    run_attempts(worker, assign("a", traceparent=TRACEPARENT))
    statistics = worker.statistics()
    assert statistics is not None
    assert statistics.completed == 1


def test_importing_the_sdk_does_not_import_opentelemetry() -> None:
    source = "import sys, plait_worker; sys.exit('opentelemetry' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0
