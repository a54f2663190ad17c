"""Writes what happens to the server's log: the ends of executions, and what workers say (B3)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from plait_server.core.events import Event, ExecutionEnded
from plait_server.core.execution import Execution
from plait_server.ports.log_fields import assignment_fields, execution_fields
from plait_server.ports.workers import Assignment

logger = logging.getLogger(__name__)


class LogObserver:
    """An observer that logs."""

    def events_durable(self, namespace: str, execution: Execution, events: Sequence[Event]) -> None:
        """Log the end of an execution."""
        last = events[-1]
        if isinstance(last.detail, ExecutionEnded) and last.execution_state is not None:
            logger.info(
                "execution %s ended: %s%s",
                execution.execution_id,
                last.execution_state.name,
                f" ({last.reason})" if last.reason else "",
                extra=execution_fields(namespace, execution),
            )

    def worker_said(self, assignment: Assignment, kind: str, text: str) -> None:
        """Log what a worker said of an attempt."""
        if logger.isEnabledFor(logging.INFO):
            fields = assignment_fields(assignment)
            logger.info("worker %s: %s: %s", assignment.worker_id, kind, text, extra=fields)
