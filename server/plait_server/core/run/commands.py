"""Inputs and commands: the facts that the shell passes to the core, and what the core asks the shell to do.

The commands in `Ask` are answered within the same step wherever possible, because they have no effect outside
the server. All other commands are carried out only after the events decided with them are durable.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from plait_server.core.definition.compiled import Definition
from plait_server.core.definition.graph import Policy
from plait_server.core.run.events import NodeLock
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import AttemptOutcome, CancelStage, PauseMode


class TimerKind(enum.Enum):
    """What a timer ends."""

    BACKOFF = "BACKOFF"
    WAIT = "WAIT"
    ATTEMPT_TIMEOUT = "ATTEMPT_TIMEOUT"
    NODE_TIMEOUT = "NODE_TIMEOUT"
    HEARTBEAT_TIMEOUT = "HEARTBEAT_TIMEOUT"
    QUEUE_TIMEOUT = "QUEUE_TIMEOUT"
    WORKER_TIMEOUT = "WORKER_TIMEOUT"
    SCOPE_TIMEOUT = "SCOPE_TIMEOUT"
    """The timeout of the execution, or of the graph inside a node (N1)."""


class Disposition(enum.IntEnum):
    """What became of a result. Values are those of plait.v1.RecordedResult."""

    RECORDED = 1
    ALREADY_RECORDED = 2
    STALE = 3


# Inputs.


class Start(NamedTuple):
    """Begin the execution."""


class QueueTimeout(NamedTuple):
    """The execution has waited too long to begin (Q3)."""


class Continue(NamedTuple):
    """Continue settling after a decision that stopped early: it asked a question answered later, or none."""


class Granted(NamedTuple):
    """The allocator granted permits and a worker to a node that was offered."""

    node_path: str
    grant: int
    """The number of the grant within its execution; commands refer to the grant by it."""
    worker_id: str
    worker_instance_id: str
    queue_s: float


class AttemptResult(NamedTuple):
    """How an attempt ended, as its worker or the runtime reports: SUCCEEDED, FAILED, TIMED_OUT, RETURNED or LOST."""

    node_path: str
    attempt: int
    outcome: AttemptOutcome
    output: Payload | None = None
    failure: Failure | None = None
    retryable: bool | None = None
    """Whether the worker considers a retry useful; None if it did not say."""
    retry_after_s: float | None = None
    usage: Mapping[str, str] | None = None
    """The total usage of the attempt; None if the report has none, and the sum of earlier reports counts (U1)."""
    jitter: float = 0.0
    """In [0, 1), for the backoff."""
    worker_id: str = ""
    from_worker: bool = False
    """Whether a worker waits for the acknowledgement."""


class ExtendAttempt(NamedTuple):
    """The worker of an attempt asks for more time."""

    node_path: str
    attempt: int
    duration_s: float
    """Seconds from now, above 0."""


class EdgesJudged(NamedTuple):
    """Answers JudgeEdges: for each edge in the order asked True, False, or why its `when` has no value."""

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
    """Answers FindValue: the value of a condition or switch, a concurrency key as JSON text, or why there is none."""

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
    """Answers FindGraph: the graph, or why it has none."""

    node_path: str
    ticket: int
    definition: Definition | None
    graph_digest: str = ""
    """SHA-256 of the graph's binary form; the shell stores the graph by it, with the step's events."""
    analysis_digest: str = ""
    failure: Failure | None = None
    """What the node fails with, with the node's path in it (N7)."""


class TimerDue(NamedTuple):
    """A timer has expired."""

    kind: TimerKind
    node_path: str
    number: int
    turn: int = 0
    """The turn with which it was set."""
    jitter: float = 0.0
    """In [0, 1), for the backoff that may follow."""
    quiet_s: float = 0.0
    """For a HEARTBEAT_TIMEOUT, the seconds since the worker last reported something of the attempt."""
    lacking: str = ""
    """For a QUEUE_TIMEOUT, the reason why the node waits."""
    unserved_s: float = 0.0
    """For a WORKER_TIMEOUT, the seconds since a worker last served the type: 0 if one does, infinite if none ever did.

    """


class Cancel(NamedTuple):
    """A request to cancel the execution."""

    message: str


class Pause(NamedTuple):
    """A request to pause the execution (C2)."""

    mode: PauseMode
    message: str


class Resume(NamedTuple):
    """A request to resume the execution (C2)."""

    data: Payload
    message: str


class Update(NamedTuple):
    """A change of the execution's settings (C10)."""

    priority: int | None
    """None if it stays."""
    policy: Policy | None
    """The new policy as a whole; None if it stays."""
    locks: tuple[NodeLock, ...] = ()


class Receipt(NamedTuple):
    """The cancel of an attempt advanced to its next stage."""

    node_path: str
    attempt: int
    stage: CancelStage
    worker_id: str
    usage: Mapping[str, str] | None = None
    """The same as in AttemptResult."""


