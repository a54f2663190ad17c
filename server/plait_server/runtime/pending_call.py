"""A call of a client that waits until what it asked for is durable."""

from __future__ import annotations

import trio

from plait_server.core.run.commands import Input
from plait_server.ports.journal import RequestRecord


class PendingCall:
    """An input that a client waits for: done when all that it led to is durable."""

    __slots__ = ("_error", "done", "request", "what")

    def __init__(self, what: Input, request: RequestRecord | None) -> None:
        self.what = what
        self.request = request
        self.done = trio.Event()
        self._error: Exception | None = None

    async def wait(self) -> None:
        """Wait until the call is done; what it failed with is raised."""
        await self.done.wait()
        if self._error is not None:
            raise self._error

    def note_error(self, error: Exception) -> None:
        """Let it fail when it is done."""
        self._error = error

    def fail(self, error: Exception) -> None:
        """Let it fail now."""
        self._error = error
        self.done.set()
