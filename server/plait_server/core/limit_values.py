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
NAME_CHARS_MAX: Final = 128
"""A node type, or a concurrency key."""


class LimitKind(enum.IntEnum):
    """What a limit bounds. Values are those of plait.v1.LimitKind; lists have them in this order."""

    SERVER = 1
    """The attempts of the server."""
    NAMESPACE = 2
    """The attempts of a namespace."""
    TYPE = 3
    """The attempts of a node type, in a namespace or in all of them."""
    KEY = 4
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


def problems_of(name: LimitName, value: LimitValue) -> list[tuple[str, str]]:
    """Return what is wrong with a limit: the fields and the problems, which say what to do instead."""
    problems: list[tuple[str, str]] = []
    most, is_type = value.max_concurrency, name.kind is LimitKind.TYPE
    if most == 0:
        problems.append(("max_concurrency", "0 would let nothing run; pause executions, or remove the limit"))
    elif most is not None and not 1 <= most <= CONCURRENCY_MAX:
        problems.append(("max_concurrency", f"must be 1 to {CONCURRENCY_MAX:,}"))
    elif most is None and not (is_type and value.rate is not None):
        other = ", or a rate" if is_type else ""
        problems.append(("max_concurrency", f"is missing; give 1 to {CONCURRENCY_MAX:,}{other}"))
    if value.rate is not None and not is_type:
        problems.append(("rate", "is for node types only; set a limit of the kind TYPE"))
    elif value.rate is not None and not RATE_MIN <= value.rate <= RATE_MAX:
        problems.append(("rate", f"must be {RATE_MIN:f} to {RATE_MAX:,.0f} starts a second"))
    if not 0 <= value.burst <= CONCURRENCY_MAX:
        problems.append(("burst", f"must be 1 to {CONCURRENCY_MAX:,}, or 0 for the starts of a second"))
    elif value.burst and value.rate is None:
        problems.append(("burst", "belongs to a rate; give one, or leave it out"))
    return problems
