"""A worker as one process or several: what `plait worker` and `python -m plait_worker` run.

Several processes are children started anew, not forked: gRPC's threads do not survive a fork. Each has its
own worker id and instance. They stand in a process group of their own, so that Ctrl-C in a terminal reaches
the parent alone, which passes it on; else each would get it twice, and twice means at once. Their stdin is
a pipe from the parent: when it ends the parent is gone, even if it was killed, and they drain.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Final

from plait_worker.failures import WorkerRefused
from plait_worker.targets import BadTarget, load_worker
from plait_worker.worker import Worker

logger = logging.getLogger("plait_worker")

EXIT_BAD_TARGET: Final = 2
"""The target names no worker; also argparse's code for wrong usage."""
EXIT_REFUSED: Final = 3
"""The server will not have the worker."""
EXIT_CRASHED: Final = 1
"""A process ended otherwise than it should while draining."""
_FINAL: Final = frozenset({0, EXIT_BAD_TARGET, EXIT_REFUSED})
"""Exit codes of a child that starting it again would not change."""

RESTART_INITIAL_S: Final = 0.5
RESTART_MAX_S: Final = 30.0
STABLE_S: Final = 60.0
"""A child that lived so long is started again without a long wait."""


def run_worker(
    target: str,
    connect: str,
    processes: int = 1,
    namespace: str | None = None,
    worker_id: str | None = None,
) -> int:
    """Run a worker until it is drained, by SIGTERM or SIGINT.

    Args:
        target: the worker, as `package.module:worker`; the current directory is searched first.
        connect: the server, as HOST:PORT.
        processes: how many processes serve; each takes as many attempts at once as the worker has slots.
        namespace: the namespace served; None: the worker's own.
        worker_id: the worker's id; None: its own. With several processes each adds its number.

    Returns:
        The exit code: 0 when drained, 2 when the target names no worker, 3 when the server refused it.
    """
    _log_to_stderr()
    try:
        worker = load_worker(target)
    except BadTarget as error:
        sys.stderr.write(f"plait worker: {error}\n")
        return EXIT_BAD_TARGET
    if processes == 1:
        return _run_here(worker, connect, namespace, worker_id)
    return run_processes(target, connect, processes, namespace, worker_id or worker.worker_id)


def run_processes(
    target: str, connect: str, processes: int, namespace: str | None = None, worker_id: str = "worker"
) -> int:
    """Run a worker in several processes until all have ended.

    A process that crashes is started again, after a growing wait; SIGTERM and SIGINT are passed on, and the
    second of them kills.

    Args:
        target: the worker, as `package.module:worker`.
        connect: the server, as HOST:PORT.
        processes: how many processes.
        namespace: the namespace served; None: the worker's own.
        worker_id: what the worker ids begin with; each process adds `-` and its number, from 1.

    Returns:
        The exit code: 0 when all were drained, 1 when one crashed meanwhile, 2 and 3 as `run_worker`, 128 and
        the signal when they were killed.
    """
    _log_to_stderr()
    arguments = [target, "--connect", connect]
    if namespace is not None:
        arguments += ["--namespace", namespace]
    return asyncio.run(_Parent(arguments, worker_id).run(processes))


def run_child(target: str, connect: str, namespace: str | None, worker_id: str | None) -> int:
    """Run as one of several processes: as `run_worker`, and drain when stdin ends: the parent is gone."""
    _log_to_stderr()
    try:
        worker = load_worker(target)
    except BadTarget as error:
        sys.stderr.write(f"plait worker: {error}\n")
        return EXIT_BAD_TARGET

    def watch_parent() -> None:
        # Not through sys.stdin: a thread that waits there holds its lock, and Python aborts at exit.
        while os.read(0, 1):
            pass
        logger.warning("the parent process is gone, draining")
        worker.drain()

    threading.Thread(target=watch_parent, name="plait-parent", daemon=True).start()
    return _run_here(worker, connect, namespace, worker_id)


def _run_here(worker: Worker, connect: str, namespace: str | None, worker_id: str | None) -> int:
    try:
        asyncio.run(worker.run(connect, namespace=namespace, worker_id=worker_id))
    except WorkerRefused as error:
        sys.stderr.write(f"plait worker: {error}\n")
        return EXIT_REFUSED
    return 0


class _Parent:
    """Keeps a number of children running.

    Args:
        arguments: what every child is started with.
        worker_id: what the worker ids begin with.
    """

    def __init__(self, arguments: Sequence[str], worker_id: str) -> None:
        self._arguments = arguments
        self._worker_id = worker_id
        self._children: dict[int, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._exit_code = 0

    async def run(self, processes: int) -> int:
        """Run the children until all have ended; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            async with asyncio.TaskGroup() as tasks:
                for ordinal in range(1, processes + 1):
                    tasks.create_task(self._keep(ordinal))
        finally:
            # None is left in the ordinary case; when this task was cancelled, nobody else would end them.
            self._signal(signal.SIGKILL)
        return self._exit_code

    async def _keep(self, ordinal: int) -> None:
        """Start a child, and again when it crashes."""
        loop = asyncio.get_running_loop()
        delay_s = RESTART_INITIAL_S
        while not self._stopping.is_set():
            start_s = loop.time()
            child = await self._start(ordinal)
            code = await child.wait()
            del self._children[ordinal]
            if code in _FINAL:
                self._exit_code = self._exit_code or code
                if code:
                    # It would go no better with the others.
                    self._stop(signal.SIGTERM)
                return
            if self._stopping.is_set():
                # Killed by the signal itself: it had not come to watching for it, and had nothing to drain.
                if code != -signal.SIGTERM:
                    logger.error("worker process %d %s while draining", child.pid, _ended_how(code))
                    self._exit_code = self._exit_code or EXIT_CRASHED
                return
            if loop.time() - start_s >= STABLE_S:
                delay_s = RESTART_INITIAL_S
            logger.error(
                "worker process %d %s, starting it again in %g s", child.pid, _ended_how(code), delay_s
            )
            try:
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
            except TimeoutError:
                delay_s = min(delay_s * 2, RESTART_MAX_S)

    async def _start(self, ordinal: int) -> asyncio.subprocess.Process:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "plait_worker",
            *self._arguments,
            "--worker-id",
            f"{self._worker_id}-{ordinal}",
            "--child",
            stdin=asyncio.subprocess.PIPE,
            process_group=0,
        )
        self._children[ordinal] = child
        if self._stopping.is_set():
            # The signal came while it was being started, and passed it by.
            child.send_signal(signal.SIGTERM)
        return child

    def _on_signal(self, number: signal.Signals) -> None:
        if self._stopping.is_set():
            logger.warning("got %s again, killing %d worker processes", number.name, len(self._children))
            self._exit_code = 128 + number
            self._signal(signal.SIGKILL)
        else:
            logger.info("got %s, draining %d worker processes", number.name, len(self._children))
            self._stop(signal.SIGTERM)

    def _stop(self, number: signal.Signals) -> None:
        self._stopping.set()
        self._signal(number)

    def _signal(self, number: signal.Signals) -> None:
        for child in self._children.values():
            if child.returncode is None:
                child.send_signal(number)


def _ended_how(code: int) -> str:
    return f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"


def _log_to_stderr() -> None:
    """Write the SDK's log to stderr, unless the program has set up logging itself."""
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(process)d %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
