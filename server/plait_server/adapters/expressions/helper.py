"""The helper process: evaluates expressions and templates that may take long, one after the other.

It is started by `offload` as `python -m plait_server.adapters.expressions.helper MEMORY_BYTES`. It reads lines of
JSON from standard input, each the fields of a `Request`, until there are no more, and answers each on standard
output: a line of a word (`text`, `error` or `memory`) and a number, and as many bytes of text. When it runs
out of memory or time it may die without an answer, which the server handles. It holds no secret, opens no file and
needs no network.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import sys
import time
from dataclasses import dataclass
from typing import Final

from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.expressions.inline import perform
from plait_server.adapters.expressions.messages import NO_MEMORY
from plait_server.core.json_text import JsonValue
from plait_server.ports.evaluator import ExpressionError, Work

NICENESS: Final = 5
"""The server's loop has precedence; even on a busy machine the helper must get enough time to meet its deadline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A request to the helper."""

    work: str
    """The value of a `Work`."""
    source: str
    """The expression or template."""
    variables: dict[str, JsonValue]
    """The variables that it may see."""
    cpu_s: int
    """Seconds of processor time that it may use."""
    result_bytes: int
    """The most bytes of the result."""


def main() -> None:
    """Serve until standard input ends, or memory runs out."""
    memory_bytes = int(sys.argv[1])
    # macOS has no limit on the address space; there only the deadline applies.
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)
    evaluator = CelEvaluator(work_max=math.inf)
    kind = "text"
    while kind != "memory" and (line := sys.stdin.buffer.readline()):
        try:
            kind, text = _answer_to(Request(**json.loads(line)), evaluator)
        except MemoryError:
            kind, text = "memory", NO_MEMORY
        content = text.encode()
        sys.stdout.buffer.write(b"%s %d\n" % (kind.encode(), len(content)))
        sys.stdout.buffer.write(content)
        sys.stdout.buffer.flush()


def _answer_to(request: Request, evaluator: CelEvaluator) -> tuple[str, str]:
    used_s = math.ceil(time.process_time())
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (used_s + request.cpu_s, hard))
    try:
        text = perform(evaluator, Work(request.work), request.source, request.variables)
    except ExpressionError as error:
        return "memory" if NO_MEMORY in str(error) else "error", str(error)
    if len(text.encode()) > request.result_bytes:
        return "error", f"the result is larger than {request.result_bytes:,} bytes; keep less of it"
    return "text", text


if __name__ == "__main__":
    main()
