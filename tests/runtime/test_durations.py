from __future__ import annotations

import pytest

from plait_server.runtime.durations import Durations


def test_no_durations_have_no_quantile() -> None:
    assert Durations().quantile(0.5) == 0.0


@pytest.mark.parametrize("unit_s", [20e-6, 1e-3, 1.0])
def test_a_quantile_is_at_most_a_tenth_too_high(unit_s: float) -> None:
    durations = Durations()
    for number in range(1, 101):
        durations.add(number * unit_s)
    assert durations.count == 100
    for share, exact_s in [(0.5, 50 * unit_s), (0.99, 99 * unit_s)]:
        assert exact_s <= durations.quantile(share) <= 1.1 * exact_s
    assert durations.quantile(1.0) == 100 * unit_s


def test_durations_beyond_the_last_bound_count_as_the_longest() -> None:
    durations = Durations()
    durations.add(1e-9)
    durations.add(1e6)
    assert durations.quantile(0.5) <= 10e-6
    assert durations.quantile(1.0) == 1e6
