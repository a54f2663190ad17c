"""A client's call that waits until its effects are durable."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import trio

from plait_server.core.run.commands import Input
from plait_server.core.run.execution import Execution
from plait_server.core.run.payload import Payload
from plait_server.ports.audit import ActionRecord
from plait_server.ports.journal import RequestRecord

Keep: TypeAlias = Callable[[str], Payload]
"""Returns the payload of a JSON text, which becomes durable with the next append."""
InputMaker: TypeAlias = Callable[[Execution, Keep], Input]
"""Makes the input of a call from the state that it meets. A CallerError refuses the call, without effect."""


class PendingCall:
    """A call of a client; done when all of its effects are durable."""

    __slots__ = ("_error", "action", "done", "make", "request")

    def __init__(self, make: InputMaker, request: RequestRecord | None, action: ActionRecord | None) -> None:
        self.make = make
        self.request = request
        self.action = action
        self.done = trio.Event()
        self._error: Exception | None = None

    @property
    def has_record(self) -> bool:
        """Whether an append must carry a record of it; an append has room for one call's records."""
        return self.request is not None or self.action is not None

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
