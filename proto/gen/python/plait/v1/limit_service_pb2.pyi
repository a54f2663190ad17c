import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from plait.v1 import namespace_service_pb2 as _namespace_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class LimitKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LIMIT_KIND_UNSPECIFIED: _ClassVar[LimitKind]
    LIMIT_KIND_SERVER: _ClassVar[LimitKind]
    LIMIT_KIND_NAMESPACE: _ClassVar[LimitKind]
    LIMIT_KIND_TYPE: _ClassVar[LimitKind]
    LIMIT_KIND_KEY: _ClassVar[LimitKind]
LIMIT_KIND_UNSPECIFIED: LimitKind
LIMIT_KIND_SERVER: LimitKind
LIMIT_KIND_NAMESPACE: LimitKind
LIMIT_KIND_TYPE: LimitKind
LIMIT_KIND_KEY: LimitKind

class ListLimitsRequest(_message.Message):
    __slots__ = ("namespace", "kind", "page_size", "page_token")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    kind: LimitKind
    page_size: int
    page_token: str
    def __init__(self, namespace: _Optional[str] = ..., kind: _Optional[_Union[LimitKind, str]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListLimitsResponse(_message.Message):
    __slots__ = ("limits", "next_page_token")
    LIMITS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    limits: _containers.RepeatedCompositeFieldContainer[Limit]
    next_page_token: str
    def __init__(self, limits: _Optional[_Iterable[_Union[Limit, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class SetLimitRequest(_message.Message):
    __slots__ = ("kind", "namespace", "name", "max_concurrency", "rate", "burst", "request_id")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    kind: LimitKind
    namespace: str
    name: str
    max_concurrency: int
    rate: float
    burst: int
    request_id: str
    def __init__(self, kind: _Optional[_Union[LimitKind, str]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., max_concurrency: _Optional[int] = ..., rate: _Optional[float] = ..., burst: _Optional[int] = ..., request_id: _Optional[str] = ...) -> None: ...

class SetLimitResponse(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: Limit
    def __init__(self, limit: _Optional[_Union[Limit, _Mapping]] = ...) -> None: ...

class RemoveLimitRequest(_message.Message):
    __slots__ = ("kind", "namespace", "name", "request_id")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    kind: LimitKind
    namespace: str
    name: str
    request_id: str
    def __init__(self, kind: _Optional[_Union[LimitKind, str]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., request_id: _Optional[str] = ...) -> None: ...

class RemoveLimitResponse(_message.Message):
    __slots__ = ("limit",)
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    limit: Limit
    def __init__(self, limit: _Optional[_Union[Limit, _Mapping]] = ...) -> None: ...

class Limit(_message.Message):
    __slots__ = ("kind", "namespace", "name", "max_concurrency", "rate", "burst", "source", "in_use", "waiting", "holders")
    KIND_FIELD_NUMBER: _ClassVar[int]
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MAX_CONCURRENCY_FIELD_NUMBER: _ClassVar[int]
    RATE_FIELD_NUMBER: _ClassVar[int]
    BURST_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    IN_USE_FIELD_NUMBER: _ClassVar[int]
    WAITING_FIELD_NUMBER: _ClassVar[int]
    HOLDERS_FIELD_NUMBER: _ClassVar[int]
    kind: LimitKind
    namespace: str
    name: str
    max_concurrency: int
    rate: float
    burst: int
    source: _namespace_service_pb2.SettingSource
    in_use: int
    waiting: int
    holders: _containers.RepeatedCompositeFieldContainer[LimitHolder]
    def __init__(self, kind: _Optional[_Union[LimitKind, str]] = ..., namespace: _Optional[str] = ..., name: _Optional[str] = ..., max_concurrency: _Optional[int] = ..., rate: _Optional[float] = ..., burst: _Optional[int] = ..., source: _Optional[_Union[_namespace_service_pb2.SettingSource, str]] = ..., in_use: _Optional[int] = ..., waiting: _Optional[int] = ..., holders: _Optional[_Iterable[_Union[LimitHolder, _Mapping]]] = ...) -> None: ...

class LimitHolder(_message.Message):
    __slots__ = ("namespace", "execution_id", "node_path", "attempt", "start_time")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    NODE_PATH_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    START_TIME_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    node_path: str
    attempt: int
    start_time: _timestamp_pb2.Timestamp
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ..., node_path: _Optional[str] = ..., attempt: _Optional[int] = ..., start_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
