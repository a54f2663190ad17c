"""The client of the bench: bare stubs on plain asyncio, so that the server is what is slow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Final, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf import duration_pb2

from plait.v1 import (
    event_pb2,
    execution_pb2,
    execution_service_pb2,
    execution_service_pb2_grpc,
    graph_pb2,
    state_pb2,
    worker_hub_service_pb2,
    worker_hub_service_pb2_grpc,
)
from plait_server.bench.site import BenchFailed
from plait_server.errors import leaves_of

Pb = execution_service_pb2
_T = TypeVar("_T")
_OPTIONS: Final = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_WAIT: Final = duration_pb2.Duration(seconds=600)
"""An execution that takes longer is given up."""
_ATTACH_S: Final = 60.0
_LOOK_AGAIN_S: Final = 0.02
_OPEN: Final = frozenset({state_pb2.EXECUTION_STATE_QUEUED, state_pb2.EXECUTION_STATE_RUNNING})


@dataclass(frozen=True, slots=True)
class Timing:
    """How a closed loop went."""

    passed_s: float
    latencies_s: list[float]
    """From each submission to the answer that the execution has ended, ascending."""

    @property
    def per_s(self) -> float:
        """Executions a second."""
        return len(self.latencies_s) / self.passed_s

    def quantile_ms(self, share: float) -> float:
        """Return the milliseconds within which this share of the executions ended."""
        return 1000 * self.latencies_s[min(len(self.latencies_s) - 1, int(share * len(self.latencies_s)))]


class Client:
    """Calls of one server; an asynchronous context manager."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.aio.insecure_channel(address, options=_OPTIONS)
        self._stub = execution_service_pb2_grpc.ExecutionServiceStub(self._channel)

    async def __aenter__(self) -> Self:
        """Connect."""
        await self._channel.channel_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect."""
        await self._channel.close()

    async def submit(self, graph: graph_pb2.Graph) -> str:
        """Submit a graph and return the execution's id."""
        response = await self._stub.SubmitGraph(Pb.SubmitGraphRequest(graph=graph))
        return response.execution.execution_id

    async def wait(
        self, execution_id: str, *, state: state_pb2.ExecutionState = state_pb2.EXECUTION_STATE_SUCCEEDED
    ) -> execution_pb2.Execution:
        """Wait for the end of an execution.

        Raises:
            BenchFailed: it ended in another state, or not at all.
        """
        request = Pb.WaitExecutionRequest(execution_id=execution_id, wait=_WAIT)
        return _checked((await self._stub.WaitExecution(request)).execution, state)

    async def run(self, graph: graph_pb2.Graph) -> execution_pb2.Execution:
        """Submit a graph and wait until it has succeeded, in one call.

        Raises:
            BenchFailed: it ended in another state, or not at all.
        """
        request = Pb.SubmitGraphRequest(graph=graph, wait=_WAIT)
        return _checked(
            (await self._stub.SubmitGraph(request)).execution, state_pb2.EXECUTION_STATE_SUCCEEDED
        )

    async def list_page(self, filter: str) -> None:
        """List the first 50 executions that match a filter."""
        await self._stub.ListExecutions(Pb.ListExecutionsRequest(page_size=50, filter=filter))

    async def count(self, filter: str) -> None:
        """Count the executions that match a filter."""
        await self._stub.CountExecutions(Pb.CountExecutionsRequest(filter=filter))

    async def get(self, execution_id: str) -> execution_pb2.Execution:
        """Read an execution."""
        request = Pb.GetExecutionRequest(execution_id=execution_id)
        return (await self._stub.GetExecution(request)).execution

    async def events(self, execution_id: str) -> list[event_pb2.Event]:
        """Read the events of a small execution."""
        request = Pb.ListEventsRequest(execution_id=execution_id)
        return list((await self._stub.ListEvents(request)).events)

    async def wait_workers(self, count: int) -> None:
        """Wait until so many workers are attached.

        Raises:
            BenchFailed: they are not, after a minute.
        """
        hub = worker_hub_service_pb2_grpc.WorkerHubServiceStub(self._channel)
        end_s = time.monotonic() + _ATTACH_S
        while time.monotonic() < end_s:
            listed = await hub.ListWorkers(worker_hub_service_pb2.ListWorkersRequest(page_size=1_000))
            if len(listed.workers) >= count:
                return
            await asyncio.sleep(_LOOK_AGAIN_S)
        raise BenchFailed(f"after {_ATTACH_S:.0f} s there are not {count} workers")

    async def wait_event(self, execution_id: str, type: event_pb2.EventType) -> None:
        """Wait until an execution has an event of a type."""
        while all(  # noqa: ASYNC110 # the events are the server's
            event.type != type for event in await self.events(execution_id)
        ):
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def close_loop(
        self, graph: graph_pb2.Graph, *, in_flight: int, is_over: Callable[[int], bool]
    ) -> Timing:
        """Run a graph again and again, so many at once.

        Args:
            graph: What each execution runs.
            in_flight: How many run at once.
            is_over: Asked with the number of those begun, before each.
        """
        begun = 0
        latencies_s: list[float] = []

        async def lane() -> None:
            nonlocal begun
            while not is_over(begun):
                begun += 1
                begun_s = time.perf_counter()
                await self.run(graph)
                latencies_s.append(time.perf_counter() - begun_s)

        first_s = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(in_flight):
                tasks.create_task(lane())
        return Timing(time.perf_counter() - first_s, sorted(latencies_s))


def _checked(execution: execution_pb2.Execution, state: state_pb2.ExecutionState) -> execution_pb2.Execution:
    if execution.state != state:
        name = state_pb2.ExecutionState.Name(execution.state)
        raise BenchFailed(f"an execution of the bench is {name}: {execution.failure.message or '?'}")
    return execution


def call(address: str, action: Callable[[Client], Coroutine[None, None, _T]]) -> _T:
    """Connect to a server, do something, and disconnect.

    Raises:
        BenchFailed: an execution ended as it should not, or the server refused a call.
    """

    async def main() -> _T:
        async with Client(address) as client:
            return await action(client)

    failures: list[BaseException] = []
    try:
        return asyncio.run(main())
    except* BenchFailed as group:
        failures = leaves_of(group)
    except* grpc.aio.AioRpcError as group:
        failures = leaves_of(group)
    # Here, for what is raised in an `except*` comes out in a group.
    first = failures[0]
    if isinstance(first, grpc.aio.AioRpcError):
        raise BenchFailed(f"the server said {first.code().name}: {first.details()}") from first
    raise first


def wait_workers(address: str, count: int = 1) -> None:
    """Wait until so many workers are attached."""
    call(address, lambda client: client.wait_workers(count))
