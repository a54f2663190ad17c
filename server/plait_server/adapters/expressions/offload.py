"""The process offload: evaluations in helper processes, which are killed at their deadline.

1. Every evaluation waits for a turn. Namespaces take turns, and so do executions within one (`places`).
2. A turn has a process of its own, started at its first evaluation and killed at its end, so that no data of one
   execution is left for another. A turn runs as many evaluations as fit into a quarter of a second, or more if no
   other execution waits, because starting a process takes some 60 ms and most evaluations only a few.
3. Each evaluation has its own limits of processor time, wall time and memory. One that exceeds a limit ends its
   process, which affects no other execution. One that ran out of memory in a process that had run others before is
   retried in a new process, because memory left over from the others must not matter.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, assert_never

import trio

from plait_server.adapters.expressions import messages
from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.expressions.places import Places
from plait_server.adapters.expressions.values import view
from plait_server.core.json_text import JsonValue
from plait_server.core.limits import JOINED_INPUT_BYTES_MAX, KIB, MIB
from plait_server.ports.evaluator import ExpressionError, InvalidExpression, Work

CPU_S: Final = 2
"""Processor time of an evaluation: enough for what the library's 10,000 rounds can legitimately do."""
DEADLINE_S: Final = 10.0
"""Wall time, including the start of the process; on a busy machine the same work must not fail."""
MEMORY_BYTES_MAX: Final = 512 * MIB
"""Address space; the interpreter and the library take 150 MiB of it."""
PROCESSES_MAX: Final = 2
"""More processes would take the processors from the server itself."""
TURN_S: Final = 0.25
"""Seconds that a turn lasts while others wait: four times the start of a process."""

_MODULE: Final = "plait_server.adapters.expressions.helper"
_HEADER_BYTES_MAX: Final = 64
_CHUNK_BYTES: Final = 256 * KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadStatistics:
    """A snapshot of an offload."""

    running: int
    """Turns in use."""
    waiting: int
    """Turns being waited for."""
    finished: int
    """Evaluations that returned a value or an error of their own."""
    stopped: int
    """Evaluations that were ended at their deadline or died at their memory limit."""
    started: int
    """Processes that were started."""


