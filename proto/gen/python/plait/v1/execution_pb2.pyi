import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from plait.v1 import failure_pb2 as _failure_pb2
from plait.v1 import graph_pb2 as _graph_pb2
from plait.v1 import payload_pb2 as _payload_pb2
from plait.v1 import state_pb2 as _state_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Execution(_message.Message):
    __slots__ = ("namespace", "execution_id", "graph_name", "state", "reason", "run", "create_time", "start_time", "end_time", "labels", "last_sequence", "node_count", "node_counts", "input", "output", "failure", "failures", "failure_count", "traceparent", "usage", "late_usage", "priority", "etag", "unserved_types")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class UsageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LateUsageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    GRAPH_NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    NODE_COUNT_FIELD_NUMBER: _ClassVar[int]
    NODE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    FAILURES_FIELD_NUMBER: _ClassVar[int]
    FAILURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    LATE_USAGE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    UNSERVED_TYPES_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    graph_name: str
    state: _state_pb2.ExecutionState
    reason: str
    run: int
    create_time: _timestamp_pb2.Timestamp
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    labels: _containers.ScalarMap[str, str]
    last_sequence: int
    node_count: int
    node_counts: NodeCounts
    input: _payload_pb2.Payload
    output: _payload_pb2.Payload
    failure: _failure_pb2.Failure
    failures: _containers.RepeatedCompositeFieldContainer[_failure_pb2.Failure]
    failure_count: int
    traceparent: str
    usage: _containers.ScalarMap[str, str]
    late_usage: _containers.ScalarMap[str, str]
    priority: int
    etag: str
    unserved_types: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ..., graph_name: _Optional[str] = ..., state: _Optional[_Union[_state_pb2.ExecutionState, str]] = ..., reason: _Optional[str] = ..., run: _Optional[int] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., last_sequence: _Optional[int] = ..., node_count: _Optional[int] = ..., node_counts: _Optional[_Union[NodeCounts, _Mapping]] = ..., input: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., output: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., failures: _Optional[_Iterable[_Union[_failure_pb2.Failure, _Mapping]]] = ..., failure_count: _Optional[int] = ..., traceparent: _Optional[str] = ..., usage: _Optional[_Mapping[str, str]] = ..., late_usage: _Optional[_Mapping[str, str]] = ..., priority: _Optional[int] = ..., etag: _Optional[str] = ..., unserved_types: _Optional[_Iterable[str]] = ...) -> None: ...

class NodeCounts(_message.Message):
    __slots__ = ("idle", "queued", "running", "backing_off", "waiting", "succeeded", "failed", "timed_out", "skipped", "cancelled", "ended")
    IDLE_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    RUNNING_FIELD_NUMBER: _ClassVar[int]
    BACKING_OFF_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    SUCCEEDED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    TIMED_OUT_FIELD_NUMBER: _ClassVar[int]
    SKIPPED_FIELD_NUMBER: _ClassVar[int]
    CANCELLED_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    idle: int
    queued: int
    running: int
    backing_off: int
    waiting: int
    succeeded: int
    failed: int
    timed_out: int
    skipped: int
    cancelled: int
    ended: int
    def __init__(self, idle: _Optional[int] = ..., queued: _Optional[int] = ..., running: _Optional[int] = ..., backing_off: _Optional[int] = ..., waiting: _Optional[int] = ..., succeeded: _Optional[int] = ..., failed: _Optional[int] = ..., timed_out: _Optional[int] = ..., skipped: _Optional[int] = ..., cancelled: _Optional[int] = ..., ended: _Optional[int] = ...) -> None: ...

class ExecutionNode(_message.Message):
    __slots__ = ("path", "kind", "type", "state", "reason", "level", "branch", "start_time", "end_time", "due_time", "input", "output", "failure", "attempts", "attempt_count", "scope")
    PATH_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    DUE_TIME_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_COUNT_FIELD_NUMBER: _ClassVar[int]
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    path: str
    kind: _graph_pb2.NodeKind
    type: str
    state: _state_pb2.NodeState
    reason: str
    level: int
    branch: str
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    due_time: _timestamp_pb2.Timestamp
    input: _payload_pb2.Payload
    output: _payload_pb2.Payload
    failure: _failure_pb2.Failure
    attempts: _containers.RepeatedCompositeFieldContainer[Attempt]
    attempt_count: int
    scope: ExecutionScope
    def __init__(self, path: _Optional[str] = ..., kind: _Optional[_Union[_graph_pb2.NodeKind, str]] = ..., type: _Optional[str] = ..., state: _Optional[_Union[_state_pb2.NodeState, str]] = ..., reason: _Optional[str] = ..., level: _Optional[int] = ..., branch: _Optional[str] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., due_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., input: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., output: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., attempts: _Optional[_Iterable[_Union[Attempt, _Mapping]]] = ..., attempt_count: _Optional[int] = ..., scope: _Optional[_Union[ExecutionScope, _Mapping]] = ...) -> None: ...

class ExecutionScope(_message.Message):
    __slots__ = ("path", "graph_name", "state", "node_count", "failure")
    PATH_FIELD_NUMBER: _ClassVar[int]
    GRAPH_NAME_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    NODE_COUNT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    path: str
    graph_name: str
    state: _state_pb2.ExecutionState
    node_count: int
    failure: _failure_pb2.Failure
    def __init__(self, path: _Optional[str] = ..., graph_name: _Optional[str] = ..., state: _Optional[_Union[_state_pb2.ExecutionState, str]] = ..., node_count: _Optional[int] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ...) -> None: ...

class Attempt(_message.Message):
    __slots__ = ("number", "run", "worker_id", "outcome", "start_time", "end_time", "queue_time", "failure", "usage", "late_usage")
    class UsageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    class LateUsageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    END_TIME_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIME_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    LATE_USAGE_FIELD_NUMBER: _ClassVar[int]
    number: int
    run: int
    worker_id: str
    outcome: _state_pb2.AttemptOutcome
    start_time: _timestamp_pb2.Timestamp
    end_time: _timestamp_pb2.Timestamp
    queue_time: _duration_pb2.Duration
    failure: _failure_pb2.Failure
    usage: _containers.ScalarMap[str, str]
    late_usage: _containers.ScalarMap[str, str]
    def __init__(self, number: _Optional[int] = ..., run: _Optional[int] = ..., worker_id: _Optional[str] = ..., outcome: _Optional[_Union[_state_pb2.AttemptOutcome, str]] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., end_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., queue_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., usage: _Optional[_Mapping[str, str]] = ..., late_usage: _Optional[_Mapping[str, str]] = ...) -> None: ...
