from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from typing import ClassVar as _ClassVar

DESCRIPTOR: _descriptor.FileDescriptor

class EngineCode(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ENGINE_CODE_UNSPECIFIED: _ClassVar[EngineCode]
    ENGINE_CODE_EXPRESSION: _ClassVar[EngineCode]
    ENGINE_CODE_INVALID_RESULT: _ClassVar[EngineCode]
    ENGINE_CODE_TOO_LARGE: _ClassVar[EngineCode]
    ENGINE_CODE_WORKER_LOST: _ClassVar[EngineCode]
    ENGINE_CODE_POISON: _ClassVar[EngineCode]
    ENGINE_CODE_ALL_BRANCHES_FAILED: _ClassVar[EngineCode]
    ENGINE_CODE_QUORUM_UNREACHABLE: _ClassVar[EngineCode]
    ENGINE_CODE_MIN_SUCCESS_RATE: _ClassVar[EngineCode]
    ENGINE_CODE_BUDGET_EXCEEDED: _ClassVar[EngineCode]
    ENGINE_CODE_DEAD_PATH: _ClassVar[EngineCode]
    ENGINE_CODE_UPSTREAM_FAILED: _ClassVar[EngineCode]
    ENGINE_CODE_LOCKED: _ClassVar[EngineCode]
    ENGINE_CODE_SIBLING_FAILED: _ClassVar[EngineCode]
    ENGINE_CODE_RACE_LOST: _ClassVar[EngineCode]
    ENGINE_CODE_SECTION_TIMEOUT: _ClassVar[EngineCode]
    ENGINE_CODE_EXECUTION_TIMEOUT: _ClassVar[EngineCode]
    ENGINE_CODE_QUEUE_TIMEOUT: _ClassVar[EngineCode]
    ENGINE_CODE_NO_WORKER: _ClassVar[EngineCode]
    ENGINE_CODE_SERVER_LIMIT: _ClassVar[EngineCode]
    ENGINE_CODE_EXECUTION_LIMIT: _ClassVar[EngineCode]
    ENGINE_CODE_NODE_TYPE_LIMIT: _ClassVar[EngineCode]
    ENGINE_CODE_WORKER_SLOTS: _ClassVar[EngineCode]
    ENGINE_CODE_LEVEL: _ClassVar[EngineCode]
    ENGINE_CODE_NAMESPACE_LIMIT: _ClassVar[EngineCode]
    ENGINE_CODE_KEY_LIMIT: _ClassVar[EngineCode]
    ENGINE_CODE_RATE_LIMIT: _ClassVar[EngineCode]
ENGINE_CODE_UNSPECIFIED: EngineCode
ENGINE_CODE_EXPRESSION: EngineCode
ENGINE_CODE_INVALID_RESULT: EngineCode
ENGINE_CODE_TOO_LARGE: EngineCode
ENGINE_CODE_WORKER_LOST: EngineCode
ENGINE_CODE_POISON: EngineCode
ENGINE_CODE_ALL_BRANCHES_FAILED: EngineCode
ENGINE_CODE_QUORUM_UNREACHABLE: EngineCode
ENGINE_CODE_MIN_SUCCESS_RATE: EngineCode
ENGINE_CODE_BUDGET_EXCEEDED: EngineCode
ENGINE_CODE_DEAD_PATH: EngineCode
ENGINE_CODE_UPSTREAM_FAILED: EngineCode
ENGINE_CODE_LOCKED: EngineCode
ENGINE_CODE_SIBLING_FAILED: EngineCode
ENGINE_CODE_RACE_LOST: EngineCode
ENGINE_CODE_SECTION_TIMEOUT: EngineCode
ENGINE_CODE_EXECUTION_TIMEOUT: EngineCode
ENGINE_CODE_QUEUE_TIMEOUT: EngineCode
ENGINE_CODE_NO_WORKER: EngineCode
ENGINE_CODE_SERVER_LIMIT: EngineCode
ENGINE_CODE_EXECUTION_LIMIT: EngineCode
ENGINE_CODE_NODE_TYPE_LIMIT: EngineCode
ENGINE_CODE_WORKER_SLOTS: EngineCode
ENGINE_CODE_LEVEL: EngineCode
ENGINE_CODE_NAMESPACE_LIMIT: EngineCode
ENGINE_CODE_KEY_LIMIT: EngineCode
ENGINE_CODE_RATE_LIMIT: EngineCode
