"""Server reflection (grpc.reflection.v1 and v1alpha) as a trio function, over our public protos only.

The stock asynchronous servicer is asyncio code, but methods here are trio functions; only the stock code for the
answers is reused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, cast

from google.protobuf import descriptor_pool
from google.protobuf.message import DecodeError, Message
from grpc_reflection.v1alpha import reflection, reflection_pb2

from plait_server.api.call import Call, Receive, Send
from plait_server.api.methods import SERVICES
from plait_server.core.limits import KIB
from plait_server.errors import FieldViolation, InvalidRequest

REQUEST_BYTES_MAX: Final = 64 * KIB
"""A request names one file or symbol."""
REFLECTION_SERVICES: Final = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
)


class ReflectionServicer:
    """Answers queries about services, files and symbols."""

    def __init__(self) -> None:
        names = [service.full_name for service in SERVICES.values()]
        names += ["grpc.health.v1.Health", *REFLECTION_SERVICES]
        self._stock = reflection.ReflectionServicer(names, pool=descriptor_pool.Default())  # type: ignore[no-untyped-call] # protobuf's stubs

    async def server_reflection_info(self, call: Call, receive: Receive, send: Send) -> None:
        """Serve one reflection stream."""
        del call
        while (content := await receive()) is not None:
            asked = _parse(content)
            answers = self._stock.ServerReflectionInfo(iter((asked,)), None)  # type: ignore[arg-type] # unused
            for answer in cast("Iterator[Message]", answers):
                await send(answer)


def _parse(content: bytes) -> reflection_pb2.ServerReflectionRequest:
    problem = f"has {len(content)} bytes, over the limit of {REQUEST_BYTES_MAX}"
    if len(content) <= REQUEST_BYTES_MAX:
        try:
            # The two versions have the same messages, in different packages.
            return reflection_pb2.ServerReflectionRequest.FromString(content)
        except DecodeError:
            problem = "is not a valid ServerReflectionRequest"
    raise InvalidRequest([FieldViolation(field="request", message=problem)])
