"""A worker as one process or several: what `plait worker` and `python -m plait_worker` run.

The parent imports nothing of the worker's and does no work: it starts the processes, and starts again those
that die, for a handler may take its process down with it. The children are started anew, not forked: gRPC's
threads do not survive a fork. Each has its own instance and, if they are several, its own worker id. They
stand in process groups of their own, so that Ctrl-C in a terminal reaches the parent alone, which passes it
on; else each would get it twice, and twice means at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from plait_worker.backoff import Backoff
from plait_worker.child import END, READY
from plait_worker.logs import log_to_stderr
from plait_worker.signals import SAME_SIGNAL_S

logger = logging.getLogger("plait_worker")

EXIT_CRASHED: Final = 1
"""A process died while it drained, or cannot be started."""
SECONDS_MAX: Final = 1_000_000_000
"""The longest drain timeout, in seconds; a timedelta holds it."""
RESTART_INITIAL_S: Final = 0.5
RESTART_MAX_S: Final = 30.0
STABLE_S: Final = 60.0
"""A process that lived so long is started again without a long wait."""
STARTS_MAX: Final = 5
"""A process that died so often, one time after the other, before its module was imported is given up."""
_SAID_BYTES_MAX: Final = 64 * 1024


def run_worker(
    target: str,
    connect: str,
    processes: int = 1,
    namespace: str | None = None,
    worker_id: str | None = None,
    drain_timeout_s: float | None = None,
) -> int:
    """Run a worker until it is drained, by SIGTERM or SIGINT; the second of them kills.

    A process that dies is started again, after a wait that grows. Processes that are left when this one is
    killed end at once.

    Args:
        target: the worker, as `package.module:worker`; the current directory is searched first.
        connect: the server, as HOST:PORT.
        processes: how many processes serve; each takes as many attempts at once as the worker has slots.
        namespace: the namespace served; None: the worker's own.
        worker_id: the worker's id; None: its own. With several processes each adds `-` and its number, from 1.
        drain_timeout_s: how long attempts may run on once the worker drains; None: the worker's own.

    Returns:
        The exit code: 0 when drained; 1 when a process died while it drained, or cannot be started; 2 when
        the target names no worker, or an argument is wrong; 3 when the server refused the worker; 128 and the
        signal when the processes were killed.
    """
    log_to_stderr()
    arguments = [target, "--connect", connect]
    if namespace is not None:
        arguments += ["--namespace", namespace]
    if worker_id is not None:
        arguments += ["--worker-id", worker_id]
    if drain_timeout_s is not None:
        arguments += ["--drain-timeout", str(drain_timeout_s)]
    return asyncio.run(_Supervisor(arguments).run(processes))


@dataclass(frozen=True, slots=True)
class _Child:
    process: asyncio.subprocess.Process
    socket: socket.socket
    """Connected to its stdin; while it is open, the parent is alive."""

    def read(self) -> bytes:
        """Read the child's reports until it ends."""
        try:
            return self.socket.recv(_SAID_BYTES_MAX)
        except (BlockingIOError, ConnectionResetError):
            return b""


class _Supervisor:
    """Keeps a number of children running.

    Args:
        arguments: what every child is started with.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = arguments
        self._children: dict[int, _Child] = {}
        self._stopping = asyncio.Event()
        self._exit_code = 0
        self._signal_time_s: float | None = None
        self._is_killed = False

    async def run(self, processes: int) -> int:
        """Run the children until all have ended; return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_signal, number)
        ordinals = range(1, processes + 1) if processes > 1 else [0]
        try:
            async with asyncio.TaskGroup() as tasks:
                for ordinal in ordinals:
                    tasks.create_task(self._keep(ordinal))
        finally:
            # None is left in the ordinary case; when this task was cancelled, nobody else would end them.
            self._kill()
        return self._exit_code

    async def _keep(self, ordinal: int) -> None:
        """Start a child, and again when it dies."""
        loop = asyncio.get_running_loop()
        backoff = Backoff(random.random, initial_s=RESTART_INITIAL_S, max_s=RESTART_MAX_S)
        failed_starts = 0
        while not self._stopping.is_set():
            start_s = loop.time()
            child = await self._start(ordinal)
            code = await child.process.wait()
            del self._children[ordinal]
            said = child.read()
            child.socket.close()
            if self._is_final(child.process.pid, code, said):
                return
            failed_starts = 0 if said.startswith(READY) else failed_starts + 1
            if failed_starts == STARTS_MAX:
                logger.error("giving up: %d processes died before the worker was imported", STARTS_MAX)
                self._end(EXIT_CRASHED)
                return
            if loop.time() - start_s >= STABLE_S:
                backoff.reset()
            delay_s = backoff.next_delay_s()
            how = _ended_how(code) + ("" if failed_starts == 0 else " before the worker was imported")
            logger.error("worker process %d %s, starting it again in %.1f s", child.process.pid, how, delay_s)
            try:
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
            except TimeoutError:
                pass

    def _is_final(self, pid: int, code: int, said: bytes) -> bool:
        """Whether a child that ended is not to be started again."""
        words = said.removeprefix(READY)
        if words.startswith(END):
            if code:
                if not self._exit_code:
                    # Once, although all processes may report the same.
                    sys.stderr.write(f"plait worker: {words.removeprefix(END).decode(errors='replace')}\n")
                # It would go no better with the others.
                self._end(code)
            return True
        if self._stopping.is_set():
            # Killed by the signal itself: it had not come to watching for it, and had nothing to drain.
            if code != -signal.SIGTERM and not self._is_killed:
                logger.error("worker process %d %s while draining", pid, _ended_how(code))
                self._exit_code = self._exit_code or EXIT_CRASHED
            return True
        return False

    async def _start(self, ordinal: int) -> _Child:
        own, childs = socket.socketpair()
        own.setblocking(False)
        with childs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "plait_worker",
                *self._arguments,
                "--child",
                str(ordinal),
                stdin=childs.fileno(),
                process_group=0,
            )
        child = self._children[ordinal] = _Child(process, own)
        if self._stopping.is_set():
            # The signal came while it was being started, and passed it by.
            process.send_signal(signal.SIGTERM)
        return child

    def _on_signal(self, number: signal.Signals) -> None:
        time_s = asyncio.get_running_loop().time()
        if self._signal_time_s is None:
            self._signal_time_s = time_s
            logger.info("got %s, draining; another one ends the worker at once", number.name)
            self._stop()
        elif time_s - self._signal_time_s >= SAME_SIGNAL_S:
            logger.warning("got %s again, killing the worker's processes", number.name)
            self._is_killed = True
            self._exit_code = 128 + number
            self._kill()

    def _end(self, code: int) -> None:
        self._exit_code = self._exit_code or code
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        for child in self._children.values():
            if child.process.returncode is None:
                child.process.send_signal(signal.SIGTERM)

    def _kill(self) -> None:
        for child in self._children.values():
            if child.process.returncode is None:
                # With what its handlers have started; it leads its process group.
                os.killpg(child.process.pid, signal.SIGKILL)


def _ended_how(code: int) -> str:
    if code >= 0:
        return f"ended with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"
