"""Calls of the service by its generated stubs, and what came back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias, cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2_grpc

from plait.v1 import (
    event_pb2,
    execution_pb2,
    execution_service_pb2,
    execution_service_pb2_grpc,
    graph_pb2,
    graph_service_pb2,
    graph_service_pb2_grpc,
    payload_pb2,
    state_pb2,
    system_service_pb2_grpc,
    worker_hub_service_pb2,
    worker_hub_service_pb2_grpc,
)
from plait_client.graph_file import parse_graph

CALL_S = 60.0
"""A call that hangs is given up; none of them takes so long."""
ENDED = frozenset(
    {
        state_pb2.EXECUTION_STATE_SUCCEEDED,
        state_pb2.EXECUTION_STATE_PARTIALLY_SUCCEEDED,
        state_pb2.EXECUTION_STATE_FAILED,
        state_pb2.EXECUTION_STATE_CANCELLED,
        state_pb2.EXECUTION_STATE_TIMED_OUT,
    }
)
Pb = execution_service_pb2
Graph: TypeAlias = "str | graph_pb2.Graph"
"""A graph, or the text of a graph file."""


class Frames(Protocol):
    """A watch."""

    def __iter__(self) -> Iterator[execution_service_pb2.WatchExecutionResponse]: ...

    def __next__(self) -> execution_service_pb2.WatchExecutionResponse: ...

    def cancel(self) -> object: ...


class Service:
    """A server, seen by one client in one namespace."""

    BOUNDS: Sequence[tuple[str, int]] = (
        ("grpc.max_receive_message_length", -1),
        ("grpc.max_send_message_length", -1),
    )

    def __init__(self, address: str, namespace: str = "default") -> None:
        self.address = address
        self.namespace = namespace
        options = [
            *self.BOUNDS,
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.max_reconnect_backoff_ms", 500),
        ]
        self.channel = grpc.insecure_channel(address, options=options)
        self.graphs = graph_service_pb2_grpc.GraphServiceStub(self.channel)
        self.executions = execution_service_pb2_grpc.ExecutionServiceStub(self.channel)
        self.hub = worker_hub_service_pb2_grpc.WorkerHubServiceStub(self.channel)
        # The package ships no types of its stub.
        self.health = cast("Any", health_pb2_grpc.HealthStub)(self.channel)
        self.system = system_service_pb2_grpc.SystemServiceStub(self.channel)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.channel.close()

    def submit(
        self,
        graph: Graph,
        input: object = None,
        *,
        metadata: tuple[tuple[str, str], ...] = (),
        wait_for_ready: bool = False,
        **fields: Any,  # noqa: ANN401 # Fields of the request.
    ) -> str:
        """Submit a graph and return the execution's id."""
        request = Pb.SubmitGraphRequest(
            namespace=self.namespace, graph=_graph(graph), input=payload(input), **fields
        )
        answer = self.executions.SubmitGraph(
            request, timeout=CALL_S, metadata=metadata, wait_for_ready=wait_for_ready
        )
        return answer.execution.execution_id

    def run(self, graph: Graph, input: object = None, **fields: Any) -> execution_pb2.Execution:  # noqa: ANN401
        """Submit and wait for the end."""
        return self.wait(self.submit(graph, input, **fields))

    def wait(self, execution_id: str) -> execution_pb2.Execution:
        """Wait for the end."""
        request = Pb.WaitExecutionRequest(namespace=self.namespace, execution_id=execution_id)
        execution = self.executions.WaitExecution(request, timeout=2 * CALL_S, wait_for_ready=True).execution
        assert execution.state in ENDED, execution
        return execution

    def get(self, execution_id: str) -> execution_pb2.Execution:
        request = Pb.GetExecutionRequest(namespace=self.namespace, execution_id=execution_id)
        return self.executions.GetExecution(request, timeout=CALL_S).execution

    def cancel(self, execution_id: str, reason: str = "") -> execution_pb2.Execution:
        request = Pb.CancelExecutionRequest(
            namespace=self.namespace, execution_id=execution_id, reason=reason
        )
        return self.executions.CancelExecution(request, timeout=CALL_S).execution

    def nodes(self, execution_id: str) -> dict[str, execution_pb2.ExecutionNode]:
        """List all nodes, by path, in graph order."""
        nodes: dict[str, execution_pb2.ExecutionNode] = {}
        request = Pb.ListNodesRequest(namespace=self.namespace, execution_id=execution_id, page_size=1_000)
        while True:
            page = self.executions.ListNodes(request, timeout=CALL_S)
            nodes |= {node.path: node for node in page.nodes}
            if not page.next_page_token:
                return nodes
            request.page_token = page.next_page_token

    def node(self, execution_id: str, path: str) -> execution_pb2.ExecutionNode:
        request = Pb.GetNodeRequest(namespace=self.namespace, execution_id=execution_id, node_path=path)
        return self.executions.GetNode(request, timeout=CALL_S).node

    def states(self, execution_id: str) -> dict[str, str]:
        """Return the state of each node, with its reason where it has one: `SKIPPED/DEAD_PATH`."""
        return {path: state_text(node) for path, node in self.nodes(execution_id).items()}

    def events(self, execution_id: str, after: int = 0) -> list[event_pb2.Event]:
        """List all events."""
        events: list[event_pb2.Event] = []
        while True:
            request = Pb.ListEventsRequest(
                namespace=self.namespace, execution_id=execution_id, after_sequence=after, page_size=1_000
            )
            page = self.executions.ListEvents(request, timeout=CALL_S)
            events += page.events
            if not page.events or page.events[-1].sequence >= page.last_sequence:
                return events
            after = page.events[-1].sequence

    def watch(
        self,
        execution_id: str,
        after: int = 0,
        *,
        snapshot: bool = False,
        timeout: float | None = CALL_S,
    ) -> Frames:
        request = Pb.WatchExecutionRequest(
            namespace=self.namespace,
            execution_id=execution_id,
            after_sequence=after,
            include_snapshot=snapshot,
        )
        return cast("Frames", self.executions.WatchExecution(request, timeout=timeout))

    def watch_events(self, execution_id: str, after: int = 0) -> Iterator[event_pb2.Event]:
        for frame in self.watch(execution_id, after):
            yield from frame.events.events

    def wait_until(self, execution_id: str, is_it: Callable[[event_pb2.Event], bool]) -> event_pb2.Event:
        """Follow an execution to the first event of a kind."""
        frames = self.watch(execution_id)
        try:
            for frame in frames:
                for event in frame.events.events:
                    if is_it(event):
                        return event
        finally:
            frames.cancel()
        raise AssertionError(f"execution {execution_id} ended without it")

    def text(self, content: payload_pb2.Payload) -> str:
        """Return the text of a payload, fetched if need be."""
        if not content.digest:
            return content.json
        request = Pb.GetPayloadRequest(namespace=self.namespace, digest=content.digest)
        chunks = [part.chunk for part in self.executions.GetPayload(request, timeout=CALL_S)]
        return b"".join(chunks).decode()

    def value(self, content: payload_pb2.Payload) -> Any:  # noqa: ANN401
        return json.loads(self.text(content))

    def output(self, execution_id: str, path: str) -> Any:  # noqa: ANN401
        """Return the output of a node."""
        return self.value(self.node(execution_id, path).output)

    def validate(self, graph: Graph) -> graph_service_pb2.ValidateGraphResponse:
        request = graph_service_pb2.ValidateGraphRequest(namespace=self.namespace, graph=_graph(graph))
        return self.graphs.ValidateGraph(request, timeout=CALL_S)

    def plan(self, graph: Graph) -> graph_service_pb2.PlanGraphResponse:
        request = graph_service_pb2.PlanGraphRequest(namespace=self.namespace, graph=_graph(graph))
        return self.graphs.PlanGraph(request, timeout=CALL_S)

    def workers(self) -> list[worker_hub_service_pb2.Worker]:
        request = worker_hub_service_pb2.ListWorkersRequest(namespace=self.namespace)
        return list(self.hub.ListWorkers(request, timeout=CALL_S).workers)

    def is_serving(self) -> bool:
        """Ask grpc.health.v1: what every server must survive, it must answer after."""
        check = cast(
            "grpc.UnaryUnaryMultiCallable[bytes, bytes]",
            self.channel.unary_unary("/grpc.health.v1.Health/Check"),
        )
        return check(b"", timeout=CALL_S, wait_for_ready=True) == b"\x08\x01"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An error that a call ended with."""

    code: grpc.StatusCode
    message: str
    reason: str = ""
    domain: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    fields: Mapping[str, str] = field(default_factory=dict[str, str])
    """Field -> what is wrong with it."""
    retry_s: float | None = None


def refusal_of(call: Callable[[], object]) -> Refusal:
    """Make a call that is to be refused, and read the refusal; a stream is read to its end."""
    try:
        answer = call()
        if isinstance(answer, Iterator):
            for _ in cast("Iterator[object]", answer):
                pass
    except grpc.RpcError as error:
        return read_refusal(error)
    raise AssertionError("the call was answered")


def read_refusal(error: grpc.RpcError) -> Refusal:
    """Read code, message and google.rpc details."""
    call = cast("grpc.Call", error)
    details: dict[str, Any] = {}
    for key, value in call.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        status = status_pb2.Status.FromString(cast("bytes", value))
        assert status.code == call.code().value[0]
        assert status.message == call.details()
        info, bad, retry = (
            error_details_pb2.ErrorInfo(),
            error_details_pb2.BadRequest(),
            error_details_pb2.RetryInfo(),
        )
        for detail in status.details:
            if detail.Unpack(info):
                details |= {"reason": info.reason, "domain": info.domain, "metadata": dict(info.metadata)}
            elif detail.Unpack(bad):
                details["fields"] = {each.field: each.description for each in bad.field_violations}
            elif detail.Unpack(retry):
                details["retry_s"] = retry.retry_delay.ToTimedelta().total_seconds()
    return Refusal(code=call.code(), message=call.details() or "", **details)


def payload(value: object) -> payload_pb2.Payload:
    return payload_pb2.Payload(json=json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def state_text(node: execution_pb2.ExecutionNode) -> str:
    name = state_pb2.NodeState.Name(node.state).removeprefix("NODE_STATE_")
    return f"{name}/{node.reason}" if node.reason else name


def outcome(execution: execution_pb2.Execution) -> str:
    """Return the state of an execution, with its reason where it has one."""
    name = state_pb2.ExecutionState.Name(execution.state).removeprefix("EXECUTION_STATE_")
    return f"{name}/{execution.reason}" if execution.reason else name


def _graph(graph: Graph) -> graph_pb2.Graph:
    return parse_graph(graph) if isinstance(graph, str) else graph


def until(is_it: Callable[[], bool]) -> None:
    """Ask until it is so."""
    deadline = time.monotonic() + CALL_S
    while not is_it():
        assert time.monotonic() < deadline, "it never came to that"


def short(enum: Any, value: int) -> str:  # noqa: ANN401 # An enum of a contract.
    """Return the name of an enum's value without the enum's own name."""
    prefix = "".join(f"_{c}" if c.isupper() else c for c in enum.DESCRIPTOR.name).upper().lstrip("_") + "_"
    name: str = enum.Name(value)
    return name.removeprefix(prefix)
