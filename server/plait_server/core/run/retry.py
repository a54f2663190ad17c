"""Whether a failed attempt is done again, and when (T1).

Full jitter after "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): the delay is uniform between
nothing and the exponential bound, which spreads a herd best.
"""

from __future__ import annotations

from typing import Final

from plait_server.core.definition.graph import RetryPolicy

NOT_RETRIED: Final = frozenset(
    {
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
    },
)
"""The codes that another attempt cannot help: what a policy that lists none does not retry."""


def is_retried(policy: RetryPolicy, *, used: int, code: str, retryable: bool | None) -> bool:
    """Say whether an attempt that failed is followed by another.

    `used` counts the attempts used up in this run, this one included; `retryable` is the worker's own word,
    which wins over the policy's codes; None if it said nothing.
    """
    if used >= policy.max_attempts:
        return False
    if retryable is not None:
        return retryable
    return code in policy.retryable_codes if policy.retryable_codes else code not in NOT_RETRIED


def backoff_s(policy: RetryPolicy, *, used: int, jitter: float) -> float:
    """Compute the delay in seconds before the next attempt; `jitter` is in [0, 1)."""
    # The exponent is bounded: 2.0 ** 1100 would overflow, and max_backoff cuts it long before.
    bound = policy.initial_backoff_s * policy.multiplier ** min(used - 1, 150)
    return min(policy.max_backoff_s, bound) * jitter
