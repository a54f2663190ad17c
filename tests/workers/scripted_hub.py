"""A server's end of Attach that does what a test says, on a real socket.

It belongs to the event loop of the test. A test takes the streams that workers open, one after the other,
says what the server says, and looks at what the worker said.
"""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterable
from types import TracebackType
from typing import Any, Self, cast

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from plait.v1 import execution_service_pb2, payload_pb2
from plait.v1 import worker_hub_service_pb2 as hub

HANG_S = 60.0
"""A test that waits so long for what does not come is stopped; none depends on it."""


def run(test: Callable[[], Awaitable[None]]) -> None:
    """Run an asyncio test inside a plain one."""

    async def bounded() -> None:
        async with asyncio.timeout(HANG_S):
            await test()

    asyncio.run(bounded())


def duration(seconds: float) -> Duration:
    message = Duration()
    message.FromMilliseconds(round(seconds * 1000))
    return message


def assign(token: str, json: str = "null", type_: str = "t", **fields: Any) -> hub.ServerMessage:  # noqa: ANN401
    fields.setdefault("input", payload_pb2.Payload(json=json))
    fields.setdefault("execution_id", "e")
    fields.setdefault("node_path", token)
    fields.setdefault("attempt", 1)
    fields.setdefault("run", 1)
    return hub.ServerMessage(assign=hub.Assign(token=token, type=type_, **fields))


def recorded(token: str, result: hub.RecordedResult = hub.RECORDED_RESULT_RECORDED) -> hub.ServerMessage:
    return hub.ServerMessage(recorded=hub.Recorded(token=token, result=result))


def cancel(token: str, reason: str = "CANCELLED", grace_s: float = 10.0) -> hub.ServerMessage:
    return hub.ServerMessage(
        cancel=hub.Cancel(token=token, reason=f"CANCEL_REASON_{reason}", grace=duration(grace_s))
    )


def welcome(*, lease_s: float = 30.0, payload_bytes_max: int = 1 << 20) -> hub.ServerMessage:
    return hub.ServerMessage(
        welcome=hub.Welcome(
            protocol_version=1,
            server_version="test",
            ping_interval=duration(lease_s / 3),
            lease=duration(lease_s),
            payload_bytes_max=payload_bytes_max,
            server_instance_id="server",
        )
    )


class Stream:
    """One stream, from the server's side."""

    def __init__(self, context: "grpc.aio.ServicerContext[hub.AttachRequest, hub.AttachResponse]") -> None:
        self._context = context
        self.metadata = dict(cast("Iterable[tuple[str, str]]", context.invocation_metadata() or ()))
        """The headers that the worker sent."""
        self._pings = 0
        self._received: asyncio.Queue[hub.WorkerMessage | None] = asyncio.Queue()
        self._end: asyncio.Future[tuple[grpc.StatusCode, str, str]] = (
            asyncio.get_running_loop().create_future()
        )

    async def send(self, *messages: hub.ServerMessage) -> None:
        await self._context.write(hub.AttachResponse(messages=messages))

    async def tell(self, *messages: hub.ServerMessage) -> None:
        """Send messages, and wait until the worker has acted on them."""
        self._pings += 1
        await self.send(*messages, hub.ServerMessage(ping=hub.Ping(number=self._pings)))
        assert (await self.expect("pong")).number == self._pings

    async def next(self) -> hub.WorkerMessage | None:
        """Wait for the next message; None when the worker has ended its side."""
        return await self._received.get()

    async def expect(self, kind: str, *, skipping: tuple[str, ...] = ()) -> Any:  # noqa: ANN401
        """Wait for a message of a kind, past those of the kinds to skip; anything else is wrong."""
        while True:
            message = await self.next()
            found = None if message is None else message.WhichOneof("message")
            if message is not None and found == kind:
                return getattr(message, kind)
            assert found in skipping, f"{found} came, {kind} was expected: {message}"

    async def hello(self) -> hub.Hello:
        message: hub.Hello = await self.expect("hello")
        return message

    async def greet(self, **fields: Any) -> hub.Hello:  # noqa: ANN401
        hello = await self.hello()
        await self.send(welcome(**fields))
        return hello

    async def expect_end(self, *, skipping: tuple[str, ...] = ()) -> None:
        """Wait until the worker has ended its side, and end the other."""
        while (message := await self.next()) is not None:
            assert message.WhichOneof("message") in skipping, message
        self.end()

    def end(self, code: grpc.StatusCode = grpc.StatusCode.OK, details: str = "", reason: str = "") -> None:
        if not self._end.done():
            self._end.set_result((code, details, reason))

    async def serve(self) -> None:
        reading = asyncio.create_task(self._read())
        try:
            code, details, reason = await self._end
        finally:
            reading.cancel()
        if code is not grpc.StatusCode.OK:
            await self._context.abort(code, details, _trailers(code, details, reason))

    async def _read(self) -> None:
        # The stubs do not tell that the end of the stream is read as grpc.aio.EOF.
        read = cast("Callable[[], Awaitable[object]]", self._context.read)
        while isinstance(frame := await read(), hub.AttachRequest):
            for message in frame.messages:
                self._received.put_nowait(message)
        self._received.put_nowait(None)


