"""A cheap collector of spans: it keeps requests as bytes, and parses them when it is asked to count.

`python -m plait_server.bench.sink [PORT]` prints its port and serves OTLP over gRPC; `Sink` controls it from this
process. It can be told to behave like a collector in trouble.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import json
import sys
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Any, Final, assert_never, cast

import grpc
import grpc.aio
from opentelemetry.proto.trace.v1 import trace_pb2

from plait_server.bench.site import BenchFailed, read_line, run_process

EXPORT: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
_BEHAVE: Final = "/bench.Sink/Behave"
_COUNT: Final = "/bench.Sink/Count"
_CLEAR: Final = "/bench.Sink/Clear"
_REQUEST_BYTES_MAX: Final = 4 * 1024 * 1024
"""What a collector takes by default."""
_SLOW_S: Final = 1.0
_LOOK_AGAIN_S: Final = 0.05
_STALLED_S: Final = 15.0
"""If nothing arrives for so long, the missing spans were dropped: a failed request is sent again sooner."""


class Behavior(enum.Enum):
    """How a sink answers requests."""

    TAKE = "take"
    SILENT = "silent"
    """Never answers."""
    REFUSING = "refusing"
    """Refuses with PERMISSION_DENIED, which must not be retried."""
    UNAVAILABLE = "unavailable"
    """Refuses with UNAVAILABLE, which may be retried."""
    SLOW = "slow"
    """Takes one request at a time, each in a second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What a sink received since it was last cleared."""

    requests: int
    bytes: int
    spans: Mapping[str, int]
    """Spans with distinct ids, by the first word of their names, such as `node`."""

    def lacks(self, expected: Mapping[str, int]) -> Mapping[str, int]:
        """Return how many of the expected spans are missing."""
        return {
            word: count - self.spans.get(word, 0)
            for word, count in expected.items()
            if self.spans.get(word, 0) < count
        }


class Sink:
    """A sink in a process of its own."""

    def __init__(self, port: int) -> None:
        self.port = port

    @property
    def environment(self) -> Mapping[str, str]:
        """The environment of a process that is to send its spans here."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{self.port}"}

    def behave(self, behavior: Behavior) -> None:
        """Change how it answers; requests that a silent sink holds then fail with UNAVAILABLE."""
        asyncio.run(self._ask(_BEHAVE, behavior.value.encode()))

    def clear(self) -> None:
        """Clear what it received."""
        asyncio.run(self._ask(_CLEAR))

    def count(self) -> Counted:
        """Count what it received."""
        return asyncio.run(self._count())

    def wait_spans(self, expected: Mapping[str, int]) -> Counted:
        """Wait until it has received so many spans.

        Raises:
            BenchFailed: some did not arrive.
        """
        return asyncio.run(self._wait_spans(expected))

    async def _wait_spans(self, expected: Mapping[str, int]) -> Counted:
        counted = await self._count()
        end_s = time.monotonic() + _STALLED_S
        while lacking := counted.lacks(expected):
            if time.monotonic() >= end_s:
                raise BenchFailed(f"of the spans {dict(expected)}, these did not arrive: {dict(lacking)}")
            await asyncio.sleep(_LOOK_AGAIN_S)
            before, counted = counted, await self._count()
            if counted.requests > before.requests:
                end_s = time.monotonic() + _STALLED_S
        return counted

    async def _count(self) -> Counted:
        return Counted(**json.loads(await self._ask(_COUNT)))

    async def _ask(self, method: str, request: bytes = b"") -> bytes:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{self.port}") as channel:
            call = cast("grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]", channel.unary_unary(method))
            return await call(request)


@contextlib.contextmanager
def run_sink(port: int = 0) -> Generator[Sink]:
    """Start a sink; it is killed at the exit."""
    with run_process("plait_server.bench.sink", str(port)) as process:
        yield Sink(int(read_line(process)))


_Context = grpc.aio.ServicerContext[bytes, bytes]


class _Collector(grpc.GenericRpcHandler):
    def __init__(self) -> None:
        self._methods: Mapping[str, Callable[[bytes, _Context], Awaitable[bytes]]] = {
            EXPORT: self._export,
            _BEHAVE: self._behave,
            _COUNT: self._count,
            _CLEAR: self._clear,
        }
        self._behavior = Behavior.TAKE
        self._changed = asyncio.Event()
        self._turn = asyncio.Lock()
        self._reset()

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        method = self._methods.get(handler_call_details.method)
        return None if method is None else grpc.unary_unary_rpc_method_handler(method)

    async def _export(self, request: bytes, context: _Context) -> bytes:
        if self._behavior is Behavior.REFUSING:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, "the bench refuses")
        if not await self._takes():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the bench is away")
        self._kept.append(request)
        self._requests += 1
        self._bytes += len(request)
        return b""

    async def _takes(self) -> bool:
        match self._behavior:
            case Behavior.TAKE | Behavior.REFUSING:
                return True
            case Behavior.UNAVAILABLE:
                return False
            case Behavior.SILENT:
                await self._changed.wait()
                return False
            case Behavior.SLOW:
                async with self._turn:
                    await asyncio.sleep(_SLOW_S)
                return True
            case _:
                assert_never(self._behavior)

    async def _behave(self, request: bytes, context: _Context) -> bytes:
        del context
        self._behavior = Behavior(request.decode())
        self._changed.set()
        self._changed = asyncio.Event()
        return b""

    async def _count(self, request: bytes, context: _Context) -> bytes:
        del request, context
        for content in self._kept:
            for of_resource in trace_pb2.TracesData.FromString(content).resource_spans:
                for of_scope in of_resource.scope_spans:
                    for span in of_scope.spans:
                        self._spans[span.name.partition(" ")[0]].add(span.trace_id + span.span_id)
        self._kept.clear()
        spans = {word: len(ids) for word, ids in self._spans.items()}
        return json.dumps({"requests": self._requests, "bytes": self._bytes, "spans": spans}).encode()

    async def _clear(self, request: bytes, context: _Context) -> bytes:
        del request, context
        self._reset()
        return b""

    def _reset(self) -> None:
        self._kept: list[bytes] = []
        """Not parsed yet."""
        self._spans: defaultdict[str, set[bytes]] = defaultdict(set)
        self._requests = self._bytes = 0


async def _serve(port: int) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", _REQUEST_BYTES_MAX)])
    server.add_generic_rpc_handlers((_Collector(),))
    sys.stdout.write(f"{server.add_insecure_port(f'127.0.0.1:{port}')}\n")
    await server.start()
    sys.stdout.flush()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]) if len(sys.argv) > 1 else 0))
