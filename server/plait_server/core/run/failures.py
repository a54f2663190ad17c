"""Failures of a node's work, as data (E1)."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Final

from plait_server.core.limits import (
    FAILURE_CAUSES_BYTES_MAX,
    FAILURE_CAUSES_MAX,
    FAILURE_DEPTH_MAX,
    FAILURE_MESSAGE_BYTES_MAX,
    ID_PATTERN,
)
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import REASONS

UNKNOWN: Final = "UNKNOWN"
"""A handler raised an exception that has no code of its own, or its code was refused."""
DEADLINE_EXCEEDED: Final = "DEADLINE_EXCEEDED"
EXPRESSION: Final = "EXPRESSION"
INVALID_RESULT: Final = "INVALID_RESULT"
"""A result is not JSON."""
TOO_LARGE: Final = "TOO_LARGE"
"""A result is over the payload's limit."""
WORKER_LOST: Final = "WORKER_LOST"
"""The code of an attempt only: its node is redone, or fails with POISON (T2)."""
POISON: Final = "POISON"
ALL_BRANCHES_FAILED: Final = "ALL_BRANCHES_FAILED"
QUORUM_UNREACHABLE: Final = "QUORUM_UNREACHABLE"
MIN_SUCCESS_RATE: Final = "MIN_SUCCESS_RATE"
BUDGET_EXCEEDED: Final = "BUDGET_EXCEEDED"

ENGINE_CODES: Final = frozenset(
    {
        EXPRESSION,
        INVALID_RESULT,
        TOO_LARGE,
        WORKER_LOST,
        POISON,
        ALL_BRANCHES_FAILED,
        QUORUM_UNREACHABLE,
        MIN_SUCCESS_RATE,
        BUDGET_EXCEEDED,
        *REASONS,
    }
)
"""Codes that only the engine may use (S2.1): its own ones, which are not gRPC's, and its reasons."""
_CODE: Final = re.compile(ID_PATTERN)
_OVERHEAD: Final = 64
"""Bytes of a failure in binary form besides its texts, at most."""


def is_free_to_workers(code: str) -> bool:
    """Return whether a worker may use this code: it is well-formed and not one of the engine's (S2.1)."""
    return code not in ENGINE_CODES and _CODE.fullmatch(code) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something failed; `plait.v1.Failure` is its wire form."""

    code: str
    message: str = ""
    details: Payload | None = None
    causes: tuple[Failure, ...] = ()
    """Within the limits that `caused_by` enforces."""
    retryable: bool = False
    node_path: str = ""
    attempt: int = 0
    causes_omitted: int = 0
    """How many causes were left out of `causes`, not counting their own causes."""
    details_omitted: bool = False
    """Whether the details were left out: of a cause, of a failure in a list, or because a join's object was too large.

    """


def caused_by(failure: Failure, causes: Sequence[Failure]) -> Failure:
    """Return a failure with as many causes as the limits allow; else a chain of failed joins would grow with the graph.

    Args:
        failure: One without causes.
        causes: The causes, the most important first.
    """
    kept, omitted, _ = _fit(causes, FAILURE_CAUSES_BYTES_MAX, FAILURE_DEPTH_MAX - 1)
    return replace(failure, causes=kept, causes_omitted=failure.causes_omitted + omitted)


def cut_failure(failure: Failure, room: int) -> Failure:
    """Cut a failure's details and causes to a number of bytes; its code and its message stay."""
    return _cut(failure, room, FAILURE_DEPTH_MAX)[0]


def bounded_message(message: str) -> str:
    """Cut a message to its limit in bytes, at a character boundary."""
    if (
        len(message) <= FAILURE_MESSAGE_BYTES_MAX // 4
    ):  # Short enough even if every character takes the most bytes.
        return message
    data = message[:FAILURE_MESSAGE_BYTES_MAX].encode("utf-8", "replace")
    if len(message) <= FAILURE_MESSAGE_BYTES_MAX and len(data) <= FAILURE_MESSAGE_BYTES_MAX:
        return message
    return data[: FAILURE_MESSAGE_BYTES_MAX - 3].decode("utf-8", "ignore") + "…"


