"""SIGTERM and SIGINT: the first one drains, the second one ends the process at once."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Final

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def first_signal_calls(drain: Callable[[], None]) -> Generator[None, None, None]:
    """Call `drain` at the first SIGTERM or SIGINT, and leave the second to the system's default: the end.

    Outside the main thread, and on loops that cannot watch signals, nothing is changed. What the signals did
    before is restored at the end.
    """
    loop = asyncio.get_running_loop()
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def on_signal() -> None:
        for other in STOP_SIGNALS:
            loop.remove_signal_handler(other)
            signal.signal(other, signal.SIG_DFL)
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
