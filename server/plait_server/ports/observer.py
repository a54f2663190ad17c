"""The observer port: called by the runtime at named moments; telemetry is one implementation.

Observers are called in the middle of the runtime's work, so they must return quickly and must not raise.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from plait_server.core.run.events import Event
from plait_server.core.run.execution import Execution
from plait_server.ports.workers import Assignment


class Observer(Protocol):
    """Watches the server."""

    def events_durable(self, namespace: str, execution: Execution, events: Sequence[Event]) -> None:
        """Observe events of an execution that became durable, in order; each event is observed once.

        The execution belongs to the runtime, and its state includes these events; it changes after this call. Scopes
        that these events closed are in `execution.just_closed`, with their nodes, for the duration of this call.
        """

    def worker_said(self, assignment: Assignment, kind: str, text: str) -> None:
        """Observe a progress report, log line or heartbeat that a worker sent for an attempt."""


class Retelling(Protocol):
    """Receives, after a start, the earlier events of the executions that are open at that time.

    Whatever an observer kept only in memory was lost with the old process, and its extent is unknown.
    """

    async def event_again(self, namespace: str, execution: Execution, event: Event) -> bool:
        """Observe a replayed event; the execution is in the state right after it.

        Called for all events of an execution in order, one execution after another. It may wait for a bounded
        time: that delays only the other replayed events.

        Returns:
            Whether it wants the execution's further events.
        """
        ...
