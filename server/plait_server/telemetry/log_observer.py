"""Writes what happens to the server's log: the ends of executions, and what workers say (B3)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

from plait_server.core.events import Event, ExecutionEnded
from plait_server.core.execution import Execution
from plait_server.ports.workers import AttemptKey

logger = logging.getLogger(__name__)

_UNPRINTED: Final = (
    *range(0x20),
    *range(
        0x7F, 0xA0
    ),  # DEL, and the second set of control characters, some of which begin an escape sequence
    *range(0x200E, 0x2010),
    *range(0x2028, 0x202F),  # line separators, and what turns the direction of writing
    *range(0x2066, 0x206A),
)
_ESCAPES: Final = str.maketrans(
    {chr(code): chr(code).encode("unicode_escape").decode() for code in _UNPRINTED}
)


class LogObserver:
    """An observer that logs."""

    def events_durable(self, namespace: str, execution: Execution, events: Sequence[Event]) -> None:
        """Log the end of an execution."""
        last = events[-1]
        if isinstance(last.detail, ExecutionEnded) and last.execution_state is not None:
            logger.info(
                "execution %s/%s ended: %s%s",
                namespace,
                execution.execution_id,
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
            one_line(text),
        )


def one_line(text: str) -> str:
    """Write a text that is not ours so that it stays one line of the log, and steers no terminal."""
    return text.translate(_ESCAPES)
