"""Tests of the trace context that clients send along (B2)."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeAlias

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, GrpcInstrumentorClient

from plait.v1 import event_pb2, execution_service_pb2
from plait_client import AsyncClient, Client
from plait_client.caller_trace import caller_trace
from tests.cli import live
from tests.spans import TRACE, TRACEPARENT, Spans, parent_id, provide_spans, span_id, trace_id

GRAPH = "nodes: [{id: a, transform: }]\n"
METHOD = "/plait.v1.ExecutionService/SubmitGraph"
SPAN = "00f067aa0ba902b7"

Submit: TypeAlias = "Callable[..., str]"


def submit_by_client(address: str, traceparent: str = "", tracestate: str = "") -> str:
    with Client(address) as client:
        return client.submit(GRAPH, traceparent=traceparent, tracestate=tracestate).execution_id


def submit_by_async_client(address: str, traceparent: str = "", tracestate: str = "") -> str:
    async def submit() -> str:
        async with AsyncClient(address) as client:
            return (await client.submit(GRAPH, traceparent=traceparent, tracestate=tracestate)).execution_id

    return asyncio.run(submit())


both = pytest.mark.parametrize("submit", [submit_by_client, submit_by_async_client], ids=["sync", "async"])


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    return provide_spans(monkeypatch)


@contextmanager
def instrumented() -> Generator[None]:
    instruments: list[Callable[[], Any]] = [GrpcAioInstrumentorClient, GrpcInstrumentorClient]
    instrumentors = [instrument() for instrument in instruments]
    for instrumentor in instrumentors:
        instrumentor.instrument()
    try:
        yield
    finally:
        for instrumentor in instrumentors:
            instrumentor.uninstrument()


class Heard:
    """A server that notes the headers of what is submitted."""

    def __init__(self) -> None:
        self.address = ""
        self.calls: list[list[tuple[str, str | bytes]]] = []

    @property
    def headers(self) -> list[tuple[str, str | bytes]]:
        """The headers of the only call that are about its trace."""
        (call,) = self.calls
        return [header for header in call if header[0].startswith("trace")]


@pytest.fixture
def heard() -> Generator[Heard]:
    heard = Heard()

    def answer(
        request: execution_service_pb2.SubmitGraphRequest, context: grpc.ServicerContext
    ) -> execution_service_pb2.SubmitGraphResponse:
        heard.calls.append(list(context.invocation_metadata()))
        return execution_service_pb2.SubmitGraphResponse()

    methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "SubmitGraph": grpc.unary_unary_rpc_method_handler(
            answer,
            request_deserializer=execution_service_pb2.SubmitGraphRequest.FromString,
            response_serializer=execution_service_pb2.SubmitGraphResponse.SerializeToString,
        )
    }
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler("plait.v1.ExecutionService", methods),)
        )
        heard.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        yield heard
        server.stop(None).wait()


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    with live.server(":memory:") as listening:
        yield listening


def submitted(address: str, execution_id: str) -> event_pb2.ExecutionSubmitted:
    with Client(address) as client:
        return next(client.events(execution_id)).execution_submitted


# Against a server.


@both
@pytest.mark.usefixtures("spans")
def test_execution_is_a_child_of_the_current_span(address: str, submit: Submit) -> None:
    with trace.get_tracer(__name__).start_as_current_span("caller") as caller:
        first = submitted(address, submit(address))
    context = caller.get_span_context()
    assert first.traceparent.split("-")[1] == trace.format_trace_id(context.trace_id)
    assert first.parent_span_id == trace.format_span_id(context.span_id)


@both
def test_execution_is_a_child_of_the_span_of_the_call(address: str, submit: Submit, spans: Spans) -> None:
    """As every other call is that an instrumented program makes."""
    with instrumented(), trace.get_tracer(__name__).start_as_current_span("caller"):
        id_ = submit(address)
    first = submitted(address, id_)
    call = spans.named(METHOD)
    assert parent_id(call) == span_id(spans.named("caller"))
    assert (first.traceparent.split("-")[1], first.parent_span_id) == (trace_id(call), span_id(call))


# What is sent.


@both
@pytest.mark.usefixtures("spans")
def test_explicit_context_takes_precedence(heard: Heard, submit: Submit) -> None:
    with trace.get_tracer(__name__).start_as_current_span("caller"):
        submit(heard.address, traceparent=TRACEPARENT, tracestate="a=b")
    assert heard.headers == [("traceparent", TRACEPARENT), ("tracestate", "a=b")]


@both
def test_explicit_context_takes_precedence_over_instrumentation(
    heard: Heard, submit: Submit, spans: Spans
) -> None:
    with instrumented(), trace.get_tracer(__name__).start_as_current_span("caller"):
        submit(heard.address, traceparent=TRACEPARENT, tracestate="a=b")
    call = spans.named(METHOD)
    assert (trace_id(call), parent_id(call)) == (TRACE, SPAN)
    assert sorted(heard.headers) == [("traceparent", f"00-{TRACE}-{span_id(call)}-01"), ("tracestate", "a=b")]


@both
def test_instrumentation_sends_no_header_twice(heard: Heard, submit: Submit, spans: Spans) -> None:
    with instrumented(), trace.get_tracer(__name__).start_as_current_span("caller"):
        submit(heard.address)
    call = spans.named(METHOD)
    # Sampled, and of a random id.
    assert heard.headers == [("traceparent", f"00-{trace_id(call)}-{span_id(call)}-03")]


@both
@pytest.mark.usefixtures("spans")
def test_without_a_span_nothing_is_sent(heard: Heard, submit: Submit) -> None:
    submit(heard.address)
    assert heard.headers == []


@pytest.mark.parametrize(
    "traceparent",
    [
        "nonsense",
        TRACEPARENT.upper(),
        f"{TRACEPARENT}\n",
        f"{TRACEPARENT}-more",
        f"ff{TRACEPARENT[2:]}",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"01{TRACEPARENT[2:]}-ü",
    ],
)
@pytest.mark.usefixtures("spans")
def test_invalid_context_is_not_sent(traceparent: str) -> None:
    """Not that of the current span either: the caller named another."""
    with trace.get_tracer(__name__).start_as_current_span("caller"):
        assert caller_trace(traceparent, "a=b").metadata == ()


@pytest.mark.parametrize("tracestate", ["a=ü", "a=b\n", f"a={'x' * 512}"], ids=["umlaut", "line", "long"])
def test_tracestate_that_cannot_be_sent_is_left_out(tracestate: str) -> None:
    assert caller_trace(TRACEPARENT, tracestate).metadata == (("traceparent", TRACEPARENT),)


def test_later_version_is_sent_as_it_is() -> None:
    later = f"01{TRACEPARENT[2:]}-more"
    assert caller_trace(later, "").metadata == (("traceparent", later),)


def test_tracestate_of_the_current_span_is_sent() -> None:
    state = trace.TraceState([("a", "b")])
    context = trace.SpanContext(int(TRACE, 16), int(SPAN, 16), is_remote=False, trace_state=state)
    with trace.use_span(trace.NonRecordingSpan(context)):
        assert caller_trace("", "").metadata == (
            ("traceparent", f"00-{TRACE}-{SPAN}-00"),
            ("tracestate", "a=b"),
        )


def test_opentelemetry_is_not_imported_for_it() -> None:
    source = """
import sys
from plait_client.caller_trace import caller_trace
trace = caller_trace("", "")
with trace.as_parent():
    sys.exit(bool(trace.metadata) or "opentelemetry" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", source], check=False).returncode == 0
