from plait.v1 import graph_pb2 as _graph_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ValidateGraphRequest(_message.Message):
    __slots__ = ("namespace", "graph")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    graph: _graph_pb2.Graph
    def __init__(self, namespace: _Optional[str] = ..., graph: _Optional[_Union[_graph_pb2.Graph, _Mapping]] = ...) -> None: ...

class ValidateGraphResponse(_message.Message):
    __slots__ = ("violations", "violation_count", "warnings")
    VIOLATIONS_FIELD_NUMBER: _ClassVar[int]
    VIOLATION_COUNT_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    violations: _containers.RepeatedCompositeFieldContainer[GraphProblem]
    violation_count: int
    warnings: _containers.RepeatedCompositeFieldContainer[GraphProblem]
    def __init__(self, violations: _Optional[_Iterable[_Union[GraphProblem, _Mapping]]] = ..., violation_count: _Optional[int] = ..., warnings: _Optional[_Iterable[_Union[GraphProblem, _Mapping]]] = ...) -> None: ...

class GraphProblem(_message.Message):
    __slots__ = ("field", "message")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    field: str
    message: str
    def __init__(self, field: _Optional[str] = ..., message: _Optional[str] = ...) -> None: ...

class PlanGraphRequest(_message.Message):
    __slots__ = ("namespace", "graph")
    NAMESPACE_FIELD_NUMBER: _ClassVar[int]
    GRAPH_FIELD_NUMBER: _ClassVar[int]
    namespace: str
    graph: _graph_pb2.Graph
    def __init__(self, namespace: _Optional[str] = ..., graph: _Optional[_Union[_graph_pb2.Graph, _Mapping]] = ...) -> None: ...

class PlanGraphResponse(_message.Message):
    __slots__ = ("plan", "warnings")
    PLAN_FIELD_NUMBER: _ClassVar[int]
    WARNINGS_FIELD_NUMBER: _ClassVar[int]
    plan: GraphPlan
    warnings: _containers.RepeatedCompositeFieldContainer[GraphProblem]
    def __init__(self, plan: _Optional[_Union[GraphPlan, _Mapping]] = ..., warnings: _Optional[_Iterable[_Union[GraphProblem, _Mapping]]] = ...) -> None: ...

class GraphPlan(_message.Message):
    __slots__ = ("level_count", "width", "longest_path", "nodes", "edges")
    LEVEL_COUNT_FIELD_NUMBER: _ClassVar[int]
    WIDTH_FIELD_NUMBER: _ClassVar[int]
    LONGEST_PATH_FIELD_NUMBER: _ClassVar[int]
    NODES_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    level_count: int
    width: int
    longest_path: _containers.RepeatedScalarFieldContainer[str]
    nodes: _containers.RepeatedCompositeFieldContainer[PlannedNode]
    edges: _containers.RepeatedCompositeFieldContainer[PlannedEdge]
    def __init__(self, level_count: _Optional[int] = ..., width: _Optional[int] = ..., longest_path: _Optional[_Iterable[str]] = ..., nodes: _Optional[_Iterable[_Union[PlannedNode, _Mapping]]] = ..., edges: _Optional[_Iterable[_Union[PlannedEdge, _Mapping]]] = ...) -> None: ...

class PlannedNode(_message.Message):
    __slots__ = ("id", "level", "remaining", "guarded", "branch", "rank", "order", "inner")
    ID_FIELD_NUMBER: _ClassVar[int]
    LEVEL_FIELD_NUMBER: _ClassVar[int]
    REMAINING_FIELD_NUMBER: _ClassVar[int]
    GUARDED_FIELD_NUMBER: _ClassVar[int]
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    ORDER_FIELD_NUMBER: _ClassVar[int]
    INNER_FIELD_NUMBER: _ClassVar[int]
    id: str
    level: int
    remaining: int
    guarded: bool
    branch: str
    rank: int
    order: int
    inner: GraphPlan
    def __init__(self, id: _Optional[str] = ..., level: _Optional[int] = ..., remaining: _Optional[int] = ..., guarded: bool = ..., branch: _Optional[str] = ..., rank: _Optional[int] = ..., order: _Optional[int] = ..., inner: _Optional[_Union[GraphPlan, _Mapping]] = ...) -> None: ...

class PlannedEdge(_message.Message):
    __slots__ = ("branch", "branch_name")
    BRANCH_FIELD_NUMBER: _ClassVar[int]
    BRANCH_NAME_FIELD_NUMBER: _ClassVar[int]
    branch: str
    branch_name: str
    def __init__(self, branch: _Optional[str] = ..., branch_name: _Optional[str] = ...) -> None: ...
