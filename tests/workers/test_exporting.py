"""Tests of how `python -m plait_worker` sends spans, with real processes and collectors."""

import asyncio
import importlib.metadata
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.grpc import exporter as by_grpc
from opentelemetry.exporter.otlp.proto.http import trace_exporter as by_http
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from plait_server.adapters.otlp.settings import read_settings
from plait_worker.exporting import export_spans, otlp_protocol, timeout_s
from plait_worker.quiet_exporter import QuietExporter
from tests.spans import TRACE, TRACEPARENT
from tests.workers.scripted_hub import ScriptedHub, assign, recorded, run

SOURCE = """
import logging
import os
import sys

from plait_worker import Context, Worker, exporting

exporting.FLUSH_S = float(os.environ.get("FLUSH_S", exporting.FLUSH_S))
if "MISSING" in os.environ:
    sys.modules[os.environ["MISSING"]] = None
if "OWN" in os.environ:
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

    provider = TracerProvider()
    exporter = ConsoleSpanExporter(formatter=lambda span: span.name + " of its own")
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)

worker = Worker(worker_id="render")


@worker.node("t")
async def work(context: Context, input: object) -> None: ...
"""

POLL_S = 0.01
"""How often a server looks whether it is to end."""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current directory with the module of a worker, and an environment that asks for nothing."""
    (tmp_path / "traced_worker.py").write_text(SOURCE)
    # No test depends on how fast it is.
    monkeypatch.setenv("FLUSH_S", "30")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    return tmp_path


class Collector:
    """The spans that a collector received."""

    def __init__(self) -> None:
        self.requests: list[trace_service_pb2.ExportTraceServiceRequest] = []

    def resource(self) -> dict[str, str]:
        """Return what the first request says of who sends it."""
        attributes = self.requests[0].resource_spans[0].resource.attributes
        return {each.key: each.value.string_value for each in attributes}

    def spans(self) -> list[tuple[str, str, str]]:
        """List service, name and trace of each span."""
        return [
            (self.resource()["service.name"], span.name, span.trace_id.hex())
            for request in self.requests
            for part in request.resource_spans
            for scope in part.scope_spans
            for span in scope.spans
        ]


class GrpcCollector(Collector, trace_service_pb2_grpc.TraceServiceServicer):
    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        self.requests.append(request)
        return trace_service_pb2.ExportTraceServiceResponse()


@contextmanager
def grpc_collector() -> Generator[tuple[Collector, int]]:
    collector = GrpcCollector()
    with ThreadPoolExecutor(1) as threads:
        server = grpc.server(threads)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call] # Generated without types.
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield collector, port
        server.stop(None).wait()


@contextmanager
def http_collector() -> Generator[tuple[Collector, int]]:
    collector = Collector()

    class Take(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/traces"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            collector.requests.append(trace_service_pb2.ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Take) as server:
        serving = threading.Thread(target=server.serve_forever, args=(POLL_S,))
        serving.start()
        yield collector, server.server_address[1]
        server.shutdown()
        serving.join()


def work_and_drain(*arguments: str) -> tuple[str, str]:
    """Have a worker process run an attempt, and drain it; return its stdout and its stderr."""
    said: list[bytes] = []

    async def test() -> None:
        async with ScriptedHub() as server:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "plait_worker", "traced_worker:worker"),
                *("--connect", server.address, *arguments),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
            streams = [await server.next_stream() for _ in range(int(arguments[-1]) if arguments else 1)]
            for stream in streams:
                await stream.greet()
            await streams[0].send(assign("a", traceparent=TRACEPARENT))
            await streams[0].expect("complete")
            await streams[0].send(recorded("a"))
            process.send_signal(signal.SIGTERM)
            for stream in streams:
                await stream.expect_end(skipping=("drain",))
            said.extend(await process.communicate())
            assert process.returncode == 0, said

    run(test)
    return said[0].decode(), said[1].decode()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("collector", "protocol", "named"),
    [(grpc_collector, "", ""), (http_collector, "http/protobuf", "studio")],
    ids=["grpc", "http"],
)
def test_spans_are_sent_before_the_process_ends(
    monkeypatch: pytest.MonkeyPatch,
    collector: Callable[[], AbstractContextManager[tuple[Collector, int]]],
    protocol: str,
    named: str,
) -> None:
    with collector() as (collected, port):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "60000")
        if named:
            monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", f"service.name={named}")
        _, errors = work_and_drain()
    assert collected.spans() == [(named or "plait-worker", "handle t", TRACE)]
    assert collected.resource()["host.name"] == socket.gethostname()
    assert collected.resource()["service.version"] == importlib.metadata.version("plait")
    assert "WARNING" not in errors


@pytest.mark.usefixtures("folder")
def test_provider_of_the_worker_s_module_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN", "1")
    with grpc_collector() as (collected, port):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        output, errors = work_and_drain()
    assert output == "handle t of its own"
    assert collected.requests == []
    assert "WARNING" not in errors


@pytest.mark.usefixtures("folder")
def test_collector_that_does_not_answer_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLUSH_S", "0.01")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        _, errors = work_and_drain()
    assert "the collector did not take the last spans within 0.01 s" in errors
    assert "Traceback" not in errors


class ScriptedExporter(SpanExporter):
    """Takes spans, or does not and says so as OpenTelemetry's exporters do."""

    def __init__(self, name: str) -> None:
        self.takes = False
        self._logger = logging.getLogger(name)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self.takes:
            return SpanExportResult.SUCCESS
        self._logger.warning("Transient error, retrying in %ds", 1)
        self._logger.error("the collector is\naway")
        return SpanExportResult.FAILURE


