"""A hub without sockets: attached workers over memory channels, and the far end of a stream in a test's hands."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import trio

from plait.v1 import payload_pb2
from plait.v1 import worker_hub_service_pb2 as hub
from plait_server.adapters.workers.attached import AttachedWorkers
from plait_server.adapters.workers.tokens import Tokens
from plait_server.core.events import Event
from plait_server.core.states import CancelStage
from plait_server.ports.workers import Assignment, AttemptKey, Report

NAMESPACE: Final = "default"
EPOCH_S: Final = 1_700_000_000.0
PING_S: Final = 5.0
LEASE_S: Final = 15.0
GRACE_S: Final = 10.0
TOKENS: Final = Tokens(b"the key of this store")
INSTANCE: Final = "w-1"
QUIET_S: Final = 0.25
"""Long enough, in virtual time, for everything that is under way to arrive; no timer of the hub is shorter."""


class RecordingCapacity:
    """The allocator's end: what was said of each worker."""

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}
        self.types: dict[str, Mapping[str, int]] = {}
        self.said: list[tuple[str, str, int]] = []

    def attach_worker(
        self, namespace: str, worker_id: str, instance_id: str, slots: int, types: Mapping[str, int]
    ) -> None:
        self.slots[instance_id] = slots
        self.types[instance_id] = types
        self.said.append(("attach", instance_id, slots))

    def set_worker_slots(self, instance_id: str, slots: int) -> None:
        # As the allocator does: a worker that is gone takes nothing.
        if instance_id in self.slots:
            self.slots[instance_id] = slots
        self.said.append(("slots", instance_id, slots))

    def remove_worker(self, instance_id: str) -> None:
        self.slots.pop(instance_id, None)
        self.said.append(("remove", instance_id, 0))

    def slots_in_use(self, instance_id: str) -> int:
        return 3 if instance_id in self.slots else 0


class FixedSeams:
    """A wall clock that goes with trio's."""

    def now_s(self) -> float:
        return EPOCH_S + trio.current_time()

    def new_id(self) -> str:
        return "0" * 26

    def random(self) -> float:
        return 0.5


class RecordingObserver:
    """What workers said of their attempts."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []

    def events_durable(self, namespace: str, execution_id: str, events: Sequence[Event]) -> None:
        """Take note of nothing: no execution runs here."""

    def worker_said(self, key: AttemptKey, kind: str, text: str) -> None:
        self.said.append((key.node_path, kind, text))


@dataclass
class Call:
    """One `execute`: how it stands and what it was told."""

    assignment: Assignment
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    done: trio.Event = field(default_factory=trio.Event)
    report: Report | None = None
    reason: str = ""
    receipts: list[tuple[str, float]] = field(default_factory=list[tuple[str, float]])
    ended_s: float = 0.0
    used: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def token(self) -> str:
        return TOKENS.make(self.assignment.key)

    @property
    def stages(self) -> list[str]:
        return [stage for stage, _ in self.receipts]

    def stop_reason(self) -> str:
        return self.reason

    def on_receipt(self, stage: CancelStage, usage: Mapping[str, str] | None = None) -> None:
        self.receipts.append((stage.name, trio.current_time()))

    def on_usage(self, unit: str, amount: str) -> None:
        self.used.append((unit, amount))

    def cancel(self, reason: str) -> None:
        """Cancel as the runtime does; an empty reason is a shutdown."""
        self.reason = reason
        self.scope.cancel()

    async def wait(self) -> Report | None:
        """Wait for its end; gives its report, None if it was cancelled."""
        await self.done.wait()
        return self.report


class Far:
    """The worker's end of one stream, frame by frame."""

    def __init__(self) -> None:
        self._up_in, self._up_out = trio.open_memory_channel[hub.AttachRequest | None](1000)
        self._down_in, self._down_out = trio.open_memory_channel[hub.AttachResponse](1000)
        self.frames: list[hub.AttachResponse] = []
        self.is_stalled = False
        """Whether frames stay in the transport."""
        self.flow = trio.Event()
        self.ended = trio.Event()
        self.error: BaseException | None = None
        """What the stream ended with."""

    # The server's end.

    async def receive(self) -> bytes | None:
        frame = await self._up_out.receive()
        return frame.SerializeToString() if frame is not None else None

    async def send(self, frame: hub.AttachResponse) -> None:
        if self.is_stalled:
            await self.flow.wait()
        await self._down_in.send(hub.AttachResponse.FromString(frame.SerializeToString()))

    # The test's end.

    def say(self, *messages: hub.WorkerMessage) -> None:
        """Send a frame of these messages."""
        self.say_frame(hub.AttachRequest(messages=messages))

    def say_frame(self, frame: hub.AttachRequest) -> None:
        self._up_in.send_nowait(hub.AttachRequest.FromString(frame.SerializeToString()))

    def close(self) -> None:
        """End the stream; the server sees it once it has read what was said."""
        self._up_in.send_nowait(None)

    def stall(self) -> None:
        """Take nothing from now on, until `resume`."""
        self.is_stalled, self.flow = True, trio.Event()

    def resume(self) -> None:
        self.is_stalled = False
        self.flow.set()

    def heard(self) -> list[hub.ServerMessage]:
        """Take all messages that have come since the last call, pings left out."""
        messages: list[hub.ServerMessage] = []
        while True:
            try:
                frame = self._down_out.receive_nowait()
            except trio.WouldBlock:
                return [each for each in messages if not each.HasField("ping")]
            self.frames.append(frame)
            messages += frame.messages

    async def quiet(self) -> list[hub.ServerMessage]:
        """Let everything under way arrive, then take it as `heard` does."""
        await trio.sleep(QUIET_S)
        return self.heard()

    async def kinds(self) -> list[str]:
        return [each.WhichOneof("message") or "" for each in await self.quiet()]

    async def next_frame(self) -> hub.AttachResponse:
        return await self._down_out.receive()


