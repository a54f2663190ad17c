"""SIGTERM and SIGINT: the first one asks for a stop, a later one ends the process at once.

The handlers stay until the process has stopped, so that a second signal ends it even while it waits for something.
They are Python's own and not trio's receiver, which needs a task that runs.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import trio

SAME_SIGNAL_S: Final = 1.0
"""A signal that comes sooner after the first is the same: Ctrl-C goes to a whole process group, and `timeout`,
supervisors and terminals send theirs to the process and to its group."""


class StopSignals:
    """The signals that this process has received."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._first_s: float | None = None
        self._came = trio.Event()

    async def wait(self) -> None:
        """Wait for the first signal."""
        await self._came.wait()

    def receive(self, number: int, _: FrameType | None) -> None:
        """Take a signal: the first asks for a stop; one that comes `SAME_SIGNAL_S` later or more ends the process."""
        if self._first_s is None:
            self._first_s = time.monotonic()
            self._token.run_sync_soon(self._came.set, idempotent=True)
        elif time.monotonic() - self._first_s >= SAME_SIGNAL_S:
            # As if killed by it. The store takes that at any moment, and the shells know the number.
            os._exit(128 + number)


@contextmanager
def receive_stop_signals() -> Generator[StopSignals]:
    """Receive SIGTERM and SIGINT within the context."""
    signals = StopSignals()
    before = {number: signal.signal(number, signals.receive) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
