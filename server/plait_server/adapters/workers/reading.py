"""Reads the messages of a worker: each is checked and turned into a session event.

An invalid message of a known attempt fails that attempt, not the stream: a handler may return anything.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping
from typing import Final

from plait.v1 import log_pb2, payload_pb2, worker_hub_service_pb2
from plait_server.adapters.workers.frames import Oversized
from plait_server.adapters.workers.session_events import (
    Accepted,
    CancelStep,
    Ended,
    Extended,
    Hello,
    Ponged,
    Reported,
    Returned,
    SessionEvent,
    SlotsChanged,
    Used,
)
from plait_server.core.json_slices import check_json_in_slices
from plait_server.core.json_text import InvalidJson, check_json
from plait_server.core.limits import (
    DURATION_S_MAX,
    HEARTBEAT_DETAILS_BYTES_MAX,
    HELD_ATTEMPTS_MAX,
    ID_PATTERN,
    KIB,
    LABEL_CHARS_MAX,
    LABELS_MAX,
    MAX_CONCURRENCY_MAX,
    PAYLOAD_BYTES_MAX,
    SERVED_TYPES_MAX,
    TOKEN_BYTES_MAX,
)
from plait_server.core.run.commands import AttemptResult
from plait_server.core.run.failures import INVALID_RESULT, TOO_LARGE, Failure, bounded_message
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import AttemptOutcome, CancelStage
from plait_server.core.run.usage import is_amount
from plait_server.encoding.event_codec import seconds_of_duration
from plait_server.encoding.worker_failure import failure_from_worker
from plait_server.errors import (
    FieldViolation,
    InvalidRequest,
    ProtocolVersionUnsupported,
)

PROTOCOL_VERSION: Final = 1
USAGE_UNITS_MAX: Final = 64
LOG_CHARS_MAX: Final = 8 * KIB
_LEVELS: Final = (
    (log_pb2.LOG_LEVEL_ERROR, "ERROR"),
    (log_pb2.LOG_LEVEL_WARNING, "WARNING"),
    (log_pb2.LOG_LEVEL_INFO, "INFO"),
    (log_pb2.LOG_LEVEL_DEBUG, "DEBUG"),
    (1, "DEBUG"),
)
"""The lowest number of a level, and the level; the highest first."""
_REJECT_CODES: Final = {
    number: name.removeprefix("REJECT_CODE_")
    for name, number in worker_hub_service_pb2.RejectCode.items()
    if number != worker_hub_service_pb2.REJECT_CODE_UNSPECIFIED
}
_ID: Final = re.compile(ID_PATTERN)


def read_hello(message: worker_hub_service_pb2.Hello) -> Hello:
    """Read `hello`.

    Raises:
        ProtocolVersionUnsupported: The worker speaks another version.
        InvalidRequest: Fields are malformed; the error names all of them.
    """
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
    text = complete.output.json if complete.HasField("output") else "null"
    failure = _problem_of(complete.output, text)
    try:
        check_json("null" if failure is not None else text, max_bytes=PAYLOAD_BYTES_MAX)
    except InvalidJson as error:
        failure = _no_json(error)
    return _completed(complete, text, failure)


def read_long_result(
    complete: worker_hub_service_pb2.Complete,
) -> Generator[list[SessionEvent], None, SessionEvent]:
    """Read a result whose check takes long; yield empty lists in between."""
    text = complete.output.json
    failure = _problem_of(complete.output, text)
    try:
        for _ in check_json_in_slices(text, max_bytes=PAYLOAD_BYTES_MAX) if failure is None else ():
            yield []
    except InvalidJson as error:
        failure = _no_json(error)
    return _completed(complete, text, failure)


def _completed(complete: worker_hub_service_pb2.Complete, text: str, failure: Failure | None) -> SessionEvent:
    usage, problem = _read_usage(complete)
    if problem:
        failure = Failure(code=INVALID_RESULT, message=problem)
    if failure is not None:
        return _failed(complete.token, failure, usage)
    outcome, output = AttemptOutcome.SUCCEEDED, Payload(text)
    return Ended(complete.token, AttemptResult("", 0, outcome, output, usage=usage, from_worker=True))


def _failed(token: str, failure: Failure, usage: Mapping[str, str] | None = None) -> Ended:
    outcome = AttemptOutcome.FAILED
    return Ended(token, AttemptResult("", 0, outcome, failure=failure, usage=usage, from_worker=True))


def read_oversized(piece: Oversized) -> SessionEvent:
    """Fail the attempt of a result that is too large to be parsed."""
    what = "the handler's result" if piece.is_result else "the handler's failure"
    text = f"{what} takes {piece.size} bytes, over the limit of {piece.limit}; store it elsewhere, and send its address"
    return _failed(piece.token, Failure(code=TOO_LARGE, message=text))


def _problem_of(output: payload_pb2.Payload, text: str) -> Failure | None:
    """Return why a result cannot be recorded, whether or not it is JSON (S2.1); None if it can."""
    if output.digest:
        return Failure(code=INVALID_RESULT, message="a result must be JSON text, not a digest")
    size = len(text) if len(text) > PAYLOAD_BYTES_MAX else len(text.encode())
    if size > PAYLOAD_BYTES_MAX:
        problem = (
            f"the handler's result is over the limit of {PAYLOAD_BYTES_MAX} bytes; store it elsewhere, and return "
            "its address"
        )
        return Failure(code=TOO_LARGE, message=problem)
    return None


def _no_json(error: InvalidJson) -> Failure:
    return Failure(code=INVALID_RESULT, message=f"the handler's result was refused: {error}")


def _read_fail(message: worker_hub_service_pb2.WorkerMessage) -> SessionEvent:
    fail = message.fail
    usage, problem = _read_usage(fail)
    ended = _failed(fail.token, failure_from_worker(fail, problem), usage)
    retryable = fail.retryable if fail.HasField("retryable") else None
    retry_after_s = max(0.0, seconds_of_duration(fail.retry_after)) if fail.HasField("retry_after") else None
    result = ended.result._replace(retryable=retryable, retry_after_s=retry_after_s)
    return Ended(fail.token, result)


def _read_reject(message: worker_hub_service_pb2.WorkerMessage) -> SessionEvent:
    reject = message.reject
    code = _REJECT_CODES.get(reject.code, "NOT_NOW")
    failure = Failure(code=code, message=bounded_message(reject.message))
    return Returned(reject.token, AttemptResult("", 0, AttemptOutcome.RETURNED, failure=failure))


def _read_usage(
    message: worker_hub_service_pb2.Complete | worker_hub_service_pb2.Fail | worker_hub_service_pb2.Exited,
) -> tuple[Mapping[str, str] | None, str]:
    """Read an attempt's total usage: exact decimals of at most 64 units (U1); None if there is none."""
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


