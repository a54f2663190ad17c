"""The collector of a test: a real Jaeger, or an OTLP sink if no Jaeger has been built."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol, cast

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.common.v1 import common_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.end_to_end.processes import ROOT

HANG_S = 60.0
"""No test waits this long unless spans are missing."""
_POLL_S = 0.05
"""The time between two queries of a Jaeger, which does not tell when it has stored something."""
_JAEGER_STARTS_MAX = 3
"""A port that was free may be taken before Jaeger listens on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenSpan:
    """A span as a collector has it; of Jaeger's own additions only `warnings` is left."""

    trace_id: str
    span_id: str
    parent_id: str
    """Empty if it has none."""
    service: str
    name: str
    kind: str
    """In lower case: internal, server, client, consumer."""
    start_us: int
    end_us: int
    status: str
    """UNSET, OK or ERROR."""
    message: str
    attributes: Mapping[str, object]
    links: Sequence[tuple[str, str]]
    """Trace and span ids, in the order in which they came."""
    events: Sequence[tuple[str, Mapping[str, object]]]
    warnings: Sequence[str] = ()

    def __getitem__(self, attribute: str) -> object:
        return self.attributes[attribute]

    def get(self, attribute: str) -> object:
        """Return an attribute of Plait's, named without `plait.`; None if the span lacks it."""
        return self.attributes.get(f"plait.{attribute}")


class Collector(Protocol):
    """Accepts spans, and returns them."""

    endpoint: str
    """The value for OTEL_EXPORTER_OTLP_ENDPOINT."""
    is_jaeger: bool

    def spans(self, trace_id: str) -> list[SeenSpan]:
        """Return the spans of a trace that have arrived, by start."""
        ...

    def wait_for_more(self) -> None:
        """Wait a short time for more spans."""
        ...


def wait_for_trace(
    collector: Collector, trace_id: str, is_whole: Callable[[Sequence[SeenSpan]], bool]
) -> list[SeenSpan]:
    """Wait until a trace is whole; return its spans, by start."""
    deadline = time.monotonic() + HANG_S
    while not is_whole(spans := collector.spans(trace_id)):
        assert time.monotonic() < deadline, f"the trace never was whole: {spans}"
        collector.wait_for_more()
    return spans


