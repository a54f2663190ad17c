import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import field_mask_pb2 as _field_mask_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from plait.v1 import event_pb2 as _event_pb2
from plait.v1 import execution_pb2 as _execution_pb2
from plait.v1 import graph_pb2 as _graph_pb2
from plait.v1 import log_pb2 as _log_pb2
from plait.v1 import payload_pb2 as _payload_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExecutionChangeType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EXECUTION_CHANGE_TYPE_UNSPECIFIED: _ClassVar[ExecutionChangeType]
    EXECUTION_CHANGE_TYPE_UPDATED: _ClassVar[ExecutionChangeType]
    EXECUTION_CHANGE_TYPE_LEFT: _ClassVar[ExecutionChangeType]
    EXECUTION_CHANGE_TYPE_DELETED: _ClassVar[ExecutionChangeType]

class LogLineKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LOG_LINE_KIND_UNSPECIFIED: _ClassVar[LogLineKind]
    LOG_LINE_KIND_LOG: _ClassVar[LogLineKind]
    LOG_LINE_KIND_PROGRESS: _ClassVar[LogLineKind]
EXECUTION_CHANGE_TYPE_UNSPECIFIED: ExecutionChangeType
EXECUTION_CHANGE_TYPE_UPDATED: ExecutionChangeType
EXECUTION_CHANGE_TYPE_LEFT: ExecutionChangeType
EXECUTION_CHANGE_TYPE_DELETED: ExecutionChangeType
LOG_LINE_KIND_UNSPECIFIED: LogLineKind
LOG_LINE_KIND_LOG: LogLineKind
LOG_LINE_KIND_PROGRESS: LogLineKind

class SubmitGraphRequest(_message.Message):
    __slots__ = ("namespace", "graph", "input", "request_id", "execution_id", "labels", "wait", "priority")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    graph: _graph_pb2.Graph
    input: _payload_pb2.Payload
    request_id: str
    execution_id: str
    labels: _containers.ScalarMap[str, str]
    wait: _duration_pb2.Duration
    priority: int
    def __init__(self, namespace: _Optional[str] = ..., graph: _Optional[_Union[_graph_pb2.Graph, _Mapping]] = ..., input: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., request_id: _Optional[str] = ..., execution_id: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., priority: _Optional[int] = ...) -> None: ...

class SubmitGraphResponse(_message.Message):
    __slots__ = ("execution",)
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    execution: _execution_pb2.Execution
    def __init__(self, execution: _Optional[_Union[_execution_pb2.Execution, _Mapping]] = ...) -> None: ...

