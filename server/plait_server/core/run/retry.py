"""Whether and when a failed attempt is retried (T1).

Full jitter after "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015): the delay is uniform between
zero and the exponential bound, which spreads simultaneous retries best.
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
"""The codes that another attempt cannot help: a policy that lists no codes does not retry them."""


def is_retried(policy: RetryPolicy, *, used: int, code: str, retryable: bool | None) -> bool:
    """Return whether a failed attempt is followed by another.

    `used` counts the attempts used up in this run, this one included; `retryable` is what the worker
    reported, which wins over the policy's codes; None if it reported nothing.
    """
    if used >= policy.max_attempts:
        return False
    if retryable is not None:
        return retryable
    return code in policy.retryable_codes if policy.retryable_codes else code not in NOT_RETRIED


def backoff_s(policy: RetryPolicy, *, used: int, jitter: float) -> float:
    """Return the delay in seconds before the next attempt; `jitter` is in [0, 1)."""
    # The exponent is bounded: 2.0 ** 1100 would overflow, and max_backoff cuts it long before.
    bound = policy.initial_backoff_s * policy.multiplier ** min(used - 1, 150)
    return min(policy.max_backoff_s, bound) * jitter
