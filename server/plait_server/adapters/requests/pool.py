"""The helper processes that read large requests and texts: few, bounded, killed when they take too long.

The flow of one request (a text differs only in that it waits for its turn without a bound):

1. A small one (`_is_cheap`) is read in place: no process, no wait.
2. Any other waits for a turn; namespaces take turns. If too many wait, the request is refused with advice when to
   retry. The namespace is the one that the request is carried out in, so that nobody takes another's turn.
3. A helper gets the bytes and answers with the fields of the port's `GraphRequest`, the graph as bytes.
4. A helper that has read a large request is ended, which frees its memory; one that has read small ones is kept
   for some seconds, because starting one takes 0.3 s.
5. A helper that does not answer in time, dies or is cancelled is killed, and its output is dropped.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any, Final

import trio
from google.protobuf.message import DecodeError, Message

from plait.v1 import execution_service_pb2, graph_pb2, graph_service_pb2
from plait_server.adapters.requests.frames import (
    HEADER_BYTES_MAX,
    TEXT,
    BadAnswer,
    Order,
    TooCostlyAnswer,
    read_answer,
    read_header,
    read_text_answer,
    write_order,
)
from plait_server.adapters.requests.inline import InlineGraphRequests
from plait_server.adapters.requests.texts import refused
from plait_server.adapters.turns import NoTurn, Turns, TurnStatistics
from plait_server.core.limits import GRAPH_MESSAGE_BYTES_MAX, KIB, MIB
from plait_server.encoding.last_text import last_text
from plait_server.errors import InvalidRequest, Overloaded, TooCostly
from plait_server.ports.evaluator import Evaluator
from plait_server.ports.graph_requests import GraphRequest, GraphText, Want

CHEAP_ELEMENTS_MAX: Final = 2_000
"""Nodes and edges that are read in place: 8 us each, 16 ms."""
CHEAP_PLAN_ELEMENTS_MAX: Final = 200
"""Nodes and edges that are laid out in place: up to 50 us each, 10 ms."""
CHEAP_EXPRESSIONS_MAX: Final = 100
"""Expressions and templates likewise: 120 us each, 12 ms."""
CHEAP_TEXT_CHARS_MAX: Final = 6 * KIB
"""Texts that are read in place: some 80 nodes in 4 ms, the worst (hundreds of misspelt keys) in 15 ms."""
PROCESSES_MAX: Final = 2
"""More processes would take the processors from the server itself."""
WAITING_MAX: Final = 64
"""Requests that may wait for a helper."""
WAITING_BYTES_MAX: Final = 128 * MIB
"""Their total size."""
DEADLINE_S: Final = 300.0
"""A last resort: on a busy machine helpers run last, and legal graphs must not be refused."""
CPU_S: Final = 60
"""The largest graphs take 5 s, 100,000 templates 12."""
MEMORY_BYTES_MAX: Final = 2_048 * MIB
"""Address space; the largest legal graphs take 1.2 GiB of it."""
KEPT_BYTES_MAX: Final = 256 * KIB
"""A helper is kept after requests of up to this size: they leave little memory to free."""
IDLE_S: Final = 10.0
"""Seconds that an idle helper is kept."""
_CHUNK_BYTES: Final = 256 * KIB
_NAMESPACE_NUMBER: Final = 1
"""The number of the field `namespace` in each request with a graph."""
_MODULE: Final = "plait_server.adapters.requests.helper"


class PooledGraphRequests:
    """Reads small requests in place and others in helper processes; implements the port.

    `run` ends helpers that are idle; without it they are kept until `aclose`.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        *,
        processes: int = PROCESSES_MAX,
        deadline_s: float = DEADLINE_S,
        memory_bytes: int = MEMORY_BYTES_MAX,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        self._inline = InlineGraphRequests(evaluator)
        self._turns = Turns(processes, waiting_max=waiting_max, weight_max=WAITING_BYTES_MAX)
        self._deadline_s = deadline_s
        self._memory_bytes = memory_bytes
        self._idle: list[tuple[float, trio.Process]] = []
        self._kept = trio.Event()

    def __repr__(self) -> str:
        return f"<PooledGraphRequests {self._turns.statistics()}, {len(self._idle)} idle>"

    def statistics(self) -> TurnStatistics:
        """Return a snapshot of the requests being served and waiting."""
        return self._turns.statistics()

    async def read(self, want: Want, request: Message | bytes) -> GraphRequest:
        """Read a request; see the port."""
        if not isinstance(request, bytes):
            if _is_cheap(request):
                return await self._inline.read(want, request)
            request = request.SerializeToString()
        try:
            async with self._turns.turn(_namespace_of(request), len(request)):
                header, parts = await self._read(want.name, request)
        except NoTurn:
            text = "too many large requests wait to be read already; try again later"
            raise Overloaded(text) from None
        answer = read_answer(want, header, parts)
        if isinstance(answer, InvalidRequest):
            raise answer
        return answer

    async def read_text(self, namespace: str, text: str) -> GraphText:
        """Read an output as a graph; see the port."""
        # A text that is too long is refused before it is read.
        if not CHEAP_TEXT_CHARS_MAX < len(text) <= GRAPH_MESSAGE_BYTES_MAX:
            return await self._inline.read_text(namespace, text)
        content = text.encode()
        async with self._turns.turn(namespace, len(content), is_bounded=False):
            try:
                header, parts = await self._read(TEXT, content)
            except TooCostly as error:
                return refused(str(error))
        return read_text_answer(header, parts)

    async def run(self) -> None:
        """End helpers that have been idle for a while, until cancelled; then all."""
        try:
            while True:
                await self._kept.wait()
                self._kept = trio.Event()
                while self._idle:
                    await trio.sleep_until(self._idle[0][0] + IDLE_S)
                    while self._idle and self._idle[0][0] + IDLE_S <= trio.current_time():
                        await _end(self._idle.pop(0)[1])
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """End all idle helpers."""
        while self._idle:
            await _end(self._idle.pop()[1])

    async def _read(self, want: str, content: bytes) -> tuple[dict[str, Any], list[bytes]]:
        process = await self._take_helper()
        is_whole = False
        try:
            with trio.move_on_after(self._deadline_s):
                answer = await _ask(process, want, content)
                is_whole = len(content) <= KEPT_BYTES_MAX
                return answer
            raise TooCostly(f"the graph cannot be read within {self._deadline_s:g} s; send a smaller graph")
        except TooCostlyAnswer as error:
            is_whole = len(content) <= KEPT_BYTES_MAX
            raise TooCostly(f"the graph cannot be read: {error}; send a smaller graph") from None
        except (trio.BrokenResourceError, BadAnswer):
            limit = f"{self._memory_bytes // MIB:,} MiB of memory or {CPU_S} s of processor time"
            text = f"the process that read the graph ended, most likely at its limit of {limit}; send a smaller graph"
            raise TooCostly(text) from None
        finally:
            if is_whole:
                self._idle.append((trio.current_time(), process))
                self._kept.set()
            else:
                await _end(process)

    async def _take_helper(self) -> trio.Process:
        while self._idle:
            _, process = self._idle.pop()
            if process.poll() is None:
                return process
        return await trio.lowlevel.open_process(
            # -P: modules are not imported from the working directory.
            [sys.executable, "-P", "-m", _MODULE, str(self._memory_bytes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A dying interpreter's output helps nobody, and stderr is the server's own log.
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )


async def _ask(process: trio.Process, want: str, content: bytes) -> tuple[dict[str, Any], list[bytes]]:
    assert process.stdin is not None
    assert process.stdout is not None  # both are pipes
    order = Order(want=want, size=len(content), cpu_s=CPU_S)
    await process.stdin.send_all(write_order(order))
    await process.stdin.send_all(content)
    buffer = bytearray()
    while (end := buffer.find(b"\n")) < 0:
        if len(buffer) > HEADER_BYTES_MAX:
            raise BadAnswer
        await _receive(process.stdout, buffer)
    header, sizes = read_header(bytes(buffer[:end]))
    del buffer[: end + 1]
    while len(buffer) < sum(sizes):
        await _receive(process.stdout, buffer)
    parts: list[bytes] = []
    with memoryview(buffer) as whole:
        for size in sizes:
            begin = sum(len(part) for part in parts)
            parts.append(bytes(whole[begin : begin + size]))
    return header, parts


async def _receive(stream: trio.abc.ReceiveStream, buffer: bytearray) -> None:
    chunk = await stream.receive_some(_CHUNK_BYTES)
    if not chunk:
        raise trio.BrokenResourceError
    buffer += chunk


async def _end(process: trio.Process) -> None:
    """Kill a process: it has nothing to clean up."""
    process.kill()
    with trio.CancelScope(shield=True):
        await process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                await stream.aclose()


def _is_cheap(request: Message) -> bool:
    elements_max = CHEAP_ELEMENTS_MAX
    match request:
        case execution_service_pb2.SubmitGraphRequest() | graph_service_pb2.ValidateGraphRequest():
            graph = request.graph
        case graph_service_pb2.PlanGraphRequest():
            graph = request.graph
            elements_max = CHEAP_PLAN_ELEMENTS_MAX
        case _:
            return True
    elements = 0
    texts: set[str] = set()
    """The distinct texts that have to be compiled."""
    rest = [graph]
    while rest:
        each = rest.pop()
        elements += len(each.nodes) + len(each.edges)
        if elements > elements_max:
            return False
        texts |= _expressions(each)
        rest += [node.subgraph.graph for node in each.nodes if node.HasField("subgraph")]
    return len(texts) <= CHEAP_EXPRESSIONS_MAX


def _expressions(graph: graph_pb2.Graph) -> set[str]:
    texts = {node.input.json for node in graph.nodes if node.HasField("input")}
    texts |= {node.condition.expression for node in graph.nodes if node.HasField("condition")}
    texts |= {node.switch.expression for node in graph.nodes if node.HasField("switch")}
    texts |= {edge.when for edge in graph.edges if edge.when}
    return texts


def _namespace_of(content: bytes) -> str:
    """Return the namespace of an encoded request; empty if it is malformed, and will be refused."""
    try:
        return last_text(content, _NAMESPACE_NUMBER)
    except DecodeError:
        return ""


def _environment() -> dict[str, str]:
    """Return a helper's environment: the module path only, because the server's own may hold secrets."""
    paths = [entry for entry in sys.path if entry]
    return {"PYTHONPATH": os.pathsep.join(paths), "PYTHONHASHSEED": "0", "LC_ALL": "C.UTF-8"}
