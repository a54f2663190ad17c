"""Writes what happens to the server's log: the ends of executions, and what workers say (B3)."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from plait_server.core.events import Event, ExecutionEnded
from plait_server.ports.workers import AttemptKey

logger = logging.getLogger(__name__)


class LogObserver:
    """An observer that logs."""

    def events_durable(self, namespace: str, execution_id: str, events: Sequence[Event]) -> None:
        """Log the end of an execution."""
        last = events[-1]
        if isinstance(last.detail, ExecutionEnded) and last.execution_state is not None:
            logger.info(
                "execution %s/%s ended: %s%s",
                namespace,
                execution_id,
                last.execution_state.name,
                f" ({last.reason})" if last.reason else "",
            )

    def worker_said(self, key: AttemptKey, kind: str, text: str) -> None:
        """Log what a worker said of an attempt."""
        logger.info(
            "%s/%s %s attempt %d: %s: %s",
            key.namespace,
            key.execution_id,
            key.node_path,
            key.attempt,
            kind,
            text,
        )
