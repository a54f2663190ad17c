from plait.v1 import payload_pb2 as _payload_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Failure(_message.Message):
    __slots__ = ("code", "message", "details", "causes", "retryable", "node_path", "attempt", "causes_omitted", "details_omitted")
    CODE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    DETAILS_FIELD_NUMBER: _ClassVar[int]
    CAUSES_FIELD_NUMBER: _ClassVar[int]
    RETRYABLE_FIELD_NUMBER: _ClassVar[int]
    NODE_PATH_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    CAUSES_OMITTED_FIELD_NUMBER: _ClassVar[int]
    DETAILS_OMITTED_FIELD_NUMBER: _ClassVar[int]
    code: str
    message: str
    details: _payload_pb2.Payload
    causes: _containers.RepeatedCompositeFieldContainer[Failure]
    retryable: bool
    node_path: str
    attempt: int
    causes_omitted: int
    details_omitted: bool
    def __init__(self, code: _Optional[str] = ..., message: _Optional[str] = ..., details: _Optional[_Union[_payload_pb2.Payload, _Mapping]] = ..., causes: _Optional[_Iterable[_Union[Failure, _Mapping]]] = ..., retryable: bool = ..., node_path: _Optional[str] = ..., attempt: _Optional[int] = ..., causes_omitted: _Optional[int] = ..., details_omitted: bool = ...) -> None: ...
