"""Runs long computations in slices of some milliseconds, so that other tasks run in between."""

from __future__ import annotations

from typing import Final, TypeVar

import trio

from plait_server.core.slices import Slices

T = TypeVar("T")

SLICE_S: Final = 0.005
"""How long a slice may block the loop; a call takes some ten turns of the loop."""


async def in_slices(work: Slices[T]) -> T:
    """Run a computation; let other tasks run after every 5 ms.

    After each slice the loop is free for as long as the slice took, up to 5 ms, so that calls and gRPC's own thread
    make progress. In virtual time slices take no time, so all of it runs at once.
    """
    pacing = Pacing()
    while True:
        try:
            next(work)
        except StopIteration as stop:
            value: T = stop.value
            return value
        await pacing.pause_if_due()


class Pacing:
    """Lets other tasks run between the steps of a long computation, as `in_slices` does."""

    def __init__(self) -> None:
        self._begun_s = trio.current_time()

    async def pause_if_due(self) -> None:
        """Free the loop for a while, if the computation has had it for 5 ms."""
        taken_s = trio.current_time() - self._begun_s
        if taken_s >= SLICE_S:
            await trio.sleep(min(taken_s, SLICE_S))
            self._begun_s = trio.current_time()
