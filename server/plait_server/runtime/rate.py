"""Rates of node types: how often attempts may start (Q1), and which queues wait for their time.

A rate is a token bucket in the form of the generic cell rate algorithm (ITU-T I.371): one number says when the bucket
will be full again, so that the time of the next permit is exact, and a timer that fires then finds it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from plait_server.runtime.namespace_queues import TypeQueue

_TOLERANCE_S: Final = 1e-9
"""Sums of intervals are off by less than this; without it the last start of a burst might come a moment late."""
_SPARE_ENTRIES: Final = 16
"""Outdated entries that are always allowed, so that a small heap is not rebuilt all the time."""


class Rate:
    """A token bucket. It is full when it is made."""

    __slots__ = ("_burst", "_full_s", "_per_s")

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._full_s = float("-inf")
        """The trio time at which the bucket is full if nothing starts."""

    def __repr__(self) -> str:
        return f"<Rate {self._per_s:g}/s, burst {self._burst}>"

    @property
    def next_s(self) -> float:
        """The trio time from which the next attempt may start."""
        return self._full_s - (self._burst - 1) / self._per_s - _TOLERANCE_S

    def take(self, now_s: float) -> None:
        """Account for a start."""
        self._full_s = max(self._full_s, now_s) + 1 / self._per_s

    def change(self, per_s: float, burst: int, now_s: float) -> None:
        """Change rate and burst; what is in the bucket stays, as far as it fits in."""
        tokens = min(burst, self._burst - max(0.0, self._full_s - now_s) * self._per_s)
        self._per_s, self._burst = per_s, burst
        self._full_s = now_s + (burst - tokens) / per_s


class PacedQueues:
    """The queues of node types that only lack a rate, by the time at which they can go on."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, TypeQueue]] = []
        self._count = count()
        self._waiting = 0

    def __repr__(self) -> str:
        return f"<PacedQueues {self._waiting} waiting>"

    @property
    def next_s(self) -> float:
        """The first of these times; infinite if there is none."""
        entries = self._entries
        while entries and entries[0][2].paced_until_s != entries[0][0]:
            heapq.heappop(entries)
        return entries[0][0] if entries else float("inf")

    def add(self, kind: TypeQueue, time_s: float) -> None:
        """Let a queue wait until a time, whatever time it waited for before."""
        if kind.paced_until_s == time_s:
            return
        if kind.paced_until_s is None:
            self._waiting += 1
        kind.paced_until_s = time_s
        heapq.heappush(self._entries, (time_s, next(self._count), kind))
        if len(self._entries) > 2 * self._waiting + _SPARE_ENTRIES:
            self._entries = [each for each in self._entries if each[2].paced_until_s == each[0]]
            heapq.heapify(self._entries)

    def drop(self, kind: TypeQueue) -> None:
        """Let a queue wait no longer. Idempotent."""
        if kind.paced_until_s is not None:
            kind.paced_until_s = None
            self._waiting -= 1

    def take_due(self, now_s: float) -> Iterator[TypeQueue]:
        """Remove and return the queues whose time has come."""
        while self.next_s <= now_s:
            kind = heapq.heappop(self._entries)[2]
            self.drop(kind)
            yield kind
