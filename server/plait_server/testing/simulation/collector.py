"""A simulated collector of traces, which survives the server's crashes, and is away, slow or refuses at times.

`Tracing` is the tracing of one start of the server, assembled as in `bootstrap`. It records which spans were handed
over to be sent, when, and which of them met trouble.
"""

from __future__ import annotations

import enum
from typing import Final, assert_never

import trio
from opentelemetry.proto.trace.v1 import trace_pb2

from plait_server.bootstrap import version_of_plait
from plait_server.ports.span_sender import SendFailed, Sent
from plait_server.telemetry.span_encoding import SpanEncoder
from plait_server.telemetry.span_exporter import PAUSE_MAX_S, TIMEOUT_S, SpanExporter
from plait_server.telemetry.span_observer import SpanObserver
from plait_server.testing.simulation.world import World

BATCH_WAIT_S: Final = 1.0
FLUSH_S: Final = 5.0
"""How long a stopping server may send its last spans, in seconds."""
WAY_S: Final = 0.02
"""The longest time that a request or its answer travels, in seconds."""
ASKED_PAUSE_S: Final = 8.0
"""The pause for which a collector asks that is away."""
TROUBLE_S: Final = TIMEOUT_S + max(PAUSE_MAX_S, ASKED_PAUSE_S) + 1.0
"""How long after trouble other requests may wait behind the one that is retried, in seconds."""


class Mood(enum.Enum):
    """How a collector treats requests."""

    WELL = "the collector is well"
    AWAY = "the collector is away"
    SLOW = "the collector is slow"
    REFUSES = "the collector refuses for good"
    TAKES_SOME = "the collector takes some spans of a request"


