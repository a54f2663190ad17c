"""Combines several observers into one."""

from __future__ import annotations

from collections.abc import Sequence

from plait_server.core.run.events import Event
from plait_server.core.run.execution import Execution
from plait_server.ports.observer import Observer
from plait_server.ports.workers import Assignment


class Observers:
    """Calls several observers, in order."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def __repr__(self) -> str:
        return f"<Observers {self._observers!r}>"

    def events_durable(self, namespace: str, execution: Execution, events: Sequence[Event]) -> None:
        """Call each."""
        for observer in self._observers:
            observer.events_durable(namespace, execution, events)

    def worker_said(self, assignment: Assignment, kind: str, text: str) -> None:
        """Call each."""
        for observer in self._observers:
            observer.worker_said(assignment, kind, text)
