"""The real seams: the system's clock, ids and random numbers."""

from __future__ import annotations

import random
import secrets
import time
from typing import Final

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case, without letters that look like digits."""


class SystemSeams:
    """The system's wall clock, ids that cannot be guessed, and random numbers."""

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 # jitter is not a secret

    def now_s(self) -> float:
        """Return the wall time, seconds since 1970."""
        return time.time()

    def new_id(self) -> str:
        """Return a new id of 48 bits of time and 80 random bits, like a ULID."""
        value = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
        return "".join(_ALPHABET[value >> shift & 31] for shift in range(125, -1, -5))

    def random(self) -> float:
        """Return a number in [0, 1)."""
        return self._random.random()