class GetExecutionRequest(_message.Message):
    __slots__ = ("namespace", "execution_id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ...) -> None: ...

class GetExecutionResponse(_message.Message):
    __slots__ = ("execution",)
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    execution: _execution_pb2.Execution
    def __init__(self, execution: _Optional[_Union[_execution_pb2.Execution, _Mapping]] = ...) -> None: ...

class ListExecutionsRequest(_message.Message):
    __slots__ = ("namespace", "page_size", "page_token", "filter", "order_by")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    ORDER_BY_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    page_size: int
    page_token: str
    filter: str
    order_by: str
    def __init__(self, namespace: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., filter: _Optional[str] = ..., order_by: _Optional[str] = ...) -> None: ...

class ListExecutionsResponse(_message.Message):
    __slots__ = ("executions", "next_page_token")
    EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    executions: _containers.RepeatedCompositeFieldContainer[_execution_pb2.Execution]
    next_page_token: str
    def __init__(self, executions: _Optional[_Iterable[_Union[_execution_pb2.Execution, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class CountExecutionsRequest(_message.Message):
    __slots__ = ("namespace", "filter")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    filter: str
    def __init__(self, namespace: _Optional[str] = ..., filter: _Optional[str] = ...) -> None: ...

class CountExecutionsResponse(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class WatchExecutionsRequest(_message.Message):
    __slots__ = ("namespace", "filter", "watch_token", "include_initial")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    WATCH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_INITIAL_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    filter: str
    watch_token: str
    include_initial: bool
    def __init__(self, namespace: _Optional[str] = ..., filter: _Optional[str] = ..., watch_token: _Optional[str] = ..., include_initial: bool = ...) -> None: ...

class WatchExecutionsResponse(_message.Message):
    __slots__ = ("changes", "watch_token", "caught_up")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    WATCH_TOKEN_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    changes: _containers.RepeatedCompositeFieldContainer[ExecutionChange]
    watch_token: str
    caught_up: bool
    def __init__(self, changes: _Optional[_Iterable[_Union[ExecutionChange, _Mapping]]] = ..., watch_token: _Optional[str] = ..., caught_up: bool = ...) -> None: ...

class ExecutionChange(_message.Message):
    __slots__ = ("type", "execution_id", "execution")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    type: ExecutionChangeType
    execution_id: str
    execution: _execution_pb2.Execution
    def __init__(self, type: _Optional[_Union[ExecutionChangeType, str]] = ..., execution_id: _Optional[str] = ..., execution: _Optional[_Union[_execution_pb2.Execution, _Mapping]] = ...) -> None: ...

class ReadLogsRequest(_message.Message):
    __slots__ = ("namespace", "execution_id", "node_path", "attempt", "after_sequence", "follow")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_PATH_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FOLLOW_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    node_path: str
    attempt: int
    after_sequence: int
    follow: bool
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ..., node_path: _Optional[str] = ..., attempt: _Optional[int] = ..., after_sequence: _Optional[int] = ..., follow: bool = ...) -> None: ...

class ReadLogsResponse(_message.Message):
    __slots__ = ("lines", "dropped")
    LINES_FIELD_NUMBER: _ClassVar[int]
    DROPPED_FIELD_NUMBER: _ClassVar[int]
    lines: _containers.RepeatedCompositeFieldContainer[ExecutionLogLine]
    dropped: int
    def __init__(self, lines: _Optional[_Iterable[_Union[ExecutionLogLine, _Mapping]]] = ..., dropped: _Optional[int] = ...) -> None: ...

class ExecutionLogLine(_message.Message):
    __slots__ = ("sequence", "time", "kind", "level", "node_path", "attempt", "branch", "trace_id", "text")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    NODE_PATH_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    TRACE_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    kind: LogLineKind
    level: _log_pb2.LogLevel
    node_path: str
    attempt: int
    branch: str
    trace_id: str
    text: str
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., kind: _Optional[_Union[LogLineKind, str]] = ..., level: _Optional[_Union[_log_pb2.LogLevel, str]] = ..., node_path: _Optional[str] = ..., attempt: _Optional[int] = ..., branch: _Optional[str] = ..., trace_id: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class ListNodesRequest(_message.Message):
    __slots__ = ("namespace", "execution_id", "page_size", "page_token", "scope_path")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    SCOPE_PATH_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    page_size: int
    page_token: str
    scope_path: str
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ..., scope_path: _Optional[str] = ...) -> None: ...

class ListNodesResponse(_message.Message):
    __slots__ = ("nodes", "next_page_token")
    NODES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    nodes: _containers.RepeatedCompositeFieldContainer[_execution_pb2.ExecutionNode]
    next_page_token: str
    def __init__(self, nodes: _Optional[_Iterable[_Union[_execution_pb2.ExecutionNode, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetNodeRequest(_message.Message):
    __slots__ = ("namespace", "execution_id", "node_path")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_PATH_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    node_path: str
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ..., node_path: _Optional[str] = ...) -> None: ...

class GetNodeResponse(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: _execution_pb2.ExecutionNode
    def __init__(self, node: _Optional[_Union[_execution_pb2.ExecutionNode, _Mapping]] = ...) -> None: ...

class GetPayloadRequest(_message.Message):
    __slots__ = ("namespace", "digest")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    digest: str
    def __init__(self, namespace: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class GetPayloadResponse(_message.Message):
    __slots__ = ("chunk",)
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    chunk: bytes
    def __init__(self, chunk: _Optional[bytes] = ...) -> None: ...

class DeleteExecutionRequest(_message.Message):
    __slots__ = ("namespace", "execution_id", "request_id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    request_id: str
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class DeleteExecutionResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class WaitExecutionRequest(_message.Message):
    __slots__ = ("namespace", "execution_id", "wait")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    wait: _duration_pb2.Duration
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class WaitExecutionResponse(_message.Message):
    __slots__ = ("execution",)
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    execution: _execution_pb2.Execution
    def __init__(self, execution: _Optional[_Union[_execution_pb2.Execution, _Mapping]] = ...) -> None: ...

class WatchExecutionRequest(_message.Message):
    __slots__ = ("namespace", "execution_id", "after_sequence", "include_snapshot")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    after_sequence: int
    include_snapshot: bool
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ..., after_sequence: _Optional[int] = ..., include_snapshot: bool = ...) -> None: ...

class WatchExecutionResponse(_message.Message):
    __slots__ = ("events", "snapshot", "caught_up", "heartbeat", "end")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    events: EventBatch
    snapshot: Snapshot
    caught_up: CaughtUp
    heartbeat: Heartbeat
    end: WatchEnd
    def __init__(self, events: _Optional[_Union[EventBatch, _Mapping]] = ..., snapshot: _Optional[_Union[Snapshot, _Mapping]] = ..., caught_up: _Optional[_Union[CaughtUp, _Mapping]] = ..., heartbeat: _Optional[_Union[Heartbeat, _Mapping]] = ..., end: _Optional[_Union[WatchEnd, _Mapping]] = ...) -> None: ...

class EventBatch(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.Event]
    def __init__(self, events: _Optional[_Iterable[_Union[_event_pb2.Event, _Mapping]]] = ...) -> None: ...

class Snapshot(_message.Message):
    __slots__ = ("sequence", "execution", "nodes", "last")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    execution: _execution_pb2.Execution
    nodes: _containers.RepeatedCompositeFieldContainer[_execution_pb2.ExecutionNode]
    last: bool
    def __init__(self, sequence: _Optional[int] = ..., execution: _Optional[_Union[_execution_pb2.Execution, _Mapping]] = ..., nodes: _Optional[_Iterable[_Union[_execution_pb2.ExecutionNode, _Mapping]]] = ..., last: bool = ...) -> None: ...

class CaughtUp(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class Heartbeat(_message.Message):
    __slots__ = ("sequence",)
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    def __init__(self, sequence: _Optional[int] = ...) -> None: ...

class WatchEnd(_message.Message):
    __slots__ = ("sequence", "run")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    run: int
    def __init__(self, sequence: _Optional[int] = ..., run: _Optional[int] = ...) -> None: ...

class ListEventsRequest(_message.Message):
    __slots__ = ("namespace", "execution_id", "after_sequence", "page_size", "wait")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    AFTER_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    WAIT_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    after_sequence: int
    page_size: int
    wait: _duration_pb2.Duration
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ..., after_sequence: _Optional[int] = ..., page_size: _Optional[int] = ..., wait: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ListEventsResponse(_message.Message):
    __slots__ = ("events", "last_sequence", "ended")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[_event_pb2.Event]
    last_sequence: int
    ended: bool
    def __init__(self, events: _Optional[_Iterable[_Union[_event_pb2.Event, _Mapping]]] = ..., last_sequence: _Optional[int] = ..., ended: bool = ...) -> None: ...

class CancelExecutionRequest(_message.Message):
    __slots__ = ("namespace", "execution_id", "reason", "request_id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    reason: str
    request_id: str
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class CancelExecutionResponse(_message.Message):
    __slots__ = ("execution",)
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    execution: _execution_pb2.Execution
    def __init__(self, execution: _Optional[_Union[_execution_pb2.Execution, _Mapping]] = ...) -> None: ...

class PauseExecutionRequest(_message.Message):
    __slots__ = ("namespace", "execution_id", "mode", "reason", "request_id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    mode: _event_pb2.PauseMode
    reason: str
    request_id: str
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ..., mode: _Optional[_Union[_event_pb2.PauseMode, str]] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class PauseExecutionResponse(_message.Message):
    __slots__ = ("execution",)
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    execution: _execution_pb2.Execution
    def __init__(self, execution: _Optional[_Union[_execution_pb2.Execution, _Mapping]] = ...) -> None: ...

class ResumeExecutionRequest(_message.Message):
    __slots__ = ("namespace", "execution_id", "data", "reason", "request_id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    data: _payload_pb2.Payload
    reason: str
    request_id: str
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ..., data: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., reason: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class ResumeExecutionResponse(_message.Message):
    __slots__ = ("execution",)
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    execution: _execution_pb2.Execution
    def __init__(self, execution: _Optional[_Union[_execution_pb2.Execution, _Mapping]] = ...) -> None: ...

class ExecutionSettings(_message.Message):
    __slots__ = ("priority", "policy", "locks")
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    LOCKS_FIELD_NUMBER: _ClassVar[int]
    priority: int
    policy: _graph_pb2.Policy
    locks: _containers.RepeatedCompositeFieldContainer[_graph_pb2.NodeLock]
    def __init__(self, priority: _Optional[int] = ..., policy: _Optional[_Union[_graph_pb2.Policy, _Mapping]] = ..., locks: _Optional[_Iterable[_Union[_graph_pb2.NodeLock, _Mapping]]] = ...) -> None: ...

class UpdateExecutionRequest(_message.Message):
    __slots__ = ("namespace", "execution_id", "settings", "update_mask", "etag", "request_id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    SETTINGS_FIELD_NUMBER: _ClassVar[int]
    UPDATE_MASK_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    settings: ExecutionSettings
    update_mask: _field_mask_pb2.FieldMask
    etag: str
    request_id: str
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ..., settings: _Optional[_Union[ExecutionSettings, _Mapping]] = ..., update_mask: _Optional[_Union[_field_mask_pb2.FieldMask, _Mapping]] = ..., etag: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class UpdateExecutionResponse(_message.Message):
    __slots__ = ("execution",)
    EXECUTION_FIELD_NUMBER: _ClassVar[int]
    execution: _execution_pb2.Execution
    def __init__(self, execution: _Optional[_Union[_execution_pb2.Execution, _Mapping]] = ...) -> None: ...
