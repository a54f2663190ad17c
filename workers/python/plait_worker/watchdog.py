"""Finds out that a handler blocks the event loop: a coroutine that computes, or sleeps by time.sleep.

Nothing else goes on meanwhile: pings stay unanswered, and when the lease has run out the server gives all
attempts of the worker to others. So it is told, with the place; and a process that can be started again ends
once that has cost it everything anyway.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from plait_worker.logs import running_fields

logger = logging.getLogger("plait_worker")

LOOK_S: Final = 5.0
"""How often it is looked."""
BLOCKED_S: Final = 5.0
"""How long the loop may take to answer; a worker's lease is 30 s by default."""
EXIT_BLOCKED: Final = 5
"""The event loop was blocked too long."""


@contextmanager
def watched(
    loop: asyncio.AbstractEventLoop, blocked_max_s: Callable[[], float] | None = None
) -> Generator[None, None, None]:
    """Watch the event loop that this thread runs, from a thread beside it.

    Args:
        loop: the loop.
        blocked_max_s: how long it may be blocked before the process is ended; None: it is never ended.
    """
    is_over = threading.Event()
    arguments = (loop, threading.get_ident(), is_over, blocked_max_s)
    threading.Thread(target=_watch, args=arguments, name="plait-watchdog", daemon=True).start()
    try:
        yield
    finally:
        is_over.set()


def _watch(
    loop: asyncio.AbstractEventLoop,
    thread_id: int,
    is_over: threading.Event,
    blocked_max_s: Callable[[], float] | None,
) -> None:
    while not is_over.wait(LOOK_S):
        answered = threading.Event()
        try:
            loop.call_soon_threadsafe(answered.set)
        except RuntimeError:
            # The loop is closed.
            return
        begun_s = time.monotonic()
        if answered.wait(BLOCKED_S) or is_over.is_set():
            continue
        logger.warning(
            "the event loop is blocked %s: a handler that blocks is declared with def, not async def, so that"
            " it runs in a thread",
            place_of(thread_id),
            extra=running_fields(loop),
        )
        # One more look before the end: the whole process may have been stopped for a while.
        while not answered.wait(1.0) and not is_over.is_set():
            if blocked_max_s is not None and time.monotonic() - begun_s > blocked_max_s():
                logger.error(
                    "the event loop is blocked %s for too long; the process ends",
                    place_of(thread_id),
                    extra=running_fields(loop),
                )
                os._exit(EXIT_BLOCKED)


def place_of(thread_id: int) -> str:
    """Return where a thread is: the frame that the event loop or the SDK called, the handler's as a rule."""
    own = (str(Path(__file__).parent), str(Path(asyncio.__file__).parent), "<")
    place = "somewhere"
    frames = sys._current_frames()  # noqa: SLF001  # pyright: ignore[reportPrivateUsage] - there is no other way.
    innermost = frames.get(thread_id)
    for frame in reversed(traceback.extract_stack(innermost)):
        if frame.filename.startswith(own):
            break
        place = f"at {frame.filename}, line {frame.lineno}, in {frame.name}"
    return place
