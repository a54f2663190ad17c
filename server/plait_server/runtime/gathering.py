"""Gathering: results that arrive close together, of all executions, are decided and made durable together.

A worker that writes a frame for each message delivers one result at a time, and 64 small executions end their nodes at
64 different moments. Each single result costs a step, a commit and a frame, far more than the result itself. So before
a step an execution waits while the server keeps receiving results: `GATHER_S` at a time, `GATHER_S_MAX` in total. All
waiting executions continue at the same instant, and the committer appends their steps together.

There is no wait
1. while at most `ATTEMPTS_FEW` attempts are at workers, so that chains and sequences are not slowed down;
2. if the last `RESULTS_MANY` results took longer than `MANY_S`: few results arrive, even if many attempts are running;
3. with `INPUTS_ENOUGH` inputs, because the worker gathers by itself.

The waits are trio's, so they are exact under a virtual clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

import trio

GATHER_S: Final = 0.00025
GATHER_S_MAX: Final = 0.001
ATTEMPTS_FEW: Final = 4
RESULTS_MANY: Final = 4
MANY_S: Final = 0.004
INPUTS_ENOUGH: Final = 32


class Gathering:
    """Decides when the executions of a server take their steps."""

    def __init__(self) -> None:
        self.attempts = 0
        """Attempts at workers; the code that starts them updates this."""
        self._results = 0
        self._times_s: deque[float] = deque(maxlen=RESULTS_MANY)
        self._turn: trio.Event | None = None
        """Set when the waiting executions continue; None if none waits."""

    def __repr__(self) -> str:
        return f"<Gathering {self.attempts} attempts, {'waiting' if self._turn is not None else 'idle'}>"

    def note_result(self) -> None:
        """Record that a result arrived."""
        self._results += 1
        self._times_s.append(trio.current_time())

    async def wait(self, inputs: int) -> None:
        """Wait before a step with this many inputs, if more results are expected; not a checkpoint otherwise."""
        if self.attempts <= ATTEMPTS_FEW or inputs >= INPUTS_ENOUGH or not self._do_many_come():
            return
        if self._turn is not None:
            await self._turn.wait()
            return
        turn = self._turn = trio.Event()
        end_s = trio.current_time() + GATHER_S_MAX
        try:
            known = -1
            while known != self._results and trio.current_time() < end_s:
                known = self._results
                await trio.sleep(GATHER_S)
        finally:
            self._turn = None
            turn.set()

    def _do_many_come(self) -> bool:
        times_s = self._times_s
        return len(times_s) == RESULTS_MANY and trio.current_time() - times_s[0] <= MANY_S