def _read_heartbeat(message: worker_hub_service_pb2.WorkerMessage) -> SessionEvent:
    details = message.heartbeat.details.json
    try:
        if details:
            check_json(details, max_bytes=HEARTBEAT_DETAILS_BYTES_MAX)
    except InvalidJson as error:
        # The attempt is alive whatever it says.
        return Reported(message.heartbeat.token, "heartbeat", f"its details are dropped: {error}")
    return Reported(message.heartbeat.token, "heartbeat", details[:1024], details)


def _read_extend(message: worker_hub_service_pb2.WorkerMessage) -> SessionEvent | None:
    duration_s = seconds_of_duration(message.extend.duration)
    if not duration_s > 0:
        return None
    return Extended(message.extend.token, min(duration_s, DURATION_S_MAX))


def _read_exited(message: worker_hub_service_pb2.WorkerMessage) -> SessionEvent:
    usage, _ = _read_usage(message.exited)
    return CancelStep(message.exited.token, CancelStage.EXITED, usage)


READERS: Final[Mapping[str, Callable[[worker_hub_service_pb2.WorkerMessage], SessionEvent | None]]] = {
    "credit": _read_slots,
    "accept": lambda message: Accepted(message.accept.token),
    "reject": _read_reject,
    "progress": lambda message: Reported(
        message.progress.token,
        "progress",
        f"{message.progress.fraction:.3g} {message.progress.message[:1024]}",
    ),
    "log": lambda message: Reported(
        message.log.token,
        next((name for lowest, name in _LEVELS if message.log.level >= lowest), "INFO"),
        message.log.message[:LOG_CHARS_MAX],
    ),
    "usage": _read_used,
    "heartbeat": _read_heartbeat,
    "extend": _read_extend,
    "complete": _read_complete,
    "fail": _read_fail,
    "cancel_ack": lambda message: CancelStep(message.cancel_ack.token, CancelStage.ACKNOWLEDGED, None),
    "exited": _read_exited,
    "drain": lambda _: SlotsChanged(0, is_draining=True),
    "pong": lambda message: Ponged(message.pong.number),
}
"""Kind of a message -> its reader, which returns None for ignored ones. `hello` and long results are read separately.

"""
