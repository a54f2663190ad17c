"""Tests of handlers whose libraries OpenTelemetry instruments: what they call nests below the handler's span."""

import threading
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
import sqlalchemy
from opentelemetry.instrumentation.grpc import GrpcAioInstrumentorClient, GrpcInstrumentorClient
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.sqlalchemy import SQLAlchemyInstrumentor

from plait_worker import Context, Worker
from plait_worker import worker as worker_module
from tests.spans import TRACE, TRACEPARENT, Spans, provide_spans, span_id, trace_id
from tests.workers.scripted_hub import ScriptedHub, assign, recorded, run
from tests.workers.serving import finish, make_worker, serving

POLL_S = 0.01
"""How often a server looks whether it is to end."""
METHOD = "/studio.Renderer/Render"


@pytest.fixture
def spans(monkeypatch: pytest.MonkeyPatch) -> Spans:
    return provide_spans(monkeypatch)


@pytest.fixture
def instrumented() -> Generator[None]:
    instruments: list[Callable[[], Any]] = [
        GrpcAioInstrumentorClient,
        GrpcInstrumentorClient,
        HTTPXClientInstrumentor,
        SQLAlchemyInstrumentor,
    ]
    instrumentors = [instrument() for instrument in instruments]
    for instrumentor in instrumentors:
        instrumentor.instrument()
    yield
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


class Services:
    """A service by HTTP and one by gRPC, which note the traceparent of each call."""

    def __init__(self) -> None:
        self.traceparents: list[str] = []
        self.http = ""
        self.grpc = ""


@pytest.fixture
def services() -> Generator[Services]:
    services = Services()

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            services.traceparents.append(self.headers["traceparent"])
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    def render(request: bytes, context: grpc.ServicerContext) -> bytes:
        metadata = dict(context.invocation_metadata())
        services.traceparents.append(str(metadata["traceparent"]))
        return request

    with ThreadPoolExecutor(1) as threads, ThreadingHTTPServer(("127.0.0.1", 0), Answer) as http:
        answering = threading.Thread(target=http.serve_forever, args=(POLL_S,))
        answering.start()
        rpc = grpc.server(threads)
        methods: dict[str, grpc.RpcMethodHandler[bytes, bytes]] = {
            "Render": grpc.unary_unary_rpc_method_handler(render)
        }
        rpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("studio.Renderer", methods),))
        services.grpc = f"127.0.0.1:{rpc.add_insecure_port('127.0.0.1:0')}"
        rpc.start()
        services.http = f"http://127.0.0.1:{http.server_address[1]}/"
        yield services
        rpc.stop(None).wait()
        http.shutdown()
        answering.join()


def select_one() -> None:
    engine = sqlalchemy.create_engine("sqlite://")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))
    engine.dispose()


def add_coroutine(worker: Worker, services: Services) -> None:
    @worker.node("t")
    async def work(context: Context, input: object) -> None:
        async with httpx.AsyncClient() as client:
            await client.get(services.http)
        async with grpc.aio.insecure_channel(services.grpc) as channel:
            render: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            await render(b"a")
        select_one()


def add_function(worker: Worker, services: Services) -> None:
    @worker.node("t")
    def work(context: Context, input: object) -> None:
        httpx.get(services.http)
        with grpc.insecure_channel(services.grpc) as channel:
            render: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
            render(b"a")
        select_one()


async def run_one(worker: Worker, *, input_by_digest: str = "") -> None:
    """Have a worker run an attempt, with an input to fetch if one is given."""
    async with ScriptedHub() as server, serving(worker, server) as task:
        stream = await server.next_stream()
        await stream.greet()
        fields: dict[str, Any] = {}
        if input_by_digest:
            fields["input"] = {"digest": server.add_payload(input_by_digest)}
        await stream.send(assign("a", traceparent=TRACEPARENT, tracestate="a=b", **fields))
        await stream.expect("complete")
        await stream.send(recorded("a"))
        await finish(worker, stream, task)


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("add_handler", [add_coroutine, add_function], ids=["coroutine", "function"])
def test_calls_of_a_handler_nest_below_its_span(
    spans: Spans, services: Services, add_handler: Callable[[Worker, Services], None]
) -> None:
    worker = make_worker()
    add_handler(worker, services)
    run(lambda: run_one(worker))
    handle = spans.named("handle t")
    assert spans.below(handle) == ["GET", METHOD, "connect", "SELECT"]
    assert {trace_id(span) for span in spans.all} == {TRACE}
    # And the services called continue the trace.
    called = [spans.named("GET"), spans.named(METHOD)]
    assert services.traceparents == [f"00-{TRACE}-{span_id(span)}-01" for span in called]


@pytest.mark.usefixtures("instrumented")
def test_trace_goes_on_where_nothing_is_recorded(services: Services) -> None:
    """A worker without a provider is no gap: the services that its handlers call continue the trace."""
    worker = make_worker()
    add_coroutine(worker, services)
    run(lambda: run_one(worker))
    assert services.traceparents == [TRACEPARENT] * 2


@pytest.mark.usefixtures("instrumented")
@pytest.mark.parametrize("is_replaced", [False, True], ids=["instrumented later", "instrumented before"])
def test_worker_s_own_calls_make_no_spans(
    spans: Spans, services: Services, monkeypatch: pytest.MonkeyPatch, is_replaced: bool
) -> None:
    if is_replaced:
        # As when a program instruments gRPC before it imports the SDK.
        monkeypatch.setattr(worker_module, "insecure_channel", grpc.aio.insecure_channel)
    worker = make_worker()
    add_coroutine(worker, services)
    run(lambda: run_one(worker, input_by_digest='"long"'))
    assert [span.name for span in spans.all if span.name.startswith("/")] == [METHOD]
    assert spans.below(spans.named("handle t")) == ["GET", METHOD, "connect", "SELECT"]
