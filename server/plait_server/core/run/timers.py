"""The timers that follow from an execution's state: set when something starts, and again after a replay.

An obsolete timer is not cancelled; when it expires, the machine sees that its attempt is over.
"""

from __future__ import annotations

from typing import Final

from plait_server.core.definition.graph import DEFAULT_TIMEOUTS, Node
from plait_server.core.run.attempt_record import AttemptRecord
from plait_server.core.run.commands import SetTimer, TimerKind
from plait_server.core.run.execution import Execution
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.states import NodeState

CLOCK_S: Final = 1e-6
"""Differences of times below this are rounding; a timer set for them would expire at the same instant, without end."""


def scope_timers(execution: Execution, scope: Scope, now_s: float) -> list[SetTimer]:
    """Return the timer of a scope's own timeout, which counts from its start (T4, N1)."""
    timeout_s = scope.policy.timeout_s
    if not timeout_s:
        return []
    started_s = scope.started_s if scope.parent is not None else execution.started_s
    number = execution.settings_sequence if scope.parent is None else 0
    return [SetTimer(TimerKind.SCOPE_TIMEOUT, scope.path, number, _left_s(started_s + timeout_s, now_s))]


def node_timers(execution: Execution, record: NodeRecord, now_s: float) -> list[SetTimer]:
    """Return the timers of a node that runs, backs off or has a scope, as of now (T4)."""
    timeouts = record.node.timeouts or DEFAULT_TIMEOUTS
    number = len(record.attempts)
    timers: list[SetTimer] = []
    if timeouts.attempt_s and record.is_at_worker:
        timers.append(attempt_timer(record, now_s))
    if timeouts.heartbeat_s and record.is_at_worker:
        # In full also after a replay: reports are not durable, and the worker has to attach again.
        timers.append(SetTimer(TimerKind.HEARTBEAT_TIMEOUT, record.path, number, timeouts.heartbeat_s))
    if timeouts.node_s:
        left_s = _left_s(_node_deadline_s(execution, record), now_s)
        timers.append(SetTimer(TimerKind.NODE_TIMEOUT, record.path, number, left_s))
    return timers


def attempt_timer(record: NodeRecord, now_s: float) -> SetTimer:
    """Return the timer of an attempt's timeout, which its worker may have extended."""
    attempt = record.attempts[-1]
    left_s = _left_s(attempt_deadline_s(record.node, attempt), now_s)
    return SetTimer(TimerKind.ATTEMPT_TIMEOUT, record.path, attempt.number, left_s, attempt.extensions)


def attempt_deadline_s(node: Node, attempt: AttemptRecord) -> float:
    """Return the wall time at which an attempt's timeout runs out; 0 if it has none."""
    timeout_s = (node.timeouts or DEFAULT_TIMEOUTS).attempt_s
    return max(attempt.started_s + timeout_s, attempt.deadline_s) if timeout_s else 0.0


def extended_deadline_s(execution: Execution, record: NodeRecord, wanted_s: float) -> float:
    """Return when a running attempt's timeout runs out if it is extended, in whole microseconds; 0 if it is not.

    It is never moved forward, nor beyond the node's timeout.
    """
    timeouts = record.node.timeouts or DEFAULT_TIMEOUTS
    deadline_s = attempt_deadline_s(record.node, record.attempts[-1])
    if timeouts.node_s:
        wanted_s = min(wanted_s, _node_deadline_s(execution, record))
    wanted_s = round(wanted_s, 6)
    return wanted_s if deadline_s and wanted_s > deadline_s else 0.0


def resumed_timers(execution: Execution, record: NodeRecord, now_s: float) -> list[SetTimer]:
    """Return all timers of a node after a replay."""
    number = len(record.attempts)
    timers: list[SetTimer] = []
    if record.state is NodeState.BACKING_OFF:
        timers.append(SetTimer(TimerKind.BACKOFF, record.path, number, _left_s(record.due_s, now_s)))
    elif record.state is NodeState.WAITING:
        timers.append(SetTimer(TimerKind.WAIT, record.path, 0, _left_s(record.due_s, now_s)))
    if record.state in (NodeState.RUNNING, NodeState.BACKING_OFF):
        timers += node_timers(execution, record, now_s)
    return timers


def _left_s(due_s: float, now_s: float) -> float:
    return max(0.0, due_s - now_s)


def _node_deadline_s(execution: Execution, record: NodeRecord) -> float:
    """Return the wall time at which the timeout of a node runs out, which has one."""
    started_s = record.attempts[-1].started_s if record.attempts else record.started_s
    return started_s + (record.node.timeouts or DEFAULT_TIMEOUTS).node_s - _spent_s(execution, record)


def _spent_s(execution: Execution, record: NodeRecord) -> float:
    """Return the seconds that a node was RUNNING or BACKING_OFF in this run before its newest attempt."""
    return sum(
        max(attempt.ended_s, attempt.retry_time_s) - attempt.started_s
        for attempt in record.attempts[:-1]
        if attempt.run == execution.run
    )
