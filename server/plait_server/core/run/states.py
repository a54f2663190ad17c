"""The states of executions and nodes, and the one table of their transitions (S2.2).

QUEUED has no event (A1): a node whose join was decided in its favor, or whose backoff is over, compares as
IDLE or BACKING_OFF until an attempt starts. The tables therefore list what an event may do to a node that is
IDLE, including what S2.2 lists from QUEUED; only LOST and RETURNED attempts put QUEUED into an event.
"""

from __future__ import annotations

import enum
from typing import Final

from plait_server.errors import InvariantViolated

_ENDED_FROM: Final = 32
"""The number from which states are terminal; clients recognize terminal states of later versions by it."""
_QUARANTINED_FROM: Final = 64


class ExecutionState(enum.IntEnum):
    """States of an execution. Values are those of plait.v1.ExecutionState."""

    QUEUED = 1
    RUNNING = 2
    PAUSING = 3
    PAUSED = 4
    CANCELLING = 5
    SUCCEEDED = 32
    PARTIALLY_SUCCEEDED = 33
    FAILED = 34
    CANCELLED = 35
    TIMED_OUT = 36
    CORRUPT = 64

    @property
    def is_ended(self) -> bool:
        """Whether the run is over."""
        return _ENDED_FROM <= self < _QUARANTINED_FROM

    @property
    def is_paused(self) -> bool:
        """Whether nothing may start (C2)."""
        return self in (ExecutionState.PAUSING, ExecutionState.PAUSED)


class NodeState(enum.IntEnum):
    """States of a node. Values are those of plait.v1.NodeState."""

    IDLE = 1
    QUEUED = 2
    RUNNING = 3
    BACKING_OFF = 4
    WAITING = 5
    SUCCEEDED = 32
    FAILED = 33
    TIMED_OUT = 34
    SKIPPED = 35
    CANCELLED = 36

    @property
    def is_ended(self) -> bool:
        """Whether nothing more happens to the node in this run."""
        return self >= _ENDED_FROM


class AttemptOutcome(enum.IntEnum):
    """How attempts end. Values are those of plait.v1.AttemptOutcome."""

    SUCCEEDED = 1
    FAILED = 2
    TIMED_OUT = 3
    CANCELLED = 4
    ABORTED = 5
    RETURNED = 6
    LOST = 7


class PauseMode(enum.IntEnum):
    """What a pause does to running attempts (C2). Values are those of plait.v1.PauseMode."""

    WAIT = 1
    ABORT = 2


class CancelStage(enum.IntEnum):
    """The stages of a cancel at a worker (C1). Values are those of plait.v1.CancelStage."""

    REQUESTED = 1
    DELIVERED = 2
    ACKNOWLEDGED = 3
    EXITED = 4
    ABANDONED = 5

    @property
    def is_final(self) -> bool:
        """Whether no further receipt follows."""
        return self >= CancelStage.EXITED


class Treatment(enum.IntEnum):
    """How a node's failure was treated. Values are those of plait.v1.FailureTreatment."""

    NONE = 0
    HANDLED = 1
    IGNORED = 2
    TOLERATED = 3
    UNHANDLED = 4


class EdgeState(enum.IntEnum):
    """The state that an ended node gave an outgoing edge (section 5)."""

    UNRESOLVED = 0
    ACTIVE = 1
    DEAD = 2
    BROKEN = 3


class Reason:
    """The engine's reasons for states (S2.1); failures add their codes."""

    DEAD_PATH: Final = "DEAD_PATH"
    UPSTREAM_FAILED: Final = "UPSTREAM_FAILED"
    LOCKED: Final = "LOCKED"
    SIBLING_FAILED: Final = "SIBLING_FAILED"
    RACE_LOST: Final = "RACE_LOST"
    SECTION_TIMEOUT: Final = "SECTION_TIMEOUT"
    EXECUTION_TIMEOUT: Final = "EXECUTION_TIMEOUT"
    QUEUE_TIMEOUT: Final = "QUEUE_TIMEOUT"
    NO_WORKER: Final = "NO_WORKER"


