import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from plait.v1 import failure_pb2 as _failure_pb2
from plait.v1 import graph_pb2 as _graph_pb2
from plait.v1 import payload_pb2 as _payload_pb2
from plait.v1 import state_pb2 as _state_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EventType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_TYPE_UNSPECIFIED: _ClassVar[EventType]
    EVENT_TYPE_EXECUTION_SUBMITTED: _ClassVar[EventType]
    EVENT_TYPE_EXECUTION_STARTED: _ClassVar[EventType]
    EVENT_TYPE_ATTEMPT_STARTED: _ClassVar[EventType]
    EVENT_TYPE_ATTEMPT_ENDED: _ClassVar[EventType]
    EVENT_TYPE_NODE_ENDED: _ClassVar[EventType]
    EVENT_TYPE_NODE_WAITING: _ClassVar[EventType]
    EVENT_TYPE_NODE_IDLED: _ClassVar[EventType]
    EVENT_TYPE_CANCEL_REQUESTED: _ClassVar[EventType]
    EVENT_TYPE_CANCEL_RECEIPT: _ClassVar[EventType]
    EVENT_TYPE_EXECUTION_ENDED: _ClassVar[EventType]
    EVENT_TYPE_USAGE_REPORTED: _ClassVar[EventType]
    EVENT_TYPE_SCOPE_OPENED: _ClassVar[EventType]
    EVENT_TYPE_SCOPE_ENDED: _ClassVar[EventType]
    EVENT_TYPE_EXECUTION_PAUSE_REQUESTED: _ClassVar[EventType]
    EVENT_TYPE_EXECUTION_PAUSED: _ClassVar[EventType]
    EVENT_TYPE_EXECUTION_RESUMED: _ClassVar[EventType]
    EVENT_TYPE_EXECUTION_UPDATED: _ClassVar[EventType]
    EVENT_TYPE_ATTEMPT_EXTENDED: _ClassVar[EventType]

class FailureTreatment(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FAILURE_TREATMENT_UNSPECIFIED: _ClassVar[FailureTreatment]
    FAILURE_TREATMENT_HANDLED: _ClassVar[FailureTreatment]
    FAILURE_TREATMENT_IGNORED: _ClassVar[FailureTreatment]
    FAILURE_TREATMENT_TOLERATED: _ClassVar[FailureTreatment]
    FAILURE_TREATMENT_UNHANDLED: _ClassVar[FailureTreatment]

class CancelStage(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_STAGE_UNSPECIFIED: _ClassVar[CancelStage]
    CANCEL_STAGE_REQUESTED: _ClassVar[CancelStage]
    CANCEL_STAGE_DELIVERED: _ClassVar[CancelStage]
    CANCEL_STAGE_ACKNOWLEDGED: _ClassVar[CancelStage]
    CANCEL_STAGE_EXITED: _ClassVar[CancelStage]
    CANCEL_STAGE_ABANDONED: _ClassVar[CancelStage]

class PauseMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAUSE_MODE_UNSPECIFIED: _ClassVar[PauseMode]
    PAUSE_MODE_WAIT: _ClassVar[PauseMode]
    PAUSE_MODE_ABORT: _ClassVar[PauseMode]
EVENT_TYPE_UNSPECIFIED: EventType
EVENT_TYPE_EXECUTION_SUBMITTED: EventType
EVENT_TYPE_EXECUTION_STARTED: EventType
EVENT_TYPE_ATTEMPT_STARTED: EventType
EVENT_TYPE_ATTEMPT_ENDED: EventType
EVENT_TYPE_NODE_ENDED: EventType
EVENT_TYPE_NODE_WAITING: EventType
EVENT_TYPE_NODE_IDLED: EventType
EVENT_TYPE_CANCEL_REQUESTED: EventType
EVENT_TYPE_CANCEL_RECEIPT: EventType
EVENT_TYPE_EXECUTION_ENDED: EventType
EVENT_TYPE_USAGE_REPORTED: EventType
EVENT_TYPE_SCOPE_OPENED: EventType
EVENT_TYPE_SCOPE_ENDED: EventType
EVENT_TYPE_EXECUTION_PAUSE_REQUESTED: EventType
EVENT_TYPE_EXECUTION_PAUSED: EventType
EVENT_TYPE_EXECUTION_RESUMED: EventType
EVENT_TYPE_EXECUTION_UPDATED: EventType
EVENT_TYPE_ATTEMPT_EXTENDED: EventType
FAILURE_TREATMENT_UNSPECIFIED: FailureTreatment
FAILURE_TREATMENT_HANDLED: FailureTreatment
FAILURE_TREATMENT_IGNORED: FailureTreatment
FAILURE_TREATMENT_TOLERATED: FailureTreatment
FAILURE_TREATMENT_UNHANDLED: FailureTreatment
CANCEL_STAGE_UNSPECIFIED: CancelStage
CANCEL_STAGE_REQUESTED: CancelStage
CANCEL_STAGE_DELIVERED: CancelStage
CANCEL_STAGE_ACKNOWLEDGED: CancelStage
CANCEL_STAGE_EXITED: CancelStage
CANCEL_STAGE_ABANDONED: CancelStage
PAUSE_MODE_UNSPECIFIED: PauseMode
PAUSE_MODE_WAIT: PauseMode
PAUSE_MODE_ABORT: PauseMode

class Event(_message.Message):
    __slots__ = ("sequence", "time", "type", "run", "node_path", "attempt", "branch", "node_state", "execution_state", "reason", "execution_submitted", "attempt_started", "attempt_ended", "node_ended", "node_waiting", "cancel_requested", "cancel_receipt", "execution_ended", "usage_reported", "scope_opened", "scope_ended", "pause_requested", "execution_resumed", "execution_updated", "attempt_extended")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    NODE_PATH_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    NODE_STATE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_SUBMITTED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_STARTED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_ENDED_FIELD_NUMBER: _ClassVar[int]
    NODE_ENDED_FIELD_NUMBER: _ClassVar[int]
    NODE_WAITING_FIELD_NUMBER: _ClassVar[int]
    CANCEL_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    CANCEL_RECEIPT_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ENDED_FIELD_NUMBER: _ClassVar[int]
    USAGE_REPORTED_FIELD_NUMBER: _ClassVar[int]
    SCOPE_OPENED_FIELD_NUMBER: _ClassVar[int]
    SCOPE_ENDED_FIELD_NUMBER: _ClassVar[int]
    PAUSE_REQUESTED_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_RESUMED_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_UPDATED_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_EXTENDED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time: _timestamp_pb2.Timestamp
    type: EventType
    run: int
    node_path: str
    attempt: int
    branch: str
    node_state: _state_pb2.NodeState
    execution_state: _state_pb2.ExecutionState
    reason: str
    execution_submitted: ExecutionSubmitted
    attempt_started: AttemptStarted
    attempt_ended: AttemptEnded
    node_ended: NodeEnded
    node_waiting: NodeWaiting
    cancel_requested: CancelRequested
    cancel_receipt: CancelReceipt
    execution_ended: ExecutionEnded
    usage_reported: UsageReported
    scope_opened: ScopeOpened
    scope_ended: ScopeEnded
    pause_requested: PauseRequested
    execution_resumed: ExecutionResumed
    execution_updated: ExecutionUpdated
    attempt_extended: AttemptExtended
    def __init__(self, sequence: _Optional[int] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., type: _Optional[_Union[EventType, str]] = ..., run: _Optional[int] = ..., node_path: _Optional[str] = ..., attempt: _Optional[int] = ..., branch: _Optional[str] = ..., node_state: _Optional[_Union[_state_pb2.NodeState, str]] = ..., execution_state: _Optional[_Union[_state_pb2.ExecutionState, str]] = ..., reason: _Optional[str] = ..., execution_submitted: _Optional[_Union[ExecutionSubmitted, _Mapping]] = ..., attempt_started: _Optional[_Union[AttemptStarted, _Mapping]] = ..., attempt_ended: _Optional[_Union[AttemptEnded, _Mapping]] = ..., node_ended: _Optional[_Union[NodeEnded, _Mapping]] = ..., node_waiting: _Optional[_Union[NodeWaiting, _Mapping]] = ..., cancel_requested: _Optional[_Union[CancelRequested, _Mapping]] = ..., cancel_receipt: _Optional[_Union[CancelReceipt, _Mapping]] = ..., execution_ended: _Optional[_Union[ExecutionEnded, _Mapping]] = ..., usage_reported: _Optional[_Union[UsageReported, _Mapping]] = ..., scope_opened: _Optional[_Union[ScopeOpened, _Mapping]] = ..., scope_ended: _Optional[_Union[ScopeEnded, _Mapping]] = ..., pause_requested: _Optional[_Union[PauseRequested, _Mapping]] = ..., execution_resumed: _Optional[_Union[ExecutionResumed, _Mapping]] = ..., execution_updated: _Optional[_Union[ExecutionUpdated, _Mapping]] = ..., attempt_extended: _Optional[_Union[AttemptExtended, _Mapping]] = ...) -> None: ...

class ExecutionSubmitted(_message.Message):
    __slots__ = ("execution_id", "graph_name", "graph_digest", "input", "labels", "semantics_version", "analysis_digest", "traceparent", "node_count", "parent_span_id", "tracestate", "priority")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    GRAPH_NAME_FIELD_NUMBER: _ClassVar[int]
    GRAPH_DIGEST_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    SEMANTICS_VERSION_FIELD_NUMBER: _ClassVar[int]
    ANALYSIS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    NODE_COUNT_FIELD_NUMBER: _ClassVar[int]
    PARENT_SPAN_ID_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    execution_id: str
    graph_name: str
    graph_digest: str
    input: _payload_pb2.Payload
    labels: _containers.ScalarMap[str, str]
    semantics_version: int
    analysis_digest: str
    traceparent: str
    node_count: int
    parent_span_id: str
    tracestate: str
    priority: int
    def __init__(self, execution_id: _Optional[str] = ..., graph_name: _Optional[str] = ..., graph_digest: _Optional[str] = ..., input: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., labels: _Optional[_Mapping[str, str]] = ..., semantics_version: _Optional[int] = ..., analysis_digest: _Optional[str] = ..., traceparent: _Optional[str] = ..., node_count: _Optional[int] = ..., parent_span_id: _Optional[str] = ..., tracestate: _Optional[str] = ..., priority: _Optional[int] = ...) -> None: ...

class AttemptStarted(_message.Message):
    __slots__ = ("worker_id", "worker_instance_id", "queue_time", "input", "concurrency_key")
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    WORKER_INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    QUEUE_TIME_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    worker_instance_id: str
    queue_time: _duration_pb2.Duration
    input: _payload_pb2.Payload
    concurrency_key: str
    def __init__(self, worker_id: _Optional[str] = ..., worker_instance_id: _Optional[str] = ..., queue_time: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., input: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., concurrency_key: _Optional[str] = ...) -> None: ...

class AttemptEnded(_message.Message):
    __slots__ = ("outcome", "output", "failure", "usage", "retry_time", "edges_false", "treatment", "edges_not_taken", "edges_not_taken_count", "heartbeat_details")
    class UsageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    RETRY_TIME_FIELD_NUMBER: _ClassVar[int]
    EDGES_FALSE_FIELD_NUMBER: _ClassVar[int]
    TREATMENT_FIELD_NUMBER: _ClassVar[int]
    EDGES_NOT_TAKEN_FIELD_NUMBER: _ClassVar[int]
    EDGES_NOT_TAKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_DETAILS_FIELD_NUMBER: _ClassVar[int]
    outcome: _state_pb2.AttemptOutcome
    output: _payload_pb2.Payload
    failure: _failure_pb2.Failure
    usage: _containers.ScalarMap[str, str]
    retry_time: _timestamp_pb2.Timestamp
    edges_false: bytes
    treatment: FailureTreatment
    edges_not_taken: _containers.RepeatedCompositeFieldContainer[EdgeName]
    edges_not_taken_count: int
    heartbeat_details: _payload_pb2.Payload
    def __init__(self, outcome: _Optional[_Union[_state_pb2.AttemptOutcome, str]] = ..., output: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., usage: _Optional[_Mapping[str, str]] = ..., retry_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., edges_false: _Optional[bytes] = ..., treatment: _Optional[_Union[FailureTreatment, str]] = ..., edges_not_taken: _Optional[_Iterable[_Union[EdgeName, _Mapping]]] = ..., edges_not_taken_count: _Optional[int] = ..., heartbeat_details: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ...) -> None: ...

class EdgeName(_message.Message):
    __slots__ = ("handle", "target")
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    handle: str
    target: str
    def __init__(self, handle: _Optional[str] = ..., target: _Optional[str] = ...) -> None: ...

class NodeEnded(_message.Message):
    __slots__ = ("output", "failure", "edges_false", "treatment", "edges_not_taken", "edges_not_taken_count")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    EDGES_FALSE_FIELD_NUMBER: _ClassVar[int]
    TREATMENT_FIELD_NUMBER: _ClassVar[int]
    EDGES_NOT_TAKEN_FIELD_NUMBER: _ClassVar[int]
    EDGES_NOT_TAKEN_COUNT_FIELD_NUMBER: _ClassVar[int]
    output: _payload_pb2.Payload
    failure: _failure_pb2.Failure
    edges_false: bytes
    treatment: FailureTreatment
    edges_not_taken: _containers.RepeatedCompositeFieldContainer[EdgeName]
    edges_not_taken_count: int
    def __init__(self, output: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., edges_false: _Optional[bytes] = ..., treatment: _Optional[_Union[FailureTreatment, str]] = ..., edges_not_taken: _Optional[_Iterable[_Union[EdgeName, _Mapping]]] = ..., edges_not_taken_count: _Optional[int] = ...) -> None: ...

class NodeWaiting(_message.Message):
    __slots__ = ("due_time", "input")
    DUE_TIME_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    due_time: _timestamp_pb2.Timestamp
    input: _payload_pb2.Payload
    def __init__(self, due_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., input: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ...) -> None: ...

class CancelRequested(_message.Message):
    __slots__ = ("reason",)
    REASON_FIELD_NUMBER: _ClassVar[int]
    reason: str
    def __init__(self, reason: _Optional[str] = ...) -> None: ...

class CancelReceipt(_message.Message):
    __slots__ = ("stage", "worker_id")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    stage: CancelStage
    worker_id: str
    def __init__(self, stage: _Optional[_Union[CancelStage, str]] = ..., worker_id: _Optional[str] = ...) -> None: ...

class UsageReported(_message.Message):
    __slots__ = ("usage",)
    class UsageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    USAGE_FIELD_NUMBER: _ClassVar[int]
    usage: _containers.ScalarMap[str, str]
    def __init__(self, usage: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ExecutionEnded(_message.Message):
    __slots__ = ("output", "failure", "failure_count")
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_COUNT_FIELD_NUMBER: _ClassVar[int]
    output: _payload_pb2.Payload
    failure: _failure_pb2.Failure
    failure_count: int
    def __init__(self, output: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ..., failure_count: _Optional[int] = ...) -> None: ...

class ScopeOpened(_message.Message):
    __slots__ = ("scope_path", "input", "graph_digest", "analysis_digest", "node_count", "branches_before")
    SCOPE_PATH_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    GRAPH_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ANALYSIS_DIGEST_FIELD_NUMBER: _ClassVar[int]
    NODE_COUNT_FIELD_NUMBER: _ClassVar[int]
    BRANCHES_BEFORE_FIELD_NUMBER: _ClassVar[int]
    scope_path: str
    input: _payload_pb2.Payload
    graph_digest: str
    analysis_digest: str
    node_count: int
    branches_before: int
    def __init__(self, scope_path: _Optional[str] = ..., input: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., graph_digest: _Optional[str] = ..., analysis_digest: _Optional[str] = ..., node_count: _Optional[int] = ..., branches_before: _Optional[int] = ...) -> None: ...

class ScopeEnded(_message.Message):
    __slots__ = ("scope_path", "state", "failure")
    SCOPE_PATH_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    scope_path: str
    state: _state_pb2.ExecutionState
    failure: _failure_pb2.Failure
    def __init__(self, scope_path: _Optional[str] = ..., state: _Optional[_Union[_state_pb2.ExecutionState, str]] = ..., failure: _Optional[_Union[_failure_pb2.Failure, _Mapping]] = ...) -> None: ...

class AttemptExtended(_message.Message):
    __slots__ = ("deadline_time",)
    DEADLINE_TIME_FIELD_NUMBER: _ClassVar[int]
    deadline_time: _timestamp_pb2.Timestamp
    def __init__(self, deadline_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class PauseRequested(_message.Message):
    __slots__ = ("mode", "reason")
    MODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    mode: PauseMode
    reason: str
    def __init__(self, mode: _Optional[_Union[PauseMode, str]] = ..., reason: _Optional[str] = ...) -> None: ...

class ExecutionResumed(_message.Message):
    __slots__ = ("data", "reason")
    DATA_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    data: _payload_pb2.Payload
    reason: str
    def __init__(self, data: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., reason: _Optional[str] = ...) -> None: ...

class ExecutionUpdated(_message.Message):
    __slots__ = ("priority", "policy", "locks")
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    LOCKS_FIELD_NUMBER: _ClassVar[int]
    priority: int
    policy: _graph_pb2.Policy
    locks: _containers.RepeatedCompositeFieldContainer[_graph_pb2.NodeLock]
    def __init__(self, priority: _Optional[int] = ..., policy: _Optional[_Union[_graph_pb2.Policy, _Mapping]] = ..., locks: _Optional[_Iterable[_Union[_graph_pb2.NodeLock, _Mapping]]] = ...) -> None: ...
