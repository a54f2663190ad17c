"""Collectors for tests, by real gRPC and HTTP on a free port, in threads; tests choose their answers."""

from __future__ import annotations

import gzip
import http.server
import shutil
import ssl
import subprocess
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

import grpc
import pytest
from google.protobuf.any_pb2 import Any
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from plait_server.adapters.otlp.answers import METHOD, PROTOBUF


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """A sink's answer to a request; a refusal has the codes of both protocols."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    status: int = 200
    message: str = ""
    retry_after_s: int | None = None
    rejected: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes | None = None
    """The content type of an HTTP answer, if it is to be a wrong one."""


class Sink:
    """Keeps the requests that it gets. `answer` may be changed, and may block."""

    def __init__(self) -> None:
        self.answer: Callable[[bytes], Answer] = lambda _: Answer()
        self.requests: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.port = 0

    def take(self, request: bytes, headers: dict[str, str]) -> Answer:
        self.requests.append(request)
        self.headers.append(headers)
        return self.answer(request)


@dataclass(frozen=True, slots=True)
class Certificate:
    """A self-signed certificate for this machine."""

    file: Path
    key_file: Path


def make_certificate(folder: Path) -> Certificate:
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("without the command openssl there is no certificate")
    made = Certificate(folder / "certificate.pem", folder / "key.pem")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    files = ("-keyout", str(made.key_file), "-out", str(made.file))
    subprocess.run([openssl, "req", "-x509", *curve, *names, *files], check=True, capture_output=True)
    return made


class Opener(Protocol):
    """Opens a sink on a port (0: a free one)."""

    def __call__(
        self, sink: Sink, port: int = 0, *, certificate: Certificate | None = None, wants_client: bool = False
    ) -> AbstractContextManager[None]: ...


@contextmanager
def open_grpc_sink(
    sink: Sink, port: int = 0, *, certificate: Certificate | None = None, wants_client: bool = False
) -> Generator[None]:
    def export(request: bytes, context: grpc.ServicerContext) -> bytes:
        answer = sink.take(request, {key: str(value) for key, value in context.invocation_metadata()})
        if answer.code is grpc.StatusCode.OK:
            return _partial(answer).SerializeToString() if answer.body is None else answer.body
        _abort(context, answer)

    handlers = grpc.method_handlers_generic_handler(
        METHOD.split("/")[1], {"Export": grpc.unary_unary_rpc_method_handler(export)}
    )
    with ThreadPoolExecutor(8) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        server.add_generic_rpc_handlers((handlers,))
        address = f"127.0.0.1:{port}"
        if certificate is None:
            sink.port = server.add_insecure_port(address)
        else:
            pair = (certificate.key_file.read_bytes(), certificate.file.read_bytes())
            credentials = grpc.ssl_server_credentials([pair], pair[1] if wants_client else None, wants_client)
            sink.port = server.add_secure_port(address, credentials)
        server.start()
        try:
            yield
        finally:
            server.stop(0).wait()


def _abort(context: grpc.ServicerContext, answer: Answer) -> NoReturn:
    if answer.retry_after_s is not None:
        detail = Any()
        detail.Pack(RetryInfo(retry_delay=Duration(seconds=answer.retry_after_s)))
        status = Status(code=8, message=answer.message, details=[detail])
        context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(answer.code, answer.message)


@contextmanager
def open_http_sink(
    sink: Sink, port: int = 0, *, certificate: Certificate | None = None, wants_client: bool = False
) -> Generator[None]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            found = {name.lower(): value for name, value in self.headers.items()}
            if found.get("content-encoding") == "gzip":
                content = gzip.decompress(content)
            answer = sink.take(content, {**found, ":path": self.path})
            self._answer(answer)

        def _answer(self, answer: Answer) -> None:
            is_good = answer.status == 200
            body = _partial(answer) if is_good else Status(message=answer.message)
            content = body.SerializeToString() if answer.body is None else answer.body
            self.send_response(answer.status)
            headers = {"content-type": PROTOBUF, "content-length": str(len(content))}
            if answer.retry_after_s is not None:
                headers["retry-after"] = str(answer.retry_after_s)
            for name, value in {**headers, **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Log nothing."""

    class Server(http.server.ThreadingHTTPServer):
        block_on_close = False  # A handler may wait for an answer that never comes.

        def handle_error(self, request: object, client_address: object) -> None:
            """Log nothing: clients that leave are part of some tests."""

    with Server(("127.0.0.1", port), Handler) as server:
        sink.port = server.server_port
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate.file, certificate.key_file)
            if wants_client:
                context.load_verify_locations(certificate.file)
                context.verify_mode = ssl.CERT_REQUIRED
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _partial(answer: Answer) -> ExportTraceServiceResponse:
    partial = ExportTracePartialSuccess(rejected_spans=answer.rejected, error_message=answer.message)
    has_partial = answer.rejected or answer.message
    return ExportTraceServiceResponse(partial_success=partial if has_partial else None)