REASONS: Final = frozenset(
    {
        Reason.DEAD_PATH,
        Reason.UPSTREAM_FAILED,
        Reason.LOCKED,
        Reason.SIBLING_FAILED,
        Reason.RACE_LOST,
        Reason.SECTION_TIMEOUT,
        Reason.EXECUTION_TIMEOUT,
        Reason.QUEUE_TIMEOUT,
        Reason.NO_WORKER,
    }
)
"""All of the engine's reasons."""


_E = ExecutionState
_N = NodeState

_FROM_RUNNING = frozenset(
    {_E.PAUSING, _E.CANCELLING, _E.SUCCEEDED, _E.PARTIALLY_SUCCEEDED, _E.FAILED, _E.TIMED_OUT},
)

EXECUTION_TRANSITIONS: Final[dict[ExecutionState, frozenset[ExecutionState]]] = {
    _E.QUEUED: frozenset({_E.RUNNING, _E.PAUSING, _E.CANCELLING, _E.TIMED_OUT}),
    _E.RUNNING: _FROM_RUNNING,
    # PAUSING -> PAUSING: a second request stops what the first let finish.
    _E.PAUSING: _FROM_RUNNING | {_E.PAUSED, _E.RUNNING},
    _E.PAUSED: _FROM_RUNNING - {_E.PAUSING} | {_E.RUNNING, _E.QUEUED},
    _E.CANCELLING: frozenset({_E.CANCELLED}),
    _E.SUCCEEDED: frozenset(),
    _E.PARTIALLY_SUCCEEDED: frozenset(),
    _E.FAILED: frozenset(),
    _E.CANCELLED: frozenset(),
    _E.TIMED_OUT: frozenset(),
    _E.CORRUPT: frozenset(),
}

_FROM_QUEUED = frozenset(
    {_N.RUNNING, _N.WAITING, _N.SUCCEEDED, _N.FAILED, _N.TIMED_OUT, _N.SKIPPED, _N.IDLE, _N.CANCELLED},
)

NODE_TRANSITIONS: Final[dict[NodeState, frozenset[NodeState]]] = {
    # IDLE includes QUEUED; IDLE -> IDLE gives an untouched node its reason when a sibling failed (E4).
    _N.IDLE: _FROM_QUEUED,
    _N.QUEUED: _FROM_QUEUED,
    _N.RUNNING: frozenset(
        {_N.SUCCEEDED, _N.FAILED, _N.TIMED_OUT, _N.BACKING_OFF, _N.QUEUED, _N.IDLE, _N.CANCELLED},
    ),
    # RUNNING and FAILED are reached through QUEUED, when the backoff is over.
    _N.BACKING_OFF: frozenset({_N.RUNNING, _N.TIMED_OUT, _N.IDLE, _N.CANCELLED}),
    _N.WAITING: frozenset({_N.SUCCEEDED, _N.FAILED, _N.TIMED_OUT, _N.IDLE, _N.CANCELLED}),
    _N.SUCCEEDED: frozenset(),
    _N.FAILED: frozenset(),
    _N.TIMED_OUT: frozenset(),
    _N.SKIPPED: frozenset(),
    _N.CANCELLED: frozenset(),
}


def check_node_transition(path: str, before: NodeState, after: NodeState) -> None:
    """Refuse a transition that is not in the table.

    Raises:
        InvariantViolated: The transition is not in the table; a bug.
    """
    if after not in NODE_TRANSITIONS[before]:
        message = f"node {path!r} cannot go from {before.name} to {after.name}; please report this"
        raise InvariantViolated(message)


def check_execution_transition(before: ExecutionState, after: ExecutionState) -> None:
    """Refuse a transition that is not in the table.

    Raises:
        InvariantViolated: The transition is not in the table; a bug.
    """
    if after not in EXECUTION_TRANSITIONS[before]:
        message = f"an execution cannot go from {before.name} to {after.name}; please report this"
        raise InvariantViolated(message)