def _named(payload: Payload) -> str:
    return f'{{"digest":"{payload.digest}"}}' if payload.digest else payload.json


def failure_to_json(
    failure: Failure, text_of: Callable[[Payload], str] = _named, *, bytes_max: int | None = None
) -> str:
    """Write a failure as the JSON object that `error` edges and COLLECT carry (J2, J4).

    Args:
        failure: The failure.
        text_of: Returns the text of details; without it, details stored by digest are written as the digest.
        bytes_max: If it would be longer than this, the details of its causes are left out.
    """
    with_details = bytes_max is None or _spliced_size(failure, with_details=True) <= bytes_max
    return _write(failure, text_of, is_cause=False, with_details=with_details)


def failure_size(failure: Failure, *, bytes_max: int) -> int:
    """Estimate the bytes that `failure_to_json` writes."""
    size = _spliced_size(failure, with_details=True)
    return size if size <= bytes_max else _spliced_size(failure, with_details=False)


def _write(failure: Failure, text_of: Callable[[Payload], str], *, is_cause: bool, with_details: bool) -> str:
    parts = [
        f'"code":{json.dumps(failure.code, ensure_ascii=False)}',
        f'"message":{json.dumps(failure.message, ensure_ascii=False)}',
        f'"node_path":{json.dumps(failure.node_path)}',
        f'"attempt":{failure.attempt}',
        f'"retryable":{"true" if failure.retryable else "false"}',
    ]
    omits_details = failure.details_omitted
    if failure.details is not None:
        if is_cause and not with_details:
            omits_details = True
        else:
            parts.append(f'"details":{text_of(failure.details)}')
    if omits_details:
        parts.append('"details_omitted":true')
    if failure.causes:
        causes = (
            _write(cause, text_of, is_cause=True, with_details=with_details) for cause in failure.causes
        )
        parts.append(f'"causes":[{",".join(causes)}]')
    if failure.causes_omitted:
        parts.append(f'"causes_omitted":{failure.causes_omitted}')
    return "{" + ",".join(parts) + "}"


def _spliced_size(failure: Failure, *, with_details: bool, is_cause: bool = False) -> int:
    size = _own_size(failure)
    size += sum(_spliced_size(cause, with_details=with_details, is_cause=True) for cause in failure.causes)
    details = failure.details
    if details is not None and (with_details or not is_cause):
        size += details.size_bytes if details.digest else _bytes(details.json)
    return size


def _fit(causes: Sequence[Failure], room: int, depth: int) -> tuple[tuple[Failure, ...], int, int]:
    """Choose the causes that fit, before any of their own causes; also return how many do not, and the bytes taken."""
    if depth <= 0:
        return (), len(causes), 0
    taken, count = 0, 0
    for cause in islice(causes, FAILURE_CAUSES_MAX):
        size = _own_size(cause)
        if taken + size > room:
            break
        taken += size
        count += 1
    kept: list[Failure] = []
    for cause in islice(causes, count):
        cut, more = _cut(cause, room - taken, depth)
        kept.append(cut)
        taken += more
    return tuple(kept), len(causes) - count, taken


def _cut(failure: Failure, room: int, depth: int) -> tuple[Failure, int]:
    """Cut a failure's details and causes; also return the bytes that the rest takes."""
    details, taken = failure.details, 0
    if details is not None:
        taken = _OVERHEAD + len(details.digest) + _bytes(details.json)
        if taken > room:
            details, taken = None, 0
    causes, omitted, more = _fit(failure.causes, room - taken, depth - 1)
    is_whole = details is failure.details and not omitted
    if is_whole and all(map(operator.is_, causes, failure.causes)):
        return failure, taken + more
    cut = replace(
        failure,
        details=details,
        details_omitted=failure.details_omitted or details is not failure.details,
        causes=causes,
        causes_omitted=failure.causes_omitted + omitted,
    )
    return cut, taken + more


def _own_size(failure: Failure) -> int:
    return _OVERHEAD + len(failure.code) + _bytes(failure.message) + _bytes(failure.node_path)


def _bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())
