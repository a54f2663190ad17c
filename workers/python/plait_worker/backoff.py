"""How long to wait before trying again: exponential, with full jitter.

Source: Marc Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015. Full jitter spreads a
thousand workers that lost the same server over the whole interval, instead of sending them back in waves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

INITIAL_S: Final = 0.1
MAX_S: Final = 5.0


class Backoff:
    """The delays of one sequence of tries.

    Args:
        jitter: draws a number in [0, 1).
        initial_s: the first ceiling, doubled at each try.
        max_s: the last one.
    """

    def __init__(
        self, jitter: Callable[[], float], *, initial_s: float = INITIAL_S, max_s: float = MAX_S
    ) -> None:
        self._jitter = jitter
        self._initial_s = initial_s
        self._max_s = max_s
        self._ceiling_s = initial_s

    def next_delay_s(self) -> float:
        """Draw the next delay, from 0 to the ceiling, and double the ceiling."""
        delay_s = self._ceiling_s * self._jitter()
        self._ceiling_s = min(self._ceiling_s * 2, self._max_s)
        return delay_s

    def reset(self) -> None:
        """Reset the delay, because the last attempt succeeded."""
        self._ceiling_s = self._initial_s
