"""The offload proper: each evaluation in a process of its own, which is killed at its deadline.

A process for each is the simplest thing that holds: nothing of one evaluation is left for the next, and a
process that was killed in the middle of its work damages nobody. It costs some 60 ms, which is why only
what may take long comes here. A pool would save most of it and bring its own failures.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, assert_never, cast

import trio

from plait_server.adapters.expressions import messages
from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.expressions.values import view
from plait_server.core.json_text import JsonValue
from plait_server.core.limits import JOINED_INPUT_BYTES_MAX, MIB
from plait_server.ports.evaluator import ExpressionError, InvalidExpression, Work

DEADLINE_S: Final = 2.0
"""From the start of the process; long enough for what the library's 10,000 rounds can do honestly."""
MEMORY_BYTES_MAX: Final = 512 * MIB
"""Address space; the interpreter and the library take 150 MiB of it."""
PROCESSES_MAX: Final = 2
"""More at once would take the processors from the service itself."""

_MODULE: Final = "plait_server.adapters.expressions.helper"


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadStatistics:
    """What an offload is doing."""

    running: int
    """Processes at work."""
    waiting: int
    """Evaluations that wait for a process."""
    finished: int
    """Evaluations that gave a value or an error of their own."""
    stopped: int
    """Evaluations that were ended at their deadline or died at their memory limit."""


class ProcessOffload:
    """Runs evaluations in helper processes; implements the port's Offload.

    Args:
        evaluator: Tells what of the variables a source reads; nothing else is sent.
        deadline_s: Seconds that a process may take, its start included.
        memory_bytes: Address space that a process may use.
        processes: Processes that may run at once; others wait their turn, in order.
    """

    def __init__(
        self,
        evaluator: CelEvaluator,
        *,
        deadline_s: float = DEADLINE_S,
        memory_bytes: int = MEMORY_BYTES_MAX,
        processes: int = PROCESSES_MAX,
    ) -> None:
        self._evaluator = evaluator
        self._deadline_s = deadline_s
        self._memory_bytes = memory_bytes
        self._limiter = trio.CapacityLimiter(processes)
        self._waiting = self._finished = self._stopped = 0

    def __repr__(self) -> str:
        return f"<ProcessOffload {self.statistics()}>"

    def statistics(self) -> OffloadStatistics:
        """Say what it is doing and has done."""
        return OffloadStatistics(
            running=self._limiter.borrowed_tokens,
            waiting=self._waiting,
            finished=self._finished,
            stopped=self._stopped,
        )

    async def run(self, work: Work, source: str, variables: Mapping[str, JsonValue]) -> str:
        """Evaluate or render in a process; see the port.

        The wait for a process has no deadline of its own: each process ahead has one.
        """
        self._waiting += 1
        try:
            await self._limiter.acquire()
        finally:
            self._waiting -= 1
        try:
            return await self._run(work, source, variables)
        finally:
            self._limiter.release()

    async def _run(self, work: Work, source: str, variables: Mapping[str, JsonValue]) -> str:
        request = {
            "work": work.value,
            "source": source,
            "variables": self._visible(work, source, variables),
            "memory_bytes": self._memory_bytes,
            "cpu_s": math.ceil(self._deadline_s) + 1,
            "result_bytes": JOINED_INPUT_BYTES_MAX,
        }
        with trio.move_on_after(self._deadline_s):
            process = await trio.run_process(
                # -P: the working directory is no source of modules.
                [sys.executable, "-P", "-m", _MODULE],
                stdin=json.dumps(request).encode(),
                capture_stdout=True,
                # What a dying interpreter has to say is for nobody, and stderr is the service's own log.
                stderr=subprocess.DEVNULL,
                check=False,
                env=_environment(),
                deliver_cancel=_kill,
            )
            return self._answer(process, source)
        self._stopped += 1
        problem = f"it takes longer than {self._deadline_s:g} s; let a worker compute it"
        raise ExpressionError(messages.at(problem, source))

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

    def _answer(self, process: subprocess.CompletedProcess[bytes], source: str) -> str:
        if process.returncode != 0:
            self._stopped += 1
            limit = f"{self._memory_bytes // MIB:,} MiB"
            problem = (
                f"its process ended, most likely at its limit of {limit} of memory; let a worker compute it"
            )
            raise ExpressionError(messages.at(problem, source))
        self._finished += 1
        answer = cast("dict[str, str]", json.loads(process.stdout))
        if "error" in answer:
            raise ExpressionError(answer["error"])
        return answer["text"]


async def _kill(process: trio.Process) -> None:
    """End a process at once: it has nothing to put in order."""
    process.kill()


def _environment() -> dict[str, str]:
    """Give the helper the way to the modules and nothing else: the service's environment may hold secrets."""
    paths = [entry for entry in sys.path if entry]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
