"""The helper process: reads requests that carry graphs, one after the other, until its input ends.

It is started by `pool` as `python -m plait_server.adapters.requests.helper MEMORY_BYTES`, and speaks `frames`
over standard input and output. When it exceeds its memory or processor time it may die without an answer; the
pool knows what that means. It holds no secret, opens no file and needs no network.
"""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import sys
import time
from pathlib import Path
from typing import Final

from google.protobuf.message import DecodeError

from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.requests.frames import (
    TEXT,
    read_order,
    write_answer,
    write_refusal,
    write_text_answer,
    write_too_costly,
)
from plait_server.adapters.requests.reading import read_bytes
from plait_server.errors import InvalidRequest
from plait_server.ports.graph_requests import Want

NICENESS: Final = 10
"""The server's loop has precedence, because clients wait for it."""

_NO_MEMORY: Final = "it needs more memory than a request may have"


def main() -> None:
    """Serve until standard input ends."""
    memory_bytes = int(sys.argv[1])
    # macOS has no limit on the address space; there only the deadline applies.
    with contextlib.suppress(ValueError):
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)
    # Reading creates millions of objects and no cycles.
    gc.disable()
    evaluator = CelEvaluator()
    memory = _Memory(memory_bytes)
    while line := sys.stdin.buffer.readline():
        order = read_order(line)
        used_s = int(time.process_time()) + 1
        resource.setrlimit(resource.RLIMIT_CPU, (used_s + order.cpu_s, resource.RLIM_INFINITY))
        content = sys.stdin.buffer.read(order.size)
        if len(content) < order.size:
            return
        for part in _answer_to(order.want, content, evaluator, memory):
            sys.stdout.buffer.write(part)
        sys.stdout.buffer.flush()


class _Memory:
    """The memory that this process may still take, as far as the system tells."""

    def __init__(self, limit_bytes: int) -> None:
        taken_bytes = 0
        with contextlib.suppress(OSError):  # Linux alone has this file.
            pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
            taken_bytes = pages * resource.getpagesize()
        self._free_bytes = limit_bytes - taken_bytes
        self._begin_bytes = _peak_bytes()

    def was_short(self) -> bool:
        """Whether more than half of it was in use at some time."""
        return _peak_bytes() - self._begin_bytes > self._free_bytes // 2


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _answer_to(want: str, content: bytes, evaluator: CelEvaluator, memory: _Memory) -> list[bytes]:
    try:
        if want == TEXT:
            # The reader of graph files imports the client and so gRPC, which takes 0.1 s that few helpers need.
            from plait_server.adapters.requests.texts import read_text  # noqa: PLC0415

            return write_text_answer(read_text(content.decode(), evaluator))
        return write_answer(read_bytes(Want[want], content, evaluator))
    except InvalidRequest as error:
        # A parser that runs out of memory reports a parse error.
        if isinstance(error.__cause__, DecodeError) and memory.was_short():
            return write_too_costly(_NO_MEMORY)
        return write_refusal(error)
    except MemoryError:
        return write_too_costly(_NO_MEMORY)


if __name__ == "__main__":
    main()
