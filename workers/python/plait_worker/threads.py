"""Threads for handlers that are plain functions.

Not `concurrent.futures.ThreadPoolExecutor`: the interpreter waits for its threads at exit, so that one
handler that looks away from its cancellation would keep a drained worker alive for ever. These threads are
daemons.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Protocol, TypeVar

T = TypeVar("T")


class HandlerThreads(Protocol):
    """Where handlers that are plain functions run. A simulator runs them in place, without a thread."""

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Run a function, at once if a thread is free; its result or exception is the future's."""
        ...

    def shutdown(self) -> None:
        """Let the threads end once they have nothing to do; do not wait for them."""
        ...


class DaemonThreads:
    """Threads made as they are needed, up to a number, and kept.

    Args:
        threads_max: how many there are at most; what is submitted beyond that waits.
    """

    def __init__(self, threads_max: int) -> None:
        self._threads_max = threads_max
        self._threads = 0
        self._tasks: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # Released once for each thread that waits for something to do.
        self._idle = threading.Semaphore(0)

    def submit(self, function: Callable[[], T]) -> Future[T]:
        """Run a function in a thread of its own. Called from one thread only."""
        future: Future[T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = function()
            except BaseException as error:  # noqa: BLE001 - it is the caller's, whatever it is.
                future.set_exception(error)
            else:
                future.set_result(result)

        self._tasks.put(run)
        if not self._idle.acquire(blocking=False) and self._threads < self._threads_max:
            self._threads += 1
            name = f"plait-handler-{self._threads}"
            threading.Thread(target=self._work, name=name, daemon=True).start()
        return future

    def shutdown(self) -> None:
        """Let the threads end once they have nothing to do."""
        for _ in range(self._threads):
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            task()
            # Or the frame would keep the last handler's result until there is another.
            del task
            self._idle.release()
