"""A trio-asyncio loop that runs its callbacks in bursts.

trio-asyncio 0.16 runs one callback in a round of trio's scheduler, under a cancel scope of its own, and waits for its
queue after each event of a file; a unary call of grpc.aio takes some twenty callbacks. This loop keeps queued
callbacks in a deque and runs all of them at once. Everything else is trio-asyncio's: files, threads, signals, the
running loop, and the order of shutdown.

1. Callbacks run in the order in which they were queued; a timer that is due goes first. No trio task runs in between.
2. Callbacks queued by a callback may run in the same burst, but after `CALLBACKS_MAX` callbacks or `BURST_S_MAX`
   trio's tasks get their turn.
3. A task that has queued a callback and is about to wait runs the burst itself: the task of a file, a trio task that
   calls into asyncio, and one that ends a call from asyncio. That saves two rounds of the scheduler each time.
4. Cancelling a call cancels the called function, both ways, and the call ends when the function has ended.
5. An exception of a callback is logged, as asyncio does; anything that is not an `Exception` ends the loop.

It overrides private methods of the loop and uses its private attributes, because there is no public API. To be removed
when trio-asyncio does the same. Rejected: running asyncio's own loop from trio without trio-asyncio. It takes no less
time, and we would have to maintain everything listed above as trio-asyncio's.
"""

# ruff: noqa: SLF001 -- see above
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeVar, TypeVarTuple, cast

import trio
import trio_asyncio
from trio_asyncio._base import sniffio_library
from trio_asyncio._handles import AsyncHandle

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

CALLBACKS_MAX: Final = 64
BURST_S_MAX: Final = 0.001


