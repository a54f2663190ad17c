"""How a handler's failure becomes data, and the errors that end a worker."""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from plait.v1 import failure_pb2
from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker.identity import check_id
from plait_worker.limits import CAUSES_MAX, FAILURE_MESSAGE_BYTES_MAX, TRACEBACK_BYTES_MAX
from plait_worker.values import UnfitValue, encode_value

_ELLIPSIS: Final = "..."


class NodeFailure(Exception):
    """Is raised by a handler to fail its attempt with a code, a message and advice of its own.

    Args:
        code: the machine-readable cause, such as UNAVAILABLE; `[A-Za-z0-9_.-]{1,128}`. A graph's retry policy
            lists codes.
        message: what happened and what to do about it; cut at 4 KiB.
        details: what else there is to say, as JSON.
        retryable: whether another attempt may help; None: the policy's codes decide.
        retry_after: how long to wait before the next attempt; wins over the policy's backoff.

    Raises:
        ValueError: if the code does not match, or the time to wait is negative.
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
        if retry_after is not None and retry_after < timedelta():
            raise ValueError(f"retry_after must not be negative: {retry_after}")
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
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True, slots=True, kw_only=True)
class FailureReport:
    """A failure as the session sends it."""

    code: str
    """The machine-readable cause."""
    message: str
    """What happened; at most 4 KiB."""
    details_json: str | None = None
    """What else there is to say."""
    retryable: bool | None = None
    """Whether another attempt may help; None: the policy's codes decide."""
    retry_after_s: float | None = None
    """Seconds to wait before the next attempt."""
    causes: Sequence[failure_pb2.Failure] = ()
    """The exceptions behind this one."""
    result_problem: hub.ResultProblem = hub.RESULT_PROBLEM_UNSPECIFIED
    """What is wrong with the result, if that is why the attempt fails; the server then gives the code."""


def report_of(error: Exception) -> FailureReport:
    """Say what a handler raised: its own failure as it is, another exception as UNKNOWN with a traceback."""
    causes = _causes_of(error, CAUSES_MAX)
    if not isinstance(error, NodeFailure):
        return FailureReport(
            code="UNKNOWN",
            message=cut(_summary_of(error), FAILURE_MESSAGE_BYTES_MAX),
            details_json=encode_value(
                {"exception": type(error).__qualname__, "traceback": _traceback_of(error)}
            ),
            causes=causes,
        )
    try:
        details_json = None if error.details is None else encode_value(error.details)
    except UnfitValue as problem:
        details_json = encode_value({"problem": f"the failure's details are not JSON: {problem}"})
    return FailureReport(
        code=error.code,
        message=cut(error.message, FAILURE_MESSAGE_BYTES_MAX),
        details_json=details_json,
        retryable=error.retryable,
        retry_after_s=None if error.retry_after is None else error.retry_after.total_seconds(),
        causes=causes,
    )


def cut(text: str, bytes_max: int) -> str:
    """Cut a text to a size in UTF-8, marking the cut by dots; lone surrogates are written out."""
    data = text.encode(errors="backslashreplace")
    if len(data) <= bytes_max:
        return data.decode()
    return data[: bytes_max - len(_ELLIPSIS)].decode(errors="ignore") + _ELLIPSIS


def _summary_of(error: BaseException) -> str:
    """Write `ValueError: what it says`; an exception that cannot be written does no harm."""
    return "".join(traceback.format_exception_only(error)).strip()


def _traceback_of(error: Exception) -> str:
    """Write the final lines of the traceback, whole ones, at most 8 KiB."""
    kept: list[str] = []
    room = TRACEBACK_BYTES_MAX
    text = "".join(traceback.format_exception(error)).encode(errors="backslashreplace").decode()
    for line in reversed(text.splitlines()):
        room -= len(line.encode()) + 1
        if room < 0:
            kept.append(_ELLIPSIS)
            break
        kept.append(line)
    return "\n".join(reversed(kept))


def _causes_of(error: BaseException, depth: int) -> Sequence[failure_pb2.Failure]:
    cause = error.__cause__
    if cause is None or depth == 0:
        return ()
    code = cause.code if isinstance(cause, NodeFailure) else "UNKNOWN"
    text = cause.message if isinstance(cause, NodeFailure) else _summary_of(cause)
    message = cut(text, FAILURE_MESSAGE_BYTES_MAX)
    return (failure_pb2.Failure(code=code, message=message, causes=_causes_of(cause, depth - 1)),)
