"""Decides on results, losses and timeouts of attempts, and on the retries before a node ends (E2, T1 to T6)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from decimal import Decimal
from typing import Final

from plait_server.core.definition.graph import DEFAULT_RETRY, DEFAULT_TIMEOUTS
from plait_server.core.limits import EXTENSIONS_MAX
from plait_server.core.run.attempt_record import AttemptRecord
from plait_server.core.run.commands import (
    LATE_USAGE,
    AttemptResult,
    Audit,
    Disposition,
    ExtendAttempt,
    SetTimer,
    TimerDue,
    TimerKind,
)
from plait_server.core.run.ending import Decider, Ending, Endings, NodeDetail
from plait_server.core.run.events import AttemptEnded, AttemptExtended, UsageReported
from plait_server.core.run.failures import DEADLINE_EXCEEDED, POISON, UNKNOWN, Failure
from plait_server.core.run.payload import NULL, Payload
from plait_server.core.run.retry import backoff_s, is_retried
from plait_server.core.run.scope import NodeRecord
from plait_server.core.run.states import AttemptOutcome, NodeState, Reason
from plait_server.core.run.timers import CLOCK_S, attempt_timer, extended_deadline_s
from plait_server.core.run.usage import add_amount, add_usage, beyond, usage_text

_STOPPED: Final = (AttemptOutcome.TIMED_OUT, AttemptOutcome.CANCELLED, AttemptOutcome.ABORTED)
"""The outcomes of attempts stopped from outside; their handlers are told, and may use more until they have exited."""


class Attempts:
    """The attempts of an execution's nodes, as the machine decides on them."""

    def __init__(self, machine: Decider, endings: Endings) -> None:
        self._machine = machine
        self._endings = endings
        self._said: dict[tuple[str, int], dict[str, Decimal]] = {}
        """(node path, attempt) -> the usage reported so far that no event has recorded yet."""
        self._details: dict[tuple[str, int], Payload] = {}
        """(node path, attempt) -> the details of the attempt's latest heartbeat that had any."""

    def note_usage(self, node_path: str, attempt: int, unit: str, amount: str) -> None:
        """Add usage reported by an attempt since its last report; the event that ends the attempt has the sum."""
        said = self._said.setdefault((node_path, attempt), {})
        said[unit] = add_amount(said.get(unit), amount)

    def note_heartbeat(self, node_path: str, number: int, details: Payload) -> None:
        """Keep the details of an attempt's latest heartbeat for the event that ends it."""
        attempt = self._machine.execution.attempt(node_path, number)
        if attempt is not None and attempt.outcome is None:
            self._details[node_path, number] = details

    def with_heartbeat(self, detail: NodeDetail, node_path: str, number: int) -> NodeDetail:
        """Add the details of the attempt's latest heartbeat to the event that ends it, unless it succeeded."""
        if not isinstance(detail, AttemptEnded):
            return detail
        details = self._details.pop((node_path, number), None)
        if details is None or detail.outcome is AttemptOutcome.SUCCEEDED:
            return detail
        return detail._replace(heartbeat_details=details)

    def used(self, record: NodeRecord, number: int, final: Mapping[str, str] | None) -> Mapping[str, str]:
        """Return an attempt's total usage: its final report if there is one, else the sum of its reports (U1)."""
        return self._used(record.path, record.attempts[number - 1], final)

    def on_usage(self, node_path: str, number: int, final: Mapping[str, str] | None) -> None:
        """Record an attempt's usage that was reported after its end was decided (U1).

        It counts if the attempt was stopped and the run goes on; else it is kept as late usage.
        """
        attempt = self._machine.execution.attempt(node_path, number)
        if attempt is None:
            return
        usage = self._used(node_path, attempt, final)
        if usage == attempt.usage or attempt.outcome not in (*_STOPPED, AttemptOutcome.LOST):
            return
        if attempt.outcome in _STOPPED and not self._machine.execution.is_ended:
            self._machine.emit_late(UsageReported(usage), node_path, number)
        else:
            late = beyond(usage, attempt.usage)
            if late and late != attempt.late_usage:  # A worker may repeat the report.
                attempt.late_usage = late
                self._machine.ask(Audit(LATE_USAGE, node_path, number, attempt.worker_id, json.dumps(late)))

    def on_result(self, result: AttemptResult) -> None:
        """Accept a result of the current attempt from its own worker; refuse any other (A4, T6)."""
        record = self._machine.execution.find(result.node_path)
        attempt = self._machine.execution.attempt(result.node_path, result.attempt)
        if attempt is not None and result.worker_id not in ("", attempt.worker_id):
            # Only the attempt's own worker may send its result.
            self._machine.refuse(result, Disposition.STALE)
            return
        if attempt is None or record is None or attempt.outcome is not None:
            self._on_late_result(result, attempt)
            return
        if result.usage is not None:
            # The usage counts whatever ends the attempt: a timeout or cancel may win while the edges are judged.
            self._said[record.path, result.attempt] = {
                unit: Decimal(each) for unit, each in result.usage.items()
            }
        if self._endings.is_out(record):
            self._endings.keep_late(record, result)
            return
        match result.outcome:
            case AttemptOutcome.SUCCEEDED:
                output = result.output if result.output is not None else NULL
                self._endings.begin(record, Ending(state=NodeState.SUCCEEDED, output=output, result=result))
            case AttemptOutcome.FAILED | AttemptOutcome.TIMED_OUT:
                self._on_failed_attempt(record, result)
            case AttemptOutcome.LOST | AttemptOutcome.RETURNED:
                self._on_unfinished_attempt(record, result)
            case AttemptOutcome.CANCELLED | AttemptOutcome.ABORTED:
                self._machine.refuse(result, Disposition.STALE)

    def on_attempt_timeout(self, record: NodeRecord, timer: TimerDue) -> None:
        """End an attempt that exceeded its timeout; it failed like any other (T5)."""
        if not self._runs(record, timer.number) or record.attempts[-1].extensions != timer.turn:
            return
        seconds, extended = (record.node.timeouts or DEFAULT_TIMEOUTS).attempt_s, ""
        if timer.turn:
            extended = f", which was extended to {record.attempts[-1].deadline_s - record.attempts[-1].started_s:g} s"
        text = "raise timeouts.attempt, or let the handler do less at once"
        message = f"the attempt took longer than its timeout of {seconds:g} s{extended}; {text}"
        self._time_out(record, timer, message)

    def on_extend(self, extend: ExtendAttempt) -> None:
        """Give an attempt more time, if it has a timeout that would run out before (T4)."""
        record = self._machine.execution.find(extend.node_path)
        if record is None or not self._runs(record, extend.attempt):
            return
        wanted_s = self._machine.now_s + extend.duration_s
        deadline_s = extended_deadline_s(self._machine.execution, record, wanted_s)
        if deadline_s and record.attempts[-1].extensions < EXTENSIONS_MAX:
            self._machine.emit(AttemptExtended(deadline_s), record, None, "", extend.attempt)
            self._machine.ask(attempt_timer(record, self._machine.now_s))

    def on_heartbeat_timeout(self, record: NodeRecord, timer: TimerDue) -> None:
        """End an attempt of which its worker has said nothing for too long; it failed like any other (T5)."""
        if not self._runs(record, timer.number):
            return
        seconds = (record.node.timeouts or DEFAULT_TIMEOUTS).heartbeat_s
        left_s = seconds - timer.quiet_s
        if left_s > CLOCK_S:
            self._machine.ask(SetTimer(timer.kind, record.path, timer.number, left_s))
            return
        text = "let the handler send heartbeats more often, or raise timeouts.heartbeat"
        message = f"the worker has not sent a heartbeat of the attempt for {seconds:g} s; {text}"
        self._time_out(record, timer, message)

    def on_node_timeout(self, record: NodeRecord, number: int) -> None:
        """End a node that exceeded its timeout; `number` is the attempt that the timer was set with (T4)."""
        if len(record.attempts) != number or self._endings.is_out(record):
            return
        if record.state is NodeState.RUNNING:
            result = AttemptResult(record.path, number, AttemptOutcome.TIMED_OUT)
            self._endings.begin_timeout(record, result)
        elif record.state is NodeState.BACKING_OFF and not self._machine.is_offered(record.path):
            self._endings.begin_timeout(record, None)

    # Inside.

    def _runs(self, record: NodeRecord, number: int) -> bool:
        """Return whether an attempt of a node still runs, and is not just ending."""
        is_current = record.state is NodeState.RUNNING and len(record.attempts) == number
        return is_current and not self._endings.is_out(record)

    def _time_out(self, record: NodeRecord, timer: TimerDue, message: str) -> None:
        number = timer.number
        failure = Failure(code=DEADLINE_EXCEEDED, message=message, node_path=record.path, attempt=number)
        outcome = AttemptOutcome.TIMED_OUT
        result = AttemptResult(record.path, number, outcome, failure=failure, jitter=timer.jitter)
        self._on_failed_attempt(record, result)

    def _used(
        self, node_path: str, attempt: AttemptRecord, final: Mapping[str, str] | None
    ) -> Mapping[str, str]:
        said = self._said.pop((node_path, attempt.number), None)
        if final is not None:
            return final
        if said is None:
            return attempt.usage
        add_usage(said, attempt.usage)
        return usage_text(said)

    def _on_late_result(self, result: AttemptResult, attempt: AttemptRecord | None) -> None:
        """Refuse a result of an attempt that has ended or never existed; its scope may be closed."""
        if attempt is not None:
            outcome = attempt.outcome
            self.on_usage(result.node_path, result.attempt, result.usage)
        else:
            outcome = self._machine.execution.closed_outcome(result.node_path, result.attempt)
        if outcome is not None and result.outcome in (AttemptOutcome.RETURNED, AttemptOutcome.CANCELLED):
            # A late return or a usage report: no worker waits for an answer, and there is no result to audit.
            return
        # Only a worker's own result ends an attempt so; a returned attempt has no result to record.
        known = outcome in (AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED)
        self._machine.refuse(result, Disposition.ALREADY_RECORDED if known else Disposition.STALE)

    def _on_failed_attempt(self, record: NodeRecord, result: AttemptResult) -> None:
        policy = record.node.retry or DEFAULT_RETRY
        failure = result.failure or Failure(code=UNKNOWN, node_path=record.path, attempt=result.attempt)
        used = record.used + 1
        if not is_retried(policy, used=used, code=failure.code, retryable=result.retryable):
            self._endings.begin_failure(record, failure, result)
            return
        usage = self.used(record, result.attempt, result.usage)
        if self._is_stopped(record):
            detail = AttemptEnded(result.outcome, failure=failure, usage=usage)
            self._machine.emit(detail, record, NodeState.IDLE, Reason.SIBLING_FAILED, result.attempt)
        else:
            delay_s = result.retry_after_s
            if delay_s is None:
                delay_s = backoff_s(policy, used=used, jitter=result.jitter)
            due_s = round(self._machine.now_s + delay_s, 6)
            detail = AttemptEnded(result.outcome, failure=failure, usage=usage, retry_time_s=due_s)
            self._machine.emit(detail, record, NodeState.BACKING_OFF, failure.code, result.attempt)
            self._machine.ask(SetTimer(TimerKind.BACKOFF, record.path, result.attempt, delay_s))
        self._machine.acknowledge(result, Disposition.RECORDED)

    def _on_unfinished_attempt(self, record: NodeRecord, result: AttemptResult) -> None:
        """Redo an attempt that was LOST or RETURNED, without using up max_attempts (T2, T3)."""
        policy = record.node.retry or DEFAULT_RETRY
        lost = result.outcome is AttemptOutcome.LOST
        if lost and record.lost >= policy.max_lost_attempts:
            message = (
                f"{record.lost + 1} attempts were lost with their workers; see what the node does to a worker, "
                "then run it again"
            )
            failure = Failure(code=POISON, message=message, node_path=record.path, attempt=result.attempt)
            self._endings.begin_failure(record, failure, result)
            return
        state, reason = NodeState.QUEUED, ""
        if self._is_stopped(record):
            state, reason = NodeState.IDLE, Reason.SIBLING_FAILED
        usage = self.used(record, result.attempt, result.usage)
        detail = AttemptEnded(result.outcome, failure=result.failure, usage=usage)
        self._machine.emit(detail, record, state, reason, result.attempt)

    def _is_stopped(self, record: NodeRecord) -> bool:
        return record.scope.is_stopped
