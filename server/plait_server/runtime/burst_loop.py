"""An asyncio loop within trio that runs all queued callbacks in one round of trio's scheduler.

trio-asyncio 0.16 runs one callback a round, each under a cancel scope of its own, and a unary call of grpc.aio takes
some twenty callbacks. This loop takes the first callback as trio-asyncio does, and then runs those queued behind it.

1. Callbacks run in the order in which they were queued. A timer that is due goes first, as in trio-asyncio.
2. A round ends after `CALLBACKS_MAX` callbacks or `ROUND_S_MAX`, so that trio's tasks get to run.
3. A callback that is queued by another may run in the same round.
4. A callback that starts a trio task is waited for until the task runs, as in trio-asyncio.
5. An exception of a callback propagates as in trio-asyncio. The callbacks behind it stay queued: stopping the loop is
   an exception, and they run while it closes.

It uses three private attributes of the loop (`_q_recv`, `_timers`, `_nursery`), since there is no public way. To be
removed when trio-asyncio does the same.
"""

# ruff: noqa: SLF001 -- The private attributes are named above.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import heapq
from typing import Any, Final

import trio
import trio_asyncio
from trio_asyncio._base import sniffio_library
from trio_asyncio._handles import AsyncHandle

CALLBACKS_MAX: Final = 64
ROUND_S_MAX: Final = 0.001


class BurstLoop(trio_asyncio.TrioEventLoop):
    """The loop. `trio_asyncio.open_loop` makes one of its own class; its `__class__` is then set to this one."""

    _q_recv: trio.MemoryReceiveChannel[Any]
    _timers: list[asyncio.TimerHandle]
    _nursery: Any
    time: Any

    async def _main_loop_one(self, no_wait: bool = False) -> None:  # noqa: FBT001, FBT002 # trio-asyncio's signature
        await super()._main_loop_one(no_wait)  # type: ignore[no-untyped-call] # trio-asyncio has no types
        if no_wait:
            return
        end_s = trio.current_time() + ROUND_S_MAX
        for _ in range(CALLBACKS_MAX):
            is_timer_due = self._timers and self._timers[0].when() <= self.time()
            if is_timer_due or trio.current_time() >= end_s:
                return
            try:
                handle = self._q_recv.receive_nowait()
            except trio.WouldBlock:
                return
            await self._run_handle(handle)

    async def _run_handle(self, handle: Any) -> None:  # noqa: ANN401 # an asyncio.Handle with its private attributes
        if isinstance(handle, asyncio.TimerHandle):
            heapq.heappush(self._timers, handle)
        elif isinstance(handle, AsyncHandle):
            context = handle._context  # type: ignore[attr-defined] # get_context comes with Python 3.12
            context.run(self._nursery.start_soon, handle._run)
            await handle._started.wait()
        elif not handle.cancelled():
            before, sniffio_library.name = sniffio_library.name, "asyncio"
            try:
                handle._run()
            finally:
                sniffio_library.name = before