Input: TypeAlias = (
    Start
    | QueueTimeout
    | Continue
    | Granted
    | AttemptResult
    | ExtendAttempt
    | EdgesJudged
    | InputMade
    | ValueFound
    | OutputMade
    | GraphFound
    | TimerDue
    | Cancel
    | Pause
    | Resume
    | Update
    | Receipt
)


# Asks: answered by an input, in the same step if the shell can.


class JudgeEdges(NamedTuple):
    """Evaluate the `when` of some edges of a node that is about to end; answered by EdgesJudged."""

    node_path: str
    ticket: int
    edges: tuple[int, ...]
    """Positions among the node's outgoing edges."""
    output: Payload | Failure
    """The value that the edges would carry, read as the variable `output`."""


class MakeInput(NamedTuple):
    """Render the node's `input`, assemble the join's object, or store its locked output; answered by InputMade."""

    node_path: str
    ticket: int


class FindValue(NamedTuple):
    """Evaluate a condition, a switch, or a task's concurrency key; answered by ValueFound."""

    node_path: str
    ticket: int


class MakeOutput(NamedTuple):
    """Evaluate the output of a scope's graph, or assemble it from the sinks; answered by OutputMade."""

    scope_path: str
    ticket: int


class FindGraph(NamedTuple):
    """Read the graph from the output of an upstream node; answered by GraphFound."""

    node_path: str
    ticket: int


class Place(NamedTuple):
    """A node's place in R4's order among the nodes of its scope; the lowest goes first."""

    urgency: int
    """The node's priority, negated."""
    distance: int
    """The longest path to a sink, in edges, negated."""
    order: int
    """Position in the graph."""


class OfferNode(NamedTuple):
    """Queue a ready task for capacity; answered by Granted."""

    node_path: str
    type: str
    places: tuple[Place, ...]
    """The places of the nodes around the task, from the root's scope down to its own (N3). The first two fields of the
    first place are compared across executions; then the submission decides, then the rest.
    """
    scope_limits: tuple[str, ...] = ()
    """The paths of the enclosing scopes that limit attempts, the outermost first (N1)."""
    key: str = ""
    """Its concurrency key; empty without one (Q1)."""


class WithdrawNode(NamedTuple):
    """Withdraw an offer."""

    node_path: str


class LimitScope(NamedTuple):
    """Limit the attempts of a scope and of those inside."""

    scope_path: str
    limit: int


class UnlimitScope(NamedTuple):
    """Forget the limit of a scope that is over."""

    scope_path: str


class ChangeCapacity(NamedTuple):
    """Change how many attempts of the execution may run at once, and its priority (C10)."""

    limit: int
    priority: int


class RefuseGrant(NamedTuple):
    """Return the permits of a grant that came too late."""

    node_path: str
    grant: int


class SetTimer(NamedTuple):
    """Set a timer; answered by TimerDue."""

    kind: TimerKind
    node_path: str
    """For a SCOPE_TIMEOUT, the node that the scope is in; empty for the execution."""
    number: int
    delay_s: float
    turn: int = 0
    """Tells the timers of one kind, node and number apart; for an ATTEMPT_TIMEOUT, the number of extensions.

    For a wait, the number of the offer.
    """


# Acts: carried out after the events decided with them are durable.


class StartAttempt(NamedTuple):
    """Send an attempt to the worker that was granted."""

    node_path: str
    attempt: int
    grant: int
    """The grant that the attempt holds."""


class StopAttempt(NamedTuple):
    """Tell the worker to cancel an attempt; its receipts come back as `Receipt`."""

    node_path: str
    attempt: int
    reason: str
    """The reason for the worker: CANCELLED, TIMED_OUT, SIBLING_FAILED, RACE_LOST, EXECUTION_TIMEOUT or PAUSED."""


class AcknowledgeResult(NamedTuple):
    """Acknowledge a worker's result."""

    node_path: str
    attempt: int
    disposition: Disposition
    worker_id: str
    """The worker that sent the result, which may be another than the attempt's."""


LATE_USAGE: Final = "LATE_USAGE"
"""The kind of the audit entry for usage reported too late to count; its detail maps unit to amount."""


class Audit(NamedTuple):
    """Record in the audit something that changed no state."""

    kind: str
    node_path: str
    attempt: int
    worker_id: str
    detail: str
    """JSON text."""


Question: TypeAlias = JudgeEdges | MakeInput | FindValue | MakeOutput
"""Commands answered by evaluating expressions and assembling texts."""

Act: TypeAlias = StartAttempt | StopAttempt | AcknowledgeResult
"""Commands carried out after the events decided with them are durable."""

Command: TypeAlias = (
    Question
    | FindGraph
    | LimitScope
    | UnlimitScope
    | ChangeCapacity
    | OfferNode
    | WithdrawNode
    | RefuseGrant
    | SetTimer
    | Act
    | Audit
)
