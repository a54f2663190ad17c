"""The queue of a worker's messages, from which frames are filled.

Rules:
1. What the server waits for is chosen first: control messages, extensions, heartbeats, then results; usage,
   progress and log lines fill what room is left. So a flood of log lines delays no result.
2. Within one frame an attempt's log lines stand before its result: what is chosen together arrives together,
   and the server still knows the attempt when it reads the lines.
3. Everything is bounded: progress, extensions and heartbeats keep the newest of each attempt, usage adds up, log lines
   drop the oldest; control messages and results are as many as the attempts held.
4. A message larger than a frame travels alone. Once passed over it opens the next frame, or a busy stream
   would always have something smaller to send before it.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker import messages
from plait_worker.limits import LOG_LINES_QUEUED_MAX
from plait_worker.usage import add_amount, format_totals

# A message in a frame takes a tag of one byte and a length of at most four, for a frame is below 256 MiB.
_ENTRY_BYTES: Final = 5


class Outbox:
    """The messages that wait for a frame. Owned and changed by one session alone."""

    __slots__ = (
        "_control",
        "_extensions",
        "_heartbeats",
        "_is_result_next",
        "_logs",
        "_progress",
        "_results",
        "_usage",
        "logs_dropped",
    )

    def __init__(self) -> None:
        self._control: deque[hub.WorkerMessage] = deque()
        self._results: deque[hub.WorkerMessage] = deque()
        self._extensions: dict[str, hub.WorkerMessage] = {}
        self._heartbeats: dict[str, hub.WorkerMessage] = {}
        self._usage: dict[str, dict[str, Decimal]] = {}
        self._progress: dict[str, hub.WorkerMessage] = {}
        self._logs: deque[hub.WorkerMessage] = deque()
        self._is_result_next = False
        self.logs_dropped = 0
        """Log lines that made room for newer ones."""

    def __len__(self) -> int:
        """Count the messages that wait; usage counts once an attempt."""
        return (
            len(self._control)
            + len(self._results)
            + len(self._extensions)
            + len(self._heartbeats)
            + len(self._usage)
            + len(self._progress)
            + len(self._logs)
        )

    @property
    def has_obligations(self) -> bool:
        """Whether a control message or a result waits: a worker that leaves writes them first."""
        return bool(self._control or self._results)

    def add_control(self, message: hub.WorkerMessage) -> None:
        """Queue a message that goes ahead of everything."""
        self._control.append(message)

    def holds(self, result: hub.WorkerMessage) -> bool:
        """Whether a result is queued and has not been taken."""
        return any(queued is result for queued in self._results)

    def add_result(self, message: hub.WorkerMessage) -> None:
        """Queue the end of an attempt: complete, fail, exited or reject."""
        self._results.append(message)

    def drop_usage(self, token: str) -> None:
        """Forget usage not yet reported: the attempt's totals are in its result."""
        self._usage.pop(token, None)

    def set_heartbeat(self, token: str, message: hub.WorkerMessage) -> None:
        """Queue a heartbeat in place of the one of the same attempt that waits."""
        self._heartbeats[token] = message

    def has_heartbeat(self, token: str) -> bool:
        """Whether a heartbeat of an attempt waits."""
        return token in self._heartbeats

    def set_extension(self, token: str, message: hub.WorkerMessage) -> None:
        """Queue a request for more time in place of the one of the same attempt that waits."""
        self._extensions[token] = message

    def set_progress(self, token: str, message: hub.WorkerMessage) -> None:
        """Queue a report of progress in place of the one of the same attempt that waits."""
        self._progress[token] = message

    def add_usage(self, token: str, unit: str, amount: Decimal) -> None:
        """Queue an amount, added to what waits for the same attempt and unit."""
        add_amount(self._usage.setdefault(token, {}), unit, amount)

    def add_log(self, message: hub.WorkerMessage) -> None:
        """Queue a log line; beyond 1,000 the oldest is dropped and counted."""
        if len(self._logs) >= LOG_LINES_QUEUED_MAX:
            self._logs.popleft()
            self.logs_dropped += 1
        self._logs.append(message)

    @property
    def tokens_owed(self) -> list[str]:
        """The tokens of attempts whose `exited` or `reject` waits, in order."""
        return [
            message.exited.token or message.reject.token for message in self._results if _is_exit(message)
        ]

    def begin_stream(self) -> None:
        """Turn to a new stream: control messages, which spoke of the old one, are dropped."""
        self._control.clear()

    def requeue(self, results: Iterable[hub.WorkerMessage]) -> None:
        """Queue results again, in place of those that wait, in the order given."""
        exits = filter(_is_exit, self._results)
        self._results = deque((*results, *exits))
        self._is_result_next = False

    def take(self, bytes_max: int) -> list[hub.WorkerMessage]:
        """Take what goes into the next frame, in order.

        Args:
            bytes_max: the size of the frame; more only for a single message.

        Returns:
            The messages; empty when nothing waits.
        """
        frame = _Frame(bytes_max)
        control: list[hub.WorkerMessage] = []
        reports: list[hub.WorkerMessage] = []
        results: list[hub.WorkerMessage] = []
        if self._is_result_next:
            self._is_result_next = False
            frame.fill_from(self._results, results, count_max=1)
        frame.fill_from(self._control, control)
        frame.fill_from_newest(self._extensions, reports)
        frame.fill_from_newest(self._heartbeats, reports)
        frame.fill_from(self._results, results)
        self._is_result_next = bool(self._results) and not results
        self._fill_usage(frame, reports)
        frame.fill_from_newest(self._progress, reports)
        frame.fill_from(self._logs, reports)
        return control + reports + results

    def _fill_usage(self, frame: _Frame, chosen: list[hub.WorkerMessage]) -> None:
        for token in list(self._usage):
            amounts = self._usage[token]
            for unit, amount in format_totals(amounts).items():
                message = messages.usage_report(token, unit, amount)
                if not frame.admit(message):
                    return
                chosen.append(message)
                del amounts[unit]
            del self._usage[token]


def _is_exit(message: hub.WorkerMessage) -> bool:
    return message.HasField("exited") or message.HasField("reject")


class _Frame:
    """The room in a frame. It is full from the first message on that did not fit."""

    __slots__ = ("_is_empty", "_room")

    def __init__(self, bytes_max: int) -> None:
        self._room = bytes_max
        self._is_empty = True

    def admit(self, message: hub.WorkerMessage) -> bool:
        """Reserve the room that a message needs; return False if it does not fit. The first one always fits."""
        size = message.ByteSize() + _ENTRY_BYTES
        if size > self._room and not self._is_empty:
            self._room = 0
            return False
        self._room -= size
        self._is_empty = False
        return True

    def fill_from(
        self, waiting: deque[hub.WorkerMessage], chosen: list[hub.WorkerMessage], count_max: int = sys.maxsize
    ) -> None:
        """Move messages while they fit."""
        while waiting and count_max > 0 and self.admit(waiting[0]):
            chosen.append(waiting.popleft())
            count_max -= 1

    def fill_from_newest(
        self, waiting: dict[str, hub.WorkerMessage], chosen: list[hub.WorkerMessage]
    ) -> None:
        """Move messages while they fit, in the order in which their attempts first reported."""
        for token, message in list(waiting.items()):
            if not self.admit(message):
                return
            chosen.append(message)
            del waiting[token]
