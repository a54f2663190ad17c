"""Limits as they are named and set."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import Final, NamedTuple

CONCURRENCY_MAX: Final = 1_000_000
"""Attempts at once; more than a server keeps in memory."""
RATE_MIN: Final = 1e-6
"""A start in eleven days."""
RATE_MAX: Final = 1_000_000.0
"""More starts a second than a server makes."""
LIMITS_MAX: Final = 10_000
"""The limits that are set; they are kept in memory and read at the start."""


class LimitKind(enum.Enum):
    """What a limit bounds. Lists have them in this order."""

    SERVER = "SERVER"
    """The attempts of the server."""
    NAMESPACE = "NAMESPACE"
    """The attempts of a namespace."""
    TYPE = "TYPE"
    """The attempts of a node type, in a namespace or in all of them."""
    KEY = "KEY"
    """The attempts with a concurrency key in a namespace."""


class LimitName(NamedTuple):
    """The name of a limit."""

    kind: LimitKind
    namespace: str
    """Empty for the server's limit, and for a node type's in all namespaces."""
    name: str
    """The node type or the key; empty for the others."""


SERVER: Final = LimitName(LimitKind.SERVER, "", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitValue:
    """How many attempts may run at once, and how often they may start."""

    max_concurrency: int | None = None
    """Attempts at once; None for any number."""
    rate: float | None = None
    """Starts a second, of node types only; None for any number."""
    burst: int = 0
    """The starts that may come at once after a pause; 0 for those of a second."""

    @property
    def binds(self) -> bool:
        """Whether it limits anything."""
        return self.max_concurrency is not None or self.rate is not None

    @property
    def burst_max(self) -> int:
        """The starts that may come at once, at least 1."""
        return self.burst or max(1, math.ceil(self.rate or 0.0))
