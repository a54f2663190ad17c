"""What ends nodes over their heads: lost races (J1), failed siblings (E4), cancels (C1), timeouts (T5)."""

from __future__ import annotations

from plait_server.core.ending import Decider
from plait_server.core.events import AttemptEnded, CancelReceipt, NodeEnded, NodeIdled
from plait_server.core.graph import OnFailure
from plait_server.core.scope import NodeRecord, Scope
from plait_server.core.states import AttemptOutcome, CancelStage, NodeState, Reason


def lose(machine: Decider, record: NodeRecord) -> None:
    """Cancel a node that nobody waits for any more (J1)."""
    if record.state is NodeState.RUNNING:
        _stop_attempt(machine, record, AttemptOutcome.CANCELLED, NodeState.CANCELLED, Reason.RACE_LOST)
    else:
        machine.forget(record)
        machine.emit(NodeEnded(), record, NodeState.CANCELLED, Reason.RACE_LOST)


def sweep(machine: Decider, scope: Scope) -> None:
    """Put back what did not run, and under FAIL_FAST what did (E4). What was put back before stays."""
    fail_fast = scope.graph.policy.on_failure is OnFailure.FAIL_FAST
    for record in scope.records:
        if record.state.is_ended:
            continue
        if record.state is NodeState.RUNNING:
            if fail_fast:
                _stop_attempt(machine, record, AttemptOutcome.ABORTED, NodeState.IDLE, Reason.SIBLING_FAILED)
        elif record.reason != Reason.SIBLING_FAILED:
            machine.forget(record)
            machine.emit(NodeIdled(), record, NodeState.IDLE, Reason.SIBLING_FAILED)


def cancel_open_nodes(machine: Decider, reason: str, *, receipts: bool) -> None:
    """Cancel every node that has not ended; with `receipts` as events, the first of each attempt now (C1)."""
    for scope in machine.execution.scopes.values():
        for record in scope.records:
            if record.state.is_ended:
                continue
            if record.state is NodeState.RUNNING:
                attempt = record.attempts[-1]
                _stop_attempt(machine, record, AttemptOutcome.CANCELLED, NodeState.CANCELLED, reason)
                if receipts:
                    detail = CancelReceipt(CancelStage.REQUESTED, attempt.worker_id)
                    machine.emit(detail, record, None, "", attempt.number)
            else:
                machine.forget(record)
                machine.emit(NodeEnded(), record, NodeState.CANCELLED, reason)


def _stop_attempt(
    machine: Decider, record: NodeRecord, outcome: AttemptOutcome, state: NodeState, reason: str
) -> None:
    machine.forget(record)
    machine.emit(AttemptEnded(outcome), record, state, reason, len(record.attempts))
