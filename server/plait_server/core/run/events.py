"""Events: the facts of an execution, in the past tense. Only they change state, live and on replay alike.

An `Event` is a header, the same for every type, and a detail. The header alone tells a client in any language
the new state of the node or execution concerned. Tuples, because every node makes
two: 0.4 us each, where a frozen dataclass takes 2 us.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple, TypeAlias

from plait_server.core.definition.graph import Policy
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import (
    AttemptOutcome,
    CancelStage,
    ExecutionState,
    NodeState,
    PauseMode,
    Treatment,
)

NO_USAGE: Final[Mapping[str, str]] = MappingProxyType({})


class ExecutionSubmitted(NamedTuple):
    """The graph was accepted."""

    execution_id: str
    graph_name: str
    graph_digest: str
    """SHA-256 of the graph's binary form; the store keeps the graph by it."""
    analysis_digest: str
    input: Payload
    labels: Mapping[str, str]
    semantics_version: int
    traceparent: str
    """The W3C traceparent of the execution's span."""
    node_count: int
    parent_span_id: str = ""
    """The id of the caller's span, 16 hexadecimal digits; empty if it sent none."""
    tracestate: str = ""
    priority: int = 0


class ExecutionStarted(NamedTuple):
    """The execution starts; its timeout counts from here."""


class AttemptStarted(NamedTuple):
    """An attempt was given to a worker."""

    worker_id: str
    worker_instance_id: str
    queue_s: float
    """Seconds since the node became ready."""
    input: Payload | None = None
    """The rendered input; only on the first attempt of a node that has an `input`."""
    concurrency_key: str = ""
    """The key of which it holds a permit; empty without one (Q1)."""


class AttemptExtended(NamedTuple):
    """The worker of an attempt asked for more time."""

    deadline_s: float
    """Wall time at which the attempt's timeout runs out."""


class EdgeName(NamedTuple):
    """An outgoing edge of the node that the header names."""

    handle: str
    target: str


class AttemptEnded(NamedTuple):
    """An attempt ended; the header's node state says what became of the node."""

    outcome: AttemptOutcome
    output: Payload | None = None
    failure: Failure | None = None
    usage: Mapping[str, str] = NO_USAGE
    retry_time_s: float = 0.0
    """Wall time of the next attempt, if the node is backing off."""
    edges_false: tuple[int, ...] = ()
    """Positions among the node's outgoing edges of those whose `when` counted as false, ascending."""
    treatment: Treatment = Treatment.NONE
    edges_not_taken: tuple[EdgeName, ...] = ()
    """The first `EDGES_NAMED_MAX` of `edges_false` by name, for readers of events, who cannot interpret positions."""
    heartbeat_details: Payload | None = None
    """The details of the attempt's latest heartbeat that had any, for the next attempt; None if it succeeded."""


class NodeEnded(NamedTuple):
    """A node ended without an attempt."""

    output: Payload | None = None
    failure: Failure | None = None
    edges_false: tuple[int, ...] = ()
    treatment: Treatment = Treatment.NONE
    edges_not_taken: tuple[EdgeName, ...] = ()


class NodeWaiting(NamedTuple):
    """A node waits for a timer."""

    due_time_s: float
    """Wall time."""
    input: Payload | None = None


class ScopeOpened(NamedTuple):
    """A graph started inside the header's node; its nodes exist from now on (N2)."""

    scope_path: str
    """The path of the scope; a sub-graph's is its node's path."""
    input: Payload
    """The scope's input."""
    node_count: int
    branches_before: int
    """Branches already opened under the node's branch; the scope's own are numbered after them (N6)."""
    graph_digest: str = ""
    """SHA-256 of a graph taken from an output; empty for an inline graph (N7)."""
    analysis_digest: str = ""


class ScopeEnded(NamedTuple):
    """The graph inside a node ended; the end of the node follows."""

    scope_path: str
    state: ExecutionState
    """SUCCEEDED, PARTIALLY_SUCCEEDED, FAILED or TIMED_OUT."""
    failure: Failure | None = None
    """The failure named by its summary (E1)."""


class NodeIdled(NamedTuple):
    """A node was put back to IDLE."""


class CancelRequested(NamedTuple):
    """A cancel was requested."""

    message: str


class CancelReceipt(NamedTuple):
    """The cancel of an attempt reached this stage."""

    stage: CancelStage
    worker_id: str


class UsageReported(NamedTuple):
    """The total usage of an attempt that was stopped, up to the end of its handler (U1)."""

    usage: Mapping[str, str]


class PauseRequested(NamedTuple):
    """A pause was requested: nothing starts from here on (C2)."""

    mode: PauseMode
    message: str


class ExecutionPaused(NamedTuple):
    """No attempt runs any more."""


class ExecutionResumed(NamedTuple):
    """The execution goes on; one that had not started is queued again."""

    data: Payload
    """The variable `resume` from here on."""
    message: str


class NodeLock(NamedTuple):
    """A lock that an update set or removed; it takes the place of the node's own."""

    node_path: str
    is_locked: bool
    output: Payload | None = None


class ExecutionUpdated(NamedTuple):
    """The settings of the execution were changed (C10)."""

    priority: int | None = None
    """None if it stays."""
    policy: Policy | None = None
    """The new policy as a whole; None if it stays."""
    locks: tuple[NodeLock, ...] = ()


class ExecutionEnded(NamedTuple):
    """The run ended; it has no further events."""

    output: Payload | None = None
    failure: Failure | None = None
    failure_count: int = 0


ExecutionDetail: TypeAlias = (
    ExecutionSubmitted
    | ExecutionStarted
    | CancelRequested
    | PauseRequested
    | ExecutionPaused
    | ExecutionResumed
    | ExecutionUpdated
    | ExecutionEnded
)
"""The details of events about the execution itself."""

Detail: TypeAlias = (
    AttemptStarted
    | AttemptExtended
    | AttemptEnded
    | NodeEnded
    | NodeWaiting
    | NodeIdled
    | ScopeOpened
    | ScopeEnded
    | CancelReceipt
    | UsageReported
    | ExecutionDetail
)


class Event(NamedTuple):
    """One fact."""

    sequence: int
    """From 1, without gaps within an execution."""
    time_s: float
    """Wall time at which it was decided, seconds since 1970."""
    run: int
    node_path: str
    """Empty when the event is about the execution."""
    attempt: int
    """From 1; 0 if the event is not about an attempt."""
    branch: str
    node_state: NodeState | None
    """The node's state after this event; None if the event does not change it."""
    execution_state: ExecutionState | None
    reason: str
    detail: Detail
