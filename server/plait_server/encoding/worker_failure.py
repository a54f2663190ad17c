"""Reads failures as workers report them.

A worker may send anything: its codes are checked (S2.1), its details must be JSON, its causes are bounded in
number, depth and bytes before they are read, and what only the engine knows (paths, attempts, digests) is
ignored.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Final

from plait.v1 import failure_pb2, payload_pb2, worker_hub_service_pb2
from plait_server.core.json_slices import takes_long
from plait_server.core.json_text import InvalidJson, check_json
from plait_server.core.limits import (
    FAILURE_CAUSES_BYTES_MAX,
    FAILURE_CAUSES_MAX,
    FAILURE_DEPTH_MAX,
    INLINE_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
)
from plait_server.core.run.failures import (
    INVALID_RESULT,
    TOO_LARGE,
    UNKNOWN,
    Failure,
    bounded_message,
    caused_by,
    is_free_to_workers,
)
from plait_server.core.run.payload import Payload

_CODE_CHARS_SHOWN_MAX: Final = 200
"""How many characters of a malformed code are kept: enough to recognize it."""
_CAUSES_READ_MAX: Final = FAILURE_CAUSES_BYTES_MAX // 64
"""The most causes that are read, over all depths: as many as could be kept if each were empty."""
_RESULT_CODES: Final = {
    worker_hub_service_pb2.RESULT_PROBLEM_NOT_JSON: INVALID_RESULT,
    worker_hub_service_pb2.RESULT_PROBLEM_TOO_LARGE: TOO_LARGE,
}


def failure_from_worker(fail: worker_hub_service_pb2.Fail, problem: str = "") -> Failure:
    """Read the failure of an attempt; the caller adds node path and attempt.

    Args:
        fail: The message from the worker.
        problem: Another problem with the report, to be added to the failure's message.
    """
    problems = [problem] if problem else []
    details: Payload | None = None
    if fail.HasField("details"):
        details = _details(fail.details, problems)
    code = _RESULT_CODES.get(fail.result_problem, "")
    if not code:
        code, details = worker_code(fail.code, details)
    message = f"{fail.message} ({'; '.join(problems)})" if problems else fail.message
    causes, omitted = _Causes().read(fail.causes, FAILURE_DEPTH_MAX - 1)
    failure = Failure(
        code=code,
        message=bounded_message(message),
        details=details,
        retryable=fail.retryable,
        causes_omitted=omitted,
    )
    return caused_by(failure, causes)


def worker_code(code: str, details: Payload | None) -> tuple[str, Payload | None]:
    """Check a worker's code; one that workers may not use becomes UNKNOWN, with the original in the details."""
    if is_free_to_workers(code):
        return code, details
    shown = code if len(code) <= _CODE_CHARS_SHOWN_MAX else code[:_CODE_CHARS_SHOWN_MAX] + "…"
    text = f'{{"original_code":{json.dumps(shown, ensure_ascii=False)}'
    if details is not None:
        text += f',"original_details":{details.json}'
    return UNKNOWN, Payload(text + "}")


def _details(message: payload_pb2.Payload, problems: list[str]) -> Payload | None:
    if not message.json:
        problems.append("its details were dropped: they must be JSON text in `json`")
        return None
    if takes_long(message.json):
        problems.append("its details were dropped: they hold too many values to describe a failure")
        return None
    try:
        check_json(message.json, max_bytes=PAYLOAD_BYTES_MAX)
    except InvalidJson as error:
        problems.append(f"its details were dropped: {error}")
        return None
    return Payload(message.json)


class _Causes:
    """Reads no more causes than could be kept, because a message of 4 MiB may hold two million."""

    def __init__(self) -> None:
        self._left = _CAUSES_READ_MAX
        self._details_left = FAILURE_CAUSES_BYTES_MAX

    def read(self, messages: Sequence[failure_pb2.Failure], depth: int) -> tuple[list[Failure], int]:
        """Read the causes of one failure; also return how many were left out."""
        if depth <= 0 or not messages:
            return [], len(messages)
        taken = messages[: min(FAILURE_CAUSES_MAX, self._left)]
        self._left -= len(taken)
        return [self._read_one(message, depth) for message in taken], len(messages) - len(taken)

    def _read_one(self, message: failure_pb2.Failure, depth: int) -> Failure:
        details = self._details(message.details) if message.HasField("details") else None
        omits_details = details is None and message.HasField("details")
        code, details = worker_code(message.code, details)
        causes, omitted = self.read(message.causes, depth - 1)
        return Failure(
            code=code,
            message=bounded_message(message.message),
            details=details,
            causes=tuple(causes),
            retryable=message.retryable,
            causes_omitted=omitted,
            details_omitted=omits_details,
        )

    def _details(self, message: payload_pb2.Payload) -> Payload | None:
        text = message.json
        if len(text) > min(self._details_left, INLINE_BYTES_MAX):
            return None
        self._details_left -= len(text)
        try:
            check_json(text, max_bytes=INLINE_BYTES_MAX)
        except InvalidJson:
            return None
        return Payload(text)
