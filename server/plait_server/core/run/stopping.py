"""Ends nodes from outside: lost races (J1), failed siblings (E4, E7), cancels (C1), pauses (C2), timeouts (T5, N1).

Whatever may affect all nodes of a large graph is an iterator, which the machine advances by a bounded number of steps
at a time. A crash in between loses nothing: the rest follows from the state, and `Machine.resume` continues with it.
Ending a node with a scope ends the nodes in it first, in graph order (N4).
"""

from __future__ import annotations

from collections.abc import Iterator

from plait_server.core.run.ending import Decider
from plait_server.core.run.events import AttemptEnded, CancelReceipt, NodeEnded, NodeIdled
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.states import AttemptOutcome, CancelStage, NodeState, Reason


def cancel_losers(machine: Decider, scope: Scope) -> Iterator[None]:
    """Cancel the losers of a race (J1), in graph order; yield after each node.

    Together they are one step of J5: a loser whose upstream has just lost is CANCELLED too, not skipped as a dead path.
    Losers found in the meantime belong to the next race.
    """
    for index in sorted(scope.losers):
        if index not in scope.losers:
            continue
        if index in scope.children:
            yield from cancel_open_nodes(machine, scope.children[index], Reason.RACE_LOST)
        _cancel(machine, scope.records[index], Reason.RACE_LOST)
        yield


def sweep(machine: Decider, scope: Scope, *, fail_fast: bool) -> Iterator[None]:
    """Put back to IDLE the nodes that do not run, and under FAIL_FAST those that do (E4), nested scopes included (E7).

    Yield after each node. Nodes that were put back before are left alone.
    """
    for record in scope.records:
        if record.state.is_ended:
            continue
        inner = scope.children.get(record.index)
        if inner is not None and record.state is NodeState.RUNNING:
            yield from sweep(machine, inner, fail_fast=fail_fast)
        if record.is_at_worker:
            if fail_fast:
                _stop_attempt(machine, record, AttemptOutcome.ABORTED, NodeState.IDLE, Reason.SIBLING_FAILED)
                yield
        elif record.state is NodeState.RUNNING:
            # Under STOP_DISPATCH its scope ends by itself, once nothing in it runs.
            if fail_fast:
                put_back(machine, record)
                yield
        elif record.reason != Reason.SIBLING_FAILED:
            put_back(machine, record)
            yield


def put_back(machine: Decider, record: NodeRecord) -> None:
    """Put a node without a running attempt back to IDLE."""
    machine.forget(record)
    machine.emit(NodeIdled(), record, NodeState.IDLE, Reason.SIBLING_FAILED)


def cancel_open_nodes(
    machine: Decider, scope: Scope, reason: str, *, receipts: bool = False
) -> Iterator[None]:
    """Cancel every unfinished node of a scope; yield after each node.

    With `receipts` the first receipt of each attempt becomes an event now (C1).
    """
    for record in scope.records:
        if record.state.is_ended:
            continue
        if record.index in scope.children:
            yield from cancel_open_nodes(machine, scope.children[record.index], reason, receipts=receipts)
        was_at_worker = record.is_at_worker
        _cancel(machine, record, reason)
        if receipts and was_at_worker:
            attempt = record.attempts[-1]
            detail = CancelReceipt(CancelStage.REQUESTED, attempt.worker_id)
            machine.emit(detail, record, None, "", attempt.number)
        yield


def abort_attempts(machine: Decider, scope: Scope) -> Iterator[None]:
    """Abort the running attempts of a scope and of those inside (C2); yield after each.

    Their nodes run again after the pause, unless a failure has stopped their scope.
    """
    for record in scope.in_flight():
        inner = scope.children.get(record.index)
        if inner is not None:
            yield from abort_attempts(machine, inner)
        elif record.is_at_worker:
            reason = Reason.SIBLING_FAILED if scope.is_stopped else ""
            _stop_attempt(machine, record, AttemptOutcome.ABORTED, NodeState.IDLE, reason)
            yield


def _cancel(machine: Decider, record: NodeRecord, reason: str) -> None:
    if record.is_at_worker:
        _stop_attempt(machine, record, AttemptOutcome.CANCELLED, NodeState.CANCELLED, reason)
    else:
        machine.forget(record)
        machine.emit(NodeEnded(), record, NodeState.CANCELLED, reason)


def _stop_attempt(
    machine: Decider, record: NodeRecord, outcome: AttemptOutcome, state: NodeState, reason: str
) -> None:
    machine.forget(record)
    number = len(record.attempts)
    usage = machine.used(record, number, None)
    machine.emit(AttemptEnded(outcome, usage=usage), record, state, reason, number)
