"""A gate that only a few tasks pass at once, so that many that wake together do not delay the rest of the server.

An event wakes every watcher of its execution, and a burst of streams begins at once. The asyncio loop under
grpc.aio is first in, first out: a call that arrives after the steps of a thousand writes waits for all of them, at
each of its own steps. Behind a gate the thousand take as long in total, but other calls run in between.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import trio

AT_ONCE: Final = 16
"""The tasks inside at once; together they take some milliseconds."""
HOLD_S: Final = 0.02
"""Seconds after which a task inside waits for its peer, not for the processor, and no longer counts."""


class Gate:
    """Lets `AT_ONCE` tasks be inside at once, in their order of arrival."""

    def __init__(self) -> None:
        self._inside: dict[object, float] = {}
        """The tasks inside -> since when; the oldest first."""
        self._lot = trio.lowlevel.ParkingLot()
        self._has_front = False
        """Whether a task waits at the gate; all others wait in the lot, because a timer for each would be expensive."""
        self._left = trio.Event()

    def __repr__(self) -> str:
        return f"<Gate {len(self._inside)} inside, {len(self._lot)} waiting>"

    @asynccontextmanager
    async def passing(self) -> AsyncGenerator[None]:
        """Wait for a place inside; give it up at the end of the block, or when the block took too long."""
        place = object()
        await self._enter(place)
        try:
            yield
        finally:
            self._inside.pop(place, None)
            self._left.set()

    async def _enter(self, place: object) -> None:
        if self._has_front:
            await self._lot.park()
        self._has_front = True
        try:
            while len(self._inside) >= AT_ONCE:
                oldest, since_s = next(iter(self._inside.items()))
                if trio.current_time() >= since_s + HOLD_S:
                    del self._inside[oldest]
                    break
                self._left = trio.Event()
                with trio.move_on_at(since_s + HOLD_S):
                    await self._left.wait()
        finally:
            # The next task waits at the gate now, and the flag is already set for it.
            self._has_front = bool(self._lot.unpark())
        self._inside[place] = trio.current_time()
