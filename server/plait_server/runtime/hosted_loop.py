"""asyncio's own event loop, run by trio: no thread, and trio's scheduler stays in charge.

asyncio keeps its selector, queue and timers. Two trio tasks run a pass of the loop whenever there is something to do:
one when a file of its selector is ready (an epoll or kqueue file is itself a file that trio can wait for), the other
when a callback was queued or a timer is due. A pass is `stop()` before `run_forever()`, which asyncio documents: it
looks at the selector without waiting, and runs what is queued.

1. Callbacks run in the order in which they were queued, as in asyncio; trio tasks do not run during a pass.
2. What a pass queues may run at once, in one more pass, but after `PASSES_MAX` passes or `PASSES_S_MAX` trio's tasks
   get to run.
3. Time is trio's, so that timers obey a virtual clock.
4. A trio task that calls into asyncio, or that ends a call from asyncio, makes a pass itself rather than wait for one:
   two rounds of the scheduler less a crossing.
5. Cancelling a call cancels what it called, both ways, and the call ends when that has ended.
6. An exception of a callback is reported and logged, as by asyncio; what is no `Exception` ends the loop's owner.
7. When the loop is closed, calls from asyncio are cancelled first, then the tasks of asyncio, for `CLOSE_S` at most.

Rejected: trio-asyncio 0.16, which runs each callback in a round of the scheduler and under a cancel scope of its own,
and waits for its queue after each event of a file (with many callbacks a round, too, a diamond of five nodes costs 1.45
times the processor time, a node of a chain 1.25 times); trio's guest mode, which waits for files in a thread.
"""

from __future__ import annotations

import asyncio
import contextvars
import math
import selectors
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, NoReturn, TypeVar, TypeVarTuple, cast

import trio

T = TypeVar("T")
Ts = TypeVarTuple("Ts")

PASSES_MAX: Final = 8
"""Passes in a row; a unary call of grpc.aio takes about four."""
PASSES_S_MAX: Final = 0.001
CLOSE_S: Final = 1.0
"""How long asyncio's tasks may take to end when they are cancelled, in seconds."""


class HostedLoop(asyncio.SelectorEventLoop):
    """The loop. `watch` is run by one trio task from the beginning to the end; the caller closes the loop."""

    _scheduled: list[asyncio.TimerHandle]
    """asyncio's heap of timers; private, for there is no public way to learn of the next one."""

    def __init__(self) -> None:
        self.calls: trio.Nursery | None = None
        """Owns the trio tasks that calls from asyncio start; set before there are any."""
        self._files: Final = selectors.DefaultSelector()
        self._is_passing = False
        self._has_queued = False
        self._wake = trio.Event()
        self._due_s = math.inf
        """The time of the timer that is waited for."""
        self._watching = trio.CancelScope(shield=True)
        super().__init__(self._files)

    # What asyncio asks of a loop, where it is not asyncio's own.

    def time(self) -> float:
        """Return trio's time."""
        return trio.current_time()

    def call_soon(
        self,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.Handle:
        """Queue a callback; see `asyncio.AbstractEventLoop.call_soon`."""
        self._note_queued()
        return super().call_soon(callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Ts], object],
        *args: *Ts,
        context: contextvars.Context | None = None,
    ) -> asyncio.TimerHandle:
        """Queue a timer; see `asyncio.AbstractEventLoop.call_at`."""
        self._note_queued()
        return super().call_at(when, callback, *args, context=context)

    # Running.

    async def watch(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the loop until `finish` has been called, whatever is cancelled meanwhile."""
        with self._watching:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch_files)
                task_status.started()
                await self._watch_queue()

    async def finish(self) -> None:
        """Cancel all tasks of asyncio, wait for their end, and stop running."""
        with trio.CancelScope(shield=True):
            tasks = asyncio.all_tasks(self)
            for task in tasks:
                task.cancel()
            if tasks:
                await self.call_asyncio(partial(asyncio.wait, tasks, timeout=CLOSE_S))
            await self.call_asyncio(self.shutdown_asyncgens)
        self._watching.cancel()

    async def _watch_files(self) -> None:
        while True:
            await trio.lowlevel.wait_readable(self._files.fileno())
            self._run_passes()

    async def _watch_queue(self) -> None:
        while True:
            self._wake = trio.Event()
            if self._has_queued:
                await trio.lowlevel.checkpoint()
            else:
                self._due_s = self._next_due_s()
                with trio.CancelScope(deadline=self._due_s):
                    await self._wake.wait()
            self._run_passes()

    def _note_queued(self) -> None:
        self._has_queued = True
        if not self._is_passing:
            self._wake.set()

    def _run_passes(self) -> None:
        if self._is_passing:
            return
        end_s = trio.current_time() + PASSES_S_MAX
        self._is_passing = True
        try:
            for _ in range(PASSES_MAX):
                self._has_queued = False
                self.stop()
                self.run_forever()
                if not self._has_queued or trio.current_time() >= end_s:
                    break
        except BaseException as error:  # noqa: BLE001 # it goes on where it belongs
            # Who happens to make the pass has no part in it, and the loop is needed for all to end in order.
            assert self.calls is not None  # set before there are callbacks
            self.calls.start_soon(_raise, error)
        finally:
            self._is_passing = False
        if self._has_queued or self._next_due_s() < self._due_s:
            self._wake.set()

    def _next_due_s(self) -> float:
        return self._scheduled[0].when() if self._scheduled else math.inf

    # Calls.

    async def call_asyncio(self, function: Callable[[], Awaitable[T]]) -> T:
        """Call an asyncio function from a trio task. If cancelled, returns when the function has ended."""
        await trio.lowlevel.checkpoint_if_cancelled()
        called = self.create_task(_call(function))
        self._run_passes()
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
        assert self.calls is not None  # set when the loop was opened
        call = _TrioCall[T](self)
        self.calls.start_soon(self._carry_out, call, function)
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
            self._run_passes()


class _TrioCall(asyncio.Future[T]):
    """A trio function that runs; a cancel of the future is one of the function, whose end is waited for (rule 5)."""

    def __init__(self, loop: HostedLoop) -> None:
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


async def _raise(error: BaseException) -> NoReturn:
    raise error


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
