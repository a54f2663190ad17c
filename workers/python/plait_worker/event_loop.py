"""An event loop that handlers cannot end, and that does not wait for them for ever.

`asyncio.run` ends when any task raises SystemExit or KeyboardInterrupt, and at its end waits for every task,
also for one that swallows its cancellation. Both are a handler's doing, and neither is its business.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final

from plait_worker.watchdog import watched

logger = logging.getLogger("plait_worker")

STRAGGLERS_S: Final = 1.0
"""How long tasks that handlers left behind have to end."""


def run_in_loop(main: Coroutine[Any, Any, None], blocked_max_s: Callable[[], float] | None = None) -> None:
    """Run a coroutine in an event loop of its own, to its end.

    A task of a handler that raises SystemExit or KeyboardInterrupt ends by it, and nothing else does: the
    handler that waits for the task gets it. Tasks that are left at the end are cancelled, and given up when
    that does not end them. A loop that is blocked is told of.

    Args:
        main: the coroutine.
        blocked_max_s: how long the loop may be blocked before the process is ended; None: it is never ended.
    """
    loop = asyncio.new_event_loop()
    try:
        asyncio.set_event_loop(loop)
        task = loop.create_task(main)
        try:
            with watched(loop, blocked_max_s):
                _run_until_complete(loop, task)
        finally:
            _cancel_stragglers(loop)
            loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


def _run_until_complete(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    while True:
        try:
            loop.run_until_complete(task)
        except (SystemExit, KeyboardInterrupt) as error:
            # Ctrl-C, unless somebody watches for it: then this was raised by a task.
            is_interrupt = isinstance(error, KeyboardInterrupt)
            if task.done() or (is_interrupt and _is_interrupt_unwatched()):
                raise
            # The loop has finished what it was at, and its other callbacks still wait for it.
            logger.warning("a task of a handler raised %s; the worker goes on", type(error).__name__)
        else:
            return


def _cancel_stragglers(loop: asyncio.AbstractEventLoop) -> None:
    stragglers = asyncio.all_tasks(loop)
    if not stragglers:
        return
    for straggler in stragglers:
        straggler.cancel()
    waiting = loop.create_task(_wait(stragglers))
    _run_until_complete(loop, waiting)
    if any(not straggler.done() for straggler in stragglers):
        logger.warning("tasks of handlers did not end when they were cancelled, and are given up")
        # Or each of them would be complained about when it is collected.
        loop.set_exception_handler(lambda _loop, _context: None)


async def _wait(stragglers: set[asyncio.Task[Any]]) -> None:
    await asyncio.wait(stragglers, timeout=STRAGGLERS_S)


def _is_interrupt_unwatched() -> bool:
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler
