import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from plait.v1 import failure_pb2 as _failure_pb2
from plait.v1 import log_pb2 as _log_pb2
from plait.v1 import payload_pb2 as _payload_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class RejectCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REJECT_CODE_UNSPECIFIED: _ClassVar[RejectCode]
    REJECT_CODE_NOT_NOW: _ClassVar[RejectCode]
    REJECT_CODE_DRAINING: _ClassVar[RejectCode]
    REJECT_CODE_NO_SLOT: _ClassVar[RejectCode]
    REJECT_CODE_UNKNOWN_TYPE: _ClassVar[RejectCode]
    REJECT_CODE_INPUT_UNAVAILABLE: _ClassVar[RejectCode]
    REJECT_CODE_ALREADY_ENDED: _ClassVar[RejectCode]

class ResultProblem(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RESULT_PROBLEM_UNSPECIFIED: _ClassVar[ResultProblem]
    RESULT_PROBLEM_NOT_JSON: _ClassVar[ResultProblem]
    RESULT_PROBLEM_TOO_LARGE: _ClassVar[ResultProblem]

class RecordedResult(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    RECORDED_RESULT_UNSPECIFIED: _ClassVar[RecordedResult]
    RECORDED_RESULT_RECORDED: _ClassVar[RecordedResult]
    RECORDED_RESULT_ALREADY_RECORDED: _ClassVar[RecordedResult]
    RECORDED_RESULT_STALE: _ClassVar[RecordedResult]

class CancelReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CANCEL_REASON_UNSPECIFIED: _ClassVar[CancelReason]
    CANCEL_REASON_CANCELLED: _ClassVar[CancelReason]
    CANCEL_REASON_TIMED_OUT: _ClassVar[CancelReason]
    CANCEL_REASON_SIBLING_FAILED: _ClassVar[CancelReason]
    CANCEL_REASON_RACE_LOST: _ClassVar[CancelReason]
    CANCEL_REASON_EXECUTION_TIMEOUT: _ClassVar[CancelReason]
    CANCEL_REASON_STALE: _ClassVar[CancelReason]
    CANCEL_REASON_PAUSED: _ClassVar[CancelReason]

class WorkerState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    WORKER_STATE_UNSPECIFIED: _ClassVar[WorkerState]
    WORKER_STATE_ATTACHED: _ClassVar[WorkerState]
    WORKER_STATE_DRAINING: _ClassVar[WorkerState]
    WORKER_STATE_DETACHED: _ClassVar[WorkerState]
REJECT_CODE_UNSPECIFIED: RejectCode
REJECT_CODE_NOT_NOW: RejectCode
REJECT_CODE_DRAINING: RejectCode
REJECT_CODE_NO_SLOT: RejectCode
REJECT_CODE_UNKNOWN_TYPE: RejectCode
REJECT_CODE_INPUT_UNAVAILABLE: RejectCode
REJECT_CODE_ALREADY_ENDED: RejectCode
RESULT_PROBLEM_UNSPECIFIED: ResultProblem
RESULT_PROBLEM_NOT_JSON: ResultProblem
RESULT_PROBLEM_TOO_LARGE: ResultProblem
RECORDED_RESULT_UNSPECIFIED: RecordedResult
RECORDED_RESULT_RECORDED: RecordedResult
RECORDED_RESULT_ALREADY_RECORDED: RecordedResult
RECORDED_RESULT_STALE: RecordedResult
CANCEL_REASON_UNSPECIFIED: CancelReason
CANCEL_REASON_CANCELLED: CancelReason
CANCEL_REASON_TIMED_OUT: CancelReason
CANCEL_REASON_SIBLING_FAILED: CancelReason
CANCEL_REASON_RACE_LOST: CancelReason
CANCEL_REASON_EXECUTION_TIMEOUT: CancelReason
CANCEL_REASON_STALE: CancelReason
CANCEL_REASON_PAUSED: CancelReason
WORKER_STATE_UNSPECIFIED: WorkerState
WORKER_STATE_ATTACHED: WorkerState
WORKER_STATE_DRAINING: WorkerState
WORKER_STATE_DETACHED: WorkerState

class AttachRequest(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[WorkerMessage]
    def __init__(self, messages: _Optional[_Iterable[_Union[WorkerMessage, _Mapping]]] = ...) -> None: ...

class AttachResponse(_message.Message):
    __slots__ = ("messages",)
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    messages: _containers.RepeatedCompositeFieldContainer[ServerMessage]
    def __init__(self, messages: _Optional[_Iterable[_Union[ServerMessage, _Mapping]]] = ...) -> None: ...

class WorkerMessage(_message.Message):
    __slots__ = ("hello", "credit", "accept", "reject", "progress", "log", "usage", "heartbeat", "complete", "fail", "cancel_ack", "exited", "drain", "pong", "extend")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    ACCEPT_FIELD_NUMBER: _ClassVar[int]
    REJECT_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    COMPLETE_FIELD_NUMBER: _ClassVar[int]
    FAIL_FIELD_NUMBER: _ClassVar[int]
    CANCEL_ACK_FIELD_NUMBER: _ClassVar[int]
    EXITED_FIELD_NUMBER: _ClassVar[int]
    DRAIN_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    EXTEND_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    credit: Credit
    accept: Accept
    reject: Reject
    progress: Progress
    log: LogLine
    usage: Usage
    heartbeat: AttemptHeartbeat
    complete: Complete
    fail: Fail
    cancel_ack: CancelAck
    exited: Exited
    drain: Drain
    pong: Pong
    extend: Extend
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., accept: _Optional[_Union[Accept, _Mapping]] = ..., reject: _Optional[_Union[Reject, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., log: _Optional[_Union[LogLine, _Mapping]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., heartbeat: _Optional[_Union[AttemptHeartbeat, _Mapping]] = ..., complete: _Optional[_Union[Complete, _Mapping]] = ..., fail: _Optional[_Union[Fail, _Mapping]] = ..., cancel_ack: _Optional[_Union[CancelAck, _Mapping]] = ..., exited: _Optional[_Union[Exited, _Mapping]] = ..., drain: _Optional[_Union[Drain, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., extend: _Optional[_Union[Extend, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("welcome", "assign", "recorded", "cancel", "ping")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    ASSIGN_FIELD_NUMBER: _ClassVar[int]
    RECORDED_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    assign: Assign
    recorded: Recorded
    cancel: Cancel
    ping: Ping
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., assign: _Optional[_Union[Assign, _Mapping]] = ..., recorded: _Optional[_Union[Recorded, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol_version", "worker_id", "instance_id", "namespace", "types", "slots", "labels", "in_flight", "sdk")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    SDK_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    worker_id: str
    instance_id: str
    namespace: str
    types: _containers.RepeatedCompositeFieldContainer[ServedType]
    slots: int
    labels: _containers.ScalarMap[str, str]
    in_flight: _containers.RepeatedCompositeFieldContainer[InFlight]
    sdk: str
    def __init__(self, protocol_version: _Optional[int] = ..., worker_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., namespace: _Optional[str] = ..., types: _Optional[_Iterable[_Union[ServedType, _Mapping]]] = ..., slots: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., in_flight: _Optional[_Iterable[_Union[InFlight, _Mapping]]] = ..., sdk: _Optional[str] = ...) -> None: ...

class ServedType(_message.Message):
    __slots__ = ("type", "max_concurrency")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    type: str
    max_concurrency: int
    def __init__(self, type: _Optional[str] = ..., max_concurrency: _Optional[int] = ...) -> None: ...

class InFlight(_message.Message):
    __slots__ = ("token", "finished")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    token: str
    finished: bool
    def __init__(self, token: _Optional[str] = ..., finished: bool = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("slots",)
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    slots: int
    def __init__(self, slots: _Optional[int] = ...) -> None: ...

class Accept(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class Reject(_message.Message):
    __slots__ = ("token", "code", "message")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    token: str
    code: RejectCode
    message: str
    def __init__(self, token: _Optional[str] = ..., code: _Optional[_Union[RejectCode, str]] = ..., message: _Optional[str] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ("token", "fraction", "message")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    token: str
    fraction: float
    message: str
    def __init__(self, token: _Optional[str] = ..., fraction: _Optional[float] = ..., message: _Optional[str] = ...) -> None: ...

class LogLine(_message.Message):
    __slots__ = ("token", "level", "message", "time")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    TIME_FIELD_NUMBER: _ClassVar[int]
    token: str
    level: _log_pb2.LogLevel
    message: str
    time: _timestamp_pb2.Timestamp
    def __init__(self, token: _Optional[str] = ..., level: _Optional[_Union[_log_pb2.LogLevel, str]] = ..., message: _Optional[str] = ..., time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("token", "unit", "amount")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    token: str
    unit: str
    amount: str
    def __init__(self, token: _Optional[str] = ..., unit: _Optional[str] = ..., amount: _Optional[str] = ...) -> None: ...

class UsageTotals(_message.Message):
    __slots__ = ("amounts",)
    class AmountsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    AMOUNTS_FIELD_NUMBER: _ClassVar[int]
    amounts: _containers.ScalarMap[str, str]
    def __init__(self, amounts: _Optional[_Mapping[str, str]] = ...) -> None: ...

class AttemptHeartbeat(_message.Message):
    __slots__ = ("token", "details")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    token: str
    details: _payload_pb2.Payload
    def __init__(self, token: _Optional[str] = ..., details: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ...) -> None: ...

class Extend(_message.Message):
    __slots__ = ("token", "duration")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    DURATION_FIELD_NUMBER: _ClassVar[int]
    token: str
    duration: _duration_pb2.Duration
    def __init__(self, token: _Optional[str] = ..., duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Complete(_message.Message):
    __slots__ = ("token", "output", "usage")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    token: str
    output: _payload_pb2.Payload
    usage: UsageTotals
    def __init__(self, token: _Optional[str] = ..., output: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., usage: _Optional[_Union[UsageTotals, _Mapping]] = ...) -> None: ...

class Fail(_message.Message):
    __slots__ = ("token", "code", "message", "details", "retryable", "retry_after", "causes", "usage", "result_problem")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_FIELD_NUMBER: _ClassVar[int]
    CAUSES_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    RESULT_PROBLEM_FIELD_NUMBER: _ClassVar[int]
    token: str
    code: str
    message: str
    details: _payload_pb2.Payload
    retryable: bool
    retry_after: _duration_pb2.Duration
    causes: _containers.RepeatedCompositeFieldContainer[_failure_pb2.Failure]
    usage: UsageTotals
    result_problem: ResultProblem
    def __init__(self, token: _Optional[str] = ..., code: _Optional[str] = ..., message: _Optional[str] = ..., details: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., retryable: bool = ..., retry_after: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., causes: _Optional[_Iterable[_Union[_failure_pb2.Failure, _Mapping]]] = ..., usage: _Optional[_Union[UsageTotals, _Mapping]] = ..., result_problem: _Optional[_Union[ResultProblem, str]] = ...) -> None: ...

class CancelAck(_message.Message):
    __slots__ = ("token",)
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    token: str
    def __init__(self, token: _Optional[str] = ...) -> None: ...

class Exited(_message.Message):
    __slots__ = ("token", "usage")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    token: str
    usage: UsageTotals
    def __init__(self, token: _Optional[str] = ..., usage: _Optional[_Union[UsageTotals, _Mapping]] = ...) -> None: ...

class Drain(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Pong(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol_version", "server_version", "ping_interval", "lease", "payload_bytes_max", "server_instance_id", "reject_pause", "limits")
    PROTOCOL_VERSION_FIELD_NUMBER: _ClassVar[int]
    SERVER_VERSION_FIELD_NUMBER: _ClassVar[int]
    PING_INTERVAL_FIELD_NUMBER: _ClassVar[int]
    LEASE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    SERVER_INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    REJECT_PAUSE_FIELD_NUMBER: _ClassVar[int]
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    protocol_version: int
    server_version: str
    ping_interval: _duration_pb2.Duration
    lease: _duration_pb2.Duration
    payload_bytes_max: int
    server_instance_id: str
    reject_pause: _duration_pb2.Duration
    limits: AttachLimits
    def __init__(self, protocol_version: _Optional[int] = ..., server_version: _Optional[str] = ..., ping_interval: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., lease: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., payload_bytes_max: _Optional[int] = ..., server_instance_id: _Optional[str] = ..., reject_pause: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., limits: _Optional[_Union[AttachLimits, _Mapping]] = ...) -> None: ...

class AttachLimits(_message.Message):
    __slots__ = ("frame_bytes_max", "frame_messages_max", "fail_bytes_max", "in_flight_max", "unrecorded_bytes_max", "usage_units_max", "log_message_chars_max", "reports_per_second", "report_bytes_per_second")
    FRAME_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    FRAME_MESSAGES_MAX_FIELD_NUMBER: _ClassVar[int]
    FAIL_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    IN_FLIGHT_MAX_FIELD_NUMBER: _ClassVar[int]
    UNRECORDED_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    USAGE_UNITS_MAX_FIELD_NUMBER: _ClassVar[int]
    LOG_MESSAGE_CHARS_MAX_FIELD_NUMBER: _ClassVar[int]
    REPORTS_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    REPORT_BYTES_PER_SECOND_FIELD_NUMBER: _ClassVar[int]
    frame_bytes_max: int
    frame_messages_max: int
    fail_bytes_max: int
    in_flight_max: int
    unrecorded_bytes_max: int
    usage_units_max: int
    log_message_chars_max: int
    reports_per_second: int
    report_bytes_per_second: int
    def __init__(self, frame_bytes_max: _Optional[int] = ..., frame_messages_max: _Optional[int] = ..., fail_bytes_max: _Optional[int] = ..., in_flight_max: _Optional[int] = ..., unrecorded_bytes_max: _Optional[int] = ..., usage_units_max: _Optional[int] = ..., log_message_chars_max: _Optional[int] = ..., reports_per_second: _Optional[int] = ..., report_bytes_per_second: _Optional[int] = ...) -> None: ...

class Assign(_message.Message):
    __slots__ = ("token", "execution_id", "node_path", "attempt", "type", "input", "time_left", "traceparent", "idempotency_key", "run", "tracestate", "branch", "heartbeat_details", "heartbeat_timeout")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_PATH_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    TIME_LEFT_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    IDEMPOTENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    RUN_FIELD_NUMBER: _ClassVar[int]
    TRACESTATE_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_DETAILS_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    token: str
    execution_id: str
    node_path: str
    attempt: int
    type: str
    input: _payload_pb2.Payload
    time_left: _duration_pb2.Duration
    traceparent: str
    idempotency_key: str
    run: int
    tracestate: str
    branch: str
    heartbeat_details: _payload_pb2.Payload
    heartbeat_timeout: _duration_pb2.Duration
    def __init__(self, token: _Optional[str] = ..., execution_id: _Optional[str] = ..., node_path: _Optional[str] = ..., attempt: _Optional[int] = ..., type: _Optional[str] = ..., input: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., time_left: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., traceparent: _Optional[str] = ..., idempotency_key: _Optional[str] = ..., run: _Optional[int] = ..., tracestate: _Optional[str] = ..., branch: _Optional[str] = ..., heartbeat_details: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., heartbeat_timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Recorded(_message.Message):
    __slots__ = ("token", "result")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    token: str
    result: RecordedResult
    def __init__(self, token: _Optional[str] = ..., result: _Optional[_Union[RecordedResult, str]] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("token", "reason", "grace")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    GRACE_FIELD_NUMBER: _ClassVar[int]
    token: str
    reason: CancelReason
    grace: _duration_pb2.Duration
    def __init__(self, token: _Optional[str] = ..., reason: _Optional[_Union[CancelReason, str]] = ..., grace: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("number",)
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    number: int
    def __init__(self, number: _Optional[int] = ...) -> None: ...

class ListWorkersRequest(_message.Message):
    __slots__ = ("namespace", "page_size", "page_token")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    page_size: int
    page_token: str
    def __init__(self, namespace: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListWorkersResponse(_message.Message):
    __slots__ = ("workers", "next_page_token")
    WORKERS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    workers: _containers.RepeatedCompositeFieldContainer[Worker]
    next_page_token: str
    def __init__(self, workers: _Optional[_Iterable[_Union[Worker, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Worker(_message.Message):
    __slots__ = ("worker_id", "instance_id", "state", "types", "slots", "slots_in_use", "labels", "attach_time", "last_heard_time", "sdk")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    WORKER_ID_FIELD_NUMBER: _ClassVar[int]
    INSTANCE_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TYPES_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_IN_USE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    ATTACH_TIME_FIELD_NUMBER: _ClassVar[int]
    LAST_HEARD_TIME_FIELD_NUMBER: _ClassVar[int]
    SDK_FIELD_NUMBER: _ClassVar[int]
    worker_id: str
    instance_id: str
    state: WorkerState
    types: _containers.RepeatedCompositeFieldContainer[ServedType]
    slots: int
    slots_in_use: int
    labels: _containers.ScalarMap[str, str]
    attach_time: _timestamp_pb2.Timestamp
    last_heard_time: _timestamp_pb2.Timestamp
    sdk: str
    def __init__(self, worker_id: _Optional[str] = ..., instance_id: _Optional[str] = ..., state: _Optional[_Union[WorkerState, str]] = ..., types: _Optional[_Iterable[_Union[ServedType, _Mapping]]] = ..., slots: _Optional[int] = ..., slots_in_use: _Optional[int] = ..., labels: _Optional[_Mapping[str, str]] = ..., attach_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., last_heard_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., sdk: _Optional[str] = ...) -> None: ...
