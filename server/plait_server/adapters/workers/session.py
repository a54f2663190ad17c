"""The server's end of Attach as a state machine without sockets, clocks or tasks (as h11 is for HTTP).

A session lives as long as one stream. Frames come in through `receive`, which gives what they mean, in pieces
that each take a few milliseconds; what the server wants to say is queued by `assign`, `cancel`, ... and taken
out by `take_frame`, everything that is due in one frame.

Rules
1. The worker's first message is `hello`; then the driver calls `welcome`. Nothing is sent before.
2. Control messages (welcome, recorded, cancel, ping) stand before assigns: a worker hears of a cancel however
   much work is queued for it.
3. An invalid message of a known attempt fails that attempt, not the stream (a handler may return anything); a
   stream whose structure is wrong is refused with `ProtocolViolation`.
4. Queues are bounded: that of assigns by the slots that the server has given out, that of control messages by
   CONTROL_BYTES_MAX, for a worker that sends and never reads decides how many answers wait for it.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from google.protobuf.message import DecodeError

from plait.v1 import payload_pb2, worker_hub_service_pb2
from plait_server.adapters.workers.frames import Oversized, split
from plait_server.core.commands import Taken
from plait_server.core.failures import INVALID_RESULT, TOO_LARGE, Failure, bounded_message
from plait_server.core.json_text import InvalidJson, check_json
from plait_server.core.limits import (
    HELD_ATTEMPTS_MAX,
    ID_PATTERN,
    KIB,
    LABEL_CHARS_MAX,
    LABELS_MAX,
    MAX_CONCURRENCY_MAX,
    MIB,
    PAYLOAD_BYTES_MAX,
    SERVED_TYPES_MAX,
    TOKEN_BYTES_MAX,
)
from plait_server.core.states import AttemptOutcome, CancelStage
from plait_server.core.usage import is_amount
from plait_server.encoding.event_codec import duration, seconds_of_duration
from plait_server.encoding.worker_failure import failure_from_worker
from plait_server.errors import (
    FieldViolation,
    InvalidRequest,
    ProtocolVersionUnsupported,
    ProtocolViolation,
)
from plait_server.ports.workers import Assignment, Report

PROTOCOL_VERSION: Final = 1
FRAME_BYTES_MAX: Final = MIB
"""A frame is filled up to this; a single larger message goes alone."""
CONTROL_BYTES_MAX: Final = 8 * MIB
"""Twice what a worker can be owed that holds HELD_ATTEMPTS_MAX results with ordinary tokens."""
USAGE_UNITS_MAX: Final = 64
LOG_CHARS_MAX: Final = 8 * KIB
_LEVELS: Final = frozenset({"DEBUG", "INFO", "WARNING", "ERROR"})
_ID: Final = re.compile(ID_PATTERN)
_MESSAGE_OVERHEAD: Final = 16


class Hello(NamedTuple):
    """A worker introduced itself."""

    worker_id: str
    instance_id: str
    namespace: str
    types: Mapping[str, int]
    """Type -> how many attempts of it at once; 0: no limit of its own."""
    slots: int
    labels: Mapping[str, str]
    sdk: str
    running: Sequence[str]
    """Tokens of attempts that it still runs."""
    finished: Sequence[str]
    """Tokens of attempts whose results follow."""


class Ended(NamedTuple):
    """An attempt ended at the worker; it waits for `recorded`."""

    token: str
    report: Report


class Returned(NamedTuple):
    """An attempt was not taken, or is handed back."""

    token: str
    code: str
    message: str


class Accepted(NamedTuple):
    """An attempt was taken."""

    token: str


class CancelStep(NamedTuple):
    """A cancel was acknowledged, or its handler has ended."""

    token: str
    stage: CancelStage
    usage: Mapping[str, str] | None
    """What the attempt used in all; None if nothing is said of it."""


class SlotsChanged(NamedTuple):
    """The worker takes another number of attempts at once; 0 when it drains."""

    slots: int
    is_draining: bool


class Said(NamedTuple):
    """Progress, a log line or a heartbeat."""

    token: str
    kind: str
    text: str


class Used(NamedTuple):
    """An attempt used something."""

    token: str
    unit: str
    amount: str
    problem: str
    """Why it cannot be counted; empty if it can."""


class Ponged(NamedTuple):
    """The worker answered a ping."""

    number: int


SessionEvent: TypeAlias = (
    Hello | Ended | Returned | Accepted | CancelStep | SlotsChanged | Said | Used | Ponged
)


class ServerSession:
    """The server's side of one Attach stream."""

    def __init__(self) -> None:
        self.hello: Hello | None = None
        self._control: deque[worker_hub_service_pb2.ServerMessage] = deque()
        self._control_bytes = 0
        self._assigns: dict[str, tuple[Assignment, str]] = {}
        """Token -> what to assign, and its idempotency key; in order. Turned into messages when they are sent."""
        self._is_welcome = False

    def __repr__(self) -> str:
        worker = self.hello.worker_id if self.hello is not None else "?"
        return f"<ServerSession {worker}, {len(self._control)}+{len(self._assigns)} queued>"

    # In.

    def receive(self, content: bytes) -> Iterator[list[SessionEvent]]:
        """Take a frame, an encoded AttachRequest, and give what it means, in order.

        Each list takes a few milliseconds to work out; between two of them the caller lets other tasks run.

        Raises:
            InvalidRequest: `hello` has malformed fields.
            ProtocolVersionUnsupported: the worker speaks another version.
            ProtocolViolation: the first message is not `hello`, a later one is, or the frame is none or too large.
        """
        for piece in split(content):
            if isinstance(piece, Oversized):
                if self.hello is None:
                    raise ProtocolViolation("the first message of a worker must be hello, and was a result")
                yield [_read_oversized(piece)]
                continue
            try:
                frame = worker_hub_service_pb2.AttachRequest.FromString(piece)
            except DecodeError as error:
                text = "a frame is no AttachRequest; is the worker's SDK up to date?"
                raise ProtocolViolation(text) from error
            yield self._read(frame)

    def _read(self, frame: worker_hub_service_pb2.AttachRequest) -> list[SessionEvent]:
        events: list[SessionEvent] = []
        for message in frame.messages:
            kind = message.WhichOneof("message")
            if self.hello is None:
                if kind != "hello":
                    text = f"the first message of a worker must be hello, and was {kind or 'empty'}"
                    raise ProtocolViolation(text)
                self.hello = _read_hello(message.hello)
                events.append(self.hello)
            elif kind == "hello":
                text = "a worker says hello once a stream; close the stream and open another"
                raise ProtocolViolation(text)
            elif kind is not None:
                event = _READERS[kind](message)
                if isinstance(event, Ended) and len(event.token) > TOKEN_BYTES_MAX:
                    # It would have to be sent back; no token that was given out is so long.
                    raise ProtocolViolation(f"a token has at most {TOKEN_BYTES_MAX} bytes")
                if event is not None:
                    events.append(event)
        return events

    # Out.

    def welcome(self, *, server_version: str, server_instance_id: str, ping_s: float, lease_s: float) -> None:
        """Answer `hello`; from now on the rest may be sent."""
        self._is_welcome = True
        message = worker_hub_service_pb2.ServerMessage()
        welcome = message.welcome
        welcome.protocol_version = PROTOCOL_VERSION
        welcome.server_version = server_version
        welcome.server_instance_id = server_instance_id
        welcome.ping_interval.CopyFrom(duration(ping_s))
        welcome.lease.CopyFrom(duration(lease_s))
        welcome.payload_bytes_max = PAYLOAD_BYTES_MAX
        self._say(message, first=True)

    def assign(self, token: str, assignment: Assignment, idempotency_key: str) -> None:
        """Give the worker an attempt."""
        self._assigns[token] = assignment, idempotency_key

    def withdraw(self, token: str) -> bool:
        """Take back an assign that was not taken out yet; whether there was one."""
        return self._assigns.pop(token, None) is not None

    def recorded(self, token: str, taken: Taken) -> None:
        """Say what became of a result."""
        message = worker_hub_service_pb2.ServerMessage()
        message.recorded.token = token
        message.recorded.result = int(taken)  # type: ignore[assignment] # an IntEnum of the same numbers
        self._say(message)

    def cancel(self, token: str, reason: str, grace_s: float) -> None:
        """Ask the worker to cancel an attempt."""
        message = worker_hub_service_pb2.ServerMessage()
        message.cancel.token = token
        message.cancel.reason = reason
        message.cancel.grace.CopyFrom(duration(grace_s))
        self._say(message)

    def ping(self, number: int) -> None:
        """Ask for a pong."""
        message = worker_hub_service_pb2.ServerMessage()
        message.ping.number = number
        self._say(message)

    @property
    def is_overfull(self) -> bool:
        """Whether more waits for the worker than one that reads ever lets wait; the driver ends its stream."""
        return self._control_bytes > CONTROL_BYTES_MAX

    @property
    def has_frame(self) -> bool:
        """Whether `take_frame` would give one."""
        return self._is_welcome and bool(self._control or self._assigns)

    def take_frame(self) -> worker_hub_service_pb2.AttachResponse | None:
        """Take whatever is queued, up to 1 MiB, control messages first; None when nothing is."""
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
    assign.idempotency_key = idempotency_key
    return message


