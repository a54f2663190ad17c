from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GraphAnalysis(_message.Message):
    __slots__ = ("levels", "remaining", "guarded", "inner")
    class InnerEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: int
        value: GraphAnalysis
        def __init__(self, key: _Optional[int] = ..., value: _Optional[_Union[GraphAnalysis, _Mapping]] = ...) -> None: ...
    LEVELS_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    GUARDED_FIELD_NUMBER: _ClassVar[int]
    INNER_FIELD_NUMBER: _ClassVar[int]
    levels: _containers.RepeatedScalarFieldContainer[int]
    remaining: _containers.RepeatedScalarFieldContainer[int]
    guarded: _containers.RepeatedScalarFieldContainer[int]
    inner: _containers.MessageMap[int, GraphAnalysis]
    def __init__(self, levels: _Optional[_Iterable[int]] = ..., remaining: _Optional[_Iterable[int]] = ..., guarded: _Optional[_Iterable[int]] = ..., inner: _Optional[_Mapping[int, GraphAnalysis]] = ...) -> None: ...
