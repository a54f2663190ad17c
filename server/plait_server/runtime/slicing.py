"""Long computations between other work: slices of some milliseconds, and others' turns after each."""

from __future__ import annotations

from typing import Final, TypeVar

import trio

from plait_server.core.slices import Slices

T = TypeVar("T")

SLICE_S: Final = 0.005
"""How long the loop may be kept from others: a call takes some ten turns of it."""


async def in_slices(work: Slices[T]) -> T:
    """Do a computation, letting others run whenever it has taken 5 ms.

    After each slice the loop is left alone for as long as the slice took, up to 5 ms: calls, and gRPC's own
    thread, get through in between. In virtual time no slice takes any, and all is done at once.
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
    """Lets others run between the steps of a long computation, as `in_slices` does."""

    def __init__(self) -> None:
        self._begun_s = trio.current_time()

    async def pause_if_due(self) -> None:
        """Leave the loop alone for a while, if the computation has had it for 5 ms."""
        taken_s = trio.current_time() - self._begun_s
        if taken_s >= SLICE_S:
            await trio.sleep(min(taken_s, SLICE_S))
            self._begun_s = trio.current_time()
