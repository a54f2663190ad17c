"""Sending by OTLP to a real collector over gRPC and HTTP, from trio and at once."""

from __future__ import annotations

import gc
import socket
import struct
import threading
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from pathlib import Path

import grpc
import pytest
import trio

from plait_server.adapters.otlp.answers import ANSWER_BYTES_MAX
from plait_server.adapters.otlp.grpc_sender import GrpcSender
from plait_server.adapters.otlp.http_sender import HttpSender
from plait_server.adapters.otlp.send_once import send_once
from plait_server.adapters.otlp.settings import InvalidSetting, OtlpProtocol, OtlpSettings, read_settings
from plait_server.ports.span_sender import SendFailed, Sent, SpanSender
from plait_server.runtime.asyncio_bridge import callable_from_trio, open_loop
from plait_server.telemetry.span_exporter import SpanExporter
from tests.adapters.otlp_sinks import (
    Answer,
    Certificate,
    Opener,
    Sink,
    make_certificate,
    open_grpc_sink,
    open_http_sink,
)

OPENERS: dict[str, Opener] = {"grpc": open_grpc_sink, "http/protobuf": open_http_sink}
BOTH = pytest.mark.parametrize("protocol", OPENERS)
REQUEST = b"\x0a\x00"


def settings_for(protocol: str, port: int, *, scheme: str = "http", **options: str) -> OtlpSettings:
    found = read_settings(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"{scheme}://localhost:{port}",
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            **{f"OTEL_EXPORTER_OTLP_{name}": value for name, value in options.items()},
        }
    )
    assert found is not None
    return found


def make_sender(settings: OtlpSettings) -> SpanSender:
    if settings.protocol is OtlpProtocol.GRPC:
        return GrpcSender(settings, callable_from_trio, "plait/test")
    return HttpSender(settings, "plait/test")


@asynccontextmanager
async def sending(settings: OtlpSettings) -> AsyncGenerator[SpanSender]:
    async with open_loop():
        sender = make_sender(settings)
        try:
            yield sender
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + 5):
                await sender.aclose()


async def send_both_ways(settings: OtlpSettings, request: bytes = REQUEST) -> list[Sent | SendFailed]:
    """Send by a server's sender and by a command's."""
    outcomes: list[Sent | SendFailed] = []
    async with sending(settings) as sender:
        try:
            outcomes.append(await sender.send(request))
        except SendFailed as failure:
            outcomes.append(failure)
    try:
        outcomes.append(await trio.to_thread.run_sync(partial(send_once, settings, request, "plait/test")))
    except SendFailed as failure:
        outcomes.append(failure)
    return outcomes


@contextmanager
def released() -> Generator[threading.Event]:
    """Return an event that is set at the end, to release blocked sinks."""
    event = threading.Event()
    try:
        yield event
    finally:
        event.set()


@BOTH
async def test_a_request_arrives_as_it_is(protocol: str) -> None:
    sink = Sink()
    with OPENERS[protocol](sink):
        assert await send_both_ways(settings_for(protocol, sink.port)) == [Sent(), Sent()]
    assert sink.requests == [REQUEST, REQUEST]
    assert all(headers["user-agent"].startswith("plait/test") for headers in sink.headers)
    if protocol != "grpc":
        assert [headers[":path"] for headers in sink.headers] == ["/v1/traces"] * 2
        assert [headers["content-type"] for headers in sink.headers] == ["application/x-protobuf"] * 2


@BOTH
async def test_headers_are_sent(protocol: str) -> None:
    sink = Sink()
    with OPENERS[protocol](sink):
        await send_both_ways(settings_for(protocol, sink.port, HEADERS="API-Key=a%20b%3D,x-scope=7"))
    assert [(headers["api-key"], headers["x-scope"]) for headers in sink.headers] == [("a b=", "7")] * 2


