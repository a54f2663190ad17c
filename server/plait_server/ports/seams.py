"""The sources of nondeterminism besides stores and workers: wall clock, ids, randomness. Monotonic time is trio's.

The simulator provides its own, derived from one seed; nothing else in the server reads a clock, creates ids or
draws random numbers.
"""

from __future__ import annotations

from typing import Protocol


class Seams(Protocol):
    """The wall clock, a source of ids, and a source of random numbers."""

    def now_s(self) -> float:
        """Return the wall time, seconds since 1970. It may jump."""
        ...

    def new_id(self) -> str:
        """Return a new id that cannot be guessed: 26 characters of `[0-9a-z]`, in ascending order over time."""
        ...

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...
