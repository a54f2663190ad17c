"""Wakes those who wait for a change of a namespace's executions."""

from __future__ import annotations

import trio


class Changes:
    """Signals per namespace; they exist only while someone waits.

    A change that is noted before `after` was called is not waited for: call it first, then read, then wait.
    """

    def __init__(self) -> None:
        self._events: dict[str, trio.Event] = {}

    def __repr__(self) -> str:
        return f"<Changes awaited in {len(self._events)} namespaces>"

    def note(self, namespace: str) -> None:
        """Wake the waiters of a namespace, after a change of its executions became durable."""
        event = self._events.pop(namespace, None)
        if event is not None:
            event.set()

    def next(self, namespace: str) -> trio.Event:
        """Return what is set at the next change of a namespace."""
        return self._events.setdefault(namespace, trio.Event())
