"""Spans of live executions: what a collector gets, also when the server dies (B2, B2.1)."""

from __future__ import annotations

import pytest
import trio
from opentelemetry.proto.trace.v1 import trace_pb2
from trio.testing import MockClock

from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.core.definition.graph import Graph
from plait_server.core.run.trace import TraceContext
from plait_server.telemetry import span_observer
from plait_server.telemetry.span_encoding import SpanEncoder
from plait_server.telemetry.span_observer import SpanObserver
from tests.core.graph_text import build
from tests.runtime.world import NAMESPACE, returns, running


class Collector:
    """Keeps what comes; a span that comes again must be the same, to the bit."""

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.spans: dict[bytes, trace_pb2.Span] = {}
        self.came_again = 0
        self.waits = 0
        self.wait_s = 0.0
        """How long `wait_room` takes."""

    def put_nowait(self, request: bytes, span_count: int) -> None:
        (resource,) = trace_pb2.TracesData.FromString(request).resource_spans
        spans = resource.scope_spans[0].spans
        assert len(spans) == span_count
        self.batches.append(span_count)
        for span in spans:
            known = self.spans.setdefault(span.span_id, span)
            assert known == span, "it was written twice, and differs"
            self.came_again += known is not span

    async def wait_room(self) -> None:
        self.waits += 1
        await trio.sleep(self.wait_s)

    def names(self) -> list[str]:
        return sorted(span.name for span in self.spans.values())


def observer(collector: Collector, batch_spans_max: int = 100, batch_wait_s: float = 1.0) -> SpanObserver:
    return SpanObserver(
        SpanEncoder({}, "test"), collector, batch_spans_max=batch_spans_max, batch_wait_s=batch_wait_s
    )


async def test_spans_go_out_together_when_they_have_waited(autojump_clock: MockClock) -> None:
    collector = Collector()
    async with running(spans=observer(collector)) as runtime:
        await runtime.submit("a -> b; a -> c")
        await runtime.wait_ended()
        await trio.sleep(0.5)
        assert collector.batches == []
        await trio.sleep(0.6)
        assert collector.batches == [9]
    assert collector.names() == [*["attempt t"] * 3, *["branch"] * 2, "execution", *["node t"] * 3]


async def test_executions_that_run_at_once_have_their_own_spans(autojump_clock: MockClock) -> None:
    collector = Collector()
    scripts = {"a": returns("1", 1.0), "c": returns("1", 1.5), "b": returns("1", 1.0)}
    async with running(scripts=scripts, spans=observer(collector)) as runtime:
        await runtime.submit("a -> b", id="x")
        await runtime.submit("c -> d", id="y")
        await runtime.wait_ended("x")
        await runtime.wait_ended("y")
        await trio.sleep(2)
    found: list[tuple[str, str]] = []
    for span in collector.spans.values():
        has = {each.key: each.value.string_value for each in span.attributes}
        if span.name == "attempt t":
            found.append((has["plait.execution.id"], has["plait.node.path"]))
    assert sorted(found) == [("x", "a"), ("x", "b"), ("y", "c"), ("y", "d")]


async def test_full_batch_goes_out_at_once(autojump_clock: MockClock) -> None:
    collector = Collector()
    async with running(spans=observer(collector, batch_spans_max=4, batch_wait_s=1_000.0)) as runtime:
        await runtime.submit("a -> b; a -> c")
        await runtime.wait_ended()
        await trio.sleep(1)
        assert collector.batches == [4, 4]
        assert runtime.spans is not None
        await runtime.spans.finish()
        assert collector.batches == [4, 4, 1]


async def test_batch_is_bounded_in_bytes(autojump_clock: MockClock) -> None:
    collector = Collector()
    spans = observer(collector, batch_spans_max=1_000_000, batch_wait_s=1_000_000.0)
    async with running(spans=spans) as runtime:
        nodes = 2_000
        await runtime.submit(build("; ".join(f"node n{number}" for number in range(nodes))))
        await runtime.wait_ended()
        await trio.sleep(1)
        await spans.finish()
    assert sum(collector.batches) == 3 * nodes + 1
    assert max(collector.batches) * 512 < span_observer.BATCH_BYTES_MAX + 1_024


async def test_execution_that_is_not_sampled_has_no_spans(autojump_clock: MockClock) -> None:
    """The caller's sampling decision is honored."""
    collector = Collector()
    async with running(spans=observer(collector)) as runtime:
        for flags in (0, 1):
            caller = TraceContext("ab" * 16, "cd" * 8, flags, "a=b")
            await runtime.submit("node a", id=f"x{flags}", caller=caller)
            await runtime.wait_ended(f"x{flags}")
        await trio.sleep(2)
    (execution,) = [span for span in collector.spans.values() if span.name == "execution"]
    assert (execution.trace_id, execution.parent_span_id) == (b"\xab" * 16, b"\xcd" * 8)
    assert execution.trace_state == "a=b"
    assert execution.flags & 0x300 == 0x300, "its parent is in another process"
    assert len(collector.spans) == 3


async def test_after_a_crash_no_span_is_missing_and_none_differs(autojump_clock: MockClock) -> None:
    """B2.1: after a crash no span of an execution that was open is missing; one written twice is equal, to the bit."""
    graph = build("a -> b; a -> c; b, c -> d")
    whole = await traced(graph)
    crashes = 0
    for crash_s in (0.5, 1.5, 2.5, 3.5):
        collector = Collector()
        store = MemoryStore()
        scripts = dict.fromkeys("abcd", returns("1", 1.0))
        async with running(store, scripts=scripts, spans=observer(collector)) as runtime:
            await runtime.submit(graph)
            await trio.sleep(crash_s)
            is_open = not (await runtime.supervisor.view(NAMESPACE, "x")).execution.is_ended
            runtime.crash()
        if not is_open:
            continue
        crashes += 1
        async with running(store, scripts=scripts, spans=observer(collector)) as runtime:
            await runtime.wait_ended()
            await trio.sleep(2)
        assert set(collector.spans) == set(whole.spans)
    assert crashes >= 3


