"""The bench measures the cost of all spans: it notices one that does not arrive."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import cast

import grpc
import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from plait.v1 import graph_pb2
from plait_server.adapters.otlp import tracing
from plait_server.bench import graphs
from plait_server.bench.sink import EXPORT, Behavior, Sink, run_sink
from plait_server.bench.site import BenchFailed
from plait_server.bench.traced import NOT_TRACED, spans_of
from plait_server.bench.troubles import BEGUN, OVER
from plait_server.telemetry import span_exporter


@pytest.fixture(scope="module")
def sink() -> Generator[Sink]:
    with run_sink() as sink:
        yield sink


def export(sink: Sink, *names: str, timeout_s: float = 10.0) -> None:
    """Send spans, with ids by their places."""
    data = trace_pb2.TracesData()
    spans = data.resource_spans.add().scope_spans.add().spans
    for number, name in enumerate(names):
        spans.add(name=name, trace_id=bytes(16), span_id=number.to_bytes(8, "big"))
    with grpc.insecure_channel(f"127.0.0.1:{sink.port}") as channel:
        call = cast("Callable[..., bytes]", channel.unary_unary(EXPORT))
        call(data.SerializeToString(), timeout=timeout_s)


def test_a_sink_counts_different_spans_by_the_first_word_of_their_names(sink: Sink) -> None:
    sink.clear()
    export(sink, "node a", "node b", "execution")
    export(sink, "node a")
    counted = sink.count()
    assert counted.requests == 2
    assert counted.bytes > 0
    assert counted.spans == {"node": 2, "execution": 1}
    assert counted.lacks({"node": 3, "execution": 1, "branch": 1}) == {"node": 1, "branch": 1}
    sink.clear()
    assert sink.count().spans == {}


def test_missing_spans_fail_the_bench(sink: Sink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plait_server.bench.sink._STALLED_S", 0.0)
    sink.clear()
    export(sink, "node a", "node b")
    assert sink.wait_spans({"node": 2}).spans == {"node": 2}
    with pytest.raises(BenchFailed, match=r"these did not arrive: {'node': 1}"):
        sink.wait_spans({"node": 3})


@pytest.mark.parametrize(
    ("behavior", "code"),
    [
        (Behavior.REFUSING, grpc.StatusCode.PERMISSION_DENIED),
        (Behavior.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE),
        (Behavior.SILENT, grpc.StatusCode.DEADLINE_EXCEEDED),
        (Behavior.SLOW, grpc.StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_a_sink_in_trouble_keeps_nothing(sink: Sink, behavior: Behavior, code: grpc.StatusCode) -> None:
    sink.clear()
    sink.behave(behavior)
    try:
        with pytest.raises(grpc.RpcError) as caught:
            export(sink, "node a", timeout_s=0.1 if code is grpc.StatusCode.DEADLINE_EXCEEDED else 10.0)
    finally:
        sink.behave(Behavior.TAKE)
    assert cast("grpc.Call", caught.value).code() is code
    assert sink.count().requests == 0


@pytest.mark.parametrize(
    ("graph", "spans"),
    [
        (graphs.single(), {"execution": 1, "branch": 0, "node": 1, "attempt": 1}),
        (graphs.chain(3), {"execution": 1, "branch": 0, "node": 3, "attempt": 3}),
        (graphs.diamond(), {"execution": 1, "branch": 3, "node": 5, "attempt": 5}),
        (graphs.sleepers(4, 0.0), {"execution": 1, "branch": 4, "node": 4, "attempt": 4}),
    ],
)
def test_the_spans_of_a_graph_are_known(graph: graph_pb2.Graph, spans: dict[str, int]) -> None:
    assert spans_of(graph) == spans
    assert spans_of(graph, 3) == {word: 3 * count for word, count in spans.items()}


def test_lines_that_the_bench_looks_for_in_logs_are_those_that_are_logged() -> None:
    exporter = Path(span_exporter.__file__).read_text(encoding="utf-8")
    assert BEGUN.search(exporter)
    assert OVER.search(exporter.replace("%d", "0"))
    assert NOT_TRACED in Path(tracing.__file__).read_text(encoding="utf-8")
