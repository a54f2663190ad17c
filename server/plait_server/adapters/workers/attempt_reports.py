"""Passes workers' reports on attempts (progress, log lines, heartbeats) to the observer, within a quota.

Reports are kept at most once (A6), so those over the quota are dropped and counted; otherwise one handler that logs
in a loop would fill the server's log and block it.
"""

from __future__ import annotations

from typing import Final

import trio

from plait_server.core.limits import KIB
from plait_server.ports.observer import Observer
from plait_server.ports.workers import Assignment

LINES_A_SECOND: Final = 100
LINES_AT_ONCE: Final = 1_000
"""The burst that a worker may send after a pause."""
BYTES_A_SECOND: Final = 64 * KIB
BYTES_AT_ONCE: Final = 1024 * KIB
ALL_TIMES: Final = 10
"""All workers together may report as much as this many of them."""


class Bucket:
    """A token bucket: the available amount grows with time, up to a bound."""

    def __init__(self, a_second: float, at_once: float) -> None:
        self._a_second = a_second
        self._at_once = at_once
        self._left = at_once
        self._filled_s = trio.current_time()

    def has(self, amount: float) -> bool:
        """Return whether this amount is available now."""
        now_s = trio.current_time()
        self._left = min(self._at_once, self._left + (now_s - self._filled_s) * self._a_second)
        self._filled_s = now_s
        return self._left >= amount

    def take(self, amount: float) -> None:
        """Take an amount that `has` allowed."""
        self._left -= amount


class Quota:
    """How many lines and bytes may be reported, and how many lines were dropped."""

    def __init__(self, times: int = 1) -> None:
        self._lines = Bucket(times * LINES_A_SECOND, times * LINES_AT_ONCE)
        self._bytes = Bucket(times * BYTES_A_SECOND, times * BYTES_AT_ONCE)
        self.dropped = 0
        """Lines dropped since the last line that was passed on."""

    def allows(self, size: int) -> bool:
        """Return whether another line of this size may be passed on now."""
        return self._lines.has(1) and self._bytes.has(size)

    def take(self, size: int) -> None:
        """Count a line that is passed on."""
        self._lines.take(1)
        self._bytes.take(size)


class AttemptReports:
    """Passes reports to the observer, as far as the quotas of each worker and of all together allow."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._all = Quota(ALL_TIMES)

    def pass_on(self, quota: Quota, assignment: Assignment, kind: str, text: str) -> None:
        """Pass on a line of an attempt, or drop it.

        Args:
            quota: The quota of the attempt's worker.
            assignment: The attempt.
            kind: The kind of the report, or the level of a log line.
            text: The line.
        """
        size = len(text)
        if not (quota.allows(size) and self._all.allows(size)):
            quota.dropped += 1
            return
        if quota.dropped:
            text = f"{text} ({quota.dropped} lines of this worker before it were dropped: it says too much)"
            quota.dropped = 0
        quota.take(size)
        self._all.take(size)
        self._observer.worker_said(assignment, kind, text)
