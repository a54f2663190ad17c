"""Failures as workers report them, read into the engine's terms.

A worker may send anything: its codes are checked (S2.1), its details must be JSON, its causes are bounded in
number, depth and bytes before they are touched, and what only the engine knows (paths, attempts, digests) is
not taken from it.
"""

from __future__ import annotations

import json
from typing import Final

from plait.v1 import payload_pb2, worker_hub_service_pb2
from plait_server.core.failures import (
    INVALID_RESULT,
    TOO_LARGE,
    UNKNOWN,
    Failure,
    bounded,
    bounded_message,
    is_free_to_workers,
)
from plait_server.core.json_text import InvalidJson, check_json
from plait_server.core.limits import PAYLOAD_BYTES_MAX
from plait_server.core.payload import Payload
from plait_server.encoding.failure_codec import failure_from_proto

_CODE_CHARS_SHOWN_MAX: Final = 200
"""How much of a malformed code is kept: enough to recognize it."""
_RESULT_CODES: Final = {
    worker_hub_service_pb2.RESULT_PROBLEM_NOT_JSON: INVALID_RESULT,
    worker_hub_service_pb2.RESULT_PROBLEM_TOO_LARGE: TOO_LARGE,
}


def failure_from_worker(fail: worker_hub_service_pb2.Fail, problem: str = "") -> Failure:
    """Read the failure of an attempt; node path and attempt are left to the caller, who knows them.

    Args:
        fail: What the worker sent.
        problem: What else was wrong with it, to be said in the message.
    """
    problems = [problem] if problem else []
    details: Payload | None = None
    if fail.HasField("details"):
        details = _details(fail.details, problems)
    code = _RESULT_CODES.get(fail.result_problem, "")
    if not code:
        code, details = worker_code(fail.code, details)
    message = f"{fail.message} ({'; '.join(problems)})" if problems else fail.message
    return Failure(
        code=code,
        message=bounded_message(message),
        details=details,
        causes=bounded(failure_from_proto(cause) for cause in fail.causes),
        retryable=fail.retryable,
    )


def worker_code(code: str, details: Payload | None) -> tuple[str, Payload | None]:
    """Check a code that a worker gave; one that is not free to it becomes UNKNOWN, with the original in the details."""
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
    try:
        check_json(message.json, max_bytes=PAYLOAD_BYTES_MAX)
    except InvalidJson as error:
        problems.append(f"its details were dropped: {error}")
        return None
    return Payload(message.json)
