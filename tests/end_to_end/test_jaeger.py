"""Traces as a person sees them: the spans of servers, workers and callers, read back from a real Jaeger."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.trace.v1 import trace_pb2
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import format_span_id, format_trace_id

from plait.v1 import insight_service_pb2, insight_service_pb2_grpc
from plait_client import Client, parse_graph
from tests.end_to_end import span_tree
from tests.end_to_end.collectors import (
    Collector,
    SeenSpan,
    read_spans,
    running_collector,
    wait_for_trace,
)
from tests.end_to_end.processes import ROOT, Process
from tests.end_to_end.service import CALL_S, Service, outcome
from tests.end_to_end.stage import Stage
from tests.end_to_end.traced_graphs import EVERYTHING, NESTED, SIDE_BY_SIDE, TREE

WORKER = "tests.end_to_end.live_worker:worker"
TASK_TYPES = ("echo", "fail", "raise", "staged", "stubborn")


class Site:
    """A server and its workers, all of which send spans, as `plait serve` and `plait_worker` are run."""

    def __init__(self, folder: Path, collector: Collector, stage: Stage, *, delay_ms: int = 50) -> None:
        self.folder = folder
        self.collector = collector
        common = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint, "STAGE": stage.address}
        self.environment = common | {"OTEL_BSP_SCHEDULE_DELAY": str(delay_ms)}
        self.listen = "127.0.0.1:0"
        self.server = self._serve()
        self.listen = self.address = self.server.first_line().split()[-1]
        self.workers = Process(
            folder / "worker.log",
            "plait_worker",
            WORKER,
            *("--connect", self.address, "--worker-id", "live", "--processes", "2"),
            # They send every five seconds unless told otherwise.
            env=common | {"OTEL_BSP_SCHEDULE_DELAY": "50"},
        )

    def _serve(self) -> Process:
        arguments = ("--listen", self.listen, "--store", str(self.folder / "plait.db"), "--create")
        # So that the second of two nodes of this type waits.
        limits = ("--types", "stubborn.max_concurrency=1")
        log = self.folder / "server.log"
        return Process(log, "plait_server", "serve", *arguments, *limits, env=self.environment)

    def restart(self) -> None:
        """Kill -9 the server, and start another one on its store."""
        self.server.kill()
        self.server = self._serve()
        assert self.server.first_line()

    def close(self) -> None:
        """End all in order, so that what they have yet to send is sent."""
        self.workers.terminate()
        self.server.terminate()
        self.workers.__exit__(None, None, None)
        self.server.__exit__(None, None, None)


class Caller:
    """A service that is traced, and submits executions within spans of its own."""

    def __init__(self, site: Site) -> None:
        self.address = site.address
        self._site = site
        self._service = Service(site.address)
        self._client = Client(site.address)
        self._provider = TracerProvider(resource=Resource({"service.name": "shop"}))
        exporter = OTLPSpanExporter(endpoint=site.collector.endpoint, insecure=True)
        self._provider.add_span_processor(SimpleSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("shop")

    def run(
        self, graph: str, act: Callable[[str], None], *, before_reading: Callable[[], None] = lambda: None
    ) -> Execution:
        """Run an execution within a span in a trace of its own; return it when its spans have come."""
        with self._tracer.start_as_current_span("order") as span:
            execution_id = self._client.submit(parse_graph(graph)).execution_id
            act(execution_id)
            ended = self._service.wait(execution_id)
        context = span.get_span_context()
        exported = self.export(execution_id)
        before_reading()
        expected = {format_span_id(context.span_id), *(each.span_id for each in exported)}
        spans = wait_for_trace(
            self._site.collector,
            format_trace_id(context.trace_id),
            lambda spans: not span_tree.missing(spans, expected),
        )
        return Execution(outcome=outcome(ended), spans=spans, exported=exported)

    def export(self, execution_id: str) -> list[SeenSpan]:
        """Write the trace again from the journal."""
        stub = insight_service_pb2_grpc.InsightServiceStub(self._service.channel)
        request = insight_service_pb2.ExportTraceRequest(execution_id=execution_id)
        parts = [
            trace_pb2.TracesData.FromString(part.traces_data)
            for part in stub.ExportTrace(request, timeout=CALL_S)
        ]
        return [span for part in parts for _, span in read_spans(part.resource_spans)]

    def close(self) -> None:
        self._provider.shutdown()
        self._client.close()
        self._service.channel.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Execution:
    """An execution that has ended, as it is seen from outside."""

    outcome: str
    spans: Sequence[SeenSpan]
    """Those that the collector has of its trace, by start."""
    exported: Sequence[SeenSpan]
    """Those that ExportTrace gives."""

    def node(self, node_id: str) -> SeenSpan:
        """Return the span of a node."""
        return self.find("node ", "node.id", node_id)

    def find(self, name: str, attribute: str, value: object) -> SeenSpan:
        """Return the one span whose name begins so and that has this attribute of Plait's."""
        (span,) = (span for span in self.spans if span.name.startswith(name) and span.get(attribute) == value)
        return span

    def check(self) -> None:
        """Check what holds of every execution, and that the journal gives the same spans again, to the bit."""
        span_tree.check(self.spans, task_types=TASK_TYPES)
        sent = {
            span.span_id: replace(span, warnings=())
            for span in self.spans
            if span.service == span_tree.SERVER
        }
        assert sent == {span.span_id: replace(span, warnings=()) for span in self.exported}


