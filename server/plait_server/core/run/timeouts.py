"""Handles expired timers: backoffs and delays end, and so does whatever exceeded its timeout (T4, T5)."""

from __future__ import annotations

from typing import assert_never

from plait_server.core.run.attempts import Attempts
from plait_server.core.run.beginning import Beginnings
from plait_server.core.run.commands import TimerDue, TimerKind
from plait_server.core.run.ending import Decider, Ending, Endings
from plait_server.core.run.scope import Scope
from plait_server.core.run.states import NodeState


class Timers:
    """Dispatches expired timers to the parts that handle them."""

    def __init__(
        self, machine: Decider, beginnings: Beginnings, endings: Endings, attempts: Attempts
    ) -> None:
        self._machine = machine
        self._beginnings = beginnings
        self._endings = endings
        self._attempts = attempts

    def on_timer(self, timer: TimerDue) -> Scope | None:
        """Handle an expired timer; if it was a scope's timeout, return the scope."""
        execution = self._machine.execution
        if timer.kind is TimerKind.SCOPE_TIMEOUT:
            scope = execution.scopes.get(timer.node_path)
            if scope is execution.root and timer.number != execution.settings_sequence:
                return None  # An update has changed the timeout.
            return scope if scope is not None and self._may_time_out(scope) else None
        record = execution.find(timer.node_path)
        if record is None:
            return None  # Its scope is closed.
        match timer.kind:
            case TimerKind.BACKOFF:
                if record.state is NodeState.BACKING_OFF and len(record.attempts) == timer.number:
                    self._beginnings.offer(record)
            case TimerKind.WAIT:
                if record.state is NodeState.WAITING and not self._endings.is_out(record):
                    self._endings.begin(record, Ending(state=NodeState.SUCCEEDED, output=record.input))
            case TimerKind.ATTEMPT_TIMEOUT:
                self._attempts.on_attempt_timeout(record, timer)
            case TimerKind.HEARTBEAT_TIMEOUT:
                self._attempts.on_heartbeat_timeout(record, timer)
            case TimerKind.QUEUE_TIMEOUT | TimerKind.WORKER_TIMEOUT:
                self._beginnings.waits.on_timer(record, timer)
            case TimerKind.NODE_TIMEOUT:
                scope = record.scope.children.get(record.index)
                if scope is not None:
                    return scope if self._may_time_out(scope) else None
                self._attempts.on_node_timeout(record, timer.number)
            case _:
                assert_never(timer.kind)
        return None

    def _may_time_out(self, scope: Scope) -> bool:
        """Return whether a scope's timeout still matters: it runs, and its node is not just ending (T6)."""
        record = scope.parent
        if record is None:
            return True
        is_running = record.state is NodeState.RUNNING and scope.ended_as is None
        return is_running and not self._endings.is_out(record)