@BOTH
async def test_large_requests_are_compressed(protocol: str) -> None:
    sink = Sink()
    request = b"".join(bytes([number % 7]) for number in range(3_000_000))
    with OPENERS[protocol](sink):
        await send_both_ways(settings_for(protocol, sink.port, COMPRESSION="gzip"), request)
    assert [len(content) for content in sink.requests] == [len(request)] * 2
    assert sink.requests == [request] * 2
    if protocol != "grpc":
        assert all(int(headers["content-length"]) < len(request) / 10 for headers in sink.headers)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls"))


@BOTH
async def test_tls_with_a_self_signed_certificate(protocol: str, certificate: Certificate) -> None:
    sink = Sink()
    trusting = {"scheme": "https", "CERTIFICATE": str(certificate.file)}
    with OPENERS[protocol](sink, certificate=certificate):
        assert await send_both_ways(settings_for(protocol, sink.port, **trusting)) == [Sent(), Sent()]
        for outcome in await send_both_ways(settings_for(protocol, sink.port, scheme="https")):
            assert isinstance(outcome, SendFailed)
            assert "certificate" in str(outcome).lower()
    assert len(sink.requests) == 2


@BOTH
async def test_tls_with_a_client_certificate(protocol: str, certificate: Certificate) -> None:
    sink = Sink()
    trusting = {"scheme": "https", "CERTIFICATE": str(certificate.file)}
    own = {"CLIENT_KEY": str(certificate.key_file), "CLIENT_CERTIFICATE": str(certificate.file)}
    with OPENERS[protocol](sink, certificate=certificate, wants_client=True):
        assert await send_both_ways(settings_for(protocol, sink.port, **trusting, **own)) == [Sent(), Sent()]
        for outcome in await send_both_ways(settings_for(protocol, sink.port, **trusting)):
            assert isinstance(outcome, SendFailed)
    assert len(sink.requests) == 2


@BOTH
async def test_missing_certificate_file_is_named(protocol: str, tmp_path: Path) -> None:
    settings = settings_for(protocol, 1, scheme="https", CERTIFICATE=str(tmp_path / "none.pem"))
    with pytest.raises(InvalidSetting, match=r"none\.pem"):
        send_once(settings, REQUEST, "plait/test")
    async with open_loop():
        with pytest.raises(InvalidSetting, match=r"none\.pem"):
            make_sender(settings)


@BOTH
async def test_a_partial_success_is_reported(protocol: str) -> None:
    sink = Sink()
    sink.answer = lambda _: Answer(rejected=3, message="too old")
    with OPENERS[protocol](sink):
        outcomes = await send_both_ways(settings_for(protocol, sink.port))
    assert outcomes == [Sent(rejected=3, message="too old")] * 2


RETRYABLE = [
    *(
        Answer(code=getattr(grpc.StatusCode, name), status=status)
        for name, status in (
            ("UNAVAILABLE", 503),
            ("CANCELLED", 502),
            ("DEADLINE_EXCEEDED", 504),
            ("ABORTED", 429),
            ("OUT_OF_RANGE", 429),
            ("DATA_LOSS", 503),
        )
    ),
    Answer(code=grpc.StatusCode.RESOURCE_EXHAUSTED, status=429, retry_after_s=7),
]
FINAL = [
    Answer(code=getattr(grpc.StatusCode, name), status=status)
    for name, status in (
        ("PERMISSION_DENIED", 403),
        ("UNAUTHENTICATED", 401),
        ("INVALID_ARGUMENT", 400),
        ("UNIMPLEMENTED", 404),
        ("RESOURCE_EXHAUSTED", 413),
        ("INTERNAL", 500),
        ("UNKNOWN", 408),
    )
]


