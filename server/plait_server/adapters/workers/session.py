"""The server's end of Attach as a state machine without sockets, clocks or tasks (as h11 is for HTTP).

A session lives as long as one stream. `receive` turns frames into events, in pieces that each take a few
milliseconds; the server's messages are queued by `assign`, `cancel`, ... and `take_frame` returns all queued
messages in one frame.

Rules
1. The worker's first message is `hello`; then the driver calls `welcome`. Nothing is sent before.
2. Control messages (welcome, recorded, cancel, ping) go before assigns, so that a cancel reaches a worker however
   much work is queued for it.
3. An invalid message of a known attempt fails that attempt, not the stream (a handler may return anything); a
   stream whose structure is wrong is refused with `ProtocolViolation`.
4. Queues are bounded: that of assigns by the granted slots, that of control messages by
   CONTROL_BYTES_MAX, because a worker that sends and never reads decides how many answers wait for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Final

from google.protobuf.message import DecodeError

from plait.v1 import worker_hub_service_pb2
from plait_server.adapters.workers.attempt_reports import BYTES_A_SECOND, LINES_A_SECOND
from plait_server.adapters.workers.frames import FAIL_BYTES_MAX, FRAME_MESSAGES_MAX, Oversized, split
from plait_server.adapters.workers.reading import (
    LOG_CHARS_MAX,
    PROTOCOL_VERSION,
    READERS,
    USAGE_UNITS_MAX,
    read_hello,
    read_long_result,
    read_oversized,
)
from plait_server.adapters.workers.session_events import (
    Ended,
    Hello,
    SessionEvent,
)
from plait_server.core.json_slices import takes_long
from plait_server.core.limits import (
    HELD_ATTEMPTS_MAX,
    MIB,
    PAYLOAD_BYTES_MAX,
    TOKEN_BYTES_MAX,
)
from plait_server.core.run.commands import Disposition
from plait_server.encoding.event_codec import duration
from plait_server.errors import (
    ProtocolViolation,
)
from plait_server.ports.workers import Assignment

FRAME_BYTES_MAX: Final = MIB
"""The size to which a frame is filled; a single larger message gets a frame of its own."""
UNRECORDED_BYTES_MAX: Final = 32 * MIB
"""Bytes of a worker's results that are not durable yet, above which its stream is read slowly."""
CONTROL_BYTES_MAX: Final = 8 * MIB
"""Twice the largest answers due to a worker that holds HELD_ATTEMPTS_MAX results with ordinary tokens."""
_MESSAGE_OVERHEAD: Final = 16
_LIMITS: Final = worker_hub_service_pb2.AttachLimits(
    frame_bytes_max=FRAME_BYTES_MAX,
    frame_messages_max=FRAME_MESSAGES_MAX,
    fail_bytes_max=FAIL_BYTES_MAX,
    in_flight_max=HELD_ATTEMPTS_MAX,
    unrecorded_bytes_max=UNRECORDED_BYTES_MAX,
    usage_units_max=USAGE_UNITS_MAX,
    log_message_chars_max=LOG_CHARS_MAX,
    reports_per_second=LINES_A_SECOND,
    report_bytes_per_second=BYTES_A_SECOND,
)


