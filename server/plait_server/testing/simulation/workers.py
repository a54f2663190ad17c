"""Worker processes around the real worker session: they attach, run scripted handlers, drain, die and come back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import trio

from plait.v1 import worker_hub_service_pb2 as hub
from plait_server.testing.simulation.host import Host
from plait_server.testing.simulation.network import ConnectionLost, Link
from plait_server.testing.simulation.scripts import MUCH, Act, Script, choose_script, many_causes
from plait_server.testing.simulation.world import World
from plait_worker.session import WorkerSession
from plait_worker.session_events import Assigned, CancelRequested, ProtocolError, Recorded, Welcomed

TOKENS: Final = 7
"""What a handler that talks uses."""
GREETING_S: Final = 15.0
"""How long `welcome` may take, as in the SDK."""
DRAIN_S: Final = 20.0
"""How long a draining worker waits for its handlers before it leaves anyway."""


class _Handler:
    """A handler that runs."""

    __slots__ = ("asked", "scope", "script")

    def __init__(self, script: Script) -> None:
        self.script = script
        self.scope = trio.CancelScope()
        self.asked = False


class WorkerProcess:
    """One process instance of a worker. `run` is started once.

    Args:
        world: The seed.
        host: Where the server is.
        worker_id: The worker's id, the same for all its instances.
        number: Of the instance.
        types: Node types, and how many attempts of each at once.
        slots: Attempts at once.
        mishaps: Share of attempts whose handlers do not simply succeed.
        started: Tokens whose handlers were started, of all workers of the simulation.
    """

    def __init__(
        self,
        world: World,
        host: Host,
        worker_id: str,
        number: int,
        *,
        types: Mapping[str, int],
        slots: int,
        mishaps: float,
        started: dict[str, str],
    ) -> None:
        self._world = world
        self._host = host
        self._chance = world.chance("worker", worker_id, number)
        self._mishaps = mishaps
        self._started = started
        self.instance_id: Final = f"{worker_id}.{number}"
        self.session = WorkerSession(
            worker_id=worker_id,
            instance_id=self.instance_id,
            types=types,
            slots=slots,
            sdk="simulation",
        )
        self._handlers: dict[str, _Handler] = {}
        self._nursery: trio.Nursery | None = None
        self._has_work = trio.Event()
        self._moved = trio.Event()
        self.link: Link | None = None
        self.scope = trio.CancelScope()
        """Cancelled when the process ends, however it does."""
        self._is_silent = False

    def __repr__(self) -> str:
        return f"<WorkerProcess {self.instance_id} {self.session!r}>"

    async def run(self) -> None:
        """Run until it dies or has drained."""
        self._world.note(f"worker {self.instance_id} starts")
        with self.scope:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                await self._stay_attached()

    def die(self, *, is_silent: bool) -> None:
        """End at once, like a process that is killed.

        Args:
            is_silent: Whether the server hears nothing of it: the machine died, not the process.
        """
        self._world.note(f"worker {self.instance_id} dies{' silently' if is_silent else ''}")
        self._is_silent = is_silent
        self.scope.cancel()

    async def drain(self) -> None:
        """Take nothing new, wait for what runs, and leave."""
        self._world.note(f"worker {self.instance_id} drains")
        self.session.drain()
        self._wake()
        with trio.move_on_after(DRAIN_S):
            while not self.session.is_idle:
                await self._moved.wait()
        self.scope.cancel()

    def set_credit(self, slots: int) -> None:
        """Take another number of attempts at once."""
        self.session.set_credit(slots)
        self._wake()

    # The stream.

    def _wake(self) -> None:
        has_work, self._has_work = self._has_work, trio.Event()
        has_work.set()
        moved, self._moved = self._moved, trio.Event()
        moved.set()

    async def _stay_attached(self) -> None:
        wait_s = 0.1
        while True:
            try:
                link = await self._host.dial()
            except ConnectionLost:
                await trio.sleep(self._chance.random() * wait_s)
                wait_s = min(5.0, wait_s * 2)
                continue
            wait_s = 0.1
            await self._serve(link)
            await trio.sleep(self._chance.random() * 0.5)

    async def _serve(self, link: Link) -> None:
        self.link = link
        self.session.connected()
        try:
            with link.worker:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._write, link)
                    await self._read(link)
                    nursery.cancel_scope.cancel()
        finally:
            self.session.disconnected()
            self.link = None
            # A client that drops its call cancels it at the server, unless the way there is broken.
            link.cut(server_knows=not (self._is_silent or link.is_cut))

    async def _read(self, link: Link) -> None:
        silence_s = GREETING_S
        while True:
            content: bytes | None = None
            with trio.move_on_after(silence_s):
                try:
                    content = await link.down.receive()
                except ConnectionLost:
                    return
            if content is None:
                return
            for event in self.session.receive(hub.AttachResponse.FromString(content)):
                match event:
                    case Welcomed():
                        silence_s = event.lease_s
                    case Assigned():
                        self._start(event)
                    case CancelRequested():
                        self._cancel(event)
                    case Recorded():
                        pass
                    case ProtocolError():
                        self._world.fail("Attach", f"the server broke the protocol: {event.message}")
            self._wake()

    async def _write(self, link: Link) -> None:
        while True:
            has_work = self._has_work
            frame = self.session.take_frame()
            if frame is None:
                await has_work.wait()
                continue
            try:
                await link.up.send(frame.SerializeToString())
            except ConnectionLost:
                return

    # Handlers.

    def _start(self, assigned: Assigned) -> None:
        token = assigned.token
        if token in self._started:
            self._world.fail(
                "A4",
                f"the handler of {assigned.node_path} attempt {assigned.attempt} was started twice: "
                f"at {self._started[token]} and at {self.instance_id}",
                assigned.execution_id,
            )
            return
        self._started[token] = self.instance_id
        mishaps = 0.0 if self._world.healed.is_set() else self._mishaps
        script = choose_script(
            self._world, assigned.execution_id, assigned.node_path, assigned.attempt, mishaps=mishaps
        )
        handler = self._handlers[token] = _Handler(script)
        assert self._nursery is not None  # opened by `run` before it attached
        self._nursery.start_soon(self._handle, assigned, handler)

    def _cancel(self, event: CancelRequested) -> None:
        handler = self._handlers.get(event.token)
        if handler is None:
            return
        handler.asked = True
        if handler.script.ignores_cancel:
            self._world.count("handler ignores its cancel")
        else:
            handler.scope.cancel()

    async def _handle(self, assigned: Assigned, handler: _Handler) -> None:
        token, script, session = assigned.token, handler.script, self.session
        self._world.count(script.act.value)
        if script.talks:
            session.progress(token, 0.5, "half")
            session.log(token, "INFO", "a line")
            session.heartbeat(token)
            session.usage(token, "tokens", TOKENS)
            self._world.spent[assigned.execution_id, assigned.node_path, assigned.attempt] = str(TOKENS)
            self._wake()
        deadline_s = float("inf")
        if assigned.time_left_s is not None and not script.ignores_cancel:
            deadline_s = trio.current_time() + max(assigned.time_left_s, script.extends_s)
        if assigned.time_left_s is not None and script.extends_s:
            session.extend(token, script.extends_s)
            self._wake()
        with handler.scope:
            handler.scope.deadline = deadline_s
            async with trio.open_nursery() as beating:
                beating.start_soon(self._beat, assigned, script)
                if script.act is Act.HANG:
                    await self._world.healed.wait()
                await trio.sleep(script.after_s)
                beating.cancel_scope.cancel()
        if handler.scope.cancelled_caught:
            await trio.sleep(script.exit_s)
            del self._handlers[token]
            session.exited(token)
        else:
            del self._handlers[token]
            if handler.asked:
                self._world.count("handler ends after its cancel")
            self._finish(token, script)
        self._wake()

    async def _beat(self, assigned: Assigned, script: Script) -> None:
        key = assigned.execution_id, assigned.node_path, assigned.attempt
        self._world.details[key] = assigned.heartbeat_details_json
        sent = self._world.beats.setdefault(key, [])
        for number in range(script.beats if assigned.heartbeat_timeout_s else 0):
            sent.append(f'{{"attempt":{assigned.attempt},"beat":{number}}}')
            self.session.heartbeat(assigned.token, sent[-1])
            self._wake()
            await trio.sleep((assigned.heartbeat_timeout_s or 0.0) / 2)

    def _finish(self, token: str, script: Script) -> None:
        session = self.session
        match script.act:
            case Act.SUCCEED | Act.HANG | Act.NOT_JSON:
                session.complete(token, script.output)
            case Act.FAIL:
                session.fail(
                    token,
                    script.code,
                    "scripted",
                    retryable=script.retryable,
                    retry_after_s=script.retry_after_s,
                    details_json=MUCH if script.says_much else '{"scripted":true}' if script.talks else None,
                    causes=many_causes() if script.says_much else (),
                )
            case Act.HAND_BACK:
                session.hand_back(token, "DRAINING" if session.is_draining else "NOT_NOW", "scripted")
            case Act.VANISH:
                if self._world.healed.is_set():
                    session.complete(token, script.output)
                else:
                    self.die(is_silent=script.talks)


class Worker:
    """A worker over all its instances: when one has ended, another is started a while later. `run` is started once."""

    def __init__(
        self,
        world: World,
        host: Host,
        worker_id: str,
        *,
        types: Mapping[str, int],
        slots: int,
        mishaps: float,
        started: dict[str, str],
    ) -> None:
        self._world = world
        self._host = host
        self._chance = world.chance("worker", worker_id)
        self._types = types
        self.slots: Final = slots
        self._mishaps = mishaps
        self._started = started
        self._draining: trio.Event = trio.Event()
        self.worker_id: Final = worker_id
        self.process: WorkerProcess | None = None
        """The instance that runs; None between two."""

    def __repr__(self) -> str:
        return f"<Worker {self.worker_id} {self.process!r}>"

    async def run(self) -> None:
        """Start instances until cancelled."""
        number = 0
        while True:
            number += 1
            self.process = WorkerProcess(
                self._world,
                self._host,
                self.worker_id,
                number,
                types=self._types,
                slots=self.slots,
                mishaps=self._mishaps,
                started=self._started,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._drain_when_asked, self.process)
                await self.process.run()
                nursery.cancel_scope.cancel()
            self.process = None
            # Sooner than the lease, and later: the new instance finds the old one detached, or gone.
            await trio.sleep(self._chance.choice((0.1, 2.0, 20.0)))

    def drain(self) -> None:
        """Let the present instance drain and leave."""
        self._draining.set()

    async def _drain_when_asked(self, process: WorkerProcess) -> None:
        self._draining = trio.Event()
        await self._draining.wait()
        await process.drain()