def built_jaeger() -> str | None:
    """Return the path of the Jaeger that `scripts/jaeger` has built; None if it has not."""
    found = subprocess.run(
        ["scripts/jaeger", "--built"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=HANG_S
    )
    return found.stdout.strip() if found.returncode == 0 else None


class Sink(trace_service_pb2_grpc.TraceServiceServicer):
    """A collector that keeps the spans that it gets."""

    is_jaeger = False

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._contradictions: list[SeenSpan] = []
        self._spans: dict[tuple[str, str], tuple[bytes, SeenSpan]] = {}
        self._server = grpc.server(ThreadPoolExecutor(max_workers=4))
        # The package ships no types of its stub.
        cast("Any", trace_service_pb2_grpc).add_TraceServiceServicer_to_server(self, self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def Export(
        self, request: trace_service_pb2.ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> trace_service_pb2.ExportTraceServiceResponse:
        del context
        found = list(read_spans(request.resource_spans))
        with self._changed:
            for written, span in found:
                first, _ = self._spans.setdefault((span.trace_id, span.span_id), (written, span))
                if first != written:
                    self._contradictions.append(span)
            self._changed.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, trace_id: str) -> list[SeenSpan]:
        with self._changed:
            # One that is written twice is equal (B2.1).
            assert not self._contradictions
            seen = [span for _, span in self._spans.values() if span.trace_id == trace_id]
        return sorted(seen, key=_start_us)

    def wait_for_more(self) -> None:
        with self._changed:
            self._changed.wait(_POLL_S)

    def close(self) -> None:
        self._server.stop(None).wait()


class Jaeger:
    """A Jaeger process that stores traces in memory."""

    is_jaeger = True

    def __init__(self, binary: str, log: Path) -> None:
        self._log = log
        for _ in range(_JAEGER_STARTS_MAX):
            if self._start(binary):
                return
        raise AssertionError(f"Jaeger did not start:\n{log.read_text(errors='replace')[-4000:]}")

    def _start(self, binary: str) -> bool:
        names = (
            "collector.otlp.grpc",
            "collector.otlp.http",
            "collector.grpc-server",
            "collector.http-server",
            "query.http-server",
            "query.grpc-server",
            "admin.http",
        )
        addresses = {
            name: f"127.0.0.1:{port}" for name, port in zip(names, _free_ports(len(names)), strict=True)
        }
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [binary, *(f"--{name}.host-port={address}" for name, address in addresses.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )
        self.endpoint = f"http://{addresses['collector.otlp.grpc']}"
        self.address = f"http://{addresses['query.http-server']}"
        """The address of its API."""
        deadline = time.monotonic() + HANG_S
        while self._process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{addresses['admin.http']}/"):
                return True
            self.wait_for_more()
        self.close()
        return False

    def wait_for_more(self) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_POLL_S)

    def spans(self, trace_id: str) -> list[SeenSpan]:
        try:
            with urllib.request.urlopen(f"{self.address}/api/traces/{trace_id}") as answer:
                (trace,) = json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                if error.code != HTTPStatus.NOT_FOUND:
                    raise
            return []
        return sorted((_read_jaeger(span, trace["processes"]) for span in trace["spans"]), key=_start_us)

    def close(self) -> None:
        # Told to end it takes ten seconds, and it has nothing to lose.
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def running_collector(folder: Path) -> Generator[Collector]:
    """Run a Jaeger if one was built, else a sink."""
    binary = built_jaeger()
    collector = Jaeger(binary, folder / "jaeger.log") if binary else Sink()
    try:
        yield collector
    finally:
        collector.close()


def read_spans(
    resource_spans: Collection[trace_pb2.ResourceSpans],
) -> Generator[tuple[bytes, SeenSpan]]:
    """Read an OTLP request: yield each span as it was sent, and as tests compare it."""
    for resource in resource_spans:
        service = _read_attributes(resource.resource.attributes).get("service.name", "")
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield span.SerializeToString(deterministic=True), _read_otlp(span, str(service))


def _read_otlp(span: trace_pb2.Span, service: str) -> SeenSpan:
    status = span.status
    return SeenSpan(
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        service=service,
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        start_us=span.start_time_unix_nano // 1000,
        # As Jaeger has it: start and duration, each cut to microseconds.
        end_us=span.start_time_unix_nano // 1000
        + (span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
        status=trace_pb2.Status.StatusCode.Name(status.code).removeprefix("STATUS_CODE_"),
        message=status.message,
        attributes=_read_attributes(span.attributes),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        events=[(event.name, _read_attributes(event.attributes)) for event in span.events],
    )


def _read_attributes(attributes: Collection[common_pb2.KeyValue]) -> dict[str, object]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in attributes}


def _read_jaeger(span: Mapping[str, Any], processes: Mapping[str, Any]) -> SeenSpan:
    tags = _read_tags(span["tags"])
    parents = [each["spanID"] for each in span["references"] if each["refType"] == "CHILD_OF"]
    assert len(parents) <= 1, span
    status = str(tags.pop("otel.status_code", "UNSET"))
    # What makes a span red in Jaeger is a tag of its own.
    assert bool(tags.pop("error", False)) is (status == "ERROR"), span
    kind = str(tags.pop("span.kind", "internal"))
    message = str(tags.pop("otel.status_description", ""))
    for name in ("otel.scope.name", "otel.scope.version", "internal.span.format", "w3c.tracestate"):
        tags.pop(name, None)
    events: list[tuple[str, Mapping[str, object]]] = []
    for log in span["logs"]:
        fields = _read_tags(log["fields"])
        events.append((str(fields.pop("event", "")), fields))
    return SeenSpan(
        # Jaeger leaves leading zeros out.
        trace_id=span["traceID"].zfill(32),
        span_id=span["spanID"].zfill(16),
        parent_id=parents[0].zfill(16) if parents else "",
        service=processes[span["processID"]]["serviceName"],
        name=span["operationName"],
        kind=kind,
        start_us=span["startTime"],
        end_us=span["startTime"] + span["duration"],
        status=status,
        message=message,
        attributes=tags,
        links=[
            (each["traceID"].zfill(32), each["spanID"].zfill(16))
            for each in span["references"]
            if each["refType"] == "FOLLOWS_FROM"
        ],
        events=events,
        warnings=span["warnings"] or (),
    )


def _read_tags(tags: Collection[Mapping[str, Any]]) -> dict[str, object]:
    return {tag["key"]: tag["value"] for tag in tags}


def _start_us(span: SeenSpan) -> int:
    return span.start_us


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]
