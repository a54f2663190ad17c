"""Where the world comes in besides stores and workers: wall clock, ids, chance. Monotonic time is trio's.

The simulator gives its own, made from one seed; nothing else in the server reads a clock, makes an id or
rolls dice.
"""

from __future__ import annotations

from typing import Protocol


class Seams(Protocol):
    """The wall clock, ids and chance."""

    def now_s(self) -> float:
        """Return the wall time, seconds since 1970. It may jump."""
        ...

    def new_id(self) -> str:
        """Make an id that nobody can guess: 26 characters of `[0-9a-z]`, growing with time."""
        ...

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...
