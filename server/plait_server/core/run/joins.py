"""The table of joins (section 6): when a node with incoming edges runs, and how it ends otherwise."""

from __future__ import annotations

import enum
import math
from fractions import Fraction

from plait_server.core.definition.graph import Join, JoinMode


class Verdict(enum.Enum):
    """What a join decided."""

    RUN = "RUN"
    DEAD_PATH = "DEAD_PATH"
    """SKIPPED: all edges were DEAD."""
    UPSTREAM_FAILED = "UPSTREAM_FAILED"
    """SKIPPED: an ALL join met a BROKEN edge."""
    ALL_BRANCHES_FAILED = "ALL_BRANCHES_FAILED"
    """FAILED: an ANY join has no ACTIVE edge and at least one BROKEN edge."""
    QUORUM_UNREACHABLE = "QUORUM_UNREACHABLE"
    """FAILED: too few edges are left for the quorum."""
    MIN_SUCCESS_RATE = "MIN_SUCCESS_RATE"
    """FAILED: the share of successes of a COLLECT join is too small."""

    @property
    def is_skip(self) -> bool:
        """Whether the node is SKIPPED by its join."""
        return self is Verdict.DEAD_PATH or self is Verdict.UPSTREAM_FAILED

    @property
    def is_failure(self) -> bool:
        """Whether the node FAILS by its join (J3)."""
        return self in _FAILURES


_FAILURES = frozenset({Verdict.ALL_BRANCHES_FAILED, Verdict.QUORUM_UNREACHABLE, Verdict.MIN_SUCCESS_RATE})


def judge(
    join: Join, *, total: int, active: int, active_error: int, dead: int, broken: int
) -> Verdict | None:
    """Decide a join by its counts of edges; None while it is open.

    `total` counts all incoming edges, `active_error` the ACTIVE edges from an `error` handle (J4).
    Constant time, so that resolving all edges of an execution stays linear in them.
    """
    unresolved = total - active - dead - broken
    if dead == total:
        return Verdict.DEAD_PATH
    if join.mode is JoinMode.ANY:
        if active:
            return Verdict.RUN
        return None if unresolved else Verdict.ALL_BRANCHES_FAILED
    if join.mode is JoinMode.QUORUM:
        needed = quorum_needed(join, total - dead)
        if active >= needed:
            return Verdict.RUN
        if active + unresolved < needed and active + broken:
            return Verdict.QUORUM_UNREACHABLE
        return None
    if unresolved:
        return None
    if join.mode is JoinMode.COLLECT:
        success = active - active_error
        enough = success >= exact(join.min_success_rate) * (total - dead)
        return Verdict.RUN if enough else Verdict.MIN_SUCCESS_RATE
    return Verdict.UPSTREAM_FAILED if broken else Verdict.RUN


def quorum_needed(join: Join, not_dead: int) -> int:
    """Return the number of ACTIVE edges that a quorum needs when `not_dead` edges are not DEAD; at least 1."""
    if join.count is not None:
        return join.count
    return max(1, math.ceil(exact(join.rate or 0.0) * not_dead))


def exact(rate: float) -> Fraction:
    """Return a rate as the decimal that the user wrote: 0.1 of 30 edges is 3, not 4."""
    return Fraction(repr(rate))