def _read_hello(message: worker_hub_service_pb2.Hello) -> Hello:
    if message.protocol_version != PROTOCOL_VERSION:
        text = (
            f"the worker speaks protocol version {message.protocol_version}, the server {PROTOCOL_VERSION}; "
            "upgrade the older of the two"
        )
        raise ProtocolVersionUnsupported(text)
    violations: list[FieldViolation] = []

    def check(field: str, is_right: object, text: str) -> None:
        if not is_right:
            violations.append(FieldViolation(field=f"hello.{field}", message=text))

    rule = "must match [A-Za-z0-9_.-]{1,128}"
    check("worker_id", _ID.fullmatch(message.worker_id) is not None, rule)
    check("instance_id", _ID.fullmatch(message.instance_id) is not None, rule)
    check("namespace", not message.namespace or _ID.fullmatch(message.namespace) is not None, rule)
    check("slots", 0 <= message.slots <= MAX_CONCURRENCY_MAX, f"must be 0 to {MAX_CONCURRENCY_MAX}")
    check("labels", len(message.labels) <= LABELS_MAX, f"must be at most {LABELS_MAX}")
    longest = max((len(text) for label in message.labels.items() for text in label), default=0)
    check(
        "labels",
        longest <= LABEL_CHARS_MAX,
        f"must have keys and values of at most {LABEL_CHARS_MAX} characters",
    )
    check(
        "types",
        0 < len(message.types) <= SERVED_TYPES_MAX,
        f"must be 1 to {SERVED_TYPES_MAX} node types; register a handler",
    )
    held = message.in_flight
    check("in_flight", len(held) <= HELD_ATTEMPTS_MAX, f"must be at most {HELD_ATTEMPTS_MAX}")
    check(
        "in_flight",
        all(len(each.token) <= TOKEN_BYTES_MAX for each in held),
        f"a token has at most {TOKEN_BYTES_MAX} bytes",
    )
    for index, served in enumerate(message.types[:SERVED_TYPES_MAX]):
        check(f"types[{index}].type", _ID.fullmatch(served.type) is not None, rule)
        check(
            f"types[{index}].max_concurrency",
            0 <= served.max_concurrency <= MAX_CONCURRENCY_MAX,
            f"must be 0 to {MAX_CONCURRENCY_MAX}",
        )
    if violations:
        raise InvalidRequest(violations)
    return Hello(
        message.worker_id,
        message.instance_id,
        message.namespace or "default",
        {served.type: served.max_concurrency for served in message.types},
        message.slots,
        dict(message.labels),
        message.sdk[:128],
        [each.token for each in held if not each.finished],
        [each.token for each in held if each.finished],
    )


