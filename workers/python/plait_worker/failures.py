"""How a handler's failure becomes data, and the errors that end a worker."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, cast

from plait.v1 import failure_pb2
from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker.identity import check_id
from plait_worker.limits import (
    CAUSES_MAX,
    DURATION_MAX,
    EXCEPTIONS_SHOWN_MAX,
    FAILURE_MESSAGE_BYTES_MAX,
    TRACEBACK_BYTES_MAX,
    TRACEBACK_FRAMES_MAX,
    TRACEBACK_LINE_BYTES_MAX,
)
from plait_worker.values import UnfitValue, encode_value

UNKNOWN: Final = "UNKNOWN"
"""The code of what a handler raised without a code of its own."""

_ELLIPSIS: Final = "..."
_NOT_THE_WORKER: Final = "a handler ends its attempt, not its worker: return, or raise NodeFailure"


class NodeFailure(Exception):
    """Raised by a handler to fail its attempt with a code, a message and advice of its own.

    Args:
        code: the machine-readable cause, such as UNAVAILABLE; `[A-Za-z0-9_.-]{1,128}`. A graph's retry policy
            lists codes.
        message: what happened and what to do about it; cut at 4 KiB.
        details: what else there is to say, as JSON of at most 1 MiB.
        retryable: whether another attempt may help; None: the policy's codes decide.
        retry_after: how long to wait before the next attempt, zero to 3,660 days; wins over the policy's
            backoff.

    Raises:
        TypeError: if `retry_after` is no timedelta.
        ValueError: if the code does not match, or the time to wait is out of its bounds.
    """

    def __init__(
        self,
        code: str,
        message: str,
        details: object = None,
        retryable: bool | None = None,  # noqa: FBT001 - three-valued advice, named at every sensible call.
        retry_after: timedelta | None = None,
    ) -> None:
        check_id("the code of a failure", code)
        if retry_after is not None:
            # Callers are not all type-checked.
            if not isinstance(retry_after, timedelta):  # pyright: ignore[reportUnnecessaryIsInstance]
                raise TypeError(f"retry_after is a timedelta, not a {type(retry_after).__name__}")
            if not timedelta() <= retry_after <= DURATION_MAX:
                raise ValueError(f"retry_after must be within 0 to {DURATION_MAX.days} days: {retry_after}")
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.details = details
        self.retryable = retryable
        self.retry_after = retry_after

    def __str__(self) -> str:
        """Show code and message."""
        return f"{self.code}: {self.message}"


class WorkerRefused(Exception):
    """The server will not have this worker, and trying again cannot help; the message names the remedy.

    Args:
        code: the gRPC code, such as PERMISSION_DENIED.
        message: what happened and what to do about it.
        reason: the server's reason, one of plait.v1.ErrorReason without its prefix; empty if there is none.
    """

    def __init__(self, code: str, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """A failure as the session sends it."""

    code: str
    """The machine-readable cause."""
    message: str
    """What happened; at most 4 KiB."""
    details_json: str | None = None
    """More about the failure, as JSON."""
    retryable: bool | None = None
    """Whether another attempt may help; None: the policy's codes decide."""
    retry_after_s: float | None = None
    """Seconds to wait before the next attempt."""
    causes: Sequence[failure_pb2.Failure] = ()
    """The exceptions behind this one."""
    result_problem: hub.ResultProblem = hub.RESULT_PROBLEM_UNSPECIFIED
    """What is wrong with the result, if that is why the attempt fails; the server then sets the code."""
    exception: str = ""
    """The name of the exception's class, for the handler's span; empty if there was none."""
    traceback: str = ""
    """The final lines of its traceback, for the handler's span; empty for a failure that the handler meant."""


def report_of(error: BaseException) -> FailureReport:
    """Say what a handler raised: its own failure as it is, another exception as UNKNOWN with a traceback.

    Whatever the exception does when it is looked at, it fails its own attempt alone.
    """
    try:
        return _report_of_failure(error) if isinstance(error, NodeFailure) else _report_of_exception(error)
    except Exception as problem:  # noqa: BLE001 - the code of foreign exceptions runs in there.
        kind = type(error).__name__
        message = f"{kind}, which cannot be shown: {_summary_of(problem)}"
        return FailureReport(code=UNKNOWN, message=cut(message, FAILURE_MESSAGE_BYTES_MAX))


