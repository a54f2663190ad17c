"""Inputs and commands: what the shell tells the core, and what the core asks of the shell.

Inputs are facts from outside; commands are intentions, in the imperative. Those of `Ask` are answered within
the same step wherever possible, for nothing of them leaves the server; the others are carried out only when
the events decided with them are durable.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from plait_server.core.definition.compiled import Definition
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import AttemptOutcome, CancelStage


class TimerKind(enum.Enum):
    """What a timer ends."""

    BACKOFF = "BACKOFF"
    WAIT = "WAIT"
    ATTEMPT_TIMEOUT = "ATTEMPT_TIMEOUT"
    NODE_TIMEOUT = "NODE_TIMEOUT"
    SCOPE_TIMEOUT = "SCOPE_TIMEOUT"
    """That of the execution, or of the graph inside a node (N1)."""


class Taken(enum.IntEnum):
    """What became of a result. Values are those of plait.v1.RecordedResult."""

    RECORDED = 1
    ALREADY_RECORDED = 2
    STALE = 3


# Inputs.


class Start(NamedTuple):
    """Begin the execution."""


class Continue(NamedTuple):
    """Go on with what a decision left to be settled: the question it asked is answered later, or there was none."""


class Granted(NamedTuple):
    """The allocator granted permits and a worker to a node that was offered."""

    node_path: str
    grant: int
    """The number of the grant within its execution; the command that takes or refuses it names it."""
    worker_id: str
    worker_instance_id: str
    queue_s: float


class AttemptResult(NamedTuple):
    """How an attempt ended, as its worker or the runtime says: SUCCEEDED, FAILED, TIMED_OUT, RETURNED or LOST."""

    node_path: str
    attempt: int
    outcome: AttemptOutcome
    output: Payload | None = None
    failure: Failure | None = None
    retryable: bool | None = None
    """The worker's own word; None if it said nothing."""
    retry_after_s: float | None = None
    usage: Mapping[str, str] | None = None
    """What the attempt used in all; None if the report says nothing, and what it said before counts (U1)."""
    jitter: float = 0.0
    """In [0, 1), for the backoff."""
    worker_id: str = ""
    from_worker: bool = False
    """Whether a worker waits for `recorded`."""


class EdgesJudged(NamedTuple):
    """Answers JudgeEdges: True, False, or why a `when` has no value, in the order asked."""

    node_path: str
    ticket: int
    verdicts: tuple[bool | str, ...]


class InputMade(NamedTuple):
    """Answers MakeInput: the payload, or why there is none."""

    node_path: str
    ticket: int
    payload: Payload | None
    problem: str = ""


class ValueFound(NamedTuple):
    """Answers FindValue: the value of a condition or switch, or why there is none."""

    node_path: str
    ticket: int
    payload: Payload | None
    problem: str = ""


class OutputMade(NamedTuple):
    """Answers MakeOutput: the payload, or why there is none."""

    scope_path: str
    ticket: int
    payload: Payload | None
    problem: str = ""


class GraphFound(NamedTuple):
    """Answers FindGraph: the graph, or why there is none."""

    node_path: str
    ticket: int
    definition: Definition | None
    graph_digest: str = ""
    """SHA-256 of the graph's binary form, by which the shell keeps it with the step's events."""
    analysis_digest: str = ""
    failure: Failure | None = None
    """What the node fails with; its path is added (N7)."""


class TimerDue(NamedTuple):
    """A timer ran out."""

    kind: TimerKind
    node_path: str
    number: int
    jitter: float = 0.0
    """In [0, 1), for the backoff that may follow."""


class Cancel(NamedTuple):
    """Someone wants the execution cancelled."""

    message: str


class Receipt(NamedTuple):
    """The cancel of an attempt came a step further."""

    node_path: str
    attempt: int
    stage: CancelStage
    worker_id: str
    usage: Mapping[str, str] | None = None
    """As in AttemptResult."""


Input: TypeAlias = (
    Start
    | Continue
    | Granted
    | AttemptResult
    | EdgesJudged
    | InputMade
    | ValueFound
    | OutputMade
    | GraphFound
    | TimerDue
    | Cancel
    | Receipt
)


