"""What handlers report while they run, brought from any thread to the session's event loop, in batches.

Each attempt has a buffer of its own, bounded by what it holds: the newest progress and heartbeat, usage added
up, the last 1,000 log lines or 256 KiB of them. A buffer that something was put into asks the loop, once, to be
emptied; that is done at once, but not more than 20 times a second. So a handler that reports a thousand times
a millisecond costs the loop, the server and the other attempts next to nothing.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from decimal import Decimal
from typing import Protocol

from plait_worker.limits import LOG_LINES_QUEUED_MAX, LOG_TRAY_BYTES_MAX, REPORT_INTERVAL_S
from plait_worker.session import WorkerSession
from plait_worker.usage import add_amount


class FlushesBuffers(Protocol):
    """The owner of buffers, which flushes them on request."""

    def request_flush(self, buffer: ReportBuffer) -> None:
        """Have a buffer flushed soon. May be called from any thread."""
        ...


class ReportBuffer:
    """The reports of one attempt that have not reached the session yet. Thread-safe."""

    __slots__ = (
        "_extension_s",
        "_has_heartbeat",
        "_heartbeat",
        "_is_due",
        "_lock",
        "_logs",
        "_logs_bytes",
        "_logs_dropped",
        "_owner",
        "_progress",
        "_token",
        "_totals",
        "_usage",
    )

    def __init__(self, token: str, owner: FlushesBuffers) -> None:
        self._token = token
        self._owner = owner
        self._lock = threading.Lock()
        self._is_due = False
        self._progress: tuple[float, str] | None = None
        self._extension_s: float | None = None
        self._has_heartbeat = False
        self._heartbeat: str | None = None
        self._usage: dict[str, Decimal] = {}
        # Since the start: a unit too many is refused here, where the handler sees it.
        self._totals: dict[str, Decimal] = {}
        self._logs: deque[tuple[str, str, int]] = deque()
        self._logs_bytes = 0
        self._logs_dropped = 0

    def put_progress(self, fraction: float, message: str) -> None:
        """Replace the progress."""
        with self._lock:
            self._progress = (fraction, message)
        self._request_flush()

    def put_heartbeat(self, details_json: str | None) -> None:
        """Replace the heartbeat."""
        with self._lock:
            self._has_heartbeat = True
            self._heartbeat = self._heartbeat if details_json is None else details_json
        self._request_flush()

    def put_extension(self, duration_s: float) -> None:
        """Replace the request for more time."""
        with self._lock:
            self._extension_s = duration_s
        self._request_flush()

    def put_usage(self, unit: str, amount: Decimal) -> None:
        """Add an amount."""
        with self._lock:
            add_amount(self._totals, unit, amount)
            add_amount(self._usage, unit, amount)
        self._request_flush()

    def put_log(self, level: str, message: str, time_ns: int) -> None:
        """Add a log line."""
        with self._lock:
            self._logs.append((level, message, time_ns))
            # Of a character at least one byte; messages are cut, so that it is not far from that.
            self._logs_bytes += len(message)
            while len(self._logs) > LOG_LINES_QUEUED_MAX or self._logs_bytes > LOG_TRAY_BYTES_MAX:
                self._logs_bytes -= len(self._logs.popleft()[1])
                self._logs_dropped += 1
        self._request_flush()

    def flush_into(self, session: WorkerSession) -> None:
        """Pass everything to the session. In the loop's thread only."""
        with self._lock:
            self._is_due = False
            progress, self._progress = self._progress, None
            has_heartbeat, self._has_heartbeat = self._has_heartbeat, False
            heartbeat, self._heartbeat = self._heartbeat, None
            extension_s, self._extension_s = self._extension_s, None
            usage, self._usage = self._usage, {}
            logs = tuple(self._logs)
            self._logs.clear()
            self._logs_bytes = 0
            dropped, self._logs_dropped = self._logs_dropped, 0
        token = self._token
        if extension_s is not None:
            session.extend(token, extension_s)
        if has_heartbeat:
            session.heartbeat(token, heartbeat)
        for unit, amount in usage.items():
            session.usage(token, unit, amount)
        if dropped:
            text = f"{dropped} log lines were dropped here: they came faster than they can be sent"
            session.log(token, "WARNING", text, logs[0][2])
        for level, message, time_ns in logs:
            session.log(token, level, message, time_ns)
        if progress is not None:
            session.progress(token, *progress)

    def _request_flush(self) -> None:
        with self._lock:
            if self._is_due:
                return
            self._is_due = True
        self._owner.request_flush(self)


class ReportBuffers:
    """The buffers of one worker. It belongs to one event loop.

    Args:
        session: receives the reports.
        on_heard: called in the loop's thread after the session has heard something.
    """

    def __init__(self, session: WorkerSession, on_heard: Callable[[], None]) -> None:
        self._session = session
        self._on_heard = on_heard
        self._loop = asyncio.get_running_loop()
        # Appending and popping are atomic; nothing else is done to it. At most one entry an attempt.
        self._due: deque[ReportBuffer] = deque()
        self._is_asked = False
        # When the buffers may be emptied again; in the past: at once.
        self._flush_time_s = self._loop.time()

    def buffer(self, token: str) -> ReportBuffer:
        """Make the buffer of an attempt."""
        return ReportBuffer(token, self)

    def request_flush(self, buffer: ReportBuffer) -> None:
        """Have a buffer flushed soon. May be called from any thread."""
        self._due.append(buffer)
        # Two threads may both find it false: then it is done twice. No buffer is left out: it turns false
        # before the first one is taken.
        if not self._is_asked:
            self._is_asked = True
            try:
                self._loop.call_soon_threadsafe(self._flush_in_time)
            except RuntimeError:
                # The loop is closed: a thread outlived its worker, and nobody listens any more.
                return

    def _flush_in_time(self) -> None:
        """Empty the buffers now, or when the interval since the last time is over."""
        self._loop.call_at(self._flush_time_s, self._flush)

    def _flush(self) -> None:
        self._flush_time_s = self._loop.time() + REPORT_INTERVAL_S
        self._is_asked = False
        while self._due:
            self._due.popleft().flush_into(self._session)
        self._on_heard()
