"""A histogram of durations, in bounded memory."""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

_SHORTEST_S: Final = 10e-6
_GROWTH: Final = 1.1
_COUNT: Final = 180
"""Up to 4.6 minutes, each bound a tenth above the one before: a quantile is at most a tenth too high."""
_BOUNDS_S: Final = tuple(_SHORTEST_S * _GROWTH**power for power in range(_COUNT))


class Durations:
    """Counts durations by size."""

    def __init__(self) -> None:
        self._counts = [0] * (_COUNT + 1)
        self._longest_s = 0.0
        self.count = 0
        """How many were added."""

    def __repr__(self) -> str:
        return f"<Durations {self.count}, p50 {self.quantile(0.5):.6f} s, p99 {self.quantile(0.99):.6f} s>"

    def add(self, duration_s: float) -> None:
        """Count one more."""
        self._counts[bisect_left(_BOUNDS_S, duration_s)] += 1
        self.count += 1
        self._longest_s = max(self._longest_s, duration_s)

    def quantile(self, share: float) -> float:
        """Return the seconds within which this share of the durations stayed, rounded up to a bound; 0 if none.

        Args:
            share: From 0 to 1, such as 0.99.
        """
        wanted, seen = share * self.count, 0
        for bound_s, count in zip(_BOUNDS_S, self._counts, strict=False):
            seen += count
            if seen >= wanted and seen:
                return min(bound_s, self._longest_s)
        return self._longest_s
