"""Makes the spans of executions in a task of its own, so that executions do not wait for it.

The runtime calls `events_durable` in the middle of a step; this only queues the events. The task makes spans from
them and encodes the spans, a slice at a time, so that other tasks run in between. A batch goes to the exporter when
it is full or has waited for a while.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import trio

from plait_server.core.run.events import Event
from plait_server.core.run.execution import Execution
from plait_server.core.run.scope import Scope
from plait_server.core.run.trace import read_trace_context
from plait_server.ports.workers import Assignment
from plait_server.telemetry.span_encoding import SpanEncoder
from plait_server.telemetry.spans import Span, SpanFold

logger = logging.getLogger(__name__)

EVENTS_MAX: Final = 200_000
"""Events that may wait to be made into spans, over all executions: twice as many as the end of the largest graph
causes at once. They keep their executions in memory."""
GATHER_S: Final = 0.05
"""How long events wait for others, in seconds. Waking up for each small step would cost more than its spans."""
SPANS_PER_SLICE: Final = 128
"""About 1 ms of making and encoding spans; other tasks run after it."""
BATCH_BYTES_MAX: Final = 2 * 1024 * 1024
"""Half of what a collector accepts by default."""


class SpanSink(Protocol):
    """Takes batches of encoded spans."""

    def put_nowait(self, request: bytes, span_count: int) -> None:
        """Take a TracesData of `span_count` spans; if there is no room, drop it and count it."""

    async def wait_room(self) -> None:
        """Wait until there is room; the wait is bounded."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanObserverStatistics:
    """A snapshot of the queue, and of what has been made so far."""

    events_waiting: int
    events_dropped: int
    """Events whose spans were lost because too many events waited."""
    spans: int
    """Spans made so far."""


class SpanObserver:
    """An observer that makes spans. `run` is started once, by the process's nursery.

    Args:
        encoder: Collects the spans of a batch.
        sink: Takes the batches.
        batch_spans_max: Spans in a batch, at most.
        batch_wait_s: How long the first span of a batch waits for others, in seconds.
    """

    def __init__(
        self, encoder: SpanEncoder, sink: SpanSink, *, batch_spans_max: int, batch_wait_s: float
    ) -> None:
        self._encoder = encoder
        self._sink = sink
        self._batch_spans_max = batch_spans_max
        self._batch_wait_s = batch_wait_s
        self._fold = SpanFold()
        self._fold_again = SpanFold()
        self._queue: deque[tuple[str, Execution, Sequence[Event], Mapping[str, Scope]]] = deque()
        self._events_waiting = 0
        self._events_dropped = 0
        self._dropped_before: int | None = None
        """How many events had been dropped before the queue last ran full; None if it has been emptied since."""
        self._spans = 0
        self._batch_bytes = 0
        self._batch_due_s = float("inf")
        self._wake = trio.Event()
        self._making = self._make()

    def __repr__(self) -> str:
        return f"<SpanObserver {self._events_waiting} events waiting, {self._spans} spans made>"

    def statistics(self) -> SpanObserverStatistics:
        """Take a snapshot."""
        return SpanObserverStatistics(
            events_waiting=self._events_waiting, events_dropped=self._events_dropped, spans=self._spans
        )

    # What the runtime calls.

    def events_durable(self, namespace: str, execution: Execution, events: Sequence[Event]) -> None:
        """Queue the events of a sampled execution, to be made into spans."""
        if not _is_sampled(execution):
            return
        if self._events_waiting + len(events) > EVENTS_MAX:
            if self._dropped_before is None:
                self._dropped_before = self._events_dropped
                text = "spans are lost: %d events wait to be made into spans, and there is no room for more"
                logger.warning(text, self._events_waiting)
            self._events_dropped += len(events)
            return
        self._queue.append((namespace, execution, events, nested_scopes(execution, events)))
        self._events_waiting += len(events)
        self._wake.set()

    def worker_said(self, assignment: Assignment, kind: str, text: str) -> None:
        """Ignore it: what workers say is not in spans."""

    async def event_again(self, namespace: str, execution: Execution, event: Event) -> bool:
        """Make again the spans of an event from before the start; wait for room rather than drop them."""
        if not _is_sampled(execution):
            return False
        for span in self._fold_again.after(namespace, execution, event, nested_scopes(execution, [event])):
            if span is None or self._add(span):
                await self._sink.wait_room()
                await trio.lowlevel.checkpoint()
        return True

    # The task.

    async def run(self) -> None:
        """Make spans until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._batch_due_s):
                if not self._queue:
                    await self._wake.wait()
                await trio.sleep(GATHER_S)
            self._wake = trio.Event()
            await self._make_due()
            if trio.current_time() >= self._batch_due_s:
                self._hand_over()

    async def finish(self) -> None:
        """Make the spans of all queued events, and hand over the last batch."""
        await self._make_due()
        self._hand_over()

    async def _make_due(self) -> None:
        count = 0
        # If this is cancelled between two spans, the next call continues with the second.
        for span in self._making:
            if span is not None:
                self._add(span)
                count += 1
            if span is None or count >= SPANS_PER_SLICE:
                count = 0
                await trio.lowlevel.checkpoint()
        self._making = self._make()
        if self._dropped_before is not None:
            dropped = self._events_dropped - self._dropped_before
            self._dropped_before = None
            logger.warning("the events that waited have become spans; %d others were dropped", dropped)

    def _make(self) -> Iterator[Span | None]:
        while self._queue:
            namespace, execution, events, scopes = self._queue.popleft()
            for event in events:
                self._events_waiting -= 1
                yield from self._fold.after(namespace, execution, event, scopes)

    def _add(self, span: Span) -> bool:
        """Add a span to the batch; return whether that filled it, and so handed it over."""
        if not len(self._encoder):
            self._batch_due_s = trio.current_time() + self._batch_wait_s
            self._wake.set()  # `run` may be waiting without a deadline: `event_again` adds spans, too.
        self._batch_bytes += self._encoder.add(span)
        self._spans += 1
        is_full = len(self._encoder) >= self._batch_spans_max or self._batch_bytes > BATCH_BYTES_MAX
        if is_full:
            self._hand_over()
        return is_full

    def _hand_over(self) -> None:
        self._batch_due_s = float("inf")
        self._batch_bytes = 0
        count = len(self._encoder)
        if count:
            self._sink.put_nowait(self._encoder.take(), count)


def nested_scopes(execution: Execution, events: Sequence[Event]) -> Mapping[str, Scope]:
    """Return the nested scopes that the newest events of an execution are in, and those that they closed, by path."""
    if not execution.just_closed and len(execution.scopes) == 1:
        return {}
    scopes = dict(execution.just_closed)
    for event in events:
        scope_path = event.node_path.rpartition("/")[0]
        # What becomes of an attempt after its end may come when its scope is gone; no span waits for that.
        if scope_path and scope_path in execution.scopes:
            scopes[scope_path] = execution.scopes[scope_path]
    return scopes


def _is_sampled(execution: Execution) -> bool:
    context = read_trace_context(execution.traceparent)
    return context is not None and context.is_sampled
