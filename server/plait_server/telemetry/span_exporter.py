"""Sends batches of spans to a collector; nobody waits for it, and what it does not take is dropped and counted.

The rules:

- `put_nowait` never waits and never fails. The queue is bounded in spans and in bytes, and what is being sent
  counts with what is queued. A batch that finds no room is dropped: the newest, as the OpenTelemetry SDK does.
- A request that fails is sent again if OTLP allows it, after a pause that doubles each time, with jitter, or is
  as long as the collector asks for. A batch that was put `GIVE_UP_S` ago is tried once more, and then dropped.
  One that is refused for good is dropped at once. The pause is made all the same, so that a collector that refuses
  everything is not asked without end.
- A few requests are under way at once (`REQUESTS_MAX`): on a busy loop an answer takes many of its turns, and a
  collector may be far away.
- Trouble is logged once when it begins and once when it is over, with the number of spans that it cost. It is over
  when a request succeeded and for `QUIET_S` nothing failed and nothing was dropped. The end counts as well.
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
"""A fan-out of 10,000 nodes ends 40,000 spans, some of them within a second."""
BYTES_MAX: Final = 32 * 2**20
"""A span is 300 to 500 bytes; of failures with long messages the queue holds fewer than SPANS_MAX."""
REQUESTS_MAX: Final = 4
TIMEOUT_S: Final = 10.0
"""OTEL_EXPORTER_OTLP_TIMEOUT's default."""
PAUSE_S: Final = 1.0
"""The pause after the first failure."""
PAUSE_MAX_S: Final = 5.0
"""A collector that is back is found within this time."""
GIVE_UP_S: Final = 300.0
"""As long as a collector itself tries to pass spans on: it may be restarted meanwhile."""
QUIET_S: Final = 10.0
CLOSE_S: Final = 1.0
_MESSAGE_CHARS_MAX: Final = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanExporterStatistics:
    """A snapshot; each span that was put is counted in one of the first four."""

    sent: int
    """Spans that the collector took."""
    dropped: int
    """Spans that found no room, were refused, or were given up."""
    rejected: int
    """Spans of which the collector said that it did not take them, though it took the request."""
    queued: int
    """Spans that wait or are being sent."""
    queued_bytes: int
    is_failing: bool
    """Whether there is trouble."""


class _Batch(NamedTuple):
    request: bytes
    span_count: int
    give_up_s: float
    """When it is not tried again, by trio's clock."""


class SpanExporter:
    """Sends batches by a sender, which it closes. `run` is started once, by the server's nursery.

    Args:
        sender: Where they go.
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
        """Of what is queued or being sent."""
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
        """Wait until at most half of the room is taken, for those who have time."""
        while 2 * self._held > self._spans_max or 2 * self._held_bytes > self._bytes_max:
            await self._left.park()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Send what is put until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                for _ in range(REQUESTS_MAX):
                    nursery.start_soon(self._send_batches)
                nursery.start_soon(self._trouble.log, self.statistics)
                task_status.started()
        finally:
            if self._held or self._trouble.has_begun:
                logger.warning(
                    "at the end %d spans were left; %d had been dropped and %d rejected since the start",
                    self._held,
                    self._dropped,
                    self._rejected,
                )
            with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_S):
                await self._sender.aclose()

    async def flush(self, within_s: float) -> None:
        """Send what is held, for at most so long; called before `run` is cancelled.

        Pauses end, and from now on nothing is sent twice: a collector that is away holds up nobody's end.
        """
        self._flushing.set()
        with trio.move_on_after(within_s):
            while self._held:
                await self._left.park()

    async def _send_batches(self) -> None:
        failures = 0
        """In a row, of one batch or of several."""
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
        """Send a batch; returns why it was not taken."""
        sent = Sent()
        failure: SendFailed | None = SendFailed(f"no answer in {self._timeout_s:g} s", is_retryable=True)
        with trio.move_on_after(self._timeout_s):
            try:
                sent = await self._sender.send(batch.request)
                failure = None
            except SendFailed as error:
                failure = error
            except Exception as error:
                logger.debug("sending spans failed by a bug", exc_info=error)
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
            logger.warning("the collector took the spans, and warns: %s", _shown(sent.message))
        return None

    def _pause_s(self, failures: int, retry_after_s: float | None) -> float:
        # The exponent is bounded: a float ends at 2.0**1023.
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
    """Whether spans get through, and the two lines about it."""

    def __init__(self) -> None:
        self.has_begun = False
        self._reason = ""
        self._last_s = 0.0
        self._has_succeeded_since = False
        self._changed = trio.lowlevel.ParkingLot()

    def note(self, reason: str) -> None:
        """Take note that something failed."""
        self._last_s = trio.current_time()
        self._has_succeeded_since = False
        if not self.has_begun:
            self.has_begun = True
            self._reason = reason
            self._changed.unpark()

    def note_success(self) -> None:
        """Take note that a request succeeded."""
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
            logger.warning("spans do not get through; executions go on, spans may be lost: %s", reason)
            while trio.current_time() < self._last_s + QUIET_S or not self._has_succeeded_since:
                if self._has_succeeded_since:
                    await trio.sleep_until(self._last_s + QUIET_S)
                else:
                    await self._changed.park()
            self.has_begun = False
            after = statistics()
            logger.warning(
                "spans get through again; %d were dropped and %d rejected",
                after.dropped - before.dropped,
                after.rejected - before.rejected,
            )


def _shown(text: str) -> str:
    return one_line(text[:_MESSAGE_CHARS_MAX])
