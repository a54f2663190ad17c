"""T1: whether a failed attempt is done again, and when."""

import pytest

from plait_server.core.graph import RetryPolicy
from plait_server.core.retry import backoff_s, is_retried


def test_policy_defaults_are_those_of_the_law() -> None:
    """T1, T2: the figures in brackets."""
    policy = RetryPolicy()
    assert (policy.max_attempts, policy.initial_backoff_s, policy.multiplier, policy.max_backoff_s) == (
        1,
        1,
        2,
        60,
    )
    assert policy.retryable_codes == ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "ABORTED")
    assert policy.max_lost_attempts == 3


@pytest.mark.parametrize(
    ("used", "code", "word", "retried"),
    [
        (1, "UNAVAILABLE", None, True),
        (2, "UNAVAILABLE", None, True),
        (3, "UNAVAILABLE", None, False),
        (1, "INTERNAL", None, False),
        (1, "INTERNAL", True, True),
        (3, "INTERNAL", True, False),
        (1, "UNAVAILABLE", False, False),
        (1, "DEADLINE_EXCEEDED", None, False),
    ],
)
def test_attempt_is_retried_by_code_or_by_the_workers_word(
    used: int, code: str, word: bool | None, retried: bool
) -> None:
    assert is_retried(RetryPolicy(max_attempts=3), used=used, code=code, retryable=word) is retried


@pytest.mark.parametrize(
    ("used", "bound_s"), [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (5000, 60.0)]
)
def test_backoff_is_full_jitter_below_an_exponential_bound(used: int, bound_s: float) -> None:
    """T1: full jitter: anything from nothing to the bound; no overflow however many attempts."""
    policy = RetryPolicy(max_attempts=1000)
    assert backoff_s(policy, used=used, jitter=0.0) == 0
    assert backoff_s(policy, used=used, jitter=0.5) == pytest.approx(bound_s / 2)
    assert backoff_s(policy, used=used, jitter=0.999) == pytest.approx(bound_s * 0.999)