class ServerSession:
    """The server's side of one Attach stream."""

    def __init__(self) -> None:
        self.hello: Hello | None = None
        self._control: deque[worker_hub_service_pb2.ServerMessage] = deque()
        self._control_bytes = 0
        self._assigns: dict[str, tuple[Assignment, str]] = {}
        """Token -> the assignment and its idempotency key, in order. They become messages when they are sent."""
        self._is_welcome = False

    def __repr__(self) -> str:
        worker = self.hello.worker_id if self.hello is not None else "?"
        return f"<ServerSession {worker}, {len(self._control)}+{len(self._assigns)} queued>"

    # In.

    def receive(self, content: bytes) -> Iterator[list[SessionEvent]]:
        """Read a frame, an encoded AttachRequest, and yield its events, in order.

        Each list takes a few milliseconds to build; between two of them the caller lets other tasks run.

        Raises:
            InvalidRequest: A field of `hello` is malformed.
            ProtocolVersionUnsupported: The worker speaks another version.
            ProtocolViolation: The first message is not `hello`, a later one is, or the frame is invalid or too large.
        """
        for piece in split(content):
            if isinstance(piece, Oversized):
                if self.hello is None:
                    raise ProtocolViolation("the first message of a worker must be hello, and was a result")
                yield [read_oversized(piece)]
                continue
            try:
                frame = worker_hub_service_pb2.AttachRequest.FromString(piece)
            except DecodeError as error:
                text = "a frame is no AttachRequest; is the worker's SDK up to date?"
                raise ProtocolViolation(text) from error
            yield from self._read(frame)

    def _read(self, frame: worker_hub_service_pb2.AttachRequest) -> Iterator[list[SessionEvent]]:
        events: list[SessionEvent] = []
        for message in frame.messages:
            kind = message.WhichOneof("message")
            if self.hello is None:
                if kind != "hello":
                    text = f"the first message of a worker must be hello, and was {kind or 'empty'}"
                    raise ProtocolViolation(text)
                self.hello = read_hello(message.hello)
                events.append(self.hello)
            elif kind == "hello":
                text = "a worker says hello once a stream; close the stream and open another"
                raise ProtocolViolation(text)
            elif kind is not None:
                if kind == "complete" and takes_long(message.complete.output.json):
                    yield events
                    events = []
                    event: SessionEvent | None = yield from read_long_result(message.complete)
                else:
                    event = READERS[kind](message)
                if isinstance(event, Ended) and len(event.token) > TOKEN_BYTES_MAX:
                    # It would have to be sent back, and no token of the server is this long.
                    raise ProtocolViolation(f"a token has at most {TOKEN_BYTES_MAX} bytes")
                if event is not None:
                    events.append(event)
        yield events

    # Out.

    def welcome(
        self,
        *,
        server_version: str,
        server_instance_id: str,
        ping_s: float,
        lease_s: float,
        reject_pause_s: float,
    ) -> None:
        """Answer `hello`; after this, other messages may be sent."""
        self._is_welcome = True
        message = worker_hub_service_pb2.ServerMessage()
        welcome = message.welcome
        welcome.protocol_version = PROTOCOL_VERSION
        welcome.server_version = server_version
        welcome.server_instance_id = server_instance_id
        welcome.ping_interval.CopyFrom(duration(ping_s))
        welcome.lease.CopyFrom(duration(lease_s))
        welcome.payload_bytes_max = PAYLOAD_BYTES_MAX
        welcome.reject_pause.CopyFrom(duration(reject_pause_s))
        welcome.limits.CopyFrom(_LIMITS)
        self._say(message, first=True)

    def assign(self, token: str, assignment: Assignment, idempotency_key: str) -> None:
        """Queue an attempt for the worker."""
        self._assigns[token] = assignment, idempotency_key

    def withdraw(self, token: str) -> bool:
        """Remove an assign that has not been sent; return whether there was one."""
        return self._assigns.pop(token, None) is not None

    def recorded(self, token: str, disposition: Disposition) -> None:
        """Queue the answer to a result."""
        message = worker_hub_service_pb2.ServerMessage()
        message.recorded.token = token
        message.recorded.result = int(disposition)  # type: ignore[assignment] # an IntEnum of the same numbers
        self._say(message)

    def cancel(self, token: str, reason: str, grace_s: float) -> None:
        """Queue a request to cancel an attempt."""
        cancel = worker_hub_service_pb2.Cancel(
            token=token, reason=f"CANCEL_REASON_{reason}", grace=duration(grace_s)
        )
        self._say(worker_hub_service_pb2.ServerMessage(cancel=cancel))

    def ping(self, number: int) -> None:
        """Queue a ping."""
        message = worker_hub_service_pb2.ServerMessage()
        message.ping.number = number
        self._say(message)

    @property
    def is_overfull(self) -> bool:
        """Whether more is queued than a worker that reads can cause; the driver then ends the stream."""
        return self._control_bytes > CONTROL_BYTES_MAX

    @property
    def has_frame(self) -> bool:
        """Whether `take_frame` would return a frame."""
        return self._is_welcome and bool(self._control or self._assigns)

    def take_frame(self) -> worker_hub_service_pb2.AttachResponse | None:
        """Return a frame of queued messages, up to 1 MiB, control messages first; None if the queue is empty."""
        if not self.has_frame:
            return None
        frame = worker_hub_service_pb2.AttachResponse()
        size = 0
        while self._control:
            more = self._control[0].ByteSize() + _MESSAGE_OVERHEAD
            if size and size + more > FRAME_BYTES_MAX:
                return frame
            frame.messages.append(self._control.popleft())
            self._control_bytes -= more
            size += more
        for token in list(self._assigns):
            message = _assign(token, *self._assigns[token])
            more = message.ByteSize() + _MESSAGE_OVERHEAD
            if size and size + more > FRAME_BYTES_MAX:
                return frame
            frame.messages.append(message)
            del self._assigns[token]
            size += more
        return frame

    def _say(self, message: worker_hub_service_pb2.ServerMessage, *, first: bool = False) -> None:
        self._control_bytes += message.ByteSize() + _MESSAGE_OVERHEAD
        if first:
            self._control.appendleft(message)
        else:
            self._control.append(message)


def _assign(token: str, assignment: Assignment, idempotency_key: str) -> worker_hub_service_pb2.ServerMessage:
    message = worker_hub_service_pb2.ServerMessage()
    assign = message.assign
    key = assignment.key
    assign.token = token
    assign.execution_id = key.execution_id
    assign.node_path = key.node_path
    assign.attempt = key.attempt
    assign.run = key.run
    assign.type = assignment.type
    if assignment.input_digest:
        assign.input.digest = assignment.input_digest
        assign.input.size_bytes = assignment.input_size_bytes
    else:
        assign.input.json = assignment.input_json
    if assignment.time_left_s:
        assign.time_left.CopyFrom(duration(assignment.time_left_s))
    assign.traceparent = assignment.traceparent
    assign.tracestate = assignment.tracestate
    assign.branch = assignment.branch
    assign.idempotency_key = idempotency_key
    if assignment.heartbeat_details:
        assign.heartbeat_details.json = assignment.heartbeat_details
    if assignment.heartbeat_timeout_s:
        assign.heartbeat_timeout.CopyFrom(duration(assignment.heartbeat_timeout_s))
    return message