def _read_complete(message: worker_hub_service_pb2.WorkerMessage) -> SessionEvent:
    complete = message.complete
    usage, problem = _read_usage(complete)
    text = complete.output.json if complete.HasField("output") else "null"
    failure = Failure(code=INVALID_RESULT, message=problem) if problem else _problem_of(complete.output, text)
    if failure is not None:
        report = Report(AttemptOutcome.FAILED, failure=failure, usage=usage, from_worker=True)
        return Ended(complete.token, report)
    return Ended(complete.token, Report(AttemptOutcome.SUCCEEDED, text, usage=usage, from_worker=True))


def _read_oversized(piece: Oversized) -> SessionEvent:
    what = "the handler's result" if piece.is_result else "the handler's failure"
    text = f"{what} takes {piece.size} bytes, over the limit of {piece.limit}; store it elsewhere, and send its address"
    failure = Failure(code=TOO_LARGE, message=text)
    return Ended(piece.token, Report(AttemptOutcome.FAILED, failure=failure, from_worker=True))


def _problem_of(output: payload_pb2.Payload, text: str) -> Failure | None:
    """Say why a result cannot be recorded (S2.1); None if it can."""
    if output.digest:
        return Failure(code=INVALID_RESULT, message="a result must be JSON text, not a digest")
    size = len(text) if len(text) > PAYLOAD_BYTES_MAX else len(text.encode())
    if size > PAYLOAD_BYTES_MAX:
        problem = (
            f"the handler's result is over the limit of {PAYLOAD_BYTES_MAX} bytes; store it elsewhere, and return "
            "its address"
        )
        return Failure(code=TOO_LARGE, message=problem)
    try:
        check_json(text, max_bytes=PAYLOAD_BYTES_MAX)
    except InvalidJson as error:
        return Failure(code=INVALID_RESULT, message=f"the handler's result was refused: {error}")
    return None