@BOTH
@pytest.mark.parametrize(
    ("answer", "is_retryable"),
    [*((answer, True) for answer in RETRYABLE), *((answer, False) for answer in FINAL)],
    ids=lambda value: value.code.name if isinstance(value, Answer) else str(value),
)
async def test_retries_follow_the_specification(protocol: str, answer: Answer, is_retryable: bool) -> None:
    sink = Sink()
    sink.answer = lambda _: answer
    with OPENERS[protocol](sink):
        settings = settings_for(protocol, sink.port)
        for outcome in await send_both_ways(settings):
            assert isinstance(outcome, SendFailed)
            assert outcome.is_retryable is is_retryable
            assert outcome.retry_after_s == answer.retry_after_s
            assert (answer.code.name if protocol == "grpc" else str(answer.status)) in str(outcome)
    assert len(sink.requests) == 2


@BOTH
async def test_reason_of_the_collector_is_in_the_message_and_cut(protocol: str) -> None:
    sink = Sink()
    reason = "the tenant is unknown" + 1_000 * "!"
    sink.answer = lambda _: Answer(code=grpc.StatusCode.PERMISSION_DENIED, status=403, message=reason)
    with OPENERS[protocol](sink):
        for outcome in await send_both_ways(settings_for(protocol, sink.port)):
            assert "the tenant is unknown!" in str(outcome)
            assert len(str(outcome)) < 500


@BOTH
async def test_collector_that_comes_back_is_reached_again(protocol: str) -> None:
    """The port is closed at first; the sender is the same."""
    sink = Sink()
    with OPENERS[protocol](sink):
        port = sink.port
    settings = settings_for(protocol, port)
    async with sending(settings) as sender:
        with pytest.raises(SendFailed) as caught:
            await sender.send(REQUEST)
        assert caught.value.is_retryable
        with OPENERS[protocol](sink, port):
            # gRPC connects again by itself within 200 ms, and fails until then.
            with trio.fail_after(30):
                while True:
                    try:
                        assert await sender.send(REQUEST) == Sent()
                        break
                    except SendFailed:
                        await trio.sleep(0.02)
    with pytest.raises(SendFailed, match=str(port)):
        send_once(settings, REQUEST, "plait/test")


@BOTH
async def test_request_that_is_never_answered_can_be_cancelled(protocol: str) -> None:
    sink = Sink()
    with released() as event:

        def never(_: bytes) -> Answer:
            event.wait()
            return Answer()

        sink.answer = never
        with OPENERS[protocol](sink):
            async with sending(settings_for(protocol, sink.port)) as sender:
                with trio.move_on_after(0.05) as scope:
                    await sender.send(REQUEST)
                assert scope.cancelled_caught
                sink.answer = lambda _: Answer()
                with trio.fail_after(30):
                    assert await sender.send(REQUEST) == Sent()
            sink.answer = never
            with pytest.raises(SendFailed):
                send_once(settings_for(protocol, sink.port, TIMEOUT="50"), REQUEST, "plait/test")
            event.set()


@BOTH
async def test_a_large_answer_is_not_read(protocol: str) -> None:
    """An answer is a count and a message; a large one must not fill the memory."""
    sink = Sink()
    sink.answer = lambda _: Answer(body=b"\x0a" + bytes(100 * ANSWER_BYTES_MAX))
    with OPENERS[protocol](sink):
        for outcome in await send_both_ways(settings_for(protocol, sink.port)):
            if protocol == "grpc":
                assert isinstance(outcome, SendFailed)
                assert not outcome.is_retryable
            else:
                assert outcome == Sent()  # It was taken; what was rejected is not known.


@BOTH
async def test_answer_that_is_not_otlp_is_a_failure(protocol: str) -> None:
    sink = Sink()
    sink.answer = lambda _: Answer(body=b"\xff\xff\xff")
    with OPENERS[protocol](sink):
        for outcome in await send_both_ways(settings_for(protocol, sink.port)):
            assert isinstance(outcome, SendFailed)
            assert "collector" in str(outcome)


# What HTTP has alone.


