"""How a client reaches its server: options of the channel, and for how long a lost server is tried again."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from plait_client.errors import PlaitError, ResourceExhausted, Unavailable

DEFAULT_ADDRESS: Final = "127.0.0.1:7480"
DEFAULT_NAMESPACE: Final = "default"

MESSAGE_BYTES_MAX: Final = 16 * 1024 * 1024
"""The largest request that the server accepts, one with a graph; its responses are smaller."""

CHANNEL_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    # A half-open peer is found within 10 s + 5 s. What bounds the wait for the answer in today's gRPC is
    # ping_timeout_ms: with keepalive_timeout_ms alone it took a minute.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # How often to try again is decided here, call by call; the channel's own waits must not be longer.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    ("grpc.max_reconnect_backoff_ms", 1_000),
    ("grpc.enable_retries", 0),
)

HEALTH_METHOD: Final = "/grpc.health.v1.Health/Check"
"""Its request holds a name and its response an enum, as the wrappers of a string and of an integer do, so that nothing
beyond protobuf is needed."""
HEALTH_SERVING: Final = 1

BACKOFF_INITIAL_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0
OVERLOADED: Final = "OVERLOADED"
"""The reason for which calls are refused for a time: of all, or of an address whose credentials failed too often."""
QUEUE_FULL: Final = "QUEUE_FULL"
"""The reason for which a submission is refused when as many executions of its namespace wait as may."""


@dataclass(slots=True, kw_only=True)
class Patience:
    """For how long a server that is not there is tried again."""

    connect_s: float
    """Until it has answered for the first time: the address may be wrong."""
    retry_s: float
    """Once it has: it may be starting again."""
    on_lost: Callable[[PlaitError], None] | None = None
    """Called with the error when a server that has answered is lost or refuses calls for a time, before it is tried
    again."""
    on_back: Callable[[float], None] | None = None
    """Called when it answers again, with the seconds for which it did not."""
    has_answered: bool = False
    """Whether it ever has."""

    def tries(self, clock: Callable[[], float], queue_s: float = 0.0) -> Tries:
        """Begin the tries of one call; `queue_s` is how long a full queue is tried again."""
        return Tries(self, clock, queue_s)


class Tries:
    """The tries of one call, with full jitter between them (Brooker, Exponential Backoff And Jitter)."""

    __slots__ = ("_ceiling_s", "_clock", "_failing_since_s", "_is_lost", "_patience", "_queue_s")

    def __init__(self, patience: Patience, clock: Callable[[], float], queue_s: float) -> None:
        self._patience = patience
        self._queue_s = queue_s
        self._clock = clock
        self._failing_since_s: float | None = None
        self._is_lost = False
        self._ceiling_s = BACKOFF_INITIAL_S

    def succeeded(self) -> None:
        """Record that the server answered, so that the time for retries starts again if it is lost."""
        self._patience.has_answered = True
        since_s, is_lost = self._failing_since_s, self._is_lost
        self._failing_since_s, self._is_lost = None, False
        self._ceiling_s = BACKOFF_INITIAL_S
        if since_s is not None and is_lost and self._patience.on_back is not None:
            self._patience.on_back(self._clock() - since_s)

    def delay_after(self, error: PlaitError) -> float | None:
        """Return the seconds until the next attempt; None if there will be none."""
        if error.reason:
            self._patience.has_answered = True
        is_worth_it = isinstance(error, Unavailable) or (
            isinstance(error, ResourceExhausted) and error.retry_after is not None
        )
        now_s = self._clock()
        if self._failing_since_s is None:
            self._failing_since_s = now_s
        delay_s = self._ceiling_s * random.random()  # noqa: S311 -- Spreads retries; guessing it gains nothing.
        self._ceiling_s = min(self._ceiling_s * 2, BACKOFF_MAX_S)
        if error.retry_after is not None:
            delay_s += error.retry_after.total_seconds()
        budget_s = self._patience.retry_s if self._patience.has_answered else self._patience.connect_s
        if error.reason == QUEUE_FULL:
            # Only the caller knows whether the work may wait; the queue may stay full for hours.
            budget_s = self._queue_s
        if not is_worth_it or now_s + delay_s > self._failing_since_s + budget_s:
            return None
        is_lost = isinstance(error, Unavailable) or error.reason == OVERLOADED
        if is_lost and self._patience.has_answered and not self._is_lost:
            self._is_lost = True
            if self._patience.on_lost is not None:
                self._patience.on_lost(error)
        return delay_s
