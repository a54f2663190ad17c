"""The context of a handler: its attempt, and the reports that it can send while it runs."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from plait_worker.failures import cut
from plait_worker.limits import (
    DURATION_MAX,
    FAILURE_MESSAGE_BYTES_MAX,
    HEARTBEAT_BYTES_MAX,
    LOG_MESSAGE_BYTES_MAX,
)
from plait_worker.reports import ReportBuffer
from plait_worker.session_events import Assigned
from plait_worker.usage import parse_amount
from plait_worker.values import JSONValue, decode_value, encode_value, size_of

LogLevel: TypeAlias = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
"""The levels of a log line."""

_LEVELS: Final = frozenset({"DEBUG", "INFO", "WARNING", "ERROR"})


class Context:
    """An attempt, seen from its handler. Every method may be called from any thread, and none blocks.

    What is said after the attempt has ended, or while the server is out of reach for long, may be lost: log
    lines and progress are kept at most once. Usage is not lost: it goes with the attempt's result.
    """

    __slots__ = ("_assigned", "_buffer", "_clock", "_deadline_s", "_worker_id", "cancelled", "is_extended")

    def __init__(
        self, assigned: Assigned, *, worker_id: str, buffer: ReportBuffer, clock: Callable[[], float]
    ) -> None:
        self._assigned = assigned
        self._worker_id = worker_id
        self._buffer = buffer
        self._clock = clock
        left_s = assigned.time_left_s
        self._deadline_s = None if left_s is None else clock() + left_s
        self.is_extended = False
        """Whether the attempt has asked for more time."""
        self.cancelled = threading.Event()
        """Set when the attempt is cancelled. A plain function looks at it now and then, or waits with it;
        a coroutine is cancelled by asyncio anyway."""

    def __repr__(self) -> str:
        """Show which attempt it is."""
        cancelled = " cancelled" if self.cancelled.is_set() else ""
        return f"<Context {self.execution_id} {self.node_path} attempt={self.attempt}{cancelled}>"

    @property
    def execution_id(self) -> str:
        """The execution's id."""
        return self._assigned.execution_id

    @property
    def node_path(self) -> str:
        """The node's path, such as `loop[3]/render`."""
        return self._assigned.node_path

    @property
    def type(self) -> str:
        """The node type."""
        return self._assigned.type

    @property
    def attempt(self) -> int:
        """The number of the attempt, from 1."""
        return self._assigned.attempt

    @property
    def run(self) -> int:
        """The run of the execution, from 1."""
        return self._assigned.run

    @property
    def worker_id(self) -> str:
        """The id of this worker."""
        return self._worker_id

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt and run of the node in the execution.

        A node's work is done at least once: hand this key to what the handler calls, so that it can tell a
        repetition.
        """
        return self._assigned.idempotency_key

    @property
    def traceparent(self) -> str:
        """The W3C traceparent of the attempt's span, the parent of the handler's spans; may be empty.

        If OpenTelemetry is installed, the handler already runs in a span that is its child.
        """
        return self._assigned.traceparent

    @property
    def tracestate(self) -> str:
        """The W3C tracestate that goes with `traceparent`; may be empty."""
        return self._assigned.tracestate

    @property
    def branch(self) -> str:
        """The path of the node's branch, such as `0-002`; `0` is the main branch."""
        return self._assigned.branch

    @property
    def time_left(self) -> timedelta | None:
        """How much time the attempt has; zero when it has run out, None when there is no bound."""
        if self._deadline_s is None:
            return None
        return timedelta(seconds=max(0.0, self._deadline_s - self._clock()))

    @property
    def deadline(self) -> datetime | None:
        """When the attempt's time runs out, by this machine's clock; None when there is no bound."""
        left = self.time_left
        return None if left is None else datetime.now(UTC) + left

    def raise_if_cancelled(self) -> None:
        """End the handler here if its attempt was cancelled.

        Raises:
            asyncio.CancelledError: if the attempt was cancelled. Not an `Exception`: let it pass.
        """
        if self.cancelled.is_set():
            raise asyncio.CancelledError

    def progress(self, fraction: float, message: str = "") -> None:
        """Report how far the attempt is. Only the newest report is kept.

        Raises:
            ValueError: if the fraction is not within 0 to 1.
        """
        if not 0 <= fraction <= 1:
            raise ValueError(f"progress must be within 0 to 1: {fraction}")
        # Numbers and texts of other kinds, such as Decimal and exceptions, would be refused when it is too late.
        self._buffer.put_progress(float(fraction), cut(str(message), FAILURE_MESSAGE_BYTES_MAX))

    def log(self, message: str, level: LogLevel = "INFO") -> None:
        """Write a line to the execution's log; cut at 8 KiB.

        Raises:
            ValueError: if the level is another than DEBUG, INFO, WARNING and ERROR.
        """
        if level not in _LEVELS:
            raise ValueError(f"the level of a log line must be DEBUG, INFO, WARNING or ERROR: {level!r}")
        self._buffer.put_log(level, cut(str(message), LOG_MESSAGE_BYTES_MAX), time.time_ns())

    def usage(self, unit: str, amount: Decimal | int | str) -> None:
        """Report what the attempt used since the last report, such as `usage("tokens", 812)`.

        Amounts of one unit add up. They count once, whether the attempt succeeds or not.

        Args:
            unit: `[A-Za-z0-9_.-]{1,128}`; at most 64 units an attempt.
            amount: exact, such as 12, "0.0025" or a Decimal.

        Raises:
            TypeError: if the amount is a float, which would not be exact.
            ValueError: if the amount is negative or out of bounds, or the unit is no name or one too many.
        """
        self._buffer.put_usage(unit, parse_amount(amount))

    def extend(self, seconds: float | timedelta) -> None:
        """Ask for more time: at least this long from now, where the attempt's own timeout would end it before.

        The timeout of the node still bounds it. An attempt without a bound needs no more time.

        Raises:
            ValueError: if it is not above 0, or more than 10 years.
        """
        duration_s = seconds.total_seconds() if isinstance(seconds, timedelta) else float(seconds)
        if not 0 < duration_s <= DURATION_MAX.total_seconds():
            raise ValueError(f"more time must be above 0 and at most {DURATION_MAX.days} days: {seconds}")
        if self._deadline_s is not None:
            self._deadline_s = max(self._deadline_s, self._clock() + duration_s)
            self.is_extended = True
            self._buffer.put_extension(duration_s)

    @property
    def heartbeat_details(self) -> JSONValue:
        """What an earlier attempt of the node said last by `heartbeat`; None if there is nothing.

        The handler can go on from there. An attempt that says nothing by itself leaves it to the next one.
        """
        details_json = self._assigned.heartbeat_details_json
        return None if details_json is None else decode_value(details_json)

    @property
    def heartbeat_timeout(self) -> timedelta | None:
        """How long the attempt may be silent before it fails; None when there is no bound."""
        timeout_s = self._assigned.heartbeat_timeout_s
        return None if timeout_s is None else timedelta(seconds=timeout_s)

    def heartbeat(self, details: object = None) -> None:
        """Say that the attempt is alive; needed if the node has a heartbeat timeout. Only the newest is kept.

        Any other report (progress, log, usage) says so too.

        Args:
            details: how far it is, as JSON of at most 32 KiB: if the attempt does not succeed, the next one
                finds them in `heartbeat_details`. None: nothing new.

        Raises:
            ValueError: if the details are not JSON, or larger.
        """
        details_json = None if details is None else encode_value(details)
        if details_json is not None and size_of(details_json) > HEARTBEAT_BYTES_MAX:
            raise ValueError(f"the details of a heartbeat have at most {HEARTBEAT_BYTES_MAX} bytes")
        self._buffer.put_heartbeat(details_json)