class ProcessOffload:
    """Runs evaluations in helper processes; implements the port's Offload.

    Args:
        evaluator: Determines which parts of the variables a source reads; only these are sent.
        cpu_s: Seconds of processor time that an evaluation may take, to the next second.
        deadline_s: Seconds that it may take on the clock, the start of its process included.
        memory_bytes: Address space that a process may use.
        processes: Turns that may be taken at once, each with one process.
        turn_s: Seconds after which a turn is over if others wait.
    """

    def __init__(
        self,
        evaluator: CelEvaluator,
        *,
        cpu_s: int = CPU_S,
        deadline_s: float = DEADLINE_S,
        memory_bytes: int = MEMORY_BYTES_MAX,
        processes: int = PROCESSES_MAX,
        turn_s: float = TURN_S,
    ) -> None:
        self._evaluator = evaluator
        self._cpu_s = cpu_s
        self._deadline_s = deadline_s
        self._memory_bytes = memory_bytes
        self._turn_s = turn_s
        self._places = Places(processes)
        self._finished = self._stopped = self._started = 0

    def __repr__(self) -> str:
        return f"<ProcessOffload {self.statistics()}>"

    def statistics(self) -> OffloadStatistics:
        """Return a snapshot of the counts."""
        return OffloadStatistics(
            running=self._places.running,
            waiting=self._places.waiting,
            finished=self._finished,
            stopped=self._stopped,
            started=self._started,
        )

    @asynccontextmanager
    async def turn(self, namespace: str, execution_id: str) -> AsyncGenerator[_Turn]:
        """Hold a turn; see the port.

        The wait for it has no deadline of its own: each turn ahead is bounded.
        """
        await self._places.acquire(namespace, execution_id)
        turn = _Turn(self, trio.current_time() + self._turn_s)
        try:
            yield turn
        finally:
            await turn.end_process()
            self._places.release()

    def is_wanted(self) -> bool:
        """Whether another execution waits for a turn."""
        return self._places.waiting > 0

    async def start_process(self) -> trio.Process:
        """Start a helper."""
        self._started += 1
        return await trio.lowlevel.open_process(
            # -P: modules are not imported from the working directory.
            [sys.executable, "-P", "-m", _MODULE, str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A dying interpreter's output helps nobody, and stderr is the server's own log.
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )

    def order(self, work: Work, source: str, variables: Mapping[str, JsonValue]) -> bytes:
        """Write a request to a helper, with only the parts of the variables that the source reads.

        Raises:
            ExpressionError: The source is refused.
        """
        request = {
            "work": work.value,
            "source": source,
            "variables": self._visible(work, source, variables),
            "cpu_s": self._cpu_s,
            "result_bytes": JOINED_INPUT_BYTES_MAX,
        }
        return json.dumps(request).encode() + b"\n"

    @property
    def deadline_s(self) -> float:
        """Seconds that an evaluation may take."""
        return self._deadline_s

    def finish(self) -> None:
        """Count an evaluation that returned a value or an error."""
        self._finished += 1

    def stopped(self, problem: str) -> ExpressionError:
        """Count an evaluation that was stopped at a limit, and return its error."""
        self._stopped += 1
        return ExpressionError(problem)

    def died(self, source: str, signal_number: int) -> ExpressionError:
        """Count an evaluation that crashed its process, and return its error."""
        if signal_number == signal.SIGXCPU:
            problem = f"it takes longer than {self._cpu_s} s of processor time; let a worker compute it"
        else:
            limit = f"{self._memory_bytes // MIB:,} MiB"
            problem = (
                f"its process ended, most likely at its limit of {limit} of memory; let a worker compute it"
            )
        return self.stopped(messages.at(problem, source))

    def _visible(
        self, work: Work, source: str, variables: Mapping[str, JsonValue]
    ) -> Mapping[str, JsonValue]:
        try:
            match work:
                case Work.EVALUATE:
                    return view(variables, self._evaluator.compile(source).shape)
                case Work.RENDER:
                    return view(variables, self._evaluator.compile_template(source).shape)
                case _:
                    assert_never(work)
        except InvalidExpression as error:
            raise ExpressionError(str(error)) from None


class _Died(Exception):
    """A helper ended, or sent a malformed answer."""


class _Turn:
    """A turn and its process; implements the port's Helper."""

    def __init__(self, offload: ProcessOffload, over_s: float) -> None:
        self._offload = offload
        self._over_s = over_s
        self._process: trio.Process | None = None
        self._is_used = False
        """Whether the process has run an evaluation before."""

    @property
    def is_over(self) -> bool:
        """Whether the turn has lasted long enough and others wait."""
        return trio.current_time() >= self._over_s and self._offload.is_wanted()

    async def run(self, work: Work, source: str, variables: Mapping[str, JsonValue]) -> str:
        """Evaluate or render; see the port."""
        order = self._offload.order(work, source, variables)
        while True:
            was_used = self._is_used
            is_whole = False
            try:
                with trio.move_on_after(self._offload.deadline_s):
                    kind, text = await self._ask(order)
                    if kind == b"memory":
                        if was_used:
                            continue
                        raise self._offload.stopped(text)
                    is_whole = True
                    self._offload.finish()
                    if kind == b"text":
                        return text
                    raise ExpressionError(text)
                problem = f"it takes longer than {self._offload.deadline_s:g} s; let a worker compute it"
                raise self._offload.stopped(messages.at(problem, source))
            except _Died:
                signal_number = await self.end_process()
                if not was_used or signal_number == signal.SIGXCPU:
                    raise self._offload.died(source, signal_number) from None
            finally:
                if not is_whole:
                    await self.end_process()

    async def end_process(self) -> int:
        """Kill the process, if there is one, and return the signal that ended it; it has nothing to clean up."""
        process, self._process = self._process, None
        self._is_used = False
        if process is None:
            return 0
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            for stream in (process.stdin, process.stdout):
                assert stream is not None  # both are pipes
                await stream.aclose()
        return -(process.returncode or 0)

    async def _ask(self, order: bytes) -> tuple[bytes, str]:
        process = self._process
        if process is None:
            # A process without a reference could not be killed.
            with trio.CancelScope(shield=True):
                process = self._process = await self._offload.start_process()
        assert process is not None  # a scope that is never cancelled swallows nothing
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None  # both are pipes
        self._is_used = True
        try:
            await stdin.send_all(order)
            buffer = bytearray()
            while (end := buffer.find(b"\n")) < 0:
                if len(buffer) > _HEADER_BYTES_MAX:
                    raise _Died
                await _receive(stdout, buffer)
            kind, size = _header(bytes(buffer[:end]))
            del buffer[: end + 1]
            while len(buffer) < size:
                await _receive(stdout, buffer)
        except trio.BrokenResourceError:
            raise _Died from None
        return kind, buffer[:size].decode()


def _header(line: bytes) -> tuple[bytes, int]:
    kind, _, size = line.partition(b" ")
    if kind not in (b"text", b"error", b"memory") or not size.isdigit() or int(size) > JOINED_INPUT_BYTES_MAX:
        raise _Died
    return kind, int(size)


async def _receive(stream: trio.abc.ReceiveStream, buffer: bytearray) -> None:
    chunk = await stream.receive_some(_CHUNK_BYTES)
    if not chunk:
        raise _Died
    buffer += chunk


def _environment() -> dict[str, str]:
    """Return a helper's environment: the module path only, because the server's own may hold secrets."""
    paths = [entry for entry in sys.path if entry]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
