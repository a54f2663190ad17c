"""S2.1, S2.2: the tables of states, reasons and transitions."""

import itertools

import pytest

from plait_server.core.run.states import (
    REASONS,
    AttemptOutcome,
    CancelStage,
    ExecutionState,
    NodeState,
    Reason,
    check_execution_transition,
    check_node_transition,
)
from plait_server.errors import InvariantViolated

# S2.2 word by word.
LAW = {
    "IDLE": "QUEUED WAITING SKIPPED SUCCEEDED FAILED CANCELLED",
    "QUEUED": "RUNNING WAITING SUCCEEDED FAILED TIMED_OUT SKIPPED IDLE CANCELLED",
    "RUNNING": "SUCCEEDED FAILED TIMED_OUT BACKING_OFF QUEUED IDLE CANCELLED",
    "BACKING_OFF": "QUEUED TIMED_OUT IDLE CANCELLED",
    "WAITING": "SUCCEEDED FAILED TIMED_OUT IDLE CANCELLED",
}
# A1: QUEUED has no event; it compares as IDLE or BACKING_OFF, so what follows it may follow them.
BY_WAY_OF_QUEUED = {"IDLE": set(LAW["QUEUED"].split()), "BACKING_OFF": {*LAW["QUEUED"].split()}}


@pytest.mark.parametrize(("before", "after"), list(itertools.product(NodeState, NodeState)))
def test_node_goes_only_where_the_table_says(before: NodeState, after: NodeState) -> None:
    """S2.2: transitions stand in one table; anything else is a bug that says "please report"."""
    lawful = after.name in LAW.get(before.name, "").split()
    tolerable = lawful or after.name in BY_WAY_OF_QUEUED.get(before.name, set[str]())
    # QUEUED is in no event, but for LOST and RETURNED, so IDLE and BACKING_OFF need not turn QUEUED.
    if lawful and after is not NodeState.QUEUED:
        check_node_transition("a", before, after)
    elif not tolerable and (before, after) != (NodeState.IDLE, NodeState.IDLE):
        with pytest.raises(InvariantViolated, match="please report"):
            check_node_transition("a", before, after)


@pytest.mark.parametrize("after", list(NodeState))
def test_ended_node_goes_nowhere(after: NodeState) -> None:
    for before in NodeState:
        if before.is_ended:
            with pytest.raises(InvariantViolated, match="please report"):
                check_node_transition("a", before, after)


def test_ended_states_are_those_of_section_2() -> None:
    ended = {state.name for state in NodeState if state.is_ended}
    assert ended == {"SUCCEEDED", "FAILED", "TIMED_OUT", "SKIPPED", "CANCELLED"}
    ended = {state.name for state in ExecutionState if state.is_ended}
    assert ended == {"SUCCEEDED", "PARTIALLY_SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT"}
    assert {o.name for o in AttemptOutcome} == {
        "SUCCEEDED",
        "FAILED",
        "TIMED_OUT",
        "CANCELLED",
        "ABORTED",
        "RETURNED",
        "LOST",
    }
    assert [s.name for s in CancelStage] == ["REQUESTED", "DELIVERED", "ACKNOWLEDGED", "EXITED", "ABANDONED"]
    assert [s.name for s in CancelStage if s.is_final] == ["EXITED", "ABANDONED"]


def test_reasons_are_those_of_the_law() -> None:
    """S2.1."""
    reasons = {value for name, value in vars(Reason).items() if name.isupper()}
    assert reasons == REASONS
    assert reasons == {
        "DEAD_PATH",
        "UPSTREAM_FAILED",
        "LOCKED",
        "SIBLING_FAILED",
        "RACE_LOST",
        "SECTION_TIMEOUT",
        "EXECUTION_TIMEOUT",
        "QUEUE_TIMEOUT",
        "NO_WORKER",
    }


@pytest.mark.parametrize("before", [state for state in ExecutionState if state.is_ended])
def test_ended_execution_goes_nowhere(before: ExecutionState) -> None:
    for after in ExecutionState:
        with pytest.raises(InvariantViolated, match="please report"):
            check_execution_transition(before, after)
