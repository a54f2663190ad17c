"""Graphs as the core sees them: values without behavior, free of protobuf.

A graph is what the user wrote (`Graph`); `analysis.py` works out what follows from it, `validation.py` says
what is wrong with it. JSON stands here as text, durations as seconds, expressions as source.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, cast, overload


class Scheduling(enum.IntEnum):
    """When ready nodes may start (R1, R2). Values are those of plait.v1.Scheduling."""

    READY = 1
    LEVELS = 2


class OnFailure(enum.IntEnum):
    """What an unhandled failure does (E4). Values are those of plait.v1.OnFailure."""

    FAIL_FAST = 1
    STOP_DISPATCH = 2
    CONTINUE = 3


class JoinMode(enum.IntEnum):
    """When a node with incoming edges runs (section 6). Values are those of plait.v1.JoinMode."""

    ALL = 1
    ANY = 2
    QUORUM = 3
    COLLECT = 4


class OnError(enum.IntEnum):
    """What a node's failure does (E3). Values are those of plait.v1.OnError."""

    UNSPECIFIED = 0
    """Tolerated if the node is guarded, else the policy decides."""
    FAIL = 1
    TOLERATE = 2
    IGNORE = 3


class OnTimeout(enum.IntEnum):
    """What a node's timing out does (T5). Values are those of plait.v1.OnTimeout."""

    ERROR = 1
    CONTINUE = 2
    CANCEL = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Runs at a worker that serves the type."""

    type: str
    """The node type, such as `image.generate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """Evaluates to a boolean and selects the handle `true` or `false`."""

    expression: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """Evaluates to a string and selects the handle of that name, else `default`."""

    expression: str
    cases: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transform:
    """Outputs its rendered input."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay:
    """Waits, then outputs its input."""

    duration_s: float
    """Seconds, above 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subgraph:
    """Runs a graph as a scope: `graph` or `output_of`, and not both (L4)."""

    graph: Graph | None = None
    output_of: str = ""
    """The id of an upstream node whose output is the graph."""


Kind: TypeAlias = Task | Condition | Switch | Transform | Delay | Subgraph


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """When a node with incoming edges runs."""

    mode: JoinMode = JoinMode.ALL
    count: int | None = None
    """Active edges a quorum needs; None when `rate` says it."""
    rate: float | None = None
    """Share of the edges not DEAD that a quorum needs, above 0 to 1."""
    cancel_losers: bool = True
    min_success_rate: float = 0.0
    """Share of successes that COLLECT needs, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How failed attempts are retried (T1, T2)."""

    max_attempts: int = 1
    initial_backoff_s: float = 1.0
    multiplier: float = 2.0
    max_backoff_s: float = 60.0
    retryable_codes: tuple[str, ...] = ()
    """If not empty, only these codes are retried; if empty, all except those that another attempt cannot help."""
    max_lost_attempts: int = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Time limits of a task node in seconds; 0 means no limit (T4)."""

    attempt_s: float = 0.0
    node_s: float = 0.0
    queue_s: float = 0.0
    """The longest wait for capacity."""
    worker_s: float = 0.0
    """The longest wait for a worker that serves the type."""
    heartbeat_s: float = 0.0
    """The longest silence of an attempt."""


DEFAULT_JOIN = Join()
DEFAULT_RETRY = RetryPolicy()
DEFAULT_TIMEOUTS = Timeouts()
DEFAULT_CONCURRENCY = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of a graph."""

    id: str
    kind: Kind | None
    """None only in a graph that validation refuses."""
    input: str | None = None
    """JSON text in which strings may hold `{{ CEL }}`; None if the input is the join's object (J2)."""
    join: Join | None = None
    """None if the graph does not set one, which means ALL."""
    retry: RetryPolicy | None = None
    timeouts: Timeouts | None = None
    on_error: OnError = OnError.UNSPECIFIED
    on_timeout: OnTimeout | None = None
    priority: int = 0
    locked: bool = False
    locked_output: str | None = None
    """JSON text; None means null."""
    concurrency_key: str = ""
    """CEL source that gives a string; empty means no key (Q1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """An edge from a node's handle to another node."""

    source: str
    target: str
    handle: str = ""
    when: str = ""
    branch_name: str = ""


class EdgeColumns(Sequence[Edge]):  # noqa: PLW1641 # graphs have labels, and so no hash
    """The edges of a large graph, stored as one column a field; an `Edge` is created on access.

    Half a million edge objects would add 0.1 s to every full garbage collection; columns of strings add nothing.
    Equal to a tuple of equal edges.
    """

    __slots__ = ("_columns",)

    def __init__(self, edges: Sequence[Sequence[str]]) -> None:
        """Store edges from their five columns, in the order of Edge's fields."""
        sources, targets, handles, whens, branch_names = (tuple(column) for column in edges)
        self._columns = (sources, targets, handles, whens, branch_names)

    def __len__(self) -> int:
        return len(self._columns[0])

    @overload
    def __getitem__(self, position: int) -> Edge: ...

    @overload
    def __getitem__(self, position: slice) -> tuple[Edge, ...]: ...

    def __getitem__(self, position: int | slice) -> Edge | tuple[Edge, ...]:
        if isinstance(position, slice):
            return tuple([_edge_of(*row) for row in zip(*[c[position] for c in self._columns], strict=True)])
        return _edge_of(*[column[position] for column in self._columns])

    def __iter__(self) -> Iterator[Edge]:
        return (_edge_of(*row) for row in zip(*self._columns, strict=True))

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, EdgeColumns | tuple):
            return NotImplemented
        others = cast("Sequence[object]", other)
        return len(self) == len(others) and all(mine == its for mine, its in zip(self, others, strict=True))


def _edge_of(source: str, target: str, handle: str, when: str, branch_name: str) -> Edge:
    return Edge(source=source, target=target, handle=handle, when=when, branch_name=branch_name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an unhandled failure does, and the bounds of an execution or a scope inside one."""

    on_failure: OnFailure = OnFailure.FAIL_FAST
    min_success_rate: float = 0.0
    collect_errors: bool = False
    timeout_s: float = 0.0
    """Seconds from the start; 0 means no limit."""
    max_concurrency: int = 0
    """Attempts at once; 0 means `DEFAULT_CONCURRENCY` for an execution, and no limit for an inner graph."""

    @property
    def execution_limit(self) -> int:
        """Return how many attempts of an execution may run at once under this policy."""
        return self.max_concurrency or DEFAULT_CONCURRENCY


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A definition: nodes and edges in the order of the graph file."""

    nodes: tuple[Node, ...]
    edges: Sequence[Edge] = ()
    """A tuple, or `EdgeColumns` for a large graph."""
    name: str = ""
    policy: Policy = Policy()
    scheduling: Scheduling = Scheduling.READY
    output: str = ""
    """CEL source; empty means the sinks' outputs."""
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """The result of analyzing a valid graph; stored in the first event (V9)."""

    levels: tuple[int, ...]
    """Longest path to each node within its scope, in edges; error edges count."""
    remaining: tuple[int, ...]
    """Longest path from each node to a sink, in edges; error edges count."""
    guarded: frozenset[int]
    """Positions of the guarded nodes: a later join handles their failure (E3)."""
    inner: Mapping[int, Analysis] = field(default_factory=dict[int, "Analysis"])
    """The analyses of the inline graphs of sub-graph nodes, by the position of the node, ascending."""
