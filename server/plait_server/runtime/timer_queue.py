"""The timers of one execution, by due time; equal ones in the order in which they were set."""

from __future__ import annotations

import heapq
from itertools import count

import trio

from plait_server.core.run.commands import SetTimer


class TimerQueue:
    """A heap of timers. An obsolete one stays until it is due, and the machine ignores it."""

    def __init__(self) -> None:
        self._timers: list[tuple[float, int, SetTimer]] = []
        self._order = count()

    def __repr__(self) -> str:
        return f"<TimerQueue {len(self._timers)}>"

    def set(self, timer: SetTimer) -> None:
        """Add a timer; its delay counts from now."""
        heapq.heappush(self._timers, (trio.current_time() + timer.delay_s, next(self._order), timer))

    def take_due(self, now_s: float) -> list[SetTimer]:
        """Remove and return the timers that are due at a trio time."""
        due: list[SetTimer] = []
        while self._timers and self._timers[0][0] <= now_s:
            due.append(heapq.heappop(self._timers)[2])
        return due

    @property
    def is_set(self) -> bool:
        """Whether there is any timer."""
        return bool(self._timers)

    @property
    def next_s(self) -> float:
        """The trio time at which the next timer is due; infinite without one."""
        return self._timers[0][0] if self._timers else float("inf")
