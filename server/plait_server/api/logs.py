"""ReadLogs: what the handlers of an execution logged and reported (A6, B3)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import trio

from plait.v1 import execution_service_pb2, log_pb2
from plait_server.api.call import Call, Send, send_in_time
from plait_server.api.checks import Checks
from plait_server.api.watching import FRAME_BYTES_MAX, FRAME_ROOM
from plait_server.encoding.event_codec import timestamp
from plait_server.errors import Overloaded
from plait_server.ports.journal import Journal
from plait_server.ports.log_lines import LogLine, LogLines
from plait_server.runtime.log_keeping import LogKeeping
from plait_server.runtime.slicing import Pacing
from plait_server.runtime.supervisor import Supervisor

LINES_READ_MAX: Final = 500
FOLLOWERS_MAX: Final = 1_000
GROUPING_MAX: Final = 32
"""Readers that do not follow: each has all lines of an execution in memory, some 10 MB."""
LOOK_S: Final = 1.0
"""Seconds between two looks whether an execution without new lines has ended."""

_LEVELS: Final = {
    "DEBUG": log_pb2.LOG_LEVEL_DEBUG,
    "INFO": log_pb2.LOG_LEVEL_INFO,
    "WARNING": log_pb2.LOG_LEVEL_WARNING,
    "ERROR": log_pb2.LOG_LEVEL_ERROR,
}

Pb = execution_service_pb2


class LogServicer:
    """Serves the logs of executions.

    Args:
        supervisor: Finds executions.
        journal: Where lines are kept.
        keeping: Writes them.
    """

    def __init__(self, supervisor: Supervisor, journal: Journal, keeping: LogKeeping) -> None:
        self._supervisor = supervisor
        self._lines = journal.log_lines
        self._keeping = keeping
        self._readers = {True: 0, False: 0}
        """Whether they follow -> how many readers there are."""

    async def read_logs(self, request: Pb.ReadLogsRequest, call: Call, send: Send) -> None:
        """Stream the lines of an execution."""
        del call
        checks = Checks()
        checks.namespace(request.namespace)
        checks.execution_id(request.execution_id)
        if request.after_sequence < 0:
            checks.add("after_sequence", "must be at least 0; 0 is the beginning")
        if request.attempt < 0:
            checks.add("attempt", "must be at least 0; 0 means all")
        if request.attempt and not request.node_path:
            checks.add("attempt", "goes with a node_path; name the node")
        checks.finish()
        readers_max = FOLLOWERS_MAX if request.follow else GROUPING_MAX
        if self._readers[request.follow] >= readers_max:
            message = f"{readers_max} readers of logs are over the limit; try again later"
            raise Overloaded(message)
        self._readers[request.follow] += 1
        try:
            reading = _Reading(self._supervisor, self._keeping, request, send)
            await reading.begin()
            if request.follow:
                await reading.follow(self._lines)
            else:
                await reading.send_grouped(self._lines)
        finally:
            self._readers[request.follow] -= 1


class _Reading:
    """One call of ReadLogs."""

    def __init__(
        self, supervisor: Supervisor, keeping: LogKeeping, request: Pb.ReadLogsRequest, send: Send
    ) -> None:
        self._supervisor = supervisor
        self._keeping = keeping
        self._request = request
        self._send = send
        self._namespace = request.namespace or "default"
        self._after = request.after_sequence
        self._dropped = 0
        self._trace_id = ""
        self._is_over = False

    async def begin(self) -> None:
        """Find the execution."""
        view = await self._supervisor.view(self._namespace, self._request.execution_id)
        self._trace_id = view.execution.traceparent[3:35]

    async def follow(self, store: LogLines) -> None:
        """Send lines as they come, until the execution has ended and all its lines are sent."""
        key = self._namespace, self._request.execution_id
        while True:
            # First, so that a write between the read and the wait is not missed.
            written = self._keeping.next_write()
            view = await self._supervisor.view(*key)
            is_last = view.execution.is_ended and not self._keeping.has_unwritten(*key)
            while page := await store.read(*key, after=self._after, limit=LINES_READ_MAX):
                await self._send_lines(self._take(page))
            if is_last:
                return
            with trio.move_on_after(LOOK_S):
                await written.wait()

    async def send_grouped(self, store: LogLines) -> None:
        """Send what is kept, the lines of each node together."""
        key = self._namespace, self._request.execution_id
        written = self._keeping.next_write()
        if self._keeping.has_unwritten(*key):
            with trio.move_on_after(LOOK_S):
                await written.wait()
        nodes: dict[str, list[LogLine]] = {}
        pacing = Pacing()
        while page := await store.read(*key, after=self._after, limit=LINES_READ_MAX):
            for line in self._take(page):
                nodes.setdefault(line.node_path, []).append(line)
            await pacing.pause_if_due()
        await self._send_lines(line for lines in nodes.values() for line in lines)

    def _take(self, page: Sequence[LogLine]) -> list[LogLine]:
        """Count the lines that are missing, and return those that were asked for."""
        self._dropped += page[-1].sequence - self._after - len(page)
        self._after = page[-1].sequence
        node_path, attempt = self._request.node_path, self._request.attempt
        return [
            line
            for line in page
            if not node_path or (line.node_path == node_path and attempt in (0, line.attempt))
        ]

    async def _send_lines(self, lines: Iterable[LogLine]) -> None:
        response = self._response()
        size = FRAME_ROOM
        for line in lines:
            described = self._describe(line)
            more = described.ByteSize() + 8
            if response.lines and size + more > FRAME_BYTES_MAX:
                await send_in_time(self._send, response)
                response, size = self._response(), FRAME_ROOM
            response.lines.append(described)
            size += more
        if response.lines or response.dropped:
            await send_in_time(self._send, response)

    def _response(self) -> Pb.ReadLogsResponse:
        dropped, self._dropped = self._dropped, 0
        return Pb.ReadLogsResponse(dropped=dropped)

    def _describe(self, line: LogLine) -> Pb.ExecutionLogLine:
        is_progress = line.level == "progress"
        return Pb.ExecutionLogLine(
            sequence=line.sequence,
            time=timestamp(line.time_s),
            kind=Pb.LOG_LINE_KIND_PROGRESS if is_progress else Pb.LOG_LINE_KIND_LOG,
            level=_LEVELS.get(line.level, log_pb2.LOG_LEVEL_INFO),
            node_path=line.node_path,
            attempt=line.attempt,
            branch=line.branch,
            trace_id=self._trace_id,
            text=line.text,
        )
