"""The helper process: evaluates one expression or template that may take long, and ends.

It is started by `offload` as `python -m plait_server.adapters.expressions.helper`. It reads one JSON object
from standard input, the fields of `Request`, and writes one to standard output: `{"text"}` or `{"error"}`.
At the end of its memory or its time it may die without a word; whoever started it knows what that means. It
holds no secret, opens nothing and needs no network.
"""

from __future__ import annotations

import contextlib
import json
import math
import resource
import sys
from dataclasses import dataclass

from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.expressions.inline import perform
from plait_server.core.json_text import JsonValue
from plait_server.ports.evaluator import ExpressionError, Work


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the helper is asked for."""

    work: str
    """The value of a `Work`."""
    source: str
    """The expression or template."""
    variables: dict[str, JsonValue]
    """What it may see."""
    memory_bytes: int
    """The address space that the process may use."""
    cpu_s: int
    """The processor time that it may use, as a last resort: its parent's deadline is shorter."""
    result_bytes: int
    """The most that the result may have."""


def main() -> None:
    """Serve one request."""
    request = Request(**json.load(sys.stdin))
    _bound_this_process(request)
    try:
        answer = {"text": _result_of(request)}
    except ExpressionError as error:
        answer = {"error": str(error)}
    json.dump(answer, sys.stdout)


def _bound_this_process(request: Request) -> None:
    # macOS knows no limit of the address space; there the deadline alone must do.
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (request.memory_bytes, request.memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (request.cpu_s, request.cpu_s))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _result_of(request: Request) -> str:
    evaluator = CelEvaluator(work_max=math.inf)
    try:
        text = perform(evaluator, Work(request.work), request.source, request.variables)
    except MemoryError:
        raise ExpressionError("it needs more memory than it may have; let a worker compute it") from None
    if len(text.encode()) > request.result_bytes:
        raise ExpressionError(f"the result is larger than {request.result_bytes:,} bytes; keep less of it")
    return text


if __name__ == "__main__":
    main()