class BurstLoop(trio_asyncio.TrioEventLoop):
    """The loop. `trio_asyncio.open_loop` creates its own class of loop, which `adopt` then changes to this one."""

    _burst: deque[Any]
    _wake: trio.Event
    _is_in_burst: bool
    _failed: BaseException | None
    _waits_until_s: float
    _nursery: trio.Nursery
    _token: trio.lowlevel.TrioToken
    _timers: list[asyncio.TimerHandle]
    _q_send: trio.MemorySendChannel[Any]
    _q_recv: trio.MemoryReceiveChannel[Any]
    _check_closed: Callable[[], None]

    @classmethod
    def adopt(cls, loop: trio_asyncio.TrioEventLoop) -> BurstLoop:
        """Change a loop that has just been opened to this class."""
        loop.__class__ = cls
        adopted = cast("BurstLoop", loop)
        adopted._burst = deque()
        adopted._wake = trio.Event()
        adopted._is_in_burst = False
        adopted._failed = None
        """The exception that ends the loop, if it was raised outside of the loop's own task."""
        adopted._waits_until_s = math.inf
        """The time of the timer that the loop's task waits for."""
        # Its task waits for the loop's old queue; this wakes it, and it continues in the methods below.
        adopted._q_send.send_nowait(asyncio.Handle(_nothing, (), adopted))
        return adopted

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log a callback's exception: it concerns one call, and others continue."""
        asyncio.SelectorEventLoop.default_exception_handler(self, context)

    def call_soon_threadsafe(  # pyright: ignore[reportIncompatibleMethodOverride] # trio-asyncio returns no handle
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Queue a callback from another thread; see `asyncio.AbstractEventLoop.call_soon_threadsafe`."""
        handle = asyncio.Handle(callback, args, self, context=context)
        self._token.run_sync_soon(self._queue_handle, handle)
        return handle

    # Running.

    def _queue_handle(self, handle: Any) -> Any:  # noqa: ANN401 # trio-asyncio has no types
        self._check_closed()
        self._burst.append(handle)
        if not self._is_in_burst:
            self._wake.set()
        return handle

    async def _main_loop_one(self, no_wait: bool = False) -> None:  # noqa: FBT001, FBT002 # trio-asyncio's signature
        if not self._burst:
            self._waits_until_s = self._next_due_s()
            if no_wait and self._waits_until_s > trio.current_time():
                raise trio.WouldBlock
            self._wake = trio.Event()
            with trio.CancelScope(deadline=self._waits_until_s):
                await self._wake.wait()
        else:
            await trio.lowlevel.checkpoint()
        self.run_burst()
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed

    async def _io_task(self, fd: Any, handle: Any, wait_ready: Callable[[Any], Awaitable[None]]) -> None:  # noqa: ANN401
        with handle._scope:
            while not handle._cancelled:
                try:
                    await wait_ready(fd)
                except OSError:
                    if handle._cancelled:  # Its file may have been closed right after.
                        return
                    raise
                if not handle._cancelled:
                    self.run_burst(handle)

    def run_burst(self, first: Any = None) -> None:  # noqa: ANN401 # an asyncio.Handle with its private attributes
        """Run the queued callbacks, up to the limits, after `handle` if one is given; do nothing inside a burst."""
        if self._is_in_burst:
            if first is not None:
                self._burst.append(first)
            return
        end_s = trio.current_time() + BURST_S_MAX
        self._is_in_burst = True
        before, sniffio_library.name = sniffio_library.name, "asyncio"
        try:
            if first is not None:
                first._run()
            for _ in range(CALLBACKS_MAX):
                if self._timers and self._timers[0].when() <= trio.current_time():
                    self._run_handle(heapq.heappop(self._timers))
                elif not self._burst:
                    break
                else:
                    handle = self._burst.popleft()
                    if isinstance(handle, asyncio.TimerHandle):
                        heapq.heappush(self._timers, handle)
                    else:
                        self._run_handle(handle)
                if trio.current_time() >= end_s:
                    break
        except BaseException as error:  # noqa: BLE001 # the loop's own task raises it
            self._failed = error
        finally:
            sniffio_library.name = before
            self._is_in_burst = False
        if self._burst or self._failed is not None or self._next_due_s() < self._waits_until_s:
            self._wake.set()

    def _run_handle(self, handle: Any) -> None:  # noqa: ANN401 # an asyncio.Handle with its private attributes
        if isinstance(handle, AsyncHandle):
            handle._context.run(self._nursery.start_soon, handle._run)  # type: ignore[attr-defined] # get_context comes with Python 3.12
        elif not handle._cancelled:
            handle._run()

    def _next_due_s(self) -> float:
        return self._timers[0].when() if self._timers else math.inf

    # Calls.

    async def call_asyncio(self, function: Callable[[], Awaitable[T]]) -> T:
        """Call an asyncio function from a trio task. If cancelled, returns when the function has ended."""
        await trio.lowlevel.checkpoint_if_cancelled()
        called = self.create_task(_call(function))
        self.run_burst()
        if called.done():
            await trio.lowlevel.cancel_shielded_checkpoint()
            return called.result()
        caller = trio.lowlevel.current_task()
        called.add_done_callback(lambda _: trio.lowlevel.reschedule(caller))
        raise_cancelled: Callable[[], NoReturn] | None = None

        def cancel(raise_: Callable[[], NoReturn]) -> trio.lowlevel.Abort:
            nonlocal raise_cancelled
            raise_cancelled = raise_
            called.cancel()
            return trio.lowlevel.Abort.FAILED

        await trio.lowlevel.wait_task_rescheduled(cancel)
        if called.cancelled() and raise_cancelled is not None:
            raise_cancelled()
        return called.result()

    def call_trio(self, function: Callable[[], Awaitable[T]]) -> asyncio.Future[T]:
        """Call a trio function from asyncio; cancelling the future cancels the function."""
        call = _TrioCall[T](self)
        self._nursery.start_soon(self._carry_out, call, function)
        return call

    async def _carry_out(self, call: _TrioCall[T], function: Callable[[], Awaitable[T]]) -> None:
        try:
            with call.scope:
                call.set_result(await function())
            if not call.done():
                call.end_cancelled()
        except BaseException as error:  # noqa: BLE001 # the rest goes to whoever called
            cancelled, rest = _split(error)
            if rest is None:
                call.end_cancelled()
            else:
                call.set_exception(rest)
            if cancelled is not None:
                raise cancelled from None
        finally:
            self.run_burst()


class _TrioCall(asyncio.Future[T]):
    """A running trio function. Cancelling the future cancels the function and waits for its end (rule 4)."""

    def __init__(self, loop: BurstLoop) -> None:
        super().__init__(loop=loop)
        self.scope: Final = trio.CancelScope()

    def cancel(self, msg: object = None) -> bool:
        del msg
        if self.done():
            return False
        self.scope.cancel()
        return True

    def end_cancelled(self) -> None:
        super().cancel()


def _nothing() -> None:
    pass


async def _call(function: Callable[[], Awaitable[T]]) -> T:
    """Call a function in the context of a task, because it may ask for the running loop."""
    return await function()


def _split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split an exception into the part that only trio may see, the cancels, and the rest."""
    if isinstance(error, trio.Cancelled):
        return error, None
    if not isinstance(error, BaseExceptionGroup):
        return None, error
    return cast("BaseExceptionGroup[BaseException]", error).split(trio.Cancelled)