async def test_events_from_before_a_crash_are_told_again_in_the_background(
    autojump_clock: MockClock,
) -> None:
    graph = build("; ".join(f"node n{number}" for number in range(300)), "node slow")
    collector = Collector()
    store = MemoryStore()
    scripts = {"slow": returns("1", 100.0)}
    async with running(store, scripts=scripts, slots=1_000, spans=observer(collector)) as runtime:
        await runtime.submit(graph)
        await trio.sleep(5)
        runtime.crash()
    assert collector.batches
    assert collector.came_again == 0
    async with running(store, scripts=scripts, spans=observer(collector)) as runtime:
        await trio.sleep(5)
        assert collector.came_again == 600
        assert collector.waits >= 3
        await runtime.wait_ended()
        await trio.sleep(2)
    assert collector.came_again == 600
    assert len(collector.spans) == 3 * 301 + 1


async def test_spans_from_before_a_crash_are_sent_without_new_events(autojump_clock: MockClock) -> None:
    """B2.1: spans from before a crash wait no longer than others, though nothing happens that would wake the task."""
    collector = Collector()
    store = MemoryStore()
    scripts = {"b": returns("1", 1_000.0)}
    async with running(store, scripts=scripts) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(5)
        runtime.crash()
    async with running(store, scripts=scripts, spans=observer(collector)) as runtime:
        await trio.sleep(1.5)
        assert collector.names() == ["attempt t", "node t"]


async def test_what_is_not_sampled_is_not_told_again_either(autojump_clock: MockClock) -> None:
    collector = Collector()
    store = MemoryStore()
    scripts = {"b": returns("1", 50.0)}
    async with running(store, scripts=scripts) as runtime:
        await runtime.submit("a -> b", caller=TraceContext("ab" * 16, "cd" * 8, 0))
        await trio.sleep(5)
        runtime.crash()
    async with running(store, scripts=scripts, spans=observer(collector)) as runtime:
        await runtime.wait_ended()
        await trio.sleep(5)
    assert collector.batches == []


async def test_what_sleeps_at_a_start_is_told_again(autojump_clock: MockClock) -> None:
    """B2.1: an execution in which nothing runs is open, too."""
    collector = Collector()
    store = MemoryStore()
    async with running(store) as runtime:
        await runtime.submit(build("a -> w", "node w kind=delay:10000"))
        await trio.sleep(100)
        assert runtime.supervisor.statistics().asleep == 1
        runtime.crash()
    async with running(store, spans=observer(collector)) as runtime:
        await trio.sleep(5)
        assert runtime.supervisor.statistics().asleep == 1
        assert collector.names() == ["attempt t", "node t"]


async def test_who_stops_makes_the_spans_of_all_events_that_came(autojump_clock: MockClock) -> None:
    collector = Collector()
    spans = observer(collector)
    async with running() as runtime:
        await runtime.submit("a -> b; a -> c")
        execution = await runtime.wait_ended()
        events = runtime.events()
    spans.events_durable(NAMESPACE, execution, events)
    await spans.finish()
    assert collector.batches == [9]


async def test_events_after_a_start_are_not_told_again(autojump_clock: MockClock) -> None:
    """They are told as they happen, however long it takes to tell the earlier ones."""
    store = MemoryStore()
    scripts = {"b": returns("1", 10.0)}
    async with running(store, scripts=scripts) as runtime:
        for id_ in ("x", "y"):
            await runtime.submit("a -> b", id=id_)
        await trio.sleep(5)
        runtime.crash()
    collector = Collector()
    collector.wait_s = 100.0  # The second execution has ended before it is read again.
    spans = observer(collector, batch_spans_max=1)
    async with running(store, scripts=scripts, spans=spans) as runtime:
        await runtime.wait_ended("y")
        execution = await runtime.wait_ended("x")
        assert collector.waits == 1
        await trio.sleep(1_000)
    assert collector.waits >= 2
    assert collector.came_again == 0
    names = {
        f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"
        for span in collector.spans.values()
        if span.name == "execution"
    }
    assert len(names) == 2
    assert execution.traceparent in names


async def test_too_many_events_are_dropped_and_logged_once(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(span_observer, "EVENTS_MAX", 100)
    spans = observer(Collector())
    async with running() as runtime:
        await runtime.submit("node a")
        execution = await runtime.wait_ended()
        events = runtime.events()
    count = 100 // len(events)
    for _ in range(count + 10):
        spans.events_durable(NAMESPACE, execution, events)
    found = spans.statistics()
    assert found.events_waiting == count * len(events)
    assert found.events_dropped == 10 * len(events)
    await spans.finish()
    assert spans.statistics().events_waiting == 0
    spans.events_durable(NAMESPACE, execution, events)
    await spans.finish()
    assert [record.getMessage() for record in caplog.records if record.name == span_observer.__name__] == [
        "spans are lost: 100 events wait to be made into spans, and there is no room for more",
        f"the events that waited have become spans; {10 * len(events)} others were dropped",
    ]


async def traced(graph: Graph) -> Collector:
    collector = Collector()
    async with running(
        scripts=dict.fromkeys("abcd", returns("1", 1.0)), spans=observer(collector)
    ) as runtime:
        await runtime.submit(graph)
        await runtime.wait_ended()
        await trio.sleep(2)
    return collector
