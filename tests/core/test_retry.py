"""T1: whether a failed attempt is done again, and when."""

import pytest

from plait_server.core.definition.graph import RetryPolicy
from plait_server.core.run.retry import backoff_s, is_retried


def test_policy_defaults_are_those_of_the_law() -> None:
    """T1, T2: the figures in brackets."""
    policy = RetryPolicy()
    assert (policy.max_attempts, policy.initial_backoff_s, policy.multiplier, policy.max_backoff_s) == (
        1,
        1,
        2,
        60,
    )
    assert policy.retryable_codes == ()
    assert policy.max_lost_attempts == 3


@pytest.mark.parametrize(
    ("used", "code", "word", "retried"),
    [
        (1, "UNAVAILABLE", None, True),
        (2, "UNAVAILABLE", None, True),
        (3, "UNAVAILABLE", None, False),
        (1, "UNKNOWN", None, True),
        (1, "DEADLINE_EXCEEDED", None, True),
        (1, "SHOP_CLOSED", None, True),
        (1, "NOT_FOUND", None, False),
        (1, "NOT_FOUND", True, True),
        (3, "NOT_FOUND", True, False),
        (1, "UNAVAILABLE", False, False),
    ],
)
def test_attempt_is_retried_unless_another_cannot_help_or_the_worker_says_otherwise(
    used: int, code: str, word: bool | None, retried: bool
) -> None:
    """T1: every code is retried but those that another attempt cannot help; the worker's own word wins."""
    assert is_retried(RetryPolicy(max_attempts=3), used=used, code=code, retryable=word) is retried


@pytest.mark.parametrize(
    "code",
    [
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "UNAUTHENTICATED",
        "FAILED_PRECONDITION",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "DATA_LOSS",
        "CANCELLED",
        "INVALID_RESULT",
        "TOO_LARGE",
        "EXPRESSION",
    ],
)
def test_code_that_another_attempt_cannot_help_is_retried_only_if_listed(code: str) -> None:
    """T1: the codes in brackets; a policy that lists codes retries those alone."""
    assert not is_retried(RetryPolicy(max_attempts=2), used=1, code=code, retryable=None)
    listed = RetryPolicy(max_attempts=2, retryable_codes=(code,))
    assert is_retried(listed, used=1, code=code, retryable=None)
    assert not is_retried(listed, used=1, code="UNAVAILABLE", retryable=None)


@pytest.mark.parametrize(
    ("used", "bound_s"), [(1, 1.0), (2, 2.0), (3, 4.0), (6, 32.0), (7, 60.0), (5000, 60.0)]
)
def test_backoff_is_full_jitter_below_an_exponential_bound(used: int, bound_s: float) -> None:
    """T1: full jitter: anything from nothing to the bound; no overflow however many attempts."""
    policy = RetryPolicy(max_attempts=1000)
    assert backoff_s(policy, used=used, jitter=0.0) == 0
    assert backoff_s(policy, used=used, jitter=0.5) == pytest.approx(bound_s / 2)
    assert backoff_s(policy, used=used, jitter=0.999) == pytest.approx(bound_s * 0.999)
