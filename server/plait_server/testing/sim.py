"""`plait sim`: runs seeds of the simulator, says which failed and why, and what was covered."""

from __future__ import annotations

import contextlib
import hashlib
import json as json_
import logging
import sys
import time
from collections.abc import Generator
from typing import Final

from plait_server.testing.simulation.coverage import Coverage
from plait_server.testing.simulation.run import Result, simulate

FAILURES_SHOWN: Final = 3
"""Failing seeds that are shown in full; of further ones the number and the check."""


def run(seed: int, count: int, *, json: bool) -> int:
    """Run seeds one after another and print what came of them.

    A failing seed fails in the same way whenever it is run alone: `run(seed, 1)`.

    Args:
        seed: The first.
        count: How many, in order.
        json: Whether to print JSON lines: one a failing seed, and one at the end.

    Returns:
        The exit code: 0 when all passed, 1 when one failed.
    """
    summary = Summary()
    begun_s = time.perf_counter()
    with silenced():
        for number in range(seed, seed + count):
            result = simulate(number)
            summary.take(result)
            if result.failure:
                _tell(result, summary.failed, json=json)
    _tell_end(summary, time.perf_counter() - begun_s, json=json)
    return 1 if summary.failed else 0


class Summary:
    """What many seeds came to."""

    def __init__(self) -> None:
        self.seeds = 0
        self.failed = 0
        self.executions = 0
        self.events = 0
        self.virtual_s = 0.0
        self.coverage: Final = Coverage()
        self._digest = hashlib.sha256()

    def __repr__(self) -> str:
        return f"<Summary of {self.seeds} seeds, {self.failed} failed>"

    @property
    def digest(self) -> str:
        """A hash over all events of all executions of all seeds."""
        return self._digest.hexdigest()

    def take(self, result: Result) -> None:
        """Add a seed."""
        self.seeds += 1
        self.failed += bool(result.failure)
        self.executions += result.executions
        self.events += result.events
        self.virtual_s += result.virtual_s
        self.coverage.add(result.coverage)
        self._digest.update(result.digest.encode())


@contextlib.contextmanager
def silenced() -> Generator[None]:
    """Keep the logs of server and workers back: faults are what a simulation is about."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def _tell(result: Result, failed: int, *, json: bool) -> None:
    if json:
        _print(json_.dumps({"seed": result.seed, "check": result.check, "failure": result.failure}))
    elif failed <= FAILURES_SHOWN:
        _print(result.failure + "\n")
    else:
        _print(f"seed {result.seed} fails {result.check}")


def _tell_end(summary: Summary, real_s: float, *, json: bool) -> None:
    if json:
        end = {
            "seeds": summary.seeds,
            "failed": summary.failed,
            "executions": summary.executions,
            "events": summary.events,
            "virtual_s": round(summary.virtual_s, 3),
            "real_s": round(real_s, 3),
            "digest": summary.digest,
            "coverage": dict(sorted(summary.coverage.counts.items())),
        }
        _print(json_.dumps(end))
        return
    _print(summary.coverage.table())
    a_minute = summary.executions / real_s * 60 if real_s else 0.0
    _print(
        f"\n{summary.seeds} seeds, {summary.failed} failed\n"
        f"{summary.executions} executions with {summary.events} events, {summary.virtual_s / 3600:.1f} virtual hours "
        f"in {real_s:.1f} s ({a_minute:.0f} executions a minute)\n"
        f"digest {summary.digest}"
    )


def _print(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
