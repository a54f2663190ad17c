"""The client for threads: every call blocks until its answer is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar, cast

import grpc
from google.protobuf import wrappers_pb2
from google.protobuf.message import Message

from plait.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    event_pb2,
    execution_pb2,
    execution_service_pb2,
    execution_service_pb2_grpc,
    graph_service_pb2,
    graph_service_pb2_grpc,
    insight_service_pb2_grpc,
    limit_service_pb2,
    limit_service_pb2_grpc,
    namespace_service_pb2,
    namespace_service_pb2_grpc,
    payload_pb2,
    system_service_pb2,
    system_service_pb2_grpc,
    worker_hub_service_pb2,
    worker_hub_service_pb2_grpc,
)
from plait_client.access import Access, AccessChannel, check_address, target_of
from plait_client.caller_trace import caller_trace
from plait_client.channel import (
    CHANNEL_OPTIONS,
    DEFAULT_ADDRESS,
    DEFAULT_NAMESPACE,
    HEALTH_METHOD,
    HEALTH_SERVING,
    Patience,
    Tries,
)
from plait_client.errors import PlaitError, cut_off, error_of
from plait_client.graph_builder import JsonValue
from plait_client.requests import (
    WAIT_S,
    GraphSource,
    InputValue,
    Requests,
    has_ended,
    parse_payload,
)
from plait_client.watching import ListWatch, Watch

_RequestT = TypeVar("_RequestT", bound=Message)
_ResponseT = TypeVar("_ResponseT", bound=Message)

CONNECT_S: Final = 5.0
"""How long a server that never answered is tried: its address may be wrong."""
RETRY_S: Final = 60.0
"""How long a server that has answered before is tried: it may be starting again."""
CALL_TIMEOUT_S: Final = 30.0
"""How long an answer may take, beside what the call itself asks to wait."""


class Client:
    """A connection to a Plait server, for threads; `AsyncClient` is the one for asyncio.

        with Client("127.0.0.1:7480") as client:
            execution = client.submit("graph.yaml", input={"topic": "rivers"})
            execution = client.wait(execution.execution_id)
            print(client.payload(execution.output))

    Every call is idempotent, submissions and cancels by their request id, and so is tried again while the
    server is not there. Threads may share a client. Neither the end of a call nor that of the client ends an
    execution.

    Args:
        address: the server, as HOST:PORT, or https://HOST:PORT for one with TLS.
        namespace: the namespace of every call.
        credentials: for TLS, in place of those of `access`.
        access: the token and the files of TLS; what it lacks is taken from PLAIT_TOKEN or PLAIT_TOKEN_FILE,
            PLAIT_TLS_CA, PLAIT_TLS_CERT and PLAIT_TLS_KEY. A token is sent only by TLS, or to this machine.
        connect_s: how long a server that never answered is tried.
        retry_s: how long a server that has answered before is tried.
        call_timeout_s: how long one answer may take.
        on_lost: called with the error when a server that has answered is lost, or refuses calls for a time
            (ResourceExhausted with OVERLOADED), before it is tried again.
        on_back: called when it answers again, with the seconds for which it did not.

    Raises:
        ValueError: the address is none, or the token may not be sent to it.
        OSError: a file of `access` cannot be read.

    Every call raises a PlaitError: Unavailable when the server stayed away, NotFound, InvalidArgument, ...
    """

    def __init__(  # noqa: PLR0913 -- All but the address are keywords.
        self,
        address: str = DEFAULT_ADDRESS,
        *,
        namespace: str = DEFAULT_NAMESPACE,
        credentials: grpc.ChannelCredentials | None = None,
        access: Access | None = None,
        connect_s: float = CONNECT_S,
        retry_s: float = RETRY_S,
        call_timeout_s: float = CALL_TIMEOUT_S,
        on_lost: Callable[[PlaitError], None] | None = None,
        on_back: Callable[[float], None] | None = None,
    ) -> None:
        self.address: Final = check_address(address)
        """The server, as HOST:PORT or https://HOST:PORT."""
        self.namespace: Final = namespace
        """The namespace of every call."""
        access = (access or Access()).with_environment()
        is_encrypted = credentials is not None or access.is_tls(address)
        access.check(address, is_encrypted=is_encrypted)
        target = target_of(address)
        if is_encrypted:
            credentials = credentials or access.channel_credentials()
            self._channel = grpc.secure_channel(target, credentials, CHANNEL_OPTIONS)
        else:
            self._channel = grpc.insecure_channel(target, CHANNEL_OPTIONS)
        # The stubs want no more of a channel than it has.
        channel = cast("grpc.Channel", AccessChannel(self._channel, access))
        self._graphs = graph_service_pb2_grpc.GraphServiceStub(channel)
        self._executions = execution_service_pb2_grpc.ExecutionServiceStub(channel)
        self._insight = insight_service_pb2_grpc.InsightServiceStub(channel)
        self._limits = limit_service_pb2_grpc.LimitServiceStub(channel)
        self._namespaces = namespace_service_pb2_grpc.NamespaceServiceStub(channel)
        self._audit = audit_service_pb2_grpc.AuditServiceStub(channel)
        self._workers = worker_hub_service_pb2_grpc.WorkerHubServiceStub(channel)
        self._system = system_service_pb2_grpc.SystemServiceStub(channel)
        self._health = self._channel.unary_unary(
            HEALTH_METHOD,
            request_serializer=wrappers_pb2.StringValue.SerializeToString,
            response_deserializer=wrappers_pb2.Int32Value.FromString,
        )
        self._requests = Requests(namespace)
        self._patience = Patience(connect_s=connect_s, retry_s=retry_s, on_lost=on_lost, on_back=on_back)
        self._call_timeout_s = call_timeout_s

    def __repr__(self) -> str:
        """Return what it is connected to."""
        return f"<Client {self.address} {self.namespace}>"

    def __enter__(self) -> Self:
        """Return the client itself; it is closed at the end."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the client."""
        self.close()

    def close(self) -> None:
        """Close the connection; calls that are under way fail."""
        self._channel.close()

    def submit(  # noqa: PLR0913 -- all but the graph are optional
        self,
        graph: GraphSource,
        *,
        input: InputValue = None,
        request_id: str = "",
        execution_id: str = "",
        labels: Mapping[str, str] | None = None,
        priority: int = 0,
        traceparent: str = "",
        tracestate: str = "",
        wait_s: float = 0.0,
        queue_s: float = 0.0,
    ) -> execution_pb2.Execution:
        """Have a graph carried out. What this returns is durable.

        Args:
            graph: the graph, a graph file's path, or the content of such a file as a dict.
            input: the execution's input, a JSON value, or a Payload whose text is sent unchanged.
            request_id: the same id with the same content gives the same execution; empty: a new one is made,
                and kept over the tries of this call.
            execution_id: the execution's id; empty: the server makes one.
            labels: labels of the execution.
            priority: of the execution, -1,000 to 1,000; higher ones go first among what waits for capacity.
            traceparent: the W3C traceparent of the execution's parent span; empty: that of the current span, if the
                program uses OpenTelemetry. One that is not valid is not sent.
            tracestate: the W3C tracestate that belongs to `traceparent`.
            wait_s: how long to wait for the end, in the same call; the execution is then shown as it is.
            queue_s: how long to try again while the namespace's queue is full; 0: that is an error at once.

        Raises:
            GraphFileError: the graph file cannot be read as a graph.
            InvalidArgument: the graph is invalid; `violations` lists what is wrong.
            AlreadyExists: the request id was used with other content, or the execution id is taken.
            ResourceExhausted: the queue of the namespace is full (QUEUE_FULL); nothing was accepted.
        """
        end_s = time.monotonic() + wait_s
        first_s = min(WAIT_S, wait_s)
        request = self._requests.submit(graph, input, request_id, execution_id, labels, first_s, priority)
        trace = caller_trace(traceparent, tracestate)
        with trace.as_parent():
            answer = self._call(
                self._executions.SubmitGraph,
                request,
                wait_s=first_s,
                metadata=trace.metadata,
                queue_s=queue_s,
            )
        left_s = end_s - time.monotonic()
        if has_ended(answer.execution) or wait_s <= first_s or left_s <= 0:
            return answer.execution
        return self.wait(answer.execution.execution_id, left_s)

    def get(self, execution_id: str) -> execution_pb2.Execution:
        """Show an execution."""
        return self._call(self._executions.GetExecution, self._requests.get(execution_id)).execution

    def list(
        self, *, filter: str = "", order_by: str = "", page_size: int = 0
    ) -> Iterator[execution_pb2.Execution]:
        """List the executions, newest first, page by page as they are asked for.

        Args:
            filter: the executions wanted, such as `state = RUNNING AND labels.team = "core"`; empty means all.
            order_by: `create_time desc` (the default), `create_time`, `end_time desc` or `end_time`.
            page_size: how many the server sends at once; 0 means 100.
        """
        request = self._requests.list(filter, order_by, page_size)
        while True:
            page = self._call(self._executions.ListExecutions, request)
            yield from page.executions
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def count(self, filter: str = "") -> int:
        """Count the executions, or those that a filter of `list` matches."""
        return self._call(self._executions.CountExecutions, self._requests.count(filter)).count

    def nodes(self, execution_id: str, *, page_size: int = 0) -> Iterator[execution_pb2.ExecutionNode]:
        """List the nodes of an execution, in graph order, page by page as they are asked for."""
        request = self._requests.nodes(execution_id, page_size)
        while True:
            page = self._call(self._executions.ListNodes, request)
            yield from page.nodes
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def node(self, execution_id: str, node_path: str) -> execution_pb2.ExecutionNode:
        """Show a node with its input, its output and all its attempts."""
        return self._call(self._executions.GetNode, self._requests.node(execution_id, node_path)).node

    def wait(self, execution_id: str, timeout_s: float | None = None) -> execution_pb2.Execution:
        """Wait for the end of an execution, and show it.

        Args:
            execution_id: the execution's id.
            timeout_s: how long to wait; the execution is then shown as it is. None: until it has ended, which
                may be never.
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            wait_s = WAIT_S if end_s is None else max(0.0, min(WAIT_S, end_s - time.monotonic()))
            request = self._requests.wait(execution_id, wait_s)
            execution = self._call(self._executions.WaitExecution, request, wait_s=wait_s).execution
            if has_ended(execution) or (end_s is not None and time.monotonic() >= end_s):
                return execution

    def watch(self, execution_id: str, *, after_sequence: int = 0) -> Iterator[event_pb2.Event]:
        """Follow the events of an execution, each once and in order, until it has ended.

        A stream that breaks is opened again after the last event that came.

        Args:
            execution_id: the execution's id.
            after_sequence: where to begin: 0 is the beginning, -1 the end.
        """
        for frame in self.watch_frames(execution_id, after_sequence=after_sequence):
            yield from frame.events.events

    def watch_frames(
        self, execution_id: str, *, after_sequence: int = 0, include_snapshot: bool = False
    ) -> Iterator[execution_service_pb2.WatchExecutionResponse]:
        """Follow an execution by frames, to the final one; heartbeats are left out.

        Args:
            execution_id: the execution's id.
            after_sequence: where to begin, as in `watch`; of no matter with a snapshot.
            include_snapshot: sends the state first, as it is now, in parts, and then the events after it. If
                the stream breaks within the snapshot, another begins: its first part holds the execution.
        """
        watch = Watch(self._requests, execution_id, after_sequence, include_snapshot=include_snapshot)
        tries = self._patience.tries(time.monotonic)
        while not watch.is_over:
            call = self._executions.WatchExecution(watch.request())
            failure: grpc.RpcError | None = None
            try:
                for frame in call:
                    tries.succeeded()
                    if watch.take(frame):
                        yield frame
            except grpc.RpcError as error:
                failure = error
            finally:
                call.cancel()
            if not watch.is_over:
                self._pause(tries, failure)

    def watch_executions(
        self, *, filter: str = "", watch_token: str = "", include_initial: bool = False
    ) -> Iterator[execution_service_pb2.WatchExecutionsResponse]:
        """Follow the changes of the namespace's executions, without end.

        A stream that breaks is opened again after the last frame that came. An execution that changed several times
        meanwhile comes once, as it is.

        Args:
            filter: the executions to follow, as in `list`; those that cease to match come as LEFT.
            watch_token: the token of the last frame that was handled, to go on after it.
            include_initial: sends all executions first. The first frame with `caught_up` ends them.

        Raises:
            PlaitError: WATCH_TOKEN_EXPIRED if the token is too old; begin again with `include_initial`.
        """
        watch = ListWatch(self._requests, filter, watch_token, include_initial=include_initial)
        tries = self._patience.tries(time.monotonic)
        while True:
            call = self._executions.WatchExecutions(watch.request())
            failure: grpc.RpcError | None = None
            try:
                for frame in call:
                    tries.succeeded()
                    watch.watch_token = frame.watch_token
                    yield frame
            except grpc.RpcError as error:
                failure = error
            finally:
                call.cancel()
            self._pause(tries, failure)

    def logs(
        self,
        execution_id: str,
        *,
        node_path: str = "",
        attempt: int = 0,
        after_sequence: int = 0,
        follow: bool = False,
    ) -> Iterator[execution_service_pb2.ExecutionLogLine]:
        """Read what the handlers of an execution logged, and the progress that they reported.

        Args:
            execution_id: the execution.
            node_path: a node, to read its lines alone; empty reads those of all nodes.
            attempt: one of its attempts; 0 means all.
            after_sequence: reads only the lines after this one.
            follow: yields lines as they come, until the execution has ended; a stream that breaks is opened again.
                Without it, the lines of each node come together.
        """
        tries = self._patience.tries(time.monotonic)
        seen = set[int]()
        while True:
            request = self._requests.logs(execution_id, node_path, attempt, after_sequence, follow=follow)
            call = self._executions.ReadLogs(request)
            try:
                for frame in call:
                    tries.succeeded()
                    for line in frame.lines:
                        if follow:
                            after_sequence = line.sequence
                        elif line.sequence in seen:
                            continue
                        else:
                            seen.add(line.sequence)
                        yield line
                return
            except grpc.RpcError as failure:
                self._pause(tries, failure)
            finally:
                call.cancel()

    def events(
        self, execution_id: str, *, after_sequence: int = 0, page_size: int = 0
    ) -> Iterator[event_pb2.Event]:
        """List the events that there are now, after a sequence; `watch` waits for more."""
        while True:
            request = self._requests.events(execution_id, after_sequence, page_size)
            page = self._call(self._executions.ListEvents, request)
            yield from page.events
            if not page.events or page.events[-1].sequence >= page.last_sequence:
                return
            after_sequence = page.events[-1].sequence

    def cancel(self, execution_id: str, *, reason: str = "", request_id: str = "") -> execution_pb2.Execution:
        """Cancel an execution, and show it: CANCELLING, or ended. Nothing happens to one that has ended."""
        request = self._requests.cancel(execution_id, reason, request_id)
        return self._call(self._executions.CancelExecution, request).execution

    def pause(
        self, execution_id: str, *, abort: bool = False, reason: str = "", request_id: str = ""
    ) -> execution_pb2.Execution:
        """Pause an execution: nothing starts until it is resumed. Return it, PAUSING or PAUSED.

        Args:
            execution_id: The execution.
            abort: Stop what runs, to run it again after the resume; otherwise it runs to its end.
            reason: For people.
            request_id: Makes a repeated call the same one.
        """
        request = self._requests.pause(execution_id, reason, request_id, abort=abort)
        return self._call(self._executions.PauseExecution, request).execution

    def resume(
        self, execution_id: str, *, data: InputValue = None, reason: str = "", request_id: str = ""
    ) -> execution_pb2.Execution:
        """Resume a paused execution; expressions read `data` as the variable `resume`. Return it, RUNNING or QUEUED."""
        request = self._requests.resume(execution_id, data, reason, request_id)
        return self._call(self._executions.ResumeExecution, request).execution

    def update(
        self,
        execution_id: str,
        settings: execution_service_pb2.ExecutionSettings,
        *,
        paths: Sequence[str] = (),
        etag: str = "",
        request_id: str = "",
    ) -> execution_pb2.Execution:
        """Change the priority, the policy or the locks of an open execution. Return it with its new settings.

        Args:
            execution_id: The execution.
            settings: The new settings.
            paths: The fields of `settings` to change, such as `policy.max_concurrency`; empty: those that it has.
            etag: The `etag` of the execution as it was read; empty: whatever it is now.
            request_id: Makes a repeated call the same one.
        """
        request = self._requests.update(execution_id, settings, paths, etag, request_id)
        return self._call(self._executions.UpdateExecution, request).execution

    def delete(self, execution_id: str, *, request_id: str = "") -> None:
        """Delete an ended execution, with its events and payloads; it is gone when this returns.

        Raises:
            PlaitError: it has not ended (reason EXECUTION_NOT_ENDED); cancel it first.
        """
        self._call(self._executions.DeleteExecution, self._requests.delete(execution_id, request_id))

    def payload(self, payload: payload_pb2.Payload) -> JsonValue:
        """Return the value of a payload, fetched if the payload only names it; None if there is no value."""
        text = self.payload_text(payload)
        return parse_payload(text) if text else None

    def payload_text(self, payload: payload_pb2.Payload) -> str:
        """Return the JSON text of a payload, fetched if it is only named; empty if there is no value."""
        return (self.content(payload.digest)).decode() if payload.digest else payload.json

    def content(self, digest: str) -> bytes:
        """Fetch what the server keeps by digest: the JSON text of a payload, or a plait.v1.Graph in binary form."""
        tries = self._patience.tries(time.monotonic)
        while True:
            call = self._executions.GetPayload(self._requests.payload(digest), timeout=self._call_timeout_s)
            try:
                return b"".join([part.chunk for part in call])
            except grpc.RpcError as failure:
                self._pause(tries, failure)

    def export_trace(self, execution_id: str) -> Iterator[bytes]:
        """Stream the spans of an execution, sampled or not, as they are sent to a collector.

        Yields parts, each an OpenTelemetry TracesData in binary form, which is a valid ExportTraceServiceRequest as
        well. The ids of the spans are the same each time. For an open execution, yields the spans of what has ended so
        far. A stream that breaks after its first part raises, since a retry would yield the same spans again.
        """
        tries = self._patience.tries(time.monotonic)
        has_begun = False
        while True:
            call = self._insight.ExportTrace(self._requests.trace(execution_id))
            try:
                for part in call:
                    tries.succeeded()
                    has_begun = True
                    yield part.traces_data
            except grpc.RpcError as failure:
                if has_begun:
                    raise error_of(failure, self.address) from failure
                self._pause(tries, failure)
            else:
                return
            finally:
                call.cancel()

    def list_limits(
        self,
        kind: limit_service_pb2.LimitKind = limit_service_pb2.LIMIT_KIND_UNSPECIFIED,
        *,
        everywhere: bool = False,
        page_size: int = 0,
    ) -> Iterator[limit_service_pb2.Limit]:
        """List the limits that hold in the namespace, with who holds their permits, page by page as they are asked for.

        Args:
            kind: the kind; unspecified for all kinds.
            everywhere: whether to list those of all namespaces.
            page_size: how many a page has; 0 leaves it to the server.
        """
        request = self._requests.limits(kind, page_size, everywhere=everywhere)
        while True:
            page = self._call(self._limits.ListLimits, request)
            yield from page.limits
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def set_limit(
        self,
        kind: limit_service_pb2.LimitKind,
        name: str = "",
        *,
        max_concurrency: int | None = None,
        rate: float | None = None,
        burst: int = 0,
        everywhere: bool = False,
        request_id: str = "",
    ) -> limit_service_pb2.Limit:
        """Set a limit as a whole, at once and durably. It wins over the configuration until it is removed.

        Args:
            kind: what it bounds: the server, the namespace, a node type or a concurrency key.
            name: the node type or the key.
            max_concurrency: the attempts at once; None for a node type that only has a rate.
            rate: the starts a second, of a node type.
            burst: the starts that may come at once after a pause; 0 for those of a second.
            everywhere: whether the limit of a node type holds in all namespaces together.
            request_id: the same id with the same content sets it once.

        Raises:
            InvalidArgument: a value is out of its range; `violations` lists which.
        """
        limits = max_concurrency, rate, burst
        request = self._requests.set_limit(kind, name, limits, request_id, everywhere=everywhere)
        return (self._call(self._limits.SetLimit, request)).limit

    def remove_limit(
        self,
        kind: limit_service_pb2.LimitKind,
        name: str = "",
        *,
        everywhere: bool = False,
        request_id: str = "",
    ) -> limit_service_pb2.Limit | None:
        """Remove a limit that a call has set; return the one that holds from now on, None if there is none.

        Raises:
            NotFound: no call has set the limit.
        """
        request = self._requests.remove_limit(kind, name, request_id, everywhere=everywhere)
        answer = self._call(self._limits.RemoveLimit, request)
        return answer.limit if answer.HasField("limit") else None

    def get_namespace(self) -> namespace_service_pb2.Namespace:
        """Return the settings of the namespace, and how many of its executions run and wait."""
        request = self._requests.get_namespace()
        return self._call(self._namespaces.GetNamespace, request).namespace

    def list_namespaces(self, *, page_size: int = 0) -> Iterator[namespace_service_pb2.Namespace]:
        """List the namespaces that have settings of their own, or executions, by name."""
        request = namespace_service_pb2.ListNamespacesRequest(page_size=page_size)
        while True:
            page = self._call(self._namespaces.ListNamespaces, request)
            yield from page.namespaces
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def update_namespace(
        self,
        settings: namespace_service_pb2.NamespaceSettings,
        *,
        reset: Sequence[str] = (),
        etag: str = "",
        request_id: str = "",
    ) -> namespace_service_pb2.Namespace:
        """Change settings of the namespace, at once and durably.

        Args:
            settings: the new settings; those that it lacks stay.
            reset: the names of settings that go back to the server's configuration, such as `running_max`.
            etag: the mark of the namespace that the caller has seen; empty: not compared.
            request_id: the same id with the same content changes it once.

        Raises:
            InvalidArgument: a setting is out of its range; `violations` lists which.
        """
        request = self._requests.update_namespace(settings, reset, etag, request_id)
        return self._call(self._namespaces.UpdateNamespace, request).namespace

    def audit(self, execution_id: str = "", *, page_size: int = 0) -> Iterator[audit_service_pb2.AuditEntry]:
        """List who did what, newest first, in the namespace or to one execution, page by page as they are asked for."""
        request = self._requests.audit(execution_id, page_size)
        while True:
            page = self._call(self._audit.ListAuditEntries, request)
            yield from page.entries
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def validate(self, graph: GraphSource) -> graph_service_pb2.ValidateGraphResponse:
        """Check a graph; an invalid one is an answer, not an error."""
        return self._call(self._graphs.ValidateGraph, self._requests.validate(graph))

    def plan(self, graph: GraphSource) -> graph_service_pb2.PlanGraphResponse:
        """Show what a valid graph would do.

        Raises:
            InvalidArgument: the graph is invalid; `violations` lists what is wrong.
        """
        return self._call(self._graphs.PlanGraph, self._requests.plan(graph))

    def workers(self, *, page_size: int = 0) -> Iterator[worker_hub_service_pb2.Worker]:
        """List the workers, page by page as they are asked for."""
        request = self._requests.workers(page_size)
        while True:
            page = self._call(self._workers.ListWorkers, request)
            yield from page.workers
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def server_info(self) -> system_service_pb2.GetServerInfoResponse:
        """Show the server's version, limits and store."""
        return self._call(self._system.GetServerInfo, system_service_pb2.GetServerInfoRequest())

    def is_serving(self) -> bool:
        """Ask the server whether it serves (grpc.health.v1). It does not while it starts or stops."""
        answer = self._call(self._health, wrappers_pb2.StringValue())
        return answer.value == HEALTH_SERVING

    @property
    def has_answered(self) -> bool:
        """Whether the server has ever answered."""
        return self._patience.has_answered

    def _call(
        self,
        method: grpc.UnaryUnaryMultiCallable[_RequestT, _ResponseT],
        request: _RequestT,
        *,
        wait_s: float = 0.0,
        metadata: tuple[tuple[str, str], ...] = (),
        queue_s: float = 0.0,
    ) -> _ResponseT:
        tries = self._patience.tries(time.monotonic, queue_s)
        while True:
            try:
                response = method(request, timeout=self._call_timeout_s + wait_s, metadata=metadata)
            except grpc.RpcError as failure:
                self._pause(tries, failure)
            else:
                tries.succeeded()
                return response

    def _pause(self, tries: Tries, failure: grpc.RpcError | None) -> None:
        """Wait until the next attempt, or raise the error if there will be none. Without a failure a stream ended."""
        error: PlaitError = cut_off(self.address) if failure is None else error_of(failure, self.address)
        delay_s = tries.delay_after(error)
        if delay_s is None:
            raise error from failure
        time.sleep(delay_s)