def _trailers(code: grpc.StatusCode, details: str, reason: str) -> tuple[tuple[str, bytes], ...]:
    if not reason:
        return ()
    number, _ = code.value
    status = status_pb2.Status(code=number, message=details)
    # Not the first detail: readers look for the type.
    status.details.add().Pack(error_details_pb2.RetryInfo())
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason=reason, domain="plait.v1"))
    return (("grpc-status-details-bin", status.SerializeToString()),)


class ScriptedHub:
    """The server. As a context manager it listens on a port of its own; it may stop and start again there."""

    def __init__(self) -> None:
        self.port = 0
        self.payloads: dict[str, bytes] = {}
        self.payload_refusals: list[grpc.StatusCode] = []
        """The answers to the next requests for payloads, in order."""
        self.refusal = ""
        """When set, every stream is refused with PERMISSION_DENIED and this text."""
        self._streams: asyncio.Queue[Stream] = asyncio.Queue()
        self._server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def start(self) -> None:
        self._server = grpc.aio.server()
        handlers: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {
            "plait.v1.WorkerHubService": {
                "Attach": grpc.stream_stream_rpc_method_handler(
                    self._attach,
                    request_deserializer=hub.AttachRequest.FromString,
                    response_serializer=hub.AttachResponse.SerializeToString,
                )
            },
            "plait.v1.ExecutionService": {
                "GetPayload": grpc.unary_stream_rpc_method_handler(
                    self._get_payload,
                    request_deserializer=execution_service_pb2.GetPayloadRequest.FromString,
                    response_serializer=execution_service_pb2.GetPayloadResponse.SerializeToString,
                )
            },
        }
        self._server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(*service) for service in handlers.items())
        )
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """Go away without a word: streams are cut."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    async def next_stream(self) -> Stream:
        return await self._streams.get()

    def add_payload(self, text: str) -> str:
        """Keep a payload; return its digest."""
        data = text.encode()
        digest = hashlib.sha256(data).hexdigest()
        self.payloads[digest] = data
        return digest

    async def _attach(
        self, requests: object, context: "grpc.aio.ServicerContext[hub.AttachRequest, hub.AttachResponse]"
    ) -> None:
        if self.refusal:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, self.refusal)
        stream = Stream(context)
        self._streams.put_nowait(stream)
        await stream.serve()

    async def _get_payload(
        self,
        request: execution_service_pb2.GetPayloadRequest,
        context: "grpc.aio.ServicerContext[Any, execution_service_pb2.GetPayloadResponse]",
    ) -> None:
        if self.payload_refusals:
            await context.abort(self.payload_refusals.pop(0), "not now")
        data = self.payloads.get(request.digest)
        if data is None:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such payload")
            return
        for start in range(0, len(data), 65536):
            chunk = data[start : start + 65536]
            await context.write(execution_service_pb2.GetPayloadResponse(chunk=chunk))