def _read_fail(message: worker_hub_service_pb2.WorkerMessage) -> SessionEvent:
    fail = message.fail
    usage, problem = _read_usage(fail)
    return Ended(
        fail.token,
        Report(
            AttemptOutcome.FAILED,
            failure=failure_from_worker(fail, problem),
            retryable=fail.retryable if fail.HasField("retryable") else None,
            retry_after_s=max(0.0, seconds_of_duration(fail.retry_after))
            if fail.HasField("retry_after")
            else None,
            usage=usage,
            from_worker=True,
        ),
    )


def _read_usage(
    message: worker_hub_service_pb2.Complete | worker_hub_service_pb2.Fail | worker_hub_service_pb2.Exited,
) -> tuple[Mapping[str, str] | None, str]:
    """Read what an attempt used in all: exact decimals of at most 64 units (U1); None if it is not said."""
    if not message.HasField("usage"):
        return None, ""
    amounts = message.usage.amounts
    if len(amounts) > USAGE_UNITS_MAX:
        return None, f"usage has {len(amounts)} units, over the limit of {USAGE_UNITS_MAX}"
    for unit, amount in amounts.items():
        problem = _amount_problem(unit, amount)
        if problem:
            return None, problem
    return dict(amounts), ""


def _amount_problem(unit: str, amount: str) -> str:
    if not _ID.fullmatch(unit):
        return f"usage {unit[:128]!r}: a unit must match [A-Za-z0-9_.-]{{1,128}}"
    if not is_amount(amount):
        rule = "an amount must be a decimal such as 0.25, of at most 40 digits on each side of the point"
        return f"usage {unit!r}: {amount[:64]!r} cannot be counted; {rule}"
    return ""


def _read_slots(message: worker_hub_service_pb2.WorkerMessage) -> SessionEvent:
    return SlotsChanged(min(max(message.credit.slots, 0), MAX_CONCURRENCY_MAX), is_draining=False)


def _read_used(message: worker_hub_service_pb2.WorkerMessage) -> SessionEvent:
    usage = message.usage
    return Used(usage.token, usage.unit, usage.amount, _amount_problem(usage.unit, usage.amount))


def _read_exited(message: worker_hub_service_pb2.WorkerMessage) -> SessionEvent:
    usage, _ = _read_usage(message.exited)
    return CancelStep(message.exited.token, CancelStage.EXITED, usage)


_READERS: Final[Mapping[str, Callable[[worker_hub_service_pb2.WorkerMessage], SessionEvent | None]]] = {
    "credit": _read_slots,
    "accept": lambda message: Accepted(message.accept.token),
    "reject": lambda message: Returned(
        message.reject.token, message.reject.code, bounded_message(message.reject.message)
    ),
    "progress": lambda message: Said(
        message.progress.token,
        "progress",
        f"{message.progress.fraction:.3g} {message.progress.message[:1024]}",
    ),
    "log": lambda message: Said(
        message.log.token,
        message.log.level if message.log.level in _LEVELS else "INFO",
        message.log.message[:LOG_CHARS_MAX],
    ),
    "usage": _read_used,
    "heartbeat": lambda message: Said(
        message.heartbeat.token, "heartbeat", message.heartbeat.details.json[:1024]
    ),
    "complete": _read_complete,
    "fail": _read_fail,
    "cancel_ack": lambda message: CancelStep(message.cancel_ack.token, CancelStage.ACKNOWLEDGED, None),
    "exited": _read_exited,
    "drain": lambda _: SlotsChanged(0, is_draining=True),
    "pong": lambda message: Ponged(message.pong.number),
}
