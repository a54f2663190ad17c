"""The workers of the bench: `worker` does nothing, `patient` takes its time.

`PLAIT_BENCH_SLOTS` says how many slots each has [256]. They are two because each type that a worker serves costs
the server a little with every node.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

from plait_worker import Context, NodeFailure, Worker

_GATE_S: Final = 0.005

_SLOTS: Final = int(os.environ.get("PLAIT_BENCH_SLOTS", "256"))

worker = Worker(slots=_SLOTS)
patient = Worker(slots=_SLOTS)


@worker.node("bench.noop")
@patient.node("bench.noop")
async def noop(context: Context, value: object) -> None:
    """Do nothing."""
    del context, value


@patient.node("bench.sleep")
async def sleep(context: Context, seconds: float) -> float:
    """Sleep, and return the time of the start, in seconds since 1970."""
    del context
    begun_s = time.time()
    await asyncio.sleep(seconds)
    return begun_s


@patient.node("bench.fail")
async def fail(context: Context, seconds: float) -> None:
    """Sleep, then fail."""
    del context
    await asyncio.sleep(seconds)
    raise NodeFailure("INTERNAL", "as it was told")


@patient.node("bench.gate")
async def gate(context: Context, path: str) -> None:
    """Wait until there is a file."""
    del context
    while not Path(path).exists():  # noqa: ASYNC110, ASYNC240 # another process makes it
        await asyncio.sleep(_GATE_S)
