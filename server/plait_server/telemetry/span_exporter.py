"""Sends batches of spans to a collector. Nothing waits for it; what the collector does not take is dropped and counted.

The rules:

- `put_nowait` never waits and never fails. The queue is bounded in spans and in bytes; batches that are being sent
  count as queued. A new batch for which there is no room is dropped, as the OpenTelemetry SDK does.
- A request that failed is retried if OTLP allows it, after a pause that doubles each time, with jitter, or is as long
  as the collector asks for. A batch is dropped when its next try would come later than `GIVE_UP_S` after it was put;
  each is tried at least once. A batch that is refused for good is dropped at once, but the pause is made all the
  same, so that a collector that refuses everything does not get requests without end.
- A few requests are in flight at once (`REQUESTS_MAX`): on a busy loop it takes many turns until an answer is read,
  and the collector may be far away.
- Trouble is logged once when it begins, and once when it is over, with the number of spans lost. It is over when a
  request has succeeded and nothing failed or was dropped for `QUIET_S`. If it lasts until the end, that is logged.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

import trio

from plait_server.ports.span_sender import SendFailed, Sent, SpanSender
from plait_server.telemetry.logs import one_line

logger = logging.getLogger(__name__)

SPANS_MAX: Final = 65_536
"""A fan-out of 10,000 nodes makes 40,000 spans, most of them within seconds."""
BYTES_MAX: Final = 32 * 2**20
"""A span has 300 to 500 bytes. With long failure messages the queue holds fewer than SPANS_MAX."""
REQUESTS_MAX: Final = 4
TIMEOUT_S: Final = 10.0
"""The default of OTEL_EXPORTER_OTLP_TIMEOUT."""
PAUSE_S: Final = 1.0
"""The pause after the first failure."""
PAUSE_MAX_S: Final = 5.0
"""A collector that comes back is noticed within this time."""
GIVE_UP_S: Final = 300.0
"""As long as an OpenTelemetry Collector itself retries; enough for a restart of the collector."""
QUIET_S: Final = 10.0
CLOSE_S: Final = 1.0
"""How long the sender may take to close."""
_MESSAGE_CHARS_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanExporterStatistics:
    """A snapshot. Each span that was put is counted in one of sent, dropped, rejected and queued."""

    sent: int
    """Spans that the collector accepted."""
    dropped: int
    """Spans that found no room, were refused, or were given up."""
    rejected: int
    """Spans that the collector rejected, though it accepted the request."""
    queued: int
    """Spans that wait or are being sent."""
    queued_bytes: int
    is_failing: bool
    """Whether trouble has begun and is not over."""


class _Batch(NamedTuple):
    request: bytes
    span_count: int
    give_up_s: float
    """After this time it is not tried again, by trio's clock."""


