"""Failures of a node's work, as data (E1)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from plait_server.core.limits import (
    FAILURE_CAUSES_MAX,
    FAILURE_DEPTH_MAX,
    FAILURE_MESSAGE_BYTES_MAX,
    ID_PATTERN,
)
from plait_server.core.payload import Payload
from plait_server.core.states import REASONS

UNKNOWN: Final = "UNKNOWN"
"""A handler raised an exception that has no code of its own, or its code was refused."""
DEADLINE_EXCEEDED: Final = "DEADLINE_EXCEEDED"
EXPRESSION: Final = "EXPRESSION"
INVALID_RESULT: Final = "INVALID_RESULT"
"""A result is not JSON."""
TOO_LARGE: Final = "TOO_LARGE"
"""A result is over the payload's limit."""
WORKER_LOST: Final = "WORKER_LOST"
"""Of an attempt alone: its node is done again, or fails with POISON (T2)."""
POISON: Final = "POISON"
ALL_BRANCHES_FAILED: Final = "ALL_BRANCHES_FAILED"
QUORUM_UNREACHABLE: Final = "QUORUM_UNREACHABLE"
MIN_SUCCESS_RATE: Final = "MIN_SUCCESS_RATE"
BUDGET_EXCEEDED: Final = "BUDGET_EXCEEDED"

GRPC_CODES: Final = frozenset(
    {
        "CANCELLED",
        "UNKNOWN",
        "INVALID_ARGUMENT",
        "DEADLINE_EXCEEDED",
        "NOT_FOUND",
        "ALREADY_EXISTS",
        "PERMISSION_DENIED",
        "RESOURCE_EXHAUSTED",
        "FAILED_PRECONDITION",
        "ABORTED",
        "OUT_OF_RANGE",
        "UNIMPLEMENTED",
        "INTERNAL",
        "UNAVAILABLE",
        "DATA_LOSS",
        "UNAUTHENTICATED",
    }
)
"""The sixteen status codes of gRPC besides OK."""
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
"""What only the engine may say (S2.1): its codes that are not gRPC's, and its reasons."""
_CODE: Final = re.compile(ID_PATTERN)


def is_free_to_workers(code: str) -> bool:
    """Say whether a worker may give this code: it is well-formed, and not one of the engine's (S2.1)."""
    return code not in ENGINE_CODES and _CODE.fullmatch(code) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something failed; `plait.v1.Failure` says the same on the wire."""

    code: str
    message: str = ""
    details: Payload | None = None
    causes: tuple[Failure, ...] = ()
    """At most 50, at most 8 deep: `bounded` sees to it."""
    retryable: bool = False
    node_path: str = ""
    attempt: int = 0


def bounded(causes: Iterable[Failure], depth: int = FAILURE_DEPTH_MAX - 1) -> tuple[Failure, ...]:
    """Cut a list of causes to the limits; a chain of failed joins would otherwise grow with the graph."""
    if depth <= 0:
        return ()
    kept: list[Failure] = []
    for cause in causes:
        if len(kept) == FAILURE_CAUSES_MAX:
            break
        kept.append(cause if _depth_within(cause, depth) else _cut(cause, depth))
    return tuple(kept)


def bounded_message(message: str) -> str:
    """Cut a message to its limit in bytes, at a character's end."""
    data = message.encode("utf-8", "replace")
    if len(data) <= FAILURE_MESSAGE_BYTES_MAX:
        return message
    return data[: FAILURE_MESSAGE_BYTES_MAX - 3].decode("utf-8", "ignore") + "…"


def failure_to_json(failure: Failure) -> str:
    """Write a failure as the JSON object that `error` edges and COLLECT carry (J2, J4)."""
    parts = [
        f'"code":{json.dumps(failure.code, ensure_ascii=False)}',
        f'"message":{json.dumps(failure.message, ensure_ascii=False)}',
        f'"node_path":{json.dumps(failure.node_path)}',
        f'"attempt":{failure.attempt}',
        f'"retryable":{"true" if failure.retryable else "false"}',
    ]
    if failure.details is not None and not failure.details.digest:
        parts.append(f'"details":{failure.details.json}')
    if failure.causes:
        parts.append(f'"causes":[{",".join(failure_to_json(cause) for cause in failure.causes)}]')
    return "{" + ",".join(parts) + "}"


def _depth_within(failure: Failure, depth: int) -> bool:
    return depth > 0 and all(_depth_within(cause, depth - 1) for cause in failure.causes)


def _cut(failure: Failure, depth: int) -> Failure:
    return Failure(
        code=failure.code,
        message=failure.message,
        details=failure.details,
        causes=bounded(failure.causes, depth - 1),
        retryable=failure.retryable,
        node_path=failure.node_path,
        attempt=failure.attempt,
    )
