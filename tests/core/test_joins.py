"""The table of joins against every small combination of edges (section 6)."""

import itertools
import math
from fractions import Fraction

import pytest

from plait_server.core.definition.graph import Join, JoinMode
from plait_server.core.run.joins import Verdict, judge, quorum_needed

JOINS = [
    Join(),
    Join(mode=JoinMode.ANY),
    *(Join(mode=JoinMode.QUORUM, count=count) for count in (1, 2, 3)),
    *(Join(mode=JoinMode.QUORUM, rate=rate) for rate in (0.1, 0.34, 0.5, 0.67, 1.0)),
    *(Join(mode=JoinMode.COLLECT, min_success_rate=rate) for rate in (0.0, 0.34, 0.5, 1.0)),
]


def expected(join: Join, total: int, active: int, errors: int, dead: int, broken: int) -> Verdict | None:
    """The table of section 6, read line by line."""
    unresolved = total - active - dead - broken
    if dead == total:
        return Verdict.DEAD_PATH
    match join.mode:
        case JoinMode.ALL:
            if unresolved:
                return None
            return Verdict.UPSTREAM_FAILED if broken else Verdict.RUN
        case JoinMode.ANY:
            if active:
                return Verdict.RUN
            return None if unresolved else Verdict.ALL_BRANCHES_FAILED
        case JoinMode.QUORUM:
            rate = Fraction(str(join.rate or 0))
            needed = join.count or max(1, math.ceil(rate * (total - dead)))
            if active >= needed:
                return Verdict.RUN
            unreachable = active + unresolved < needed and active + broken >= 1
            return Verdict.QUORUM_UNREACHABLE if unreachable else None
        case JoinMode.COLLECT:
            if unresolved:
                return None
            share = Fraction(active - errors, active + broken)
            return Verdict.RUN if share >= Fraction(str(join.min_success_rate)) else Verdict.MIN_SUCCESS_RATE


@pytest.mark.parametrize("join", JOINS, ids=str)
def test_judge_follows_the_table(join: Join) -> None:
    for total in range(max(1, join.count or 1), 6):
        counts = itertools.product(range(total + 1), repeat=3)
        for active, dead, broken in counts:
            if active + dead + broken > total:
                continue
            for errors in range(active + 1):
                verdict = judge(
                    join, total=total, active=active, active_error=errors, dead=dead, broken=broken
                )
                wanted = expected(join, total, active, errors, dead, broken)
                assert verdict is wanted, (total, active, errors, dead, broken)


def test_rate_is_a_decimal_rounded_up_and_at_least_one() -> None:
    """Section 6: `rate` of the edges not DEAD: a decimal, rounded up, at least 1."""
    assert quorum_needed(Join(mode=JoinMode.QUORUM, rate=0.1), 30) == 3
    assert quorum_needed(Join(mode=JoinMode.QUORUM, rate=0.1), 31) == 4
    assert quorum_needed(Join(mode=JoinMode.QUORUM, rate=0.29), 100) == 29
    assert quorum_needed(Join(mode=JoinMode.QUORUM, rate=0.1), 0) == 1