class SpanExporter:
    """Sends batches by a sender, and closes it. `run` is started once, by the server's nursery.

    Args:
        sender: Sends a request to the collector.
        random: Returns a number in [0, 1), for jitter.
        spans_max: How many spans may be held.
        bytes_max: How many bytes of requests may be held.
        timeout_s: How long one request may take.
    """

    def __init__(
        self,
        sender: SpanSender,
        random: Callable[[], float],
        *,
        spans_max: int = SPANS_MAX,
        bytes_max: int = BYTES_MAX,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._sender = sender
        self._random = random
        self._spans_max = spans_max
        self._bytes_max = bytes_max
        self._timeout_s = timeout_s
        self._queue: deque[_Batch] = deque()
        self._held = self._held_bytes = 0
        """Spans and bytes that are queued or being sent."""
        self._sent = self._dropped = self._rejected = 0
        self._arrived = trio.lowlevel.ParkingLot()
        self._left = trio.lowlevel.ParkingLot()
        self._flushing = trio.Event()
        self._trouble = _Trouble()
        self._has_warned = False

    def __repr__(self) -> str:
        return f"<SpanExporter {self.statistics()}>"

    def statistics(self) -> SpanExporterStatistics:
        """Take a snapshot."""
        return SpanExporterStatistics(
            sent=self._sent,
            dropped=self._dropped,
            rejected=self._rejected,
            queued=self._held,
            queued_bytes=self._held_bytes,
            is_failing=self._trouble.has_begun,
        )

    def put_nowait(self, request: bytes, span_count: int) -> None:
        """Queue an ExportTraceServiceRequest of `span_count` spans, or drop it if there is no room."""
        if self._held + span_count > self._spans_max or self._held_bytes + len(request) > self._bytes_max:
            self._drop(span_count, f"the queue is full: {self._held} spans, {self._held_bytes} bytes")
            return
        self._held += span_count
        self._held_bytes += len(request)
        self._queue.append(_Batch(request, span_count, trio.current_time() + GIVE_UP_S))
        self._arrived.unpark()

    async def wait_room(self) -> None:
        """Wait until the queue is at most half full, in spans and in bytes."""
        while 2 * self._held > self._spans_max or 2 * self._held_bytes > self._bytes_max:
            await self._left.park()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send batches until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(REQUESTS_MAX):
                    nursery.start_soon(self._send_batches)
                nursery.start_soon(self._trouble.log, self.statistics)
                task_status.started()
        finally:
            if self._held or self._trouble.has_begun:
                logger.warning(
                    "%d spans were not sent before the end; %d were dropped and %d rejected since the start",
                    self._held,
                    self._dropped,
                    self._rejected,
                )
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await self._sender.aclose()

    async def flush(self, within_s: float) -> None:
        """Send what is queued, for at most `within_s` seconds; called before `run` is cancelled.

        Pauses end, and from now on nothing is retried, so that a collector that is away does not delay the end.
        """
        self._flushing.set()
        with trio.move_on_after(within_s):
            while self._held:
                await self._left.park()

    async def _send_batches(self) -> None:
        failures = 0
        """In a row, whether of one batch or of several."""
        while True:
            while not self._queue:
                await self._arrived.park()
            batch = self._queue.popleft()
            while (failure := await self._send(batch)) is not None:
                failures += 1
                pause_s = self._pause_s(failures, failure.retry_after_s)
                is_over = trio.current_time() + pause_s >= batch.give_up_s or self._flushing.is_set()
                if is_over or not failure.is_retryable:
                    self._release(batch)
                    self._drop(batch.span_count, str(failure))
                    await self._pause(pause_s)
                    break
                self._trouble.note(str(failure))
                await self._pause(pause_s)
            else:
                failures = 0

    async def _send(self, batch: _Batch) -> SendFailed | None:
        """Send a batch; return why that failed, None if it did not."""
        sent = Sent()
        failure: SendFailed | None = SendFailed(f"no answer in {self._timeout_s:g} s", is_retryable=True)
        with trio.move_on_after(self._timeout_s):
            try:
                sent = await self._sender.send(batch.request)
                failure = None
            except SendFailed as error:
                failure = error
            # Whatever else a sender's libraries raise costs spans, and not the server.
            except Exception as error:
                logger.debug("a bug made sending spans fail", exc_info=error)
                failure = SendFailed(f"{type(error).__name__}: {error}", is_retryable=False)
        if failure is not None:
            return failure
        self._release(batch)
        rejected = max(0, min(sent.rejected, batch.span_count))
        self._rejected += rejected
        self._sent += batch.span_count - rejected
        self._trouble.note_success()
        if rejected:
            text = sent.message or "it did not say why"
            self._trouble.note(f"the collector rejected {rejected} of {batch.span_count} spans: {text}")
        elif sent.message and not self._has_warned:
            self._has_warned = True
            logger.warning("the collector accepted the spans, with a warning: %s", _shown(sent.message))
        return None

    def _pause_s(self, failures: int, retry_after_s: float | None) -> float:
        # The exponent is bounded: a float overflows beyond 2.0**1023.
        longest_s = min(PAUSE_MAX_S, PAUSE_S * 2.0 ** min(failures - 1, 10))
        pause_s = longest_s * (1 + self._random()) / 2
        return max(pause_s, min(retry_after_s or 0.0, GIVE_UP_S))

    async def _pause(self, pause_s: float) -> None:
        with trio.move_on_after(pause_s):
            await self._flushing.wait()

    def _release(self, batch: _Batch) -> None:
        self._held -= batch.span_count
        self._held_bytes -= len(batch.request)
        self._left.unpark_all()

    def _drop(self, span_count: int, reason: str) -> None:
        self._dropped += span_count
        self._trouble.note(reason)


class _Trouble:
    """Knows whether spans reach the collector, and logs when that changes."""

    def __init__(self) -> None:
        self.has_begun = False
        self._reason = ""
        self._last_s = 0.0
        self._has_succeeded_since = False
        self._changed = trio.lowlevel.ParkingLot()

    def note(self, reason: str) -> None:
        """Record a failure."""
        self._last_s = trio.current_time()
        self._has_succeeded_since = False
        if not self.has_begun:
            self.has_begun = True
            self._reason = reason
            self._changed.unpark()

    def note_success(self) -> None:
        """Record that a request succeeded."""
        if not self._has_succeeded_since:
            self._has_succeeded_since = True
            self._changed.unpark()

    async def log(self, statistics: Callable[[], SpanExporterStatistics]) -> None:
        """Log when trouble begins and when it is over, until cancelled."""
        while True:
            before = statistics()
            while not self.has_begun:
                await self._changed.park()
            reason = _shown(self._reason)
            text = "spans do not reach the collector; executions are not affected, spans may be lost: %s"
            logger.warning(text, reason)
            while trio.current_time() < self._last_s + QUIET_S or not self._has_succeeded_since:
                if self._has_succeeded_since:
                    await trio.sleep_until(self._last_s + QUIET_S)
                else:
                    await self._changed.park()
            self.has_begun = False
            after = statistics()
            logger.warning(
                "spans reach the collector again; %d were dropped and %d rejected",
                after.dropped - before.dropped,
                after.rejected - before.rejected,
            )


def _shown(text: str) -> str:
    return one_line(text[:_MESSAGE_CHARS_MAX])