@pytest.fixture(scope="module")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Generator[Collector]:
    with running_collector(tmp_path_factory.mktemp("collector")) as collector:
        yield collector


@pytest.fixture(scope="module")
def site(collector: Collector, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    site = Site(tmp_path_factory.mktemp("site"), collector, stage)
    yield site
    site.close()


@pytest.fixture(scope="module")
def caller(site: Site) -> Generator[Caller]:
    caller = Caller(site)
    yield caller
    caller.close()


@pytest.fixture(scope="module")
def everything(caller: Caller, stage: Stage) -> Execution:
    """Run a graph in which everything happens."""

    def act(execution_id: str) -> None:
        actors = stage.take(execution_id, 4)
        assert sorted(actors) == ["fast", "first", "lazy", "slow"]
        actors["lazy"].wait_for("cancelled")
        actors["fast"].answer("quick")
        actors["slow"].wait_for("cancelled")
        actors["first"].answer()
        stage.next(execution_id).answer()

    execution = caller.run(EVERYTHING, act)
    assert execution.outcome == "SUCCEEDED"
    return execution


def test_collector_is_a_real_jaeger_if_one_is_built(collector: Collector) -> None:
    if not collector.is_jaeger:
        pytest.skip(
            "no Jaeger is built (scripts/jaeger does, with Go); these tests read an OTLP sink instead"
        )


def test_every_branch_is_a_tree_below_the_caller_s_span(everything: Execution) -> None:
    """B2, B2.1: execution, branch, node, attempt, and the worker's span; links of joins; failures alone are errors."""
    assert span_tree.draw(everything.spans) == inspect.cleandoc(TREE)
    everything.check()


def test_graphs_in_nodes_lie_below_these_nodes(caller: Caller) -> None:
    """B2: the nodes of a scope, and the branches that it opens, are below the span of its node."""
    execution = caller.run(NESTED, lambda _: None)
    assert span_tree.draw(execution.spans) == inspect.cleandoc("""
        order
          execution nested SUCCEEDED
            node echo: first SUCCEEDED
              attempt echo: 1 SUCCEEDED
                handle echo
            node subgraph: outer SUCCEEDED
              branch 0-001
                node echo: outer/left SUCCEEDED
                  attempt echo: 1 SUCCEEDED
                    handle echo
              branch 0-002
                node subgraph: outer/right SUCCEEDED
                  node fail: outer/right/flaky SUCCEEDED
                    attempt fail: 1 FAILED ! UNAVAILABLE
                      handle fail ! UNAVAILABLE
                    attempt fail: 2 SUCCEEDED
                      handle fail
              node transform: outer/join SUCCEEDED <- left right
        """)
    execution.check()
    (whole,) = (span.attributes for span in execution.spans if span.name == "execution")
    inner = [
        execution.find("node ", "node.path", path) for path in ("first", "outer/left", "outer/right/flaky")
    ]
    # The nodes that graphs are in are not counted beside what is in them.
    longest_s = sum(span.end_us - span.start_us for span in inner) / 1e6
    length_s, work_s = (float(str(whole[f"plait.{name}"])) for name in ("critical_path_s", "node_time_s"))
    assert length_s <= work_s <= longest_s


def test_the_wait_for_capacity_is_a_span_of_its_own(everything: Execution) -> None:
    """B2: below the node, from when the node was ready to when its attempt began."""
    node = everything.node("second")
    queue = everything.find("queue ", "node.path", "second")
    attempt = everything.find("attempt ", "node.path", "second")
    assert queue.name == "queue stubborn"
    assert queue.parent_id == attempt.parent_id == node.span_id
    assert (queue.start_us, queue.end_us) == (node.start_us, attempt.start_us)
    assert attempt["plait.queue_s"] == pytest.approx((queue.end_us - queue.start_us) / 1e6)
    # It waited for the other, which held the only permit of their type.
    first = everything.find("attempt ", "node.path", "first")
    assert first.end_us <= attempt.start_us


def test_spans_have_their_attributes(everything: Execution) -> None:
    """B3: the attributes that a person filters by."""
    (execution,) = (span for span in everything.spans if span.name == "execution")
    common = {
        "plait.namespace": "default",
        "plait.execution.id": execution["plait.execution.id"],
        "plait.run": 1,
    }
    for span in everything.spans:
        if span.service == span_tree.SERVER:
            assert common.items() <= span.attributes.items(), span
    figures = {
        name: execution.attributes[f"plait.{name}"] for name in ("critical_path_s", "node_time_s", "speedup")
    }
    assert all(isinstance(figure, float) and figure > 0 for figure in figures.values()), figures
    assert execution.attributes == common | {f"plait.{name}": figure for name, figure in figures.items()} | {
        "plait.graph.name": "everything",
        "plait.execution.state": "SUCCEEDED",
        "plait.node.count": 20,
        "plait.limit": 10,
        "plait.branch.id": "0",
    }
    assert everything.node("left").attributes == common | {
        "plait.node.id": "left",
        "plait.node.path": "left",
        "plait.node.kind": "task",
        "plait.node.type": "echo",
        "plait.node.level": 1,
        "plait.branch.id": "0-001",
        "plait.branch.name": "left side",
        "plait.node.state": "SUCCEEDED",
        "plait.attempt.count": 1,
    }
    attempt = everything.find("attempt ", "node.path", "deep")
    worker = {name: attempt[f"plait.worker.{name}"] for name in ("id", "instance_id")}
    assert worker["id"] in ("live-1", "live-2")
    assert attempt.attributes == common | {f"plait.worker.{name}": text for name, text in worker.items()} | {
        "plait.node.path": "deep",
        "plait.node.type": "echo",
        "plait.branch.id": "0-001-001",
        "plait.attempt.number": 1,
        "plait.attempt.outcome": "SUCCEEDED",
        "plait.queue_s": attempt["plait.queue_s"],
    }


def test_every_name_is_documented(everything: Execution) -> None:
    documented = (ROOT / "docs/tracing.md").read_text(encoding="utf-8")
    for span in everything.spans:
        if span.service in (span_tree.SERVER, span_tree.WORKER):
            words = [span.name.partition(" ")[0], *span.attributes, *(name for name, _ in span.events)]
            assert [
                word for word in words if f"`{word}`" not in documented and f"`{word} TYPE`" not in documented
            ] == []


def test_a_failure_shows_its_code_and_its_message(everything: Execution) -> None:
    """B2.1: as status, as attribute, and as an event of the kind that exceptions have."""
    for span in (everything.node("risky"), everything.find("attempt ", "node.path", "risky")):
        assert span.status == "ERROR"
        assert "LookupError: broken" in span.message
        assert span["error.type"] == "UNKNOWN"


def test_a_cancelled_execution_has_no_error_in_its_trace(caller: Caller, stage: Stage) -> None:
    """B2.1: cancelled is no failure. What never began has a span too, for it ended."""

    def act(execution_id: str) -> None:
        actors = stage.take(execution_id, 2)
        with Service(caller.address) as service:
            service.cancel(execution_id, "no longer wanted")
        for actor in actors.values():
            actor.wait_for("cancelled")

    execution = caller.run(SIDE_BY_SIDE, act)
    assert span_tree.draw(execution.spans) == inspect.cleandoc("""
        order
          execution side-by-side CANCELLED no longer wanted
            branch 0-001
              node echo: after CANCELLED
              node staged: one CANCELLED
                attempt staged: 1 CANCELLED
                  handle staged
            branch 0-002
              node staged: other CANCELLED
                attempt staged: 1 CANCELLED
                  handle staged
        """)
    execution.check()


def test_a_failure_that_stops_the_rest_is_the_execution_s_error(caller: Caller, stage: Stage) -> None:
    """B2.1, E4: what was aborted is no failure."""

    def act(execution_id: str) -> None:
        actors = stage.take(execution_id, 2)
        actors["one"].fail("PAYMENT_REFUSED", "the card has expired")
        actors["other"].wait_for("cancelled")

    execution = caller.run(SIDE_BY_SIDE, act)
    assert span_tree.draw(execution.spans) == inspect.cleandoc("""
        order
          execution side-by-side FAILED PAYMENT_REFUSED ! PAYMENT_REFUSED
            branch 0-001
              node staged: one FAILED PAYMENT_REFUSED ! PAYMENT_REFUSED
                attempt staged: 1 FAILED ! PAYMENT_REFUSED
                  handle staged ! PAYMENT_REFUSED
            branch 0-002
              node staged: other IDLE SIBLING_FAILED
                attempt staged: 1 ABORTED
                  handle staged
        """)
    execution.check()


@pytest.mark.parametrize("delay_ms", [1, 3_600_000], ids=["sent before", "not yet sent"])
def test_no_span_is_missing_or_different_after_kills(
    collector: Collector, stage: Stage, tmp_path: Path, delay_ms: int
) -> None:
    """B2.1: kill -9 right after results became durable, while other nodes run; twice in one execution."""
    site = Site(tmp_path, collector, stage, delay_ms=delay_ms)
    try:
        caller = Caller(site)

        def act(execution_id: str) -> None:
            actors = stage.take(execution_id, 4)
            actors["fast"].answer("quick")
            actors["slow"].wait_for("cancelled")
            site.restart()
            actors["first"].answer()
            second = stage.next(execution_id)
            site.restart()
            second.answer()

        # A server that ends sends what it has.
        execution = caller.run(EVERYTHING, act, before_reading=site.close)
        caller.close()
    finally:
        site.close()
    assert execution.outcome == "SUCCEEDED"
    assert span_tree.draw(execution.spans) == inspect.cleandoc(TREE)
    execution.check()
