"""A trio-asyncio loop that runs its callbacks in bursts.

trio-asyncio 0.16 runs one callback in a round of trio's scheduler, under a cancel scope of its own, and waits for its
queue after each event of a file; a unary call of grpc.aio takes some twenty callbacks. This loop keeps what is queued
in a deque and runs all of it at once. All else is trio-asyncio's: files, threads, signals, what the running loop is,
and the order in which things end.

1. Callbacks run in the order in which they were queued; a timer that is due goes first. No trio task runs meanwhile.
2. What a callback queues may run in the same burst, but after `CALLBACKS_MAX` callbacks or `BURST_S_MAX` trio's tasks
   get to run.
3. Whoever has queued something runs the burst itself, if it is about to wait: the task of a file, a trio task that
   calls into asyncio, and one that ends a call from asyncio. That saves two rounds of the scheduler each.
4. Cancelling a call cancels what it called, both ways, and the call ends when that has ended.
5. An exception of a callback is logged, as by asyncio; what is no `Exception` ends the loop.

It overrides private methods of the loop and uses its private attributes, since there is no public way. To be removed
when trio-asyncio does the same. Rejected: a loop of asyncio's own that trio runs without trio-asyncio; it takes no less
time, and all that is listed above as trio-asyncio's would be ours.
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
    """The loop. `trio_asyncio.open_loop` makes one of its own class, which `adopt` then makes one of this."""

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
        """Make a loop that has just been opened one of this class."""
        loop.__class__ = cls
        adopted = cast("BurstLoop", loop)
        adopted._burst = deque()
        adopted._wake = trio.Event()
        adopted._is_in_burst = False
        adopted._failed = None
        """What ends the loop, if anything other than its own task met it."""
        adopted._waits_until_s = math.inf
        """The time of the timer that the loop's task waits for."""
        # Its task waits for the queue that it had, and comes back from this to the methods below.
        adopted._q_send.send_nowait(asyncio.Handle(_nothing, (), adopted))
        return adopted

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log what a callback raised: it concerns one call, and others go on."""
        asyncio.SelectorEventLoop.default_exception_handler(self, context)

    def call_soon_threadsafe(
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
        """Run what is queued, up to the limits, with a handle before it if one is given; nothing within a burst."""
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
    """A trio function that runs; a cancel of the future is one of the function, whose end is waited for (rule 4)."""

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
    """Call a function as a task does: what it asks of the running loop, it must find."""
    return await function()


def _split(error: BaseException) -> tuple[BaseException | None, BaseException | None]:
    """Split what was raised in what only trio may see, cancels, and the rest."""
    if isinstance(error, trio.Cancelled):
        return error, None
    if not isinstance(error, BaseExceptionGroup):
        return None, error
    return cast("BaseExceptionGroup[BaseException]", error).split(trio.Cancelled)