class Collector:
    """Keeps each span that arrives, and fails the simulation if one arrives again and differs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = world.chance("collector")
        self._mood = Mood.WELL
        self._mood_until_s = 0.0
        self.spans: Final[dict[bytes, bytes]] = {}
        """Id -> the encoded span."""
        self.tracings: Final[list[Tracing]] = []
        """One a start of the server."""

    def __repr__(self) -> str:
        return f"<Collector of {len(self.spans)} spans>"

    @property
    def mood(self) -> Mood:
        """How it treats requests now."""
        return self._mood if trio.current_time() < self._mood_until_s else Mood.WELL

    def turn(self, mood: Mood, *, for_s: float) -> None:
        """Change its mood for a while."""
        self._mood = mood
        self._mood_until_s = trio.current_time() + for_s

    def open(self) -> Tracing:
        """Set up the tracing of a start of the server."""
        tracing = Tracing(self._world, self, len(self.tracings) + 1)
        self.tracings.append(tracing)
        return tracing

    async def take(self, tracing: Tracing, spans: dict[bytes, bytes]) -> Sent:
        """Take a request.

        Raises:
            SendFailed: it did not accept the request.
        """
        chance = self._chance
        await trio.sleep(chance.random() * WAY_S)
        mood = self.mood
        if mood is not Mood.WELL:
            self._world.count(mood.value)
            tracing.note_trouble(spans)
        rejected = 0
        match mood:
            case Mood.WELL:
                pass
            case Mood.AWAY:
                asked_s = ASKED_PAUSE_S if chance.random() < 0.2 else None
                raise SendFailed("nobody listens", is_retryable=True, retry_after_s=asked_s)
            case Mood.SLOW:
                if chance.random() < 0.5:  # It accepts the request, but its answer may come too late.
                    self._keep(spans)
                await trio.sleep(chance.choice((1.0, 8.0, 30.0)))
            case Mood.REFUSES:
                raise SendFailed("not to my taste", is_retryable=False)
            case Mood.TAKES_SOME:
                rejected = chance.randint(0, len(spans))
            case _:
                assert_never(mood)
        self._keep(dict(list(spans.items())[rejected:]))
        await trio.sleep(chance.random() * WAY_S)
        return Sent(rejected=rejected, message="some" if rejected else "")

    def _keep(self, spans: dict[bytes, bytes]) -> None:
        for span_id, content in spans.items():
            known = self.spans.setdefault(span_id, content)
            if known is content:
                continue
            self._world.count("a span comes again")
            if known != content:
                one, other = (trace_pb2.Span.FromString(each) for each in (known, content))
                self._world.fail("B2.1", f"a span came again and differs: {one} and {other}")


class Tracing:
    """The tracing of one start of the server: observer and exporter, and a record of what passes between them.

    Args:
        world: The simulated world.
        collector: Where spans are sent.
        number: The number of the start, from 1.
    """

    def __init__(self, world: World, collector: Collector, number: int) -> None:
        self._world = world
        self._collector = collector
        chance = world.chance("tracing", number)
        self.number: Final = number
        self.exporter: Final = SpanExporter(
            self, chance.random, spans_max=chance.choice((16, 65_536, 65_536))
        )
        encoder = SpanEncoder({"service.name": "plait"}, version_of_plait())
        self.observer: Final = SpanObserver(
            encoder, self, batch_spans_max=chance.choice((1, 8, 512)), batch_wait_s=BATCH_WAIT_S
        )
        self._requests: dict[bytes, dict[bytes, bytes]] = {}
        """Request -> its spans by id."""
        self.handed: Final[dict[bytes, float]] = {}
        """Id -> when the span was handed over to be sent."""
        self.troubled: Final[set[bytes]] = set()
        """Ids of spans whose request met trouble, or found no room."""
        self.trouble_until_s = float("-inf")
        self.room_s = float("-inf")
        """When the last wait for room ended; infinite during one."""
        self.ready_s = float("inf")
        """When the server was ready."""
        self.ended_s = float("inf")
        """When the server crashed, gave up, or began to stop."""
        self.is_stopped = False
        """Whether it was asked to stop, and had time to flush."""

    def __repr__(self) -> str:
        return f"<Tracing {self.number}, {len(self.handed)} spans>"

    @property
    def held(self) -> int:
        """How many spans are still to be sent."""
        return self.exporter.statistics().queued

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.exporter.run)
            nursery.start_soon(self.observer.run)
            task_status.started()

    async def finish(self) -> None:
        """Flush, as a stopping server does."""
        await self.observer.finish()
        await self.exporter.flush(FLUSH_S)
        self.is_stopped = True

    def note_trouble(self, spans: dict[bytes, bytes]) -> None:
        """Record that a request failed."""
        self.troubled.update(spans)
        self.trouble_until_s = trio.current_time() + TROUBLE_S

    # The observer's SpanSink.

    def put_nowait(self, request: bytes, span_count: int) -> None:
        """Take a batch."""
        (resource,) = trace_pb2.TracesData.FromString(request).resource_spans
        spans = {
            span.span_id: span.SerializeToString() for scope in resource.scope_spans for span in scope.spans
        }
        if len(spans) != span_count:
            self._world.fail("B2.1", f"a batch of {span_count} spans has {len(spans)} ids")
        for span_id in spans:
            if span_id in self.handed:
                self._world.fail(
                    "B2.1", f"the span {span_id.hex()} was written twice by server {self.number}"
                )
            self.handed[span_id] = trio.current_time()
        self._requests[request] = spans
        dropped = self.exporter.statistics().dropped
        self.exporter.put_nowait(request, span_count)
        if self.exporter.statistics().dropped > dropped:
            self._world.count("spans find no room")
            self.note_trouble(spans)

    async def wait_room(self) -> None:
        """Wait until there is room."""
        self.room_s = float("inf")
        await self.exporter.wait_room()
        self.room_s = trio.current_time()

    # The exporter's SpanSender.

    async def send(self, request: bytes) -> Sent:
        """Send a request."""
        return await self._collector.take(self, self._requests[request])

    async def aclose(self) -> None:
        """Close nothing."""
