"""The observer port: called by the runtime at named moments; telemetry is one implementation.

Observers are called in the midst of the runtime's work: they take note and return, and raise nothing.
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
        """Take note of events of an execution that became durable, in order; each is seen once.

        The execution is the runtime's: the events are the newest of its state, and it goes on afterwards. Scopes whose
        nodes have ended among the events are in `execution.just_closed`, whole, for as long as this call lasts.
        """

    def worker_said(self, assignment: Assignment, kind: str, text: str) -> None:
        """Take note of a worker's progress, log line or heartbeat of an attempt."""


class Retelling(Protocol):
    """Is told again, after a start, the events of executions that were open at that time.

    What an observer had only in memory was lost with the process, and nobody knows how much that was.
    """

    async def event_again(self, namespace: str, execution: Execution, event: Event) -> bool:
        """Take note of an event; the execution is as it was right after it.

        Called for all events of an execution in order, and for one execution after another. It may wait for a
        bounded time: only the other events to be told again wait for it.

        Returns:
            Whether it wants the execution's further events.
        """
        ...
