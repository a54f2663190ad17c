"""Attached workers over streams in memory: the hub, attempts at it, and workers written by hand."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio
import trio.testing

from plait.v1 import payload_pb2
from plait.v1 import worker_hub_service_pb2 as pb
from plait_server.adapters.workers.attached import AttachedWorkers
from plait_server.adapters.workers.tokens import Tokens
from plait_server.core.run.commands import AttemptResult
from plait_server.core.run.events import Event
from plait_server.core.run.execution import Execution
from plait_server.core.run.states import CancelStage
from plait_server.errors import PlaitError, leaves_of
from plait_server.ports.workers import Assignment, AttemptKey

PING_S = 5.0
LEASE_S = 15.0
GRACE_S = 10.0
NAMESPACE = "default"


class Capacity:
    """Keeps what the hub says of its workers."""

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}
        """Instance -> attempts it takes at once; those that were removed are not here."""
        self.types: dict[str, Mapping[str, int]] = {}

    def attach_worker(
        self, namespace: str, worker_id: str, instance_id: str, slots: int, types: Mapping[str, int]
    ) -> None:
        self.slots[instance_id] = slots
        self.types[instance_id] = types

    def set_worker_slots(self, namespace: str, instance_id: str, slots: int) -> None:
        if instance_id in self.slots:
            self.slots[instance_id] = slots

    def remove_worker(self, namespace: str, instance_id: str) -> None:
        self.slots.pop(instance_id, None)

    def slots_in_use(self, namespace: str, instance_id: str) -> int:
        return 0


class Seams:
    def now_s(self) -> float:
        return 1_700_000_000.0 + trio.current_time()

    def new_id(self) -> str:
        raise AssertionError

    def random(self) -> float:
        raise AssertionError


class Recorder:
    def __init__(self) -> None:
        self.said: list[tuple[str, str, str]] = []

    def events_durable(self, namespace: str, execution: Execution, events: Sequence[Event]) -> None:
        raise AssertionError

    def worker_said(self, assignment: Assignment, kind: str, text: str) -> None:
        self.said.append((assignment.key.node_path, kind, text))


class Attempt:
    """An attempt that the hub carries out."""

    def __init__(self, key: AttemptKey) -> None:
        self.key = key
        self.token = ""
        self.result: AttemptResult | None = None
        self.receipts: list[tuple[float, CancelStage]] = []
        self.reason = ""
        self.scope = trio.CancelScope()
        self.is_over = False
        self.used: list[tuple[str, str]] = []
        self.heard: list[str] = []
        self.extensions: list[float] = []
        self.exit_usage: Mapping[str, str] | None = None

    def stop_reason(self) -> str:
        return self.reason

    def on_receipt(self, stage: CancelStage, usage: Mapping[str, str] | None = None) -> None:
        self.receipts.append((trio.current_time(), stage))
        self.exit_usage = usage

    def on_extend(self, duration_s: float) -> None:
        self.extensions.append(duration_s)

    def on_heard(self, details_json: str = "") -> None:
        self.heard.append(details_json)

    def on_usage(self, unit: str, amount: str) -> None:
        self.used.append((unit, amount))

    @property
    def stages(self) -> list[CancelStage]:
        return [stage for _, stage in self.receipts]

    def stop(self, reason: str = "CANCELLED") -> None:
        self.reason = reason
        self.scope.cancel()


class Hub:
    """`AttachedWorkers` and everything around it."""

    def __init__(self, nursery: trio.Nursery, *, namespace: str = NAMESPACE) -> None:
        self.nursery = nursery
        self.capacity = Capacity()
        self.observer = Recorder()
        self.tokens = Tokens(bytes(range(32)))
        self.delivered: list[tuple[AttemptKey, AttemptResult]] = []
        self.current: list[AttemptKey] = []
        self.is_looking_up = trio.Event()
        """While it is not set, nobody learns whether an attempt is current."""
        self.is_looking_up.set()
        self._looking_up = 0
        self.looking_up_max = 0
        self.workers = AttachedWorkers(
            capacity=self.capacity,
            tokens=self.tokens,
            seams=Seams(),
            observer=self.observer,
            server_version="1.2.3",
            server_instance_id="server.1",
            ping_s=PING_S,
            grace_s=GRACE_S,
        )
        self.workers.deliver = lambda key, result: self.delivered.append((key, result))
        self.workers.is_current = self._is_current

    async def _is_current(self, key: AttemptKey) -> bool:
        self._looking_up += 1
        self.looking_up_max = max(self.looking_up_max, self._looking_up)
        await self.is_looking_up.wait()
        self._looking_up -= 1
        return key in self.current

    def execute(
        self,
        path: str = "a",
        *,
        number: int = 1,
        worker: str = "w",
        instance: str = "w.1",
        recovered: bool = False,
        input_json: str = "null",
        namespace: str = NAMESPACE,
    ) -> Attempt:
        """Have an attempt carried out."""
        attempt = Attempt(AttemptKey(namespace, "x", 1, path, number))
        attempt.token = self.tokens.make(attempt.key)
        assignment = Assignment(
            attempt.key, worker, instance, "t", input_json, "", 0, 0.0, "", "", "0", recovered
        )
        self.nursery.start_soon(self._execute, attempt, assignment)
        return attempt

    async def _execute(self, attempt: Attempt, assignment: Assignment) -> None:
        with attempt.scope:
            attempt.result = await self.workers.execute(assignment, attempt)
        attempt.is_over = True

    async def dial(self, **hello: object) -> Stream:
        """Open a stream and say hello; the worker answers pings by itself until it is told otherwise."""
        stream = Stream(self)
        self.nursery.start_soon(stream.serve)
        await stream.say(hello_message(**hello))  # type: ignore[arg-type] # keywords are handed on
        await trio.testing.wait_all_tasks_blocked()
        return stream


class Stream:
    """One Attach stream, with a worker written by hand at its end."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._send, self._receive = trio.open_memory_channel[pb.AttachRequest](1_000)
        self._scope = trio.CancelScope()
        self.frames: list[pb.AttachResponse] = []
        self.is_answering = True
        """Whether it answers pings."""
        self.flow = trio.Event()
        """While it is not set, the transport takes nothing from the server."""
        self.flow.set()
        self.error: PlaitError | None = None
        self.is_over = False

    @property
    def heard(self) -> list[pb.ServerMessage]:
        return [message for frame in self.frames for message in frame.messages]

    def of(self, kind: str) -> list[pb.ServerMessage]:
        return [message for message in self.heard if message.WhichOneof("message") == kind]

    @property
    def recorded(self) -> list[tuple[str, int]]:
        return [(message.recorded.token, message.recorded.result) for message in self.of("recorded")]

    @property
    def assigned(self) -> list[str]:
        return [message.assign.token for message in self.of("assign")]

    @property
    def cancelled(self) -> list[tuple[str, str]]:
        return [
            (message.cancel.token, pb.CancelReason.Name(message.cancel.reason).removeprefix("CANCEL_REASON_"))
            for message in self.of("cancel")
        ]

    async def serve(self) -> None:
        try:
            with self._scope:
                await self._hub.workers.attach(self._take, self._put, lambda _: None)
        except* PlaitError as group:
            (error,) = leaves_of(group)
            assert isinstance(error, PlaitError)
            self.error = error
        finally:
            self.is_over = True

    async def _take(self) -> bytes | None:
        try:
            return (await self._receive.receive()).SerializeToString()
        except trio.EndOfChannel:
            return None

    async def _put(self, frame: pb.AttachResponse) -> None:
        await self.flow.wait()
        copy = pb.AttachResponse.FromString(frame.SerializeToString())
        self.frames.append(copy)
        for message in copy.messages:
            if message.HasField("ping") and self.is_answering:
                await self.say(pb.WorkerMessage(pong=pb.Pong(number=message.ping.number)))

    async def say(self, *messages: pb.WorkerMessage) -> None:
        await self._send.send(pb.AttachRequest(messages=messages))

    async def tell(self, *messages: pb.WorkerMessage) -> None:
        """Send a message and wait until the server has taken it in."""
        await self.say(*messages)
        await trio.testing.wait_all_tasks_blocked()

    async def complete(self, attempt: Attempt, output_json: str = "1") -> None:
        await self.tell(complete(attempt.token, output_json))

    async def cut(self) -> None:
        """Break the stream, as the transport does."""
        self._scope.cancel()
        await trio.testing.wait_all_tasks_blocked()

    async def close(self) -> None:
        """End the stream in good order."""
        self._send.close()
        await trio.testing.wait_all_tasks_blocked()