def _report_of_failure(error: NodeFailure) -> FailureReport:
    try:
        details_json = None if error.details is None else encode_value(error.details)
    except UnfitValue as problem:
        details_json = encode_value({"problem": f"the failure's details were dropped: {problem}"})
    # Anything may have been assigned to it since it was made.
    check_id("the code of a failure", error.code)
    return FailureReport(
        code=error.code,
        message=cut(str(error.message), FAILURE_MESSAGE_BYTES_MAX),
        details_json=details_json,
        retryable=None if error.retryable is None else bool(error.retryable),
        retry_after_s=None if error.retry_after is None else error.retry_after.total_seconds(),
        causes=_causes_of(error, CAUSES_MAX),
        exception=type(error).__qualname__,
    )


def _report_of_exception(error: BaseException) -> FailureReport:
    summary = _summary_of(error)
    if not isinstance(error, Exception):
        # SystemExit and its like: whoever raises them means to end more than the attempt.
        summary = cut(f"{summary}; {_NOT_THE_WORKER}", FAILURE_MESSAGE_BYTES_MAX)
    exception = type(error).__qualname__
    shown = _traceback_of(error)
    return FailureReport(
        code=UNKNOWN,
        message=summary,
        details_json=encode_value({"exception": exception, "traceback": shown}),
        causes=_causes_of(error, CAUSES_MAX),
        exception=exception,
        traceback=shown,
    )


def cut(text: str, bytes_max: int) -> str:
    """Cut a text to a size in UTF-8, marking the cut by dots; lone surrogates are written out."""
    # A character takes a byte at least: of a text of 10 MB no more is looked at.
    data = text[: bytes_max + 1].encode(errors="backslashreplace")
    if len(data) <= bytes_max:
        return data.decode()
    return data[: bytes_max - len(_ELLIPSIS)].decode(errors="ignore") + _ELLIPSIS


def _summary_of(error: BaseException) -> str:
    """Write `ValueError: what it says`; an exception that cannot be written does no harm."""
    if _is_one_of_many(error):
        text = f"{type(error).__qualname__}: {error}"
    else:
        text = "".join(traceback.format_exception_only(error)).strip()
    return cut(text, FAILURE_MESSAGE_BYTES_MAX)


def _traceback_of(error: BaseException) -> str:
    """Write the final lines of the traceback, at most 8 KiB; a long line is cut."""
    if _is_one_of_many(error):
        parts = [*traceback.format_tb(error.__traceback__, -TRACEBACK_FRAMES_MAX), _summary_of(error)]
    else:
        parts = traceback.format_exception(error, limit=-TRACEBACK_FRAMES_MAX)
    kept: list[str] = []
    room = TRACEBACK_BYTES_MAX
    for line in reversed("".join(parts).splitlines()):
        shown = cut(line, TRACEBACK_LINE_BYTES_MAX)
        room -= len(shown.encode()) + 1
        if room < len(_ELLIPSIS):
            kept.append(_ELLIPSIS)
            break
        kept.append(shown)
    return "\n".join(reversed(kept))


def _is_one_of_many(error: BaseException) -> bool:
    """Whether more than 100 exceptions hang together: Python's formatter would look at all of them."""
    pending: list[BaseException] = [error]
    seen: set[int] = set()
    while pending and len(seen) <= EXCEPTIONS_SHOWN_MAX:
        raised = pending.pop()
        if id(raised) in seen:
            continue
        seen.add(id(raised))
        pending += [earlier for earlier in (raised.__cause__, raised.__context__) if earlier is not None]
        if isinstance(raised, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", raised)
            pending += group.exceptions[: EXCEPTIONS_SHOWN_MAX + 1]
    return len(seen) > EXCEPTIONS_SHOWN_MAX


def _causes_of(error: BaseException, depth: int) -> Sequence[failure_pb2.Failure]:
    cause = error.__cause__
    if cause is None or depth == 0:
        return ()
    if isinstance(cause, NodeFailure):
        check_id("the code of a failure", cause.code)
        code, message = cause.code, cut(str(cause.message), FAILURE_MESSAGE_BYTES_MAX)
    else:
        code, message = UNKNOWN, _summary_of(cause)
    return (failure_pb2.Failure(code=code, message=message, causes=_causes_of(cause, depth - 1)),)
