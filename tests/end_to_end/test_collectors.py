"""`plait serve` beside collectors: healthy ones get every span, and others do not affect executions."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Generator
from pathlib import Path

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.adapters.otlp_sinks import Answer, Opener, Sink, open_grpc_sink, open_http_sink
from tests.end_to_end.processes import Process
from tests.end_to_end.service import Service, outcome

OPENERS: dict[str, Opener] = {"grpc": open_grpc_sink, "http/protobuf": open_http_sink}
BOTH = pytest.mark.parametrize("protocol", OPENERS)
NODES = 20
FAN_OUT = f"nodes: [{', '.join(f'{{id: n{number}, transform: }}' for number in range(NODES))}]"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
TROUBLE = "spans do not reach the collector"
LOST = "spans were not sent before the end"


@contextlib.contextmanager
def traced(log: Path, protocol: str, port: int, **variables: str) -> Generator[tuple[Process, Service, str]]:
    """Run a server that sends its spans to a port; yield what it announced about tracing, too."""
    env = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://localhost:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_BSP_SCHEDULE_DELAY": "10",
        **variables,
    }
    arguments = ("serve", "--listen", "127.0.0.1:0", "--store", ":memory:")
    with Process(log, "plait_server", *arguments, env=env) as process:
        line = process.first_line()
        assert line.startswith("Plait "), process.stderr()
        said = ""
        while not said.startswith("  traces"):
            said = process.first_line()
            assert said, "it did not say where the traces go"
        with Service(line.split()[-1]) as service:
            yield process, service, said


def spans_of(sink: Sink) -> list[Span]:
    requests = [ExportTraceServiceRequest.FromString(content) for content in sink.requests]
    resources = [resource for request in requests for resource in request.resource_spans]
    names = [
        {each.key: each.value.string_value for each in resource.resource.attributes} for resource in resources
    ]
    assert {name["service.name"] for name in names} == {"plait"}
    return [span for resource in resources for scope in resource.scope_spans for span in scope.spans]


@BOTH
def test_a_collector_has_every_span_when_the_server_has_stopped(protocol: str, log: Path) -> None:
    sink = Sink()
    with OPENERS[protocol](sink), traced(log, protocol, sink.port) as (process, service, said):
        assert f"localhost:{sink.port}" in said
        metadata = (("traceparent", TRACEPARENT),)
        assert outcome(service.wait(service.submit(FAN_OUT, metadata=metadata))) == "SUCCEEDED"
        assert process.terminate() == 0
        spans = spans_of(sink)
    assert {span.trace_id.hex() for span in spans} == {TRACEPARENT.split("-")[1]}
    (root,) = [span for span in spans if span.name == "execution"]
    assert root.parent_span_id.hex() == TRACEPARENT.split("-")[2]
    assert len([span for span in spans if span.name == "node transform"]) == NODES
    assert TROUBLE not in process.stderr()
    assert str(sink.port) not in process.stderr(), "a request is no news"


def test_what_a_sampler_leaves_out_is_not_sent(log: Path) -> None:
    sink = Sink()
    with (
        open_grpc_sink(sink),
        traced(log, "grpc", sink.port, OTEL_TRACES_SAMPLER="parentbased_always_off") as (process, service, _),
    ):
        assert outcome(service.run(FAN_OUT)) == "SUCCEEDED"
        metadata = (("traceparent", TRACEPARENT),)
        assert outcome(service.wait(service.submit(FAN_OUT, metadata=metadata))) == "SUCCEEDED"
        assert process.terminate() == 0
        spans = spans_of(sink)
    assert {span.trace_id.hex() for span in spans} == {TRACEPARENT.split("-")[1]}


REFUSING = Answer(code=grpc.StatusCode.PERMISSION_DENIED, status=403)
FULL = Answer(code=grpc.StatusCode.RESOURCE_EXHAUSTED, status=429, retry_after_s=3_600)


@pytest.mark.parametrize(
    ("protocol", "answer"),
    [("grpc", REFUSING), ("http/protobuf", FULL), ("grpc", None)],
    ids=["refusing", "full", "away"],
)
def test_a_collector_that_takes_nothing_costs_spans_alone(
    protocol: str, answer: Answer | None, log: Path
) -> None:
    """It is logged once when it begins, and once at the end."""
    sink = Sink()
    with contextlib.ExitStack() as stack:
        opened = OPENERS[protocol](sink)
        if answer is None:
            with opened:
                """Its port is free again."""
        else:
            sink.answer = lambda _: answer
            stack.enter_context(opened)
        process, service, _ = stack.enter_context(traced(log, protocol, sink.port))
        for _ in range(10):
            assert outcome(service.run(FAN_OUT)) == "SUCCEEDED"
        assert process.terminate() == 0
    assert bool(sink.requests) is (answer is not None)
    assert process.stderr().count(TROUBLE) == 1
    assert process.stderr().count(LOST) == 1


def test_a_collector_that_never_answers_holds_up_no_stop(log: Path) -> None:
    sink, event = Sink(), threading.Event()

    def never(_: bytes) -> Answer:
        event.wait()
        return Answer()

    sink.answer = never
    with open_http_sink(sink):
        try:
            with traced(log, "http/protobuf", sink.port) as (process, service, _):
                for _ in range(10):
                    assert outcome(service.run(FAN_OUT)) == "SUCCEEDED"
                assert process.terminate() == 0
        finally:
            event.set()
    assert process.stderr().count(LOST) == 1


def test_settings_that_cannot_be_used_are_warned_about_once(log: Path) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://nowhere:port"}
    arguments = ("serve", "--listen", "127.0.0.1:0", "--store", ":memory:")
    with Process(log, "plait_server", *arguments, env=env) as process:
        line = process.first_line()
        with Service(line.split()[-1]) as service:
            assert outcome(service.run(FAN_OUT)) == "SUCCEEDED"
        assert process.terminate() == 0
    assert (
        process.stderr().count("spans are not sent: the OTLP endpoint 'http://nowhere:port' is not a URL")
        == 1
    )