@asynccontextmanager
async def a_hub() -> AsyncGenerator[Hub]:
    async with trio.open_nursery() as nursery:
        hub = Hub(nursery)
        await nursery.start(hub.workers.run)
        yield hub
        nursery.cancel_scope.cancel()


def hello_message(
    *,
    worker: str = "w",
    instance: str = "w.1",
    namespace: str = "",
    types: Sequence[str] = ("t",),
    slots: int = 4,
    version: int = 1,
    running: Sequence[Attempt] = (),
    finished: Sequence[Attempt] = (),
    change: Callable[[pb.Hello], None] | None = None,
) -> pb.WorkerMessage:
    hello = pb.Hello(
        protocol_version=version,
        worker_id=worker,
        instance_id=instance,
        namespace=namespace,
        types=[pb.ServedType(type=name) for name in types],
        slots=slots,
        sdk="by hand",
        in_flight=[
            *(pb.InFlight(token=attempt.token) for attempt in running),
            *(pb.InFlight(token=attempt.token, finished=True) for attempt in finished),
        ],
    )
    if change is not None:
        change(hello)
    return pb.WorkerMessage(hello=hello)


def complete(token: str, output_json: str = "1") -> pb.WorkerMessage:
    return pb.WorkerMessage(complete=pb.Complete(token=token, output=payload_pb2.Payload(json=output_json)))


def fail(token: str, code: str = "UNKNOWN") -> pb.WorkerMessage:
    return pb.WorkerMessage(fail=pb.Fail(token=token, code=code, message="it did not work"))


def exited(token: str) -> pb.WorkerMessage:
    return pb.WorkerMessage(exited=pb.Exited(token=token))


def cancel_ack(token: str) -> pb.WorkerMessage:
    return pb.WorkerMessage(cancel_ack=pb.CancelAck(token=token))


def reject(token: str, code: str = "NO_SLOT") -> pb.WorkerMessage:
    return pb.WorkerMessage(reject=pb.Reject(token=token, code=f"REJECT_CODE_{code}"))
