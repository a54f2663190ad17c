"""The observer port: called by the runtime at named moments; telemetry is one implementation.

Observers are called in the midst of the runtime's work: they take note and return, and raise nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from plait_server.core.events import Event
from plait_server.ports.workers import AttemptKey


class Observer(Protocol):
    """Watches the server."""

    def events_durable(self, namespace: str, execution_id: str, events: Sequence[Event]) -> None:
        """Take note of events of an execution that became durable, in order; each is seen once."""

    def worker_said(self, key: AttemptKey, kind: str, text: str) -> None:
        """Take note of a worker's progress, log line or heartbeat of an attempt."""
