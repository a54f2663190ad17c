"""A client's call that waits until its effects are durable."""

from __future__ import annotations

import trio

from plait_server.core.run.commands import Input
from plait_server.ports.journal import RequestRecord


class PendingCall:
    """An input that a client waits for; done when all of its effects are durable."""

    __slots__ = ("_error", "done", "request", "what")

    def __init__(self, what: Input, request: RequestRecord | None) -> None:
        self.what = what
        self.request = request
        self.done = trio.Event()
        self._error: Exception | None = None

    async def wait(self) -> None:
        """Wait until the call is done; raise its error if it failed."""
        await self.done.wait()
        if self._error is not None:
            raise self._error

    def note_error(self, error: Exception) -> None:
        """Record the error to raise when the call is done."""
        self._error = error

    def fail(self, error: Exception) -> None:
        """End the call now, with an error."""
        self._error = error
        self.done.set()
