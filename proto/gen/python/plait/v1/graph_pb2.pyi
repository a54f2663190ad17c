import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from plait.v1 import payload_pb2 as _payload_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Scheduling(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SCHEDULING_UNSPECIFIED: _ClassVar[Scheduling]
    SCHEDULING_READY: _ClassVar[Scheduling]
    SCHEDULING_LEVELS: _ClassVar[Scheduling]

class OnFailure(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_FAILURE_UNSPECIFIED: _ClassVar[OnFailure]
    ON_FAILURE_FAIL_FAST: _ClassVar[OnFailure]
    ON_FAILURE_STOP_DISPATCH: _ClassVar[OnFailure]
    ON_FAILURE_CONTINUE: _ClassVar[OnFailure]

class NodeKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NODE_KIND_UNSPECIFIED: _ClassVar[NodeKind]
    NODE_KIND_TASK: _ClassVar[NodeKind]
    NODE_KIND_CONDITION: _ClassVar[NodeKind]
    NODE_KIND_SWITCH: _ClassVar[NodeKind]
    NODE_KIND_TRANSFORM: _ClassVar[NodeKind]
    NODE_KIND_DELAY: _ClassVar[NodeKind]
    NODE_KIND_SUBGRAPH: _ClassVar[NodeKind]

class JoinMode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    JOIN_MODE_UNSPECIFIED: _ClassVar[JoinMode]
    JOIN_MODE_ALL: _ClassVar[JoinMode]
    JOIN_MODE_ANY: _ClassVar[JoinMode]
    JOIN_MODE_QUORUM: _ClassVar[JoinMode]
    JOIN_MODE_COLLECT: _ClassVar[JoinMode]

class OnError(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_ERROR_UNSPECIFIED: _ClassVar[OnError]
    ON_ERROR_FAIL: _ClassVar[OnError]
    ON_ERROR_TOLERATE: _ClassVar[OnError]
    ON_ERROR_IGNORE: _ClassVar[OnError]

class OnTimeout(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ON_TIMEOUT_UNSPECIFIED: _ClassVar[OnTimeout]
    ON_TIMEOUT_ERROR: _ClassVar[OnTimeout]
    ON_TIMEOUT_CONTINUE: _ClassVar[OnTimeout]
    ON_TIMEOUT_CANCEL: _ClassVar[OnTimeout]
SCHEDULING_UNSPECIFIED: Scheduling
SCHEDULING_READY: Scheduling
SCHEDULING_LEVELS: Scheduling
ON_FAILURE_UNSPECIFIED: OnFailure
ON_FAILURE_FAIL_FAST: OnFailure
ON_FAILURE_STOP_DISPATCH: OnFailure
ON_FAILURE_CONTINUE: OnFailure
NODE_KIND_UNSPECIFIED: NodeKind
NODE_KIND_TASK: NodeKind
NODE_KIND_CONDITION: NodeKind
NODE_KIND_SWITCH: NodeKind
NODE_KIND_TRANSFORM: NodeKind
NODE_KIND_DELAY: NodeKind
NODE_KIND_SUBGRAPH: NodeKind
JOIN_MODE_UNSPECIFIED: JoinMode
JOIN_MODE_ALL: JoinMode
JOIN_MODE_ANY: JoinMode
JOIN_MODE_QUORUM: JoinMode
JOIN_MODE_COLLECT: JoinMode
ON_ERROR_UNSPECIFIED: OnError
ON_ERROR_FAIL: OnError
ON_ERROR_TOLERATE: OnError
ON_ERROR_IGNORE: OnError
ON_TIMEOUT_UNSPECIFIED: OnTimeout
ON_TIMEOUT_ERROR: OnTimeout
ON_TIMEOUT_CONTINUE: OnTimeout
ON_TIMEOUT_CANCEL: OnTimeout

class Graph(_message.Message):
    __slots__ = ("name", "nodes", "edges", "policy", "scheduling", "output", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    POLICY_FIELD_NUMBER: _ClassVar[int]
    SCHEDULING_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    name: str
    nodes: _containers.RepeatedCompositeFieldContainer[Node]
    edges: _containers.RepeatedCompositeFieldContainer[Edge]
    policy: Policy
    scheduling: Scheduling
    output: str
    labels: _containers.ScalarMap[str, str]
    def __init__(self, name: _Optional[str] = ..., nodes: _Optional[_Iterable[_Union[Node, _Mapping]]] = ..., edges: _Optional[_Iterable[_Union[Edge, _Mapping]]] = ..., policy: _Optional[_Union[Policy, _Mapping]] = ..., scheduling: _Optional[_Union[Scheduling, str]] = ..., output: _Optional[str] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Policy(_message.Message):
    __slots__ = ("on_failure", "min_success_rate", "collect_errors", "timeout", "max_concurrency")
    ON_FAILURE_FIELD_NUMBER: _ClassVar[int]
    MIN_SUCCESS_RATE_FIELD_NUMBER: _ClassVar[int]
    COLLECT_ERRORS_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    on_failure: OnFailure
    min_success_rate: float
    collect_errors: bool
    timeout: _duration_pb2.Duration
    max_concurrency: int
    def __init__(self, on_failure: _Optional[_Union[OnFailure, str]] = ..., min_success_rate: _Optional[float] = ..., collect_errors: bool = ..., timeout: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., max_concurrency: _Optional[int] = ...) -> None: ...

class Node(_message.Message):
    __slots__ = ("id", "task", "condition", "switch", "transform", "delay", "subgraph", "input", "join", "retry", "timeouts", "on_error", "on_timeout", "priority", "locked", "locked_output", "concurrency_key")
    ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    CONDITION_FIELD_NUMBER: _ClassVar[int]
    SWITCH_FIELD_NUMBER: _ClassVar[int]
    TRANSFORM_FIELD_NUMBER: _ClassVar[int]
    DELAY_FIELD_NUMBER: _ClassVar[int]
    SUBGRAPH_FIELD_NUMBER: _ClassVar[int]
    INPUT_FIELD_NUMBER: _ClassVar[int]
    JOIN_FIELD_NUMBER: _ClassVar[int]
    RETRY_FIELD_NUMBER: _ClassVar[int]
    TIMEOUTS_FIELD_NUMBER: _ClassVar[int]
    ON_ERROR_FIELD_NUMBER: _ClassVar[int]
    ON_TIMEOUT_FIELD_NUMBER: _ClassVar[int]
    PRIORITY_FIELD_NUMBER: _ClassVar[int]
    LOCKED_FIELD_NUMBER: _ClassVar[int]
    LOCKED_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    CONCURRENCY_KEY_FIELD_NUMBER: _ClassVar[int]
    id: str
    task: Task
    condition: Condition
    switch: Switch
    transform: Transform
    delay: Delay
    subgraph: Subgraph
    input: _payload_pb2.Payload
    join: Join
    retry: RetryPolicy
    timeouts: Timeouts
    on_error: OnError
    on_timeout: OnTimeout
    priority: int
    locked: bool
    locked_output: _payload_pb2.Payload
    concurrency_key: str
    def __init__(self, id: _Optional[str] = ..., task: _Optional[_Union[Task, _Mapping]] = ..., condition: _Optional[_Union[Condition, _Mapping]] = ..., switch: _Optional[_Union[Switch, _Mapping]] = ..., transform: _Optional[_Union[Transform, _Mapping]] = ..., delay: _Optional[_Union[Delay, _Mapping]] = ..., subgraph: _Optional[_Union[Subgraph, _Mapping]] = ..., input: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., join: _Optional[_Union[Join, _Mapping]] = ..., retry: _Optional[_Union[RetryPolicy, _Mapping]] = ..., timeouts: _Optional[_Union[Timeouts, _Mapping]] = ..., on_error: _Optional[_Union[OnError, str]] = ..., on_timeout: _Optional[_Union[OnTimeout, str]] = ..., priority: _Optional[int] = ..., locked: bool = ..., locked_output: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., concurrency_key: _Optional[str] = ...) -> None: ...

class Task(_message.Message):
    __slots__ = ("type",)
    TYPE_FIELD_NUMBER: _ClassVar[int]
    type: str
    def __init__(self, type: _Optional[str] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("expression",)
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    expression: str
    def __init__(self, expression: _Optional[str] = ...) -> None: ...

class Switch(_message.Message):
    __slots__ = ("expression", "cases")
    EXPRESSION_FIELD_NUMBER: _ClassVar[int]
    CASES_FIELD_NUMBER: _ClassVar[int]
    expression: str
    cases: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, expression: _Optional[str] = ..., cases: _Optional[_Iterable[str]] = ...) -> None: ...

class Transform(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Delay(_message.Message):
    __slots__ = ("duration",)
    DURATION_FIELD_NUMBER: _ClassVar[int]
    duration: _duration_pb2.Duration
    def __init__(self, duration: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class Subgraph(_message.Message):
    __slots__ = ("graph", "output_of")
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_OF_FIELD_NUMBER: _ClassVar[int]
    graph: Graph
    output_of: str
    def __init__(self, graph: _Optional[_Union[Graph, _Mapping]] = ..., output_of: _Optional[str] = ...) -> None: ...

class Edge(_message.Message):
    __slots__ = ("source", "target", "handle", "when", "branch_name")
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    TARGET_FIELD_NUMBER: _ClassVar[int]
    HANDLE_FIELD_NUMBER: _ClassVar[int]
    WHEN_FIELD_NUMBER: _ClassVar[int]
    BRANCH_NAME_FIELD_NUMBER: _ClassVar[int]
    source: str
    target: str
    handle: str
    when: str
    branch_name: str
    def __init__(self, source: _Optional[str] = ..., target: _Optional[str] = ..., handle: _Optional[str] = ..., when: _Optional[str] = ..., branch_name: _Optional[str] = ...) -> None: ...

class Join(_message.Message):
    __slots__ = ("mode", "count", "rate", "cancel_losers", "min_success_rate")
    MODE_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_LOSERS_FIELD_NUMBER: _ClassVar[int]
    MIN_SUCCESS_RATE_FIELD_NUMBER: _ClassVar[int]
    mode: JoinMode
    count: int
    rate: float
    cancel_losers: bool
    min_success_rate: float
    def __init__(self, mode: _Optional[_Union[JoinMode, str]] = ..., count: _Optional[int] = ..., rate: _Optional[float] = ..., cancel_losers: bool = ..., min_success_rate: _Optional[float] = ...) -> None: ...

class RetryPolicy(_message.Message):
    __slots__ = ("max_attempts", "initial_backoff", "multiplier", "max_backoff", "retryable_codes", "max_lost_attempts")
    MAX_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    INITIAL_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    MAX_BACKOFF_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_CODES_FIELD_NUMBER: _ClassVar[int]
    MAX_LOST_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    max_attempts: int
    initial_backoff: _duration_pb2.Duration
    multiplier: float
    max_backoff: _duration_pb2.Duration
    retryable_codes: _containers.RepeatedScalarFieldContainer[str]
    max_lost_attempts: int
    def __init__(self, max_attempts: _Optional[int] = ..., initial_backoff: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., multiplier: _Optional[float] = ..., max_backoff: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., retryable_codes: _Optional[_Iterable[str]] = ..., max_lost_attempts: _Optional[int] = ...) -> None: ...

class Timeouts(_message.Message):
    __slots__ = ("attempt", "node", "queue", "worker", "heartbeat")
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    QUEUE_FIELD_NUMBER: _ClassVar[int]
    WORKER_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_FIELD_NUMBER: _ClassVar[int]
    attempt: _duration_pb2.Duration
    node: _duration_pb2.Duration
    queue: _duration_pb2.Duration
    worker: _duration_pb2.Duration
    heartbeat: _duration_pb2.Duration
    def __init__(self, attempt: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., node: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., queue: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., worker: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., heartbeat: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class NodeLock(_message.Message):
    __slots__ = ("node_path", "locked", "locked_output")
    NODE_PATH_FIELD_NUMBER: _ClassVar[int]
    LOCKED_FIELD_NUMBER: _ClassVar[int]
    LOCKED_OUTPUT_FIELD_NUMBER: _ClassVar[int]
    node_path: str
    locked: bool
    locked_output: _payload_pb2.Payload
    def __init__(self, node_path: _Optional[str] = ..., locked: bool = ..., locked_output: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ...) -> None: ...
