"""The ceilings of messages and calls: grpc.aio on plain asyncio at both ends, with nothing behind it.

`python -m plait_server.bench.echo` prints its port and serves; the functions measure from this process.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any, Final, cast

import grpc
import grpc.aio

IN_FLIGHT: Final = 64
MESSAGE: Final = b"12345678"
_STREAM: Final = "/bench.Echo/Stream"
_CALL: Final = "/bench.Echo/Call"


class _Echo(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        if handler_call_details.method == _CALL:
            return grpc.unary_unary_rpc_method_handler(_answer)
        return grpc.stream_stream_rpc_method_handler(_echo)


async def _answer(message: bytes, context: object) -> bytes:
    del context
    return message


async def _echo(messages: AsyncIterator[bytes], context: object) -> AsyncIterator[bytes]:
    del context
    async for message in messages:
        yield message


async def _serve() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((_Echo(),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    await server.wait_for_termination()


async def _drive_stream(port: int, seconds: float) -> float:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = cast("grpc.aio.StreamStreamCall[bytes, bytes]", channel.stream_stream(_STREAM)())
        for _ in range(IN_FLIGHT):
            await call.write(MESSAGE)
        count = 0
        begun_s = time.perf_counter()
        while (passed_s := time.perf_counter() - begun_s) < seconds:
            await call.read()
            await call.write(MESSAGE)
            count += 1
        call.cancel()
    return count / passed_s


async def _drive_calls(port: int, seconds: float) -> float:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = cast("grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]", channel.unary_unary(_CALL))
        await method(MESSAGE)
        count = 0
        begun_s = time.perf_counter()
        while (passed_s := time.perf_counter() - begun_s) < seconds:
            await method(MESSAGE)
            count += 1
    return passed_s / count


def echo_messages_per_s(port: int, seconds: float) -> float:
    """Measure how many messages a second come back from an echo server, 64 in flight on one stream."""
    return asyncio.run(_drive_stream(port, seconds))


def call_s(port: int, seconds: float) -> float:
    """Measure how many seconds a unary call takes, one at a time."""
    return asyncio.run(_drive_calls(port, seconds))


if __name__ == "__main__":
    asyncio.run(_serve())
