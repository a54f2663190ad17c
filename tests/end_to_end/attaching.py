"""A worker by hand: its Attach stream, message by message, so that a test says what no SDK would."""

from __future__ import annotations

import queue
import uuid
from collections import deque
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from plait.v1 import worker_hub_service_pb2
from tests.end_to_end.service import CALL_S, Service

Pb = worker_hub_service_pb2


class Attached:
    """One Attach stream. Pings are answered on the way."""

    def __init__(
        self,
        service: Service,
        *types: str,
        worker_id: str = "hand",
        instance_id: str = "",
        in_flight: Mapping[str, bool] | None = None,
        greet: bool = True,
        **hello: Any,  # noqa: ANN401 # Fields of Hello.
    ) -> None:
        self.instance_id = instance_id or uuid.uuid4().hex
        self._out: queue.SimpleQueue[worker_hub_service_pb2.AttachRequest | None] = queue.SimpleQueue()
        self._frames = service.hub.Attach(iter(self._out.get, None), timeout=CALL_S)
        self._inbox: deque[worker_hub_service_pb2.ServerMessage] = deque()
        if greet:
            fields: dict[str, Any] = {
                "protocol_version": 1,
                "worker_id": worker_id,
                "instance_id": self.instance_id,
                "namespace": service.namespace,
                "types": [Pb.ServedType(type=name) for name in types],
                "slots": 10,
                "in_flight": [Pb.InFlight(token=t, finished=done) for t, done in (in_flight or {}).items()],
            }
            self.say(hello=Pb.Hello(**(fields | hello)))
            self.welcome = self.next("welcome").welcome

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cut()

    def say(self, **message: Any) -> None:  # noqa: ANN401 # One of the messages.
        self.send([Pb.WorkerMessage(**message)])

    def send(self, messages: Iterable[worker_hub_service_pb2.WorkerMessage]) -> None:
        self._out.put(Pb.AttachRequest(messages=messages))

    def next(self, kind: str) -> worker_hub_service_pb2.ServerMessage:
        """Wait for a message that has to be of a kind."""
        while True:
            while not self._inbox:
                self._inbox += next(self._frames).messages
            message = self._inbox.popleft()
            if message.HasField("ping") and kind != "ping":
                self.say(pong=Pb.Pong(number=message.ping.number))
                continue
            assert message.WhichOneof("message") == kind, message
            return message

    def next_assign(self) -> worker_hub_service_pb2.Assign:
        return self.next("assign").assign

    def next_recorded(self) -> tuple[str, str]:
        """Wait for what became of a result: its token, and the result."""
        recorded = self.next("recorded").recorded
        name = Pb.RecordedResult.Name(recorded.result).removeprefix("RECORDED_RESULT_")
        return recorded.token, name

    def complete(self, token: str, json: str = "null", **fields: Any) -> None:  # noqa: ANN401
        self.say(complete={"token": token, "output": {"json": json}, **fields})

    def read_to_end(self) -> None:
        """Read until the server ends the stream; raises what it ends it with."""
        for _ in self._frames:
            pass

    def close(self) -> None:
        """End the worker's side, and wait for the server to end its own."""
        self._out.put(None)
        self.read_to_end()

    def cut(self) -> None:
        """Break the stream."""
        self._frames.cancel()
        self._out.put(None)