@pytest.mark.parametrize("module", [by_grpc, by_http])
def test_collector_in_trouble_is_told_once(module: ModuleType, caplog: pytest.LogCaptureFixture) -> None:
    """And once more when it is over; a worker that ends says how many spans it has cost by then."""
    scripted = ScriptedExporter(module.__name__)
    exporter = QuietExporter(scripted)
    span = ReadableSpan("handle t")

    def told() -> list[str]:
        lines = [record.getMessage() for record in caplog.records]
        caplog.clear()
        return lines

    for _ in range(3):
        exporter.export([span, span])
    assert told() == [r"spans do not get through; handlers go on, spans are lost: the collector is\naway"]
    scripted.takes = True
    exporter.export([span])
    exporter.export([span])
    assert told() == ["spans get through again; 6 were lost"]
    scripted.takes = False
    exporter.export([span])
    exporter.export([span])
    exporter.shutdown()
    assert told()[1:] == ["at the end 2 spans had been lost"]


@pytest.mark.usefixtures("folder")
def test_lines_of_the_exporter_are_those_that_are_kept_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the names of the loggers that the SDK has today."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    _, errors = work_and_drain()
    assert errors.count("spans do not get through; handlers go on, spans are lost: ") == 1, errors
    assert errors.count("at the end 1 spans had been lost") == 1, errors
    assert "opentelemetry.exporter" not in errors


@pytest.mark.usefixtures("folder")
def test_missing_sdk_is_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MISSING", "opentelemetry.sdk")
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    _, errors = work_and_drain("--processes", "2")
    (told,) = [line for line in errors.splitlines() if "WARNING" in line]
    assert "spans are not sent: " in told
    assert "pip install 'plait[otel]'" in told


def test_missing_api_is_told(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    export_spans({"OTEL_TRACES_EXPORTER": "otlp"})()
    assert "pip install 'plait[otel]'" in caplog.text


def test_protocol_that_is_not_supported_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    environ = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}
    assert [otlp_protocol(environ, log_level=level) for level in (logging.WARNING, logging.DEBUG)] == [
        "grpc"
    ] * 2
    (record,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.getMessage() == (
        "OTEL_EXPORTER_OTLP_PROTOCOL: 'http/json' is not supported; grpc and http/protobuf are"
    )


@pytest.mark.parametrize(
    ("environ", "protocol"),
    [
        ({}, None),
        ({"ENDPOINT": "http://c:4317"}, "grpc"),
        ({"TRACES_ENDPOINT": "https://c"}, "grpc"),
        ({"ENDPOINT": "http://c:4318"}, "http/protobuf"),
        ({"ENDPOINT": "http://c:4318", "PROTOCOL": "grpc"}, "grpc"),
        ({"TRACES_ENDPOINT": "https://c/otlp/v1/traces"}, "http/protobuf"),
        ({"ENDPOINT": "c:4318"}, "grpc"),
        ({"ENDPOINT": "http://c", "PROTOCOL": "grpc", "TRACES_PROTOCOL": "http/protobuf"}, "http/protobuf"),
        ({"EXPORTER": "otlp"}, "grpc"),
        ({"EXPORTER": "console, OTLP"}, "grpc"),
        ({"EXPORTER": "otlp_proto_http"}, "http/protobuf"),
        ({"EXPORTER": "otlp_proto_grpc", "ENDPOINT": "http://c:4318"}, "grpc"),
        ({"EXPORTER": "none,otlp"}, "grpc"),
        ({"EXPORTER": ","}, None),
        ({"EXPORTER": ",", "ENDPOINT": "http://c:4318"}, "http/protobuf"),
        ({"ENDPOINT": "http://c:4317", "PROTOCOL": "http/json"}, "grpc"),
        ({"ENDPOINT": "http://c:4318", "PROTOCOL": "http/json"}, "http/protobuf"),
        ({"ENDPOINT": "http://c", "PROTOCOL": "HTTP/protobuf"}, "http/protobuf"),
        ({"ENDPOINT": "http://c", "PROTOCOL": "http/protobuf", "TRACES_PROTOCOL": "x"}, "grpc"),
        ({"DISABLED": "1", "ENDPOINT": "http://c:4317"}, "grpc"),
        ({"EXPORTER": "none", "ENDPOINT": "http://c:4317"}, None),
        ({"EXPORTER": "console", "ENDPOINT": "http://c:4317"}, None),
        ({"DISABLED": "TRUE", "ENDPOINT": "http://c:4317"}, None),
        ({"DISABLED": "false", "ENDPOINT": "http://c:4317"}, "grpc"),
        ({"ENDPOINT": " "}, None),
    ],
    ids=str,
)
def test_environment_says_whether_and_how_spans_are_sent(
    environ: dict[str, str], protocol: str | None
) -> None:
    """The worker and the server decide alike."""
    names = {"DISABLED": "OTEL_SDK_DISABLED", "EXPORTER": "OTEL_TRACES_EXPORTER"}
    full = {names.get(name, f"OTEL_EXPORTER_OTLP_{name}"): text for name, text in environ.items()}
    assert otlp_protocol(full) == protocol
    settings = read_settings(full)
    assert (settings.protocol.value if settings is not None else None) == protocol


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "2500"}, 2.5),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "2500", "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT": "500"}, 0.5),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "0"}, 3600.0),
        ({"OTEL_EXPORTER_OTLP_TIMEOUT": "soon"}, None),
    ],
    ids=str,
)
def test_timeout_is_in_milliseconds_as_the_server_s(environ: dict[str, str], seconds: float | None) -> None:
    assert timeout_s(environ) == seconds
