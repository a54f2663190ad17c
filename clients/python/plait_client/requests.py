"""The requests of both clients, made of plain values."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias, cast

from google.protobuf import duration_pb2, field_mask_pb2

from plait.v1 import (
    audit_service_pb2,
    event_pb2,
    execution_pb2,
    execution_service_pb2,
    graph_pb2,
    graph_service_pb2,
    insight_service_pb2,
    limit_service_pb2,
    namespace_service_pb2,
    payload_pb2,
    worker_hub_service_pb2,
)
from plait_client.graph_builder import JsonValue
from plait_client.graph_file import load_graph, parse_graph

GraphSource: TypeAlias = "graph_pb2.Graph | str | os.PathLike[str] | Mapping[str, JsonValue]"
"""A graph; or the path or the text of a graph file; or what such a file says, as a dict."""
InputValue: TypeAlias = "JsonValue | payload_pb2.Payload"
"""A JSON value; or a Payload with JSON text, which is sent as it stands."""

WAIT_S: Final = 30.0
"""How long one WaitExecution waits: shorter than what proxies allow a call to be silent."""

_ENDED_FROM: Final = 32
"""Where the numbers of the states begin in which an execution goes on no more, as the contract settles it: this holds
for states that are newer than this client, too."""


def has_ended(execution: execution_pb2.Execution) -> bool:
    """Return whether an execution has ended, or is quarantined and does not go on either."""
    return execution.state >= _ENDED_FROM


def read_graph(source: GraphSource) -> graph_pb2.Graph:
    """Return the graph that is meant.

    Raises:
        GraphFileError: the file or the dict is no graph.
    """
    if isinstance(source, graph_pb2.Graph):
        return source
    if isinstance(source, str | os.PathLike):
        return load_graph(source)
    return parse_graph(json.dumps(source, ensure_ascii=False, allow_nan=False), file_format="json")


def payload_of(value: InputValue) -> payload_pb2.Payload | None:
    """Write a value as a payload; None, which is what an absent input means, as none.

    Raises:
        ValueError: it is NaN or infinite, which JSON cannot say.
        TypeError: it is of a type that JSON does not have.
    """
    if value is None or isinstance(value, payload_pb2.Payload):
        return value
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return payload_pb2.Payload(json=text)


def parse_payload(text: str) -> JsonValue:
    """Read the JSON text of a payload."""
    return cast("JsonValue", json.loads(text))


class Requests:
    """Makes the requests of one namespace."""

    __slots__ = ("_namespace",)

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace

    def submit(
        self,
        graph: GraphSource,
        input: InputValue,
        request_id: str,
        execution_id: str,
        labels: Mapping[str, str] | None,
        wait_s: float,
        priority: int,
    ) -> execution_service_pb2.SubmitGraphRequest:
        """Ask for an execution; without a request id one is made, so that every try is the same request."""
        return execution_service_pb2.SubmitGraphRequest(
            namespace=self._namespace,
            graph=read_graph(graph),
            input=payload_of(input),
            request_id=request_id or uuid.uuid4().hex,
            execution_id=execution_id,
            labels=labels,
            wait=_duration(wait_s) if wait_s else None,
            priority=priority,
        )

    def get(self, execution_id: str) -> execution_service_pb2.GetExecutionRequest:
        """Ask for an execution."""
        return execution_service_pb2.GetExecutionRequest(namespace=self._namespace, execution_id=execution_id)

    def list(self, filter: str, order_by: str, page_size: int) -> execution_service_pb2.ListExecutionsRequest:
        """Ask for the first page of executions."""
        return execution_service_pb2.ListExecutionsRequest(
            namespace=self._namespace, filter=filter, order_by=order_by, page_size=page_size
        )

    def count(self, filter: str) -> execution_service_pb2.CountExecutionsRequest:
        """Ask for a number of executions."""
        return execution_service_pb2.CountExecutionsRequest(namespace=self._namespace, filter=filter)

    def watch_list(
        self, filter: str, watch_token: str, *, include_initial: bool
    ) -> execution_service_pb2.WatchExecutionsRequest:
        """Ask for a stream of changes of executions."""
        return execution_service_pb2.WatchExecutionsRequest(
            namespace=self._namespace,
            filter=filter,
            watch_token=watch_token,
            include_initial=include_initial and not watch_token,
        )

    def nodes(self, execution_id: str, page_size: int) -> execution_service_pb2.ListNodesRequest:
        """Ask for the first page of nodes."""
        return execution_service_pb2.ListNodesRequest(
            namespace=self._namespace, execution_id=execution_id, page_size=page_size
        )

    def node(self, execution_id: str, node_path: str) -> execution_service_pb2.GetNodeRequest:
        """Ask for a node."""
        return execution_service_pb2.GetNodeRequest(
            namespace=self._namespace, execution_id=execution_id, node_path=node_path
        )

    def payload(self, digest: str) -> execution_service_pb2.GetPayloadRequest:
        """Ask for the content of a payload."""
        return execution_service_pb2.GetPayloadRequest(namespace=self._namespace, digest=digest)

    def wait(self, execution_id: str, wait_s: float) -> execution_service_pb2.WaitExecutionRequest:
        """Ask to wait for an end."""
        return execution_service_pb2.WaitExecutionRequest(
            namespace=self._namespace, execution_id=execution_id, wait=_duration(wait_s)
        )

    def watch(
        self, execution_id: str, after_sequence: int, *, include_snapshot: bool
    ) -> execution_service_pb2.WatchExecutionRequest:
        """Ask for a stream of events."""
        return execution_service_pb2.WatchExecutionRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            after_sequence=after_sequence,
            include_snapshot=include_snapshot,
        )

    def logs(
        self, execution_id: str, node_path: str, attempt: int, after_sequence: int, *, follow: bool
    ) -> execution_service_pb2.ReadLogsRequest:
        """Ask for the lines of handlers."""
        return execution_service_pb2.ReadLogsRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            node_path=node_path,
            attempt=attempt,
            after_sequence=after_sequence,
            follow=follow,
        )

    def events(
        self, execution_id: str, after_sequence: int, page_size: int
    ) -> execution_service_pb2.ListEventsRequest:
        """Ask for a page of events."""
        return execution_service_pb2.ListEventsRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            after_sequence=after_sequence,
            page_size=page_size,
        )

    def cancel(
        self, execution_id: str, reason: str, request_id: str
    ) -> execution_service_pb2.CancelExecutionRequest:
        """Ask to cancel."""
        return execution_service_pb2.CancelExecutionRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            reason=reason,
            request_id=request_id or uuid.uuid4().hex,
        )

    def pause(
        self, execution_id: str, reason: str, request_id: str, *, abort: bool
    ) -> execution_service_pb2.PauseExecutionRequest:
        """Ask to pause."""
        return execution_service_pb2.PauseExecutionRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            mode=event_pb2.PAUSE_MODE_ABORT if abort else event_pb2.PAUSE_MODE_WAIT,
            reason=reason,
            request_id=request_id or uuid.uuid4().hex,
        )

    def resume(
        self, execution_id: str, data: InputValue, reason: str, request_id: str
    ) -> execution_service_pb2.ResumeExecutionRequest:
        """Ask to resume."""
        return execution_service_pb2.ResumeExecutionRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            data=payload_of(data),
            reason=reason,
            request_id=request_id or uuid.uuid4().hex,
        )

    def update(
        self,
        execution_id: str,
        settings: execution_service_pb2.ExecutionSettings,
        paths: Sequence[str],
        etag: str,
        request_id: str,
    ) -> execution_service_pb2.UpdateExecutionRequest:
        """Ask for other settings."""
        return execution_service_pb2.UpdateExecutionRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            settings=settings,
            update_mask=field_mask_pb2.FieldMask(paths=paths),
            etag=etag,
            request_id=request_id or uuid.uuid4().hex,
        )

    def limits(
        self, kind: limit_service_pb2.LimitKind, page_size: int, *, everywhere: bool
    ) -> limit_service_pb2.ListLimitsRequest:
        """Ask for limits."""
        return limit_service_pb2.ListLimitsRequest(
            namespace="" if everywhere else self._namespace, kind=kind, page_size=page_size
        )

    def set_limit(
        self,
        kind: limit_service_pb2.LimitKind,
        name: str,
        limits: tuple[int | None, float | None, int],
        request_id: str,
        *,
        everywhere: bool,
    ) -> limit_service_pb2.SetLimitRequest:
        """Ask to set a limit."""
        max_concurrency, rate, burst = limits
        return limit_service_pb2.SetLimitRequest(
            kind=kind,
            namespace=self._limit_namespace(kind, everywhere=everywhere),
            name=name,
            max_concurrency=max_concurrency,
            rate=rate,
            burst=burst,
            request_id=request_id or uuid.uuid4().hex,
        )

    def remove_limit(
        self, kind: limit_service_pb2.LimitKind, name: str, request_id: str, *, everywhere: bool
    ) -> limit_service_pb2.RemoveLimitRequest:
        """Ask to remove a limit."""
        return limit_service_pb2.RemoveLimitRequest(
            kind=kind,
            namespace=self._limit_namespace(kind, everywhere=everywhere),
            name=name,
            request_id=request_id or uuid.uuid4().hex,
        )

    def _limit_namespace(self, kind: limit_service_pb2.LimitKind, *, everywhere: bool) -> str:
        is_servers = kind == limit_service_pb2.LIMIT_KIND_SERVER
        return "" if everywhere or is_servers else self._namespace

    def get_namespace(self) -> namespace_service_pb2.GetNamespaceRequest:
        """Ask for the settings of the namespace."""
        return namespace_service_pb2.GetNamespaceRequest(namespace=self._namespace)

    def update_namespace(
        self,
        settings: namespace_service_pb2.NamespaceSettings,
        reset: Sequence[str],
        etag: str,
        request_id: str,
    ) -> namespace_service_pb2.UpdateNamespaceRequest:
        """Ask to change settings of the namespace."""
        paths = [*(field.name for field, _ in settings.ListFields()), *reset]
        return namespace_service_pb2.UpdateNamespaceRequest(
            namespace=self._namespace,
            settings=settings,
            update_mask=field_mask_pb2.FieldMask(paths=paths),
            etag=etag,
            request_id=request_id or uuid.uuid4().hex,
        )

    def delete(self, execution_id: str, request_id: str) -> execution_service_pb2.DeleteExecutionRequest:
        """Ask to delete; without a request id one is made, so that every try is the same request."""
        return execution_service_pb2.DeleteExecutionRequest(
            namespace=self._namespace,
            execution_id=execution_id,
            request_id=request_id or uuid.uuid4().hex,
        )

    def audit(self, execution_id: str, page_size: int) -> audit_service_pb2.ListAuditEntriesRequest:
        """Ask for the first page of the audit."""
        return audit_service_pb2.ListAuditEntriesRequest(
            namespace=self._namespace, execution_id=execution_id, page_size=page_size
        )

    def trace(self, execution_id: str) -> insight_service_pb2.ExportTraceRequest:
        """Ask for a trace."""
        return insight_service_pb2.ExportTraceRequest(namespace=self._namespace, execution_id=execution_id)

    def validate(self, graph: GraphSource) -> graph_service_pb2.ValidateGraphRequest:
        """Ask for a check."""
        return graph_service_pb2.ValidateGraphRequest(namespace=self._namespace, graph=read_graph(graph))

    def plan(self, graph: GraphSource) -> graph_service_pb2.PlanGraphRequest:
        """Ask for a plan."""
        return graph_service_pb2.PlanGraphRequest(namespace=self._namespace, graph=read_graph(graph))

    def workers(self, page_size: int) -> worker_hub_service_pb2.ListWorkersRequest:
        """Ask for the first page of workers."""
        return worker_hub_service_pb2.ListWorkersRequest(namespace=self._namespace, page_size=page_size)


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