class Hub:
    """Attached workers, what they reported, and what is asked of them."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self.capacity = RecordingCapacity()
        self.observer = RecordingObserver()
        self.delivered: list[tuple[AttemptKey, Report, str]] = []
        self.current: set[AttemptKey] = set()
        """What `is_current` says yes to."""
        self.workers = AttachedWorkers(
            capacity=self.capacity,
            tokens=TOKENS,
            seams=FixedSeams(),
            observer=self.observer,
            server_version="1.2.3",
            server_instance_id="server-1",
            ping_s=PING_S,
            grace_s=GRACE_S,
        )
        self.workers.deliver = lambda key, report, worker_id: self.delivered.append((key, report, worker_id))
        self.workers.is_current = self._is_current

    async def _is_current(self, key: AttemptKey) -> bool:
        await trio.lowlevel.checkpoint()
        return key in self.current

    def open(self, *first: hub.WorkerMessage) -> Far:
        """Open a stream, and say `first` on it."""
        far = Far()
        if first:
            far.say(*first)
        self._nursery.start_soon(self._attach, far)
        return far

    async def attach(self, *first: hub.WorkerMessage) -> Far:
        """Open a stream with a hello, by default that of `w-1`, and see its welcome."""
        far = self.open(*(first or (hello(),)))
        assert (await far.quiet())[0].HasField("welcome")
        return far

    async def _attach(self, far: Far) -> None:
        try:
            await self.workers.attach(far.receive, far.send)
        except Exception as error:  # noqa: BLE001 # the test judges it
            far.error = error
        far.ended.set()

    def execute(self, node_path: str = "a", *, instance_id: str = INSTANCE, attempt: int = 1) -> Call:
        """Have an attempt carried out, without waiting for it."""
        return self.carry_out(assignment(node_path, instance_id=instance_id, attempt=attempt))

    def carry_out(self, task: Assignment) -> Call:
        """Have a task carried out, without waiting for it."""
        call = Call(task)
        self._nursery.start_soon(self._execute, call)
        return call

    async def _execute(self, call: Call) -> None:
        with call.scope:
            call.report = await self.workers.execute(call.assignment, call)
        call.ended_s = trio.current_time()
        call.done.set()


@asynccontextmanager
async def open_hub() -> AsyncGenerator[Hub]:
    """Open a hub whose leases are kept."""
    async with trio.open_nursery() as nursery:
        stage = Hub(nursery)
        await nursery.start(stage.workers.run)
        yield stage
        nursery.cancel_scope.cancel()


def assignment(node_path: str = "a", *, instance_id: str = INSTANCE, attempt: int = 1) -> Assignment:
    """Make an attempt of the execution `x-1`."""
    return Assignment(
        key=AttemptKey(NAMESPACE, "x-1", 1, node_path, attempt),
        worker_id="w",
        worker_instance_id=instance_id,
        type="t",
        input_json='{"n":1}',
        input_digest="",
        input_size_bytes=0,
        time_left_s=60.0,
        traceparent="00-1-2-01",
        recovered=False,
    )


def hello(
    *,
    instance_id: str = INSTANCE,
    slots: int = 4,
    running: Sequence[str] = (),
    finished: Sequence[str] = (),
    change: Callable[[hub.Hello], None] | None = None,
) -> hub.WorkerMessage:
    """Introduce the worker `w`."""
    held = [hub.InFlight(token=token) for token in running]
    held += [hub.InFlight(token=token, finished=True) for token in finished]
    message = hub.Hello(
        protocol_version=1,
        worker_id="w",
        instance_id=instance_id,
        types=[hub.ServedType(type="t", max_concurrency=2)],
        slots=slots,
        labels={"zone": "a"},
        in_flight=held,
        sdk="hand/1",
    )
    if change is not None:
        change(message)
    return hub.WorkerMessage(hello=message)


def complete(token: str, json: str = "1", usage: Mapping[str, str] | None = None) -> hub.WorkerMessage:
    output = payload_pb2.Payload(json=json)
    return hub.WorkerMessage(
        complete=hub.Complete(
            token=token, output=output, usage=hub.UsageTotals(amounts=usage) if usage else None
        )
    )


def reject(token: str, code: str) -> hub.WorkerMessage:
    return hub.WorkerMessage(reject=hub.Reject(token=token, code=code, message="not now"))


def credit(slots: int) -> hub.WorkerMessage:
    return hub.WorkerMessage(credit=hub.Credit(slots=slots))


def drain() -> hub.WorkerMessage:
    return hub.WorkerMessage(drain=hub.Drain())


def pong(number: int = 1) -> hub.WorkerMessage:
    return hub.WorkerMessage(pong=hub.Pong(number=number))


def cancel_ack(token: str) -> hub.WorkerMessage:
    return hub.WorkerMessage(cancel_ack=hub.CancelAck(token=token))


def exited(token: str) -> hub.WorkerMessage:
    return hub.WorkerMessage(exited=hub.Exited(token=token))
