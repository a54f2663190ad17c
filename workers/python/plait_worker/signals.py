"""SIGTERM and SIGINT: the first one drains, a later one ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import FrameType
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
SAME_SIGNAL_S: Final = 1.0
"""A signal that comes sooner after the first is the same: Ctrl-C goes to a whole process group, and `timeout` and
others send theirs to the process and to its group."""


@contextmanager
def first_signal_calls(drain: Callable[[], None]) -> Generator[None, None, None]:
    """Call `drain` at the first SIGTERM or SIGINT; one that comes `SAME_SIGNAL_S` later or more ends the process.

    Outside the main thread, and on loops that cannot watch signals, nothing is changed. What the signals did
    before is restored at the end.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def on_signal() -> None:
        first_s = time.monotonic()

        def on_later_signal(number: int, _: FrameType | None) -> None:
            if time.monotonic() - first_s >= SAME_SIGNAL_S:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)

        for other in STOP_SIGNALS:
            loop.remove_signal_handler(other)
            # Not the loop's handler: a handler of a node may keep the loop busy.
            signal.signal(other, on_later_signal)
        drain()

    try:
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, on_signal)
    except NotImplementedError:
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            loop.remove_signal_handler(number)
            # None: it was not set from Python, and cannot be set again from here.
            if handler is not None:
                signal.signal(number, handler)
