"""ExportTrace: the trace of any execution is written again from its journal, equal each time (B2, B2.1)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest
import trio
from google.protobuf.message import Message
from opentelemetry.proto.trace.v1 import trace_pb2
from trio.testing import MockClock

from plait.v1 import insight_service_pb2
from plait_server.api.call import SLOW_S, Call
from plait_server.api.insight import EXPORTS_MAX, TURN_S, InsightServicer
from plait_server.core.definition.graph import Graph, RetryPolicy, Task
from plait_server.core.run.commands import AttemptResult
from plait_server.core.run.events import Event
from plait_server.core.run.failures import Failure
from plait_server.core.run.states import AttemptOutcome
from plait_server.core.run.trace import TraceContext
from plait_server.errors import EventDamaged, ExecutionNotFound, InvalidRequest, Overloaded, SlowConsumer
from plait_server.ports.workers import Assignment
from plait_server.telemetry.span_encoding import SpanEncoder
from plait_server.telemetry.spans import SpanFold
from tests.core.graph_text import build
from tests.runtime.world import NAMESPACE, Runtime, fails, hangs, result_of, returns, running

CALL = Call(method="/plait.v1.InsightService/ExportTrace", peer="test")
MIB = 1024 * 1024


def encoder() -> SpanEncoder:
    return SpanEncoder({"service.name": "plait"}, "1.2.3")


def servicer(runtime: Runtime) -> InsightServicer:
    return InsightServicer(runtime.supervisor, runtime.journal, encoder)


async def export(runtime: Runtime, execution_id: str = "x") -> list[bytes]:
    """Return the parts of a trace."""
    parts: list[bytes] = []

    async def send(message: Message | bytes) -> None:
        await trio.lowlevel.checkpoint()
        assert isinstance(message, insight_service_pb2.ExportTraceResponse)
        parts.append(message.traces_data)

    request = insight_service_pb2.ExportTraceRequest(namespace=NAMESPACE, execution_id=execution_id)
    await servicer(runtime).export_trace(request, CALL, send)
    return parts


def spans_of(parts: Sequence[bytes]) -> list[trace_pb2.Span]:
    spans: list[trace_pb2.Span] = []
    for part in parts:
        (of_resource,) = trace_pb2.TracesData.FromString(part).resource_spans
        (scope,) = of_resource.scope_spans
        spans += scope.spans
    return spans


def record_live(runtime: Runtime) -> list[bytes]:
    """Encode each span as it is made when its event became durable."""
    fold, live = SpanFold(), list[bytes]()

    def on_events(events: Sequence[Event]) -> None:
        executor = runtime.supervisor._locations.executor((NAMESPACE, "x"))
        assert executor is not None
        for event in events:
            for span in fold.after(NAMESPACE, executor.execution, event, {}):
                if span is not None:
                    each = encoder()
                    each.add(span)
                    live.extend(span.SerializeToString() for span in spans_of([each.take()]))

    runtime.observer.on_events = on_events
    return live


async def test_an_exported_trace_is_that_which_was_made_live(autojump_clock: MockClock) -> None:
    """B2.1: equal, to the bit, at each call."""
    scripts = {"b": fails(), "c": returns("1", after_s=2)}
    async with running(scripts=scripts) as runtime:
        live = record_live(runtime)
        await runtime.submit("a -> b, c; b -error-> d; node c retry=3; c, d -> e")
        await runtime.wait_ended()
        first, second = await export(runtime), await export(runtime)
        assert first == second
        assert [span.SerializeToString() for span in spans_of(first)] == live
        names = {span.name for span in spans_of(first)}
        assert names == {"execution", "branch", "node t", "attempt t"}


async def test_open_execution_has_the_spans_of_what_has_ended(autojump_clock: MockClock) -> None:
    async with running(scripts={"b": hangs}) as runtime:
        await runtime.submit("a -> b")
        assert await export(runtime) == []
        await trio.sleep(1)
        assert [span.name for span in spans_of(await export(runtime))] == ["attempt t", "node t"]


async def test_an_execution_that_is_not_sampled_is_exported_too(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        caller = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", 0)
        await runtime.submit("node a", caller=caller)
        await runtime.wait_ended()
        spans = spans_of(await export(runtime))
    assert [span.name for span in spans] == ["attempt t", "node t", "execution"]
    assert {span.trace_id.hex() for span in spans} == {caller.trace_id}
    assert spans[-1].parent_span_id.hex() == caller.span_id


async def test_a_trace_comes_in_parts_of_at_most_a_mebibyte(autojump_clock: MockClock) -> None:
    """With the longest ids and messages, too."""

    async def fail(assignment: Assignment) -> AttemptResult:
        await trio.lowlevel.checkpoint()
        failure = Failure(code="UNAVAILABLE", message="\U0001f6d1" * 1_000)
        return result_of(assignment.key, AttemptOutcome.FAILED, failure=failure)

    type_ = "t" * 128
    nodes = [dataclasses.replace(node, kind=Task(type=type_)) for node in build_many(600).nodes]
    nodes[-1] = dataclasses.replace(nodes[-1], retry=RetryPolicy(max_attempts=130))
    graph = Graph(name="g" * 128, nodes=tuple(nodes))
    async with running(scripts={nodes[-1].id: fail}, slots=0) as runtime:
        runtime.attach_worker(types={type_: 0})
        await runtime.submit(graph, id="x" * 128)
        await runtime.wait_ended("x" * 128)
        parts = await export(runtime, "x" * 128)
    assert len(parts) > 3
    assert max(map(len, parts)) <= MIB
    assert len(spans_of(parts)) == 600 + 600 + 129 + 600 + 1


def build_many(count: int) -> Graph:
    return build("; ".join(f"node {number:0128}" for number in range(count)))


async def test_an_unknown_execution_is_not_found(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        with pytest.raises(ExecutionNotFound):
            await export(runtime, "nothing")
        with pytest.raises(InvalidRequest):
            await export(runtime, "no id")


async def test_a_damaged_execution_is_corrupt(autojump_clock: MockClock) -> None:
    """K4."""
    async with running() as runtime:
        await runtime.submit("node a")
        await runtime.wait_ended()
        runtime.supervisor.quarantine.add((NAMESPACE, "x"), EventDamaged("damaged"))
        with pytest.raises(EventDamaged):
            await export(runtime)


async def test_caller_that_reads_nothing_is_cut_off_and_frees_its_turn(autojump_clock: MockClock) -> None:
    async with running() as runtime, trio.open_nursery() as nursery:
        await runtime.submit("node a")
        await runtime.wait_ended()
        request = insight_service_pb2.ExportTraceRequest(namespace=NAMESPACE, execution_id="x")
        insight = servicer(runtime)
        ended_s: list[float] = []

        async def stuck(_: Message | bytes) -> None:
            await trio.sleep_forever()

        async def export_slowly() -> None:
            with pytest.raises(SlowConsumer):
                await insight.export_trace(request, CALL, stuck)
            ended_s.append(trio.current_time() - begun_s)

        begun_s = trio.current_time()
        for _ in range(EXPORTS_MAX):
            nursery.start_soon(export_slowly)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(Overloaded):
            await insight.export_trace(request, CALL, stuck)
        assert trio.current_time() - begun_s == TURN_S
        await trio.sleep(SLOW_S)
        assert ended_s == [SLOW_S] * EXPORTS_MAX
        nursery.start_soon(export_slowly)
