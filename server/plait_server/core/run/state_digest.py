"""The hash of an execution's durable state: equal states, and no others, have equal hashes."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait_server.core.run.execution import Execution
    from plait_server.core.run.scope import NodeRecord


def digest_of(execution: Execution, *, paused_from_s: float | None, paused_s: float) -> str:
    """Return the hash of an execution; the times of its pauses are given, because they are its own."""
    whole = hashlib.sha256()
    for part in (
        execution.state,
        execution.reason,
        execution.run,
        execution.sequence,
        execution.input,
        execution.output,
        execution.failure,
        execution.failure_count,
        execution.created_s,
        execution.started_s,
        execution.ended_s,
        sorted(execution.receipts.items()),
        sorted(execution.usage.items()),
        execution.totals.node_count,
        sorted(execution.totals.state_counts.items()),
        execution.totals.failures,
        execution.is_started,
        execution.priority,
        execution.settings_sequence,
        execution.root.policy,
        sorted(execution.locks.items()),
        execution.pause_mode,
        execution.resume_data,
        paused_from_s,
        paused_s,
        execution.attempts_running,
    ):
        whole.update(repr(part).encode())
    for closed in execution.closed.values():
        state = closed.state, closed.failure, closed.first_sequence, closed.last_sequence
        whole.update(repr((closed.path, *state, closed.outcomes)).encode())
    for stopped in execution.stopped.values():
        whole.update(repr((stopped.node_path, sorted(stopped.attempt.usage.items()))).encode())
    for scope in execution.scopes.values():
        parts = scope.path, scope.input, scope.started_s, scope.ended_as, scope.failure, scope.is_closed
        whole.update(repr(parts).encode())
        whole.update(repr((scope.level_s, scope.level_paused_s)).encode())
        whole.update(repr((scope.edge_states, scope.failures, scope.treatments)).encode())
        for record in scope.records:
            whole.update(_fingerprint(record).encode())
    return whole.hexdigest()


def _fingerprint(record: NodeRecord) -> str:
    attempts = [
        (
            attempt.number,
            attempt.run,
            attempt.worker_id,
            attempt.worker_instance_id,
            attempt.outcome,
            attempt.started_s,
            attempt.ended_s,
            attempt.queue_s,
            attempt.concurrency_key,
            attempt.retry_time_s,
            attempt.failure,
            sorted(attempt.usage.items()),
            attempt.heartbeat_details,
            attempt.deadline_s,
            attempt.extensions,
        )
        for attempt in record.attempts
    ]
    return repr(
        (
            record.path,
            record.state,
            record.reason,
            record.verdict,
            record.active,
            record.active_error,
            record.dead,
            record.broken,
            record.wanted,
            record.active_edges,
            record.used,
            record.lost,
            record.input,
            record.output,
            record.failure,
            record.treatment,
            record.origin,
            record.ready_s,
            record.ready_paused_s,
            record.started_s,
            record.ended_s,
            record.idled_s,
            record.due_s,
            attempts,
        ),
    )
