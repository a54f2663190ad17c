"""The machine that the server runs on: it starts it, lets it die, and starts it again on the same store.

A crash is what kill -9 is: the store is cut off, all streams and calls break, nothing that the server still
holds in memory can be seen by anyone. Its tasks are cancelled, for tasks cannot be forgotten; whatever they
do on their way out meets a dead store and dead streams.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, cast

import trio
from google.protobuf.message import Message

from plait.v1 import worker_hub_service_pb2 as hub
from plait_server.adapters.requests.inline import InlineGraphRequests
from plait_server.api.call import Call, Send
from plait_server.bootstrap import Platform, Server, assemble
from plait_server.config import ServerConfig
from plait_server.errors import (
    CallerError,
    InstanceReplaced,
    JournalFull,
    JournalUnavailable,
    LeaseExpired,
    PlaitError,
    ProtocolViolation,
    ShuttingDown,
    SlowConsumer,
    StreamReplaced,
    WorkerIdInUse,
)
from plait_server.ports.evaluator import Evaluator, Offload
from plait_server.ports.sampler import FollowCaller
from plait_server.runtime.snapshotting import SnapshotSettings
from plait_server.testing.simulation.bounds import check_answer, check_frame
from plait_server.testing.simulation.collector import Collector, Tracing
from plait_server.testing.simulation.frames import FrameChecks
from plait_server.testing.simulation.limit_law import LimitLaw
from plait_server.testing.simulation.network import ConnectionLost, Direction, Link, ServerUnreachable
from plait_server.testing.simulation.store import Stores, TappedJournal
from plait_server.testing.simulation.world import World

_Request = TypeVar("_Request", bound=Message)
_Answer = TypeVar("_Answer")

CALL_DELAY_S: Final = 0.02
"""The longest way of a request or an answer, in seconds."""
ROUNDS_AHEAD_MAX: Final = 12
"""A decision and its append take about so many rounds of the scheduler: a cancel may fall anywhere in them."""
SNAPSHOTS: Final = SnapshotSettings(events=5, spacing_s=0.0)
"""So that most executions have several (K2)."""
STOP_S_MAX: Final = 60.0
"""A server that was asked to stop has ended after the grace time of cancels that are under way, and some more."""


class Generation:
    """One start of the server."""

    def __init__(self, number: int, journal: TappedJournal, tracing: Tracing) -> None:
        self.number: Final = number
        self.journal: Final = journal
        self.tracing: Final = tracing
        self.server: Server | None = None
        """None until it takes calls."""
        self.scope = trio.CancelScope()
        self.stopping = trio.CancelScope()
        """Cancelled when the server is asked to stop; its tracing then flushes."""
        self.is_dead = False
        self.links: dict[int, Link] = {}
        self.calls: dict[int, trio.CancelScope] = {}

    def __repr__(self) -> str:
        return f"<Generation {self.number}{' dead' if self.is_dead else ''}>"


class Host:
    """Runs the server of a simulation. `run` is started once."""

    def __init__(
        self, world: World, stores: Stores, config: ServerConfig, evaluator: Evaluator, offload: Offload
    ) -> None:
        self._world = world
        self._stores = stores
        self.collector: Final = Collector(world)
        self._config = config
        self._evaluator = evaluator
        self._offload = offload
        self._chance = world.chance("network")
        self._frames = FrameChecks(world, stores.records)
        self._nursery: trio.Nursery | None = None
        self._numbers = 0
        self._down = trio.Event()
        self._is_stopping = False
        self.generation: Generation | None = None
        """The start that runs or comes up; None while the server is down."""
        self.frame_delay_s = 0.05
        """The longest delay of a frame on new streams."""
        self.downtime_s: Callable[[], float] = lambda: 0.5
        """Gives the time between an end of the server and its next start."""
        self.on_start: Callable[[Generation], None] = lambda _: None
        """Called with each new start, before it recovers."""
        self.starts = 0
        self._awaited: dict[str, trio.Event] = {}
        """Execution id -> set when a result of one of its attempts is about to reach the server."""

    def __repr__(self) -> str:
        return f"<Host of {self.generation!r}>"

    @property
    def links(self) -> list[Link]:
        """The streams of the present start, in the order of their beginning."""
        return list(self.generation.links.values()) if self.generation is not None else []

    # Life and death.

    async def run(self) -> None:
        """Start the server again and again until `stop`."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            while not self._is_stopping:
                await self._live(nursery)
                if not self._is_stopping:
                    await trio.sleep(self.downtime_s())

    def crash(self) -> None:
        """Let the server die at once, without goodbye."""
        generation = self.generation
        if generation is None or generation.is_dead:
            return
        self._world.note(f"server {generation.number} crashes")
        generation.is_dead = True
        generation.tracing.ended_s = trio.current_time()
        self.generation = None
        generation.journal.crash()
        self._break_connections(generation)
        generation.scope.cancel()
        self._down.set()

    async def restart(self) -> None:
        """Ask the server to stop, as SIGTERM does; it is started again."""
        generation = self.generation
        if generation is None or generation.server is None:
            return
        self._world.note(f"server {generation.number} stops")
        self.generation = None
        # As serve_grpc does at its end: calls and streams are cancelled, then the parts.
        self._break_connections(generation)
        generation.tracing.ended_s = trio.current_time()
        generation.stopping.cancel()
        await trio.lowlevel.checkpoint()

    async def stop(self) -> None:
        """Stop for good; returns when the server has ended.

        Fails the simulation if tasks of it are left.
        """
        self._is_stopping = True
        await self.restart()
        with trio.move_on_after(STOP_S_MAX) as waited:
            await self._down.wait()
        if waited.cancelled_caught:
            self._world.fail(
                "no task left", f"the server has not ended {STOP_S_MAX:g} s after it was stopped"
            )

    async def _live(self, nursery: trio.Nursery) -> None:
        self.starts += 1
        generation = Generation(self.starts, self._stores.open(self.starts), self.collector.open())
        self.generation = generation
        self._down = trio.Event()
        self._world.note(f"server {generation.number} starts")
        self.on_start(generation)
        nursery.start_soon(self._serve, generation)
        await self._down.wait()

    async def _serve(self, generation: Generation) -> None:
        try:
            with generation.scope:
                async with trio.open_nursery() as nursery:
                    await nursery.start(generation.tracing.run)
                    with generation.stopping:
                        await self._run_server(generation)
                    await generation.tracing.finish()
                    nursery.cancel_scope.cancel()
        except BaseExceptionGroup as group:
            self._take_error(generation, group)
        except (JournalUnavailable, JournalFull) as error:
            self._take_error(generation, BaseExceptionGroup("the server ended", [error]))
        finally:
            if not generation.is_dead:
                generation.is_dead = True
                generation.tracing.ended_s = min(generation.tracing.ended_s, trio.current_time())
                generation.server = None
                if self.generation is generation:
                    self.generation = None
                self._break_connections(generation)
                with trio.CancelScope(shield=True):
                    await generation.journal.aclose()
                self._down.set()

    async def _run_server(self, generation: Generation) -> None:
        tracing = generation.tracing
        server = await assemble(
            Platform(
                journal=generation.journal,
                evaluator=self._evaluator,
                offload=self._offload,
                graph_requests=InlineGraphRequests(self._evaluator),
                seams=self._world,
                observer=tracing.observer,
                retelling=tracing.observer,
                sampler=FollowCaller(),
                config=self._config,
                snapshots=SNAPSHOTS,
            )
        )
        LimitLaw(self._world, server)
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            generation.server = server
            tracing.ready_s = trio.current_time()
            for _ in range(server.supervisor.statistics().asleep):
                self._world.count("an execution sleeps at a start")
            self._world.note(f"server {generation.number} is ready")

    def _take_error(self, generation: Generation, group: BaseExceptionGroup[BaseException]) -> None:
        """Look at what ended the server: it may be its store, and then must; anything else is a bug."""
        rest = group.split((JournalUnavailable, trio.Cancelled))[1]
        if rest is None:
            if not generation.is_dead:
                self._world.note(f"server {generation.number} gives up: {group.exceptions[0]!r}")
            return
        if generation.is_dead:
            # In a process that is dead nobody sees this; but it may show a bug of the way out.
            self._world.note(f"server {generation.number} on its way out: {rest!r}")
        raise rest

    def _break_connections(self, generation: Generation) -> None:
        for link in list(generation.links.values()):
            link.cut()
        for scope in list(generation.calls.values()):
            scope.cancel()

    # Doors.

    async def wait_result(self, execution_id: str) -> None:
        """Wait until a result of an execution is about to reach the server: within some rounds of the scheduler."""
        await self._awaited.setdefault(execution_id, trio.Event()).wait()

    async def _announce(self, frame: hub.AttachRequest) -> None:
        """Let those go first, by some rounds or none, who wait for a result that has arrived."""
        for message in frame.messages:
            token = message.complete.token or message.fail.token
            # A token reads mac/namespace/execution/run/attempt/path.
            awaited = self._awaited.pop(token.split("/", 3)[2], None) if token else None
            if awaited is not None:
                awaited.set()
                for _ in range(self._chance.randint(0, ROUNDS_AHEAD_MAX)):
                    await trio.lowlevel.checkpoint()

    async def call(
        self,
        method: Callable[[Server], Callable[[_Request, Call], Awaitable[_Answer]]],
        request: _Request,
        *,
        at_once: bool = False,
        lose_answer: bool = False,
        metadata: dict[str, str] | None = None,
    ) -> _Answer:
        """Make a unary call.

        Args:
            method: Names the servicer's function.
            request: What is sent; it goes as bytes.
            at_once: Whether it reaches the server in the same instant.
            lose_answer: Whether the connection breaks on the way back.
            metadata: Headers of the call.

        Raises:
            ConnectionLost: it is unknown whether the call had an effect.
            PlaitError: the server's answer.
        """

        async def serve(server: Server, copy: _Request, call: Call) -> _Answer:
            return await method(server)(copy, call)

        answer = await self._call(serve, request, metadata or {}, 0.0 if at_once else CALL_DELAY_S)
        if lose_answer:
            raise ConnectionLost
        return answer

    async def stream(
        self,
        method: Callable[[Server], Callable[[_Request, Call, Send], Awaitable[None]]],
        request: _Request,
        send: Send,
    ) -> None:
        """Make a call that streams its answer; `send` is the transport at the server's end.

        Raises:
            ConnectionLost: the stream was cut.
            PlaitError: the server's answer.
        """

        async def serve(server: Server, copy: _Request, call: Call) -> None:
            await method(server)(copy, call, send)

        await self._call(serve, request, {}, CALL_DELAY_S)

    async def _call(
        self,
        serve: Callable[[Server, _Request, Call], Awaitable[_Answer]],
        request: _Request,
        metadata: dict[str, str],
        delay_s: float,
    ) -> _Answer:
        await trio.sleep(self._chance.random() * delay_s)
        generation = self.generation
        if generation is None or generation.server is None:
            raise ServerUnreachable
        copy = type(request).FromString(request.SerializeToString())
        self._numbers += 1
        number = self._numbers
        done: list[_Answer] = []
        with trio.CancelScope() as scope:
            generation.calls[number] = scope
            try:
                call = Call(method=type(request).__name__, peer="simulation", metadata=metadata)
                done.append(await serve(generation.server, copy, call))
            except (PlaitError, BaseExceptionGroup) as error:
                if generation.is_dead or isinstance(error, (JournalUnavailable, ShuttingDown)):
                    raise ConnectionLost from error
                if isinstance(error, (CallerError, JournalFull)):
                    raise
                self._world.fail("the server answers", f"{type(request).__name__}: {error!r}")
                raise
            finally:
                del generation.calls[number]
        if not done or generation.is_dead:
            raise ConnectionLost
        check_answer(self._world, type(request).__name__, done[0])
        await trio.sleep(self._chance.random() * CALL_DELAY_S)
        return done[0]

    async def dial(self) -> Link:
        """Open an Attach stream.

        Raises:
            ServerUnreachable: nobody listens.
        """
        await trio.sleep(self._chance.random() * CALL_DELAY_S)
        generation = self.generation
        if generation is None or generation.server is None or self._nursery is None:
            raise ServerUnreachable
        self._numbers += 1
        up, down = (Direction(self._chance, self.frame_delay_s) for _ in range(2))
        link = Link(self._numbers, up, down)
        generation.links[link.number] = link
        self._nursery.start_soon(self._serve_stream, generation, generation.server, link)
        return link

    async def _serve_stream(self, generation: Generation, server: Server, link: Link) -> None:
        async def receive() -> bytes | None:
            content = await link.up.receive()
            if content is not None:
                await self._announce(hub.AttachRequest.FromString(content))
            return content

        async def send(message: Message | bytes) -> None:
            if generation.is_dead:
                await trio.sleep_forever()  # It is cancelled already, and says nothing any more.
            frame = cast("hub.AttachResponse", message)
            check_frame(self._world, "Attach", frame)
            self._frames.check(frame)
            await link.down.send(frame.SerializeToString())

        try:
            with link.server:
                call = Call(method="Attach", peer=f"link {link.number}")
                await server.servicers.worker_hub.attach(call, receive, send)
        except (SlowConsumer, WorkerIdInUse, LeaseExpired, InstanceReplaced, StreamReplaced) as error:
            # What the network and the deaths of processes may lead to, whatever the worker's session does.
            self._world.note(f"link {link.number} is ended: {error.message}")
        except (PlaitError, ConnectionLost, BaseExceptionGroup) as error:
            # A hello that is held up for longer than the server waits for it is nobody's fault, nor is one that
            # died with its worker.
            is_unheard = isinstance(error, ProtocolViolation) and (
                (link.up.has_stalled and "no hello" in error.message)
                or "before it said hello" in error.message
            )
            if not (generation.is_dead or link.is_cut or is_unheard):
                self._world.fail("Attach", f"the server dropped a worker's stream: {error!r}")
        finally:
            generation.links.pop(link.number, None)
            link.down.close()


def seen(
    method: Callable[[_Request, Call], Awaitable[_Answer]], see: Callable[[_Answer], None]
) -> Callable[[_Request, Call], Awaitable[_Answer]]:
    """Let an answer be seen at the moment in which it leaves the server."""

    async def call(request: _Request, call: Call) -> _Answer:
        answer = await method(request, call)
        see(answer)
        return answer

    return call