# Asks: answered by an input, within the step if the shell can.


class JudgeEdges(NamedTuple):
    """Evaluate the `when` of some edges of a node that is about to end; answer EdgesJudged."""

    node_path: str
    ticket: int
    edges: tuple[int, ...]
    """Positions among the node's outgoing edges."""
    output: Payload | Failure
    """What the edges would carry, the variable `output`."""


class MakeInput(NamedTuple):
    """Render the node's `input`, put together what its join gives, or keep its locked output; answer InputMade."""

    node_path: str
    ticket: int


class FindValue(NamedTuple):
    """Evaluate a condition or a switch; answer ValueFound."""

    node_path: str
    ticket: int


class MakeOutput(NamedTuple):
    """Evaluate the output of a scope's graph, or put it together from the sinks; answer OutputMade."""

    scope_path: str
    ticket: int


class FindGraph(NamedTuple):
    """Read the graph that the output of an upstream node is; answer GraphFound."""

    node_path: str
    ticket: int


class Place(NamedTuple):
    """Where a node stands in R4's order among the nodes of its scope; the lower goes first."""

    urgency: int
    """The node's priority, negated."""
    distance: int
    """The longest path to a sink, in edges, negated."""
    order: int
    """Position in the graph."""


class OfferNode(NamedTuple):
    """Queue a ready task for capacity; the allocator answers Granted."""

    node_path: str
    type: str
    places: tuple[Place, ...]
    """Those of the nodes that the task is in, from the root's scope down to its own (N3). The first two parts of the
    first place are compared across executions; then the submission decides, then the rest."""
    scope_limits: tuple[str, ...] = ()
    """The paths of the scopes around it that limit their attempts, the outermost first (N1)."""


class WithdrawNode(NamedTuple):
    """Take back an offer."""

    node_path: str


class LimitScope(NamedTuple):
    """Limit the attempts of a scope and of those inside."""

    scope_path: str
    limit: int


class UnlimitScope(NamedTuple):
    """Forget the limit of a scope that is over."""

    scope_path: str


class RefuseGrant(NamedTuple):
    """Give back the permits of a grant that came too late."""

    node_path: str
    grant: int


class SetTimer(NamedTuple):
    """Answer TimerDue after a delay."""

    kind: TimerKind
    node_path: str
    """Of a SCOPE_TIMEOUT the node that the scope is in; empty for the execution."""
    number: int
    delay_s: float


# Acts: carried out when the events decided with them are durable.


class StartAttempt(NamedTuple):
    """Give an attempt to the worker that was granted."""

    node_path: str
    attempt: int
    grant: int
    """The grant that it holds."""


class StopAttempt(NamedTuple):
    """Tell the worker to cancel an attempt; its receipts come back as `Receipt`."""

    node_path: str
    attempt: int
    reason: str
    """For the worker: CANCELLED, TIMED_OUT, SIBLING_FAILED, RACE_LOST or EXECUTION_TIMEOUT."""


class TellTaken(NamedTuple):
    """Tell the worker what became of a result."""

    node_path: str
    attempt: int
    taken: Taken
    worker_id: str
    """The worker that sent the result; it need not be the attempt's."""


LATE_USAGE: Final = "LATE_USAGE"
"""The kind of audit that keeps what an attempt used beyond what counts; its detail is unit -> amount."""


class Audit(NamedTuple):
    """Keep something that changed nothing."""

    kind: str
    node_path: str
    attempt: int
    worker_id: str
    detail: str
    """JSON text."""


Question: TypeAlias = JudgeEdges | MakeInput | FindValue | MakeOutput
"""What is answered by evaluating expressions and putting texts together."""

Act: TypeAlias = StartAttempt | StopAttempt | TellTaken
"""What is carried out when the events decided with it are durable."""

Command: TypeAlias = (
    Question
    | FindGraph
    | LimitScope
    | UnlimitScope
    | OfferNode
    | WithdrawNode
    | RefuseGrant
    | SetTimer
    | Act
    | Audit
)