async def test_http_connection_that_breaks_in_the_middle_of_a_request_leaves_nothing_behind() -> None:
    """An async generator that is not exhausted is collected with a warning, which is an error here."""

    async def hang_up(stream: trio.SocketStream) -> None:
        await stream.receive_some(1)
        stream.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )  # resets the connection
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, hang_up, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        settings = read_settings(
            {
                "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            }
        )
        assert settings is not None
        async with sending(settings) as sender:
            with pytest.raises(SendFailed) as caught:
                await sender.send(bytes(16 * 2**20))
        assert caught.value.is_retryable
        nursery.cancel_scope.cancel()
    del caught
    gc.collect()


async def test_http_follows_no_redirect() -> None:
    sink, other = Sink(), Sink()
    with open_http_sink(other), open_http_sink(sink):
        target = f"http://localhost:{other.port}/v1/traces"
        sink.answer = lambda _: Answer(status=307, headers={"location": target})
        for outcome in await send_both_ways(settings_for("http/protobuf", sink.port)):
            assert isinstance(outcome, SendFailed)
            assert not outcome.is_retryable
            assert target in str(outcome)
    assert other.requests == []


async def test_http_answer_in_json_is_a_success() -> None:
    sink = Sink()
    sink.answer = lambda _: Answer(body=b"{}", headers={"content-type": "application/json"})
    with open_http_sink(sink):
        assert await send_both_ways(settings_for("http/protobuf", sink.port)) == [Sent(), Sent()]


async def test_http_answers_are_not_decompressed() -> None:
    """A few bytes may decompress to many."""
    sink = Sink()
    sink.answer = lambda _: Answer(body=b"\x1f\x8b", headers={"content-encoding": "gzip"})
    with open_http_sink(sink):
        assert await send_both_ways(settings_for("http/protobuf", sink.port)) == [Sent(), Sent()]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("120", 120.0), ("Fri, 01 Jan 1999 00:00:00 GMT", 0.0), ("soon", None), ("-5", None)],
)
async def test_http_retry_after_is_seconds_or_a_date(text: str, seconds: float | None) -> None:
    sink = Sink()
    sink.answer = lambda _: Answer(status=503, headers={"retry-after": text})
    with open_http_sink(sink):
        for outcome in await send_both_ways(settings_for("http/protobuf", sink.port)):
            assert isinstance(outcome, SendFailed)
            assert outcome.retry_after_s == seconds


async def test_http_web_page_is_not_a_success() -> None:
    """Some web servers answer any request with their front page."""
    sink = Sink()
    sink.answer = lambda _: Answer(body=b"<html>", headers={"content-type": "text/html; charset=utf-8"})
    with open_http_sink(sink):
        for outcome in await send_both_ways(settings_for("http/protobuf", sink.port)):
            assert isinstance(outcome, SendFailed)
            assert "is not a collector" in str(outcome)


async def test_http_at_a_grpc_port_is_a_failure_that_says_so() -> None:
    sink = Sink()
    with open_grpc_sink(sink):
        async with sending(settings_for("http/protobuf", sink.port)) as sender:
            with pytest.raises(SendFailed, match="it may speak gRPC"):
                await sender.send(REQUEST)


# The exporter and a sender together.


@BOTH
async def test_spans_arrive_after_a_refusal(protocol: str) -> None:
    """The collector is full once, then takes all; every batch arrives."""
    sink = Sink()
    answers = iter([Answer(code=grpc.StatusCode.UNAVAILABLE, status=503)])
    sink.answer = lambda _: next(answers, Answer())
    with OPENERS[protocol](sink):
        async with sending(settings_for(protocol, sink.port)) as sender, trio.open_nursery() as nursery:
            exporter = SpanExporter(sender, lambda: 0.0)
            await nursery.start(exporter.run)
            for _ in range(20):
                exporter.put_nowait(REQUEST, 5)
            with trio.fail_after(30):
                while exporter.statistics().queued:  # noqa: ASYNC110 -- Nobody else waits for the last one.
                    await trio.sleep(0.01)
            assert exporter.statistics().sent == 100
            nursery.cancel_scope.cancel()
    assert len(sink.requests) == 21
