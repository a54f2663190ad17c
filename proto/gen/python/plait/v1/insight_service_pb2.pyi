from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class ExportTraceRequest(_message.Message):
    __slots__ = ("namespace", "execution_id")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    EXECUTION_ID_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    execution_id: str
    def __init__(self, namespace: _Optional[str] = ..., execution_id: _Optional[str] = ...) -> None: ...

class ExportTraceResponse(_message.Message):
    __slots__ = ("traces_data",)
    TRACES_DATA_FIELD_NUMBER: _ClassVar[int]
    traces_data: bytes
    def __init__(self, traces_data: _Optional[bytes] = ...) -> None: ...
