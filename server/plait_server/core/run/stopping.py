"""Ends nodes from outside: lost races (J1), failed siblings (E4), cancels (C1), timeouts (T5).

What may concern all nodes of a large graph is an iterator that the machine works off a bounded number of steps at a
time. A crash between two parts loses nothing: the rest follows from the state, and `Machine.resume` goes on with it.
"""

from __future__ import annotations

from collections.abc import Iterator

from plait_server.core.definition.graph import OnFailure
from plait_server.core.run.ending import Decider
from plait_server.core.run.events import AttemptEnded, CancelReceipt, NodeEnded, NodeIdled
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.states import AttemptOutcome, CancelStage, NodeState, Reason


def cancel_losers(machine: Decider, scope: Scope) -> Iterator[None]:
    """Cancel the nodes that nobody waits for any more (J1), in graph order, a node a step.

    They are one step of J5: a loser whose upstream has just lost is CANCELLED too, not skipped as a dead path. Those
    that are found meanwhile are the next race's.
    """
    for index in sorted(scope.losers):
        if index not in scope.losers:
            continue
        record = scope.records[index]
        if record.state is NodeState.RUNNING:
            _stop_attempt(machine, record, AttemptOutcome.CANCELLED, NodeState.CANCELLED, Reason.RACE_LOST)
        else:
            machine.forget(record)
            machine.emit(NodeEnded(), record, NodeState.CANCELLED, Reason.RACE_LOST)
        yield


def sweep(machine: Decider, scope: Scope) -> Iterator[None]:
    """Put back what did not run, and under FAIL_FAST what did (E4), a node a step. What was put back before stays."""
    fail_fast = scope.graph.policy.on_failure is OnFailure.FAIL_FAST
    for record in scope.records:
        if record.state.is_ended:
            continue
        if record.state is NodeState.RUNNING:
            if fail_fast:
                _stop_attempt(machine, record, AttemptOutcome.ABORTED, NodeState.IDLE, Reason.SIBLING_FAILED)
                yield
        elif record.reason != Reason.SIBLING_FAILED:
            machine.forget(record)
            machine.emit(NodeIdled(), record, NodeState.IDLE, Reason.SIBLING_FAILED)
            yield


def cancel_open_nodes(machine: Decider, reason: str, *, receipts: bool) -> Iterator[None]:
    """Cancel every node that has not ended, a node a step.

    With `receipts` the first receipt of each attempt becomes an event now (C1).
    """
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
            yield


def _stop_attempt(
    machine: Decider, record: NodeRecord, outcome: AttemptOutcome, state: NodeState, reason: str
) -> None:
    machine.forget(record)
    number = len(record.attempts)
    usage = machine.used(record, number, None)
    machine.emit(AttemptEnded(outcome, usage=usage), record, state, reason, number)
