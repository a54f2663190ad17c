"""A rig: how long a server is deaf while large and hostile requests come in.

It starts a server, pings it every 5 ms from a process of its own, makes one request a case, and prints for
each the answer, the longest ping, the server's CPU time and its memory after. Run it by hand, on a machine
with nothing else to do:

    .venv/bin/python -m tests.rigs.large_requests [--store PATH] [CASE...]
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Final, TypeAlias, cast

import grpc

from tests.end_to_end.processes import Server

SUBMIT: Final = "/plait.v1.ExecutionService/SubmitGraph"
VALIDATE: Final = "/plait.v1.GraphService/ValidateGraph"
PLAN: Final = "/plait.v1.GraphService/PlanGraph"
GET: Final = "/plait.v1.ExecutionService/GetExecution"
LIST_NODES: Final = "/plait.v1.ExecutionService/ListNodes"
WATCH: Final = "/plait.v1.ExecutionService/WatchExecution"
CANCEL: Final = "/plait.v1.ExecutionService/CancelExecution"
PING: Final = "/plait.v1.SystemService/GetServerInfo"

OPTIONS: Final = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
]
PING_GAP_S: Final = 0.005
SETTLE_S: Final = 3.0
"""For what a request leaves behind: a commit's checkpoint, the collector, a helper's end."""
CALL_S: Final = 120.0


Caller: TypeAlias = "grpc.UnaryUnaryMultiCallable[bytes, bytes]"
Watcher: TypeAlias = "grpc.UnaryStreamMultiCallable[bytes, bytes]"


# Messages, written by hand: the generated classes would take longer than the server.


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes | str) -> bytes:
    """A length-delimited field."""
    raw = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def task(id_: str, *more: bytes) -> bytes:
    return field(2, field(1, id_) + field(2, field(1, "t")) + b"".join(more))


def edge(source: str, target: str) -> bytes:
    return field(3, field(1, source) + field(2, target))


def request(graph: bytes, *, id_: str = "") -> bytes:
    """A SubmitGraphRequest, and a ValidateGraphRequest as well: they agree in namespace and graph."""
    return field(1, "large") + field(2, graph) + (field(5, id_) if id_ else b"")


def nodes_of(count: int) -> bytes:
    return b"".join(task(f"n{i}") for i in range(count))


def chain(count: int) -> bytes:
    return nodes_of(count) + b"".join(edge(f"n{i}", f"n{i + 1}") for i in range(count - 1))


def layered(count: int, edges: int) -> bytes:
    """Every node leads to the five after it, as far as there are edges."""
    pairs = ((i, i + j) for i in range(count) for j in range(1, 7) if i + j < count)
    return nodes_of(count) + b"".join(
        edge(f"n{a}", f"n{b}") for (a, b), _ in zip(pairs, range(edges), strict=False)
    )


def templates(count: int) -> bytes:
    def one(i: int) -> bytes:
        return task(f"n{i}", field(10, field(1, f'{{"a":"{{{{ input.a + {i} }}}}"}}')))

    return b"".join(one(i) for i in range(count))


def hostile(content: bytes, total: int = 15_000_000) -> bytes:
    return content * (total // len(content))


CASES: Final[dict[str, tuple[str, Callable[[], bytes]]]] = {
    "7.5 M empty nodes": (SUBMIT, lambda: request(hostile(field(2, b"")))),
    "7.5 M empty edges": (SUBMIT, lambda: request(field(2, field(1, "a")) + hostile(field(3, b"")))),
    "7.5 M codes in one node": (
        SUBMIT,
        lambda: request(task("a", field(12, hostile(field(5, b""))))),
    ),
    "7.5 M cases in one node": (
        VALIDATE,
        lambda: request(field(2, field(1, "a") + field(4, field(1, "input") + hostile(field(2, b""))))),
    ),
    "3.7 M labels of a graph": (SUBMIT, lambda: request(task("a") + hostile(field(7, b"\x0a\x00")))),
    "1 M distinct labels": (
        SUBMIT,
        lambda: request(task("a")) + b"".join(field(6, field(1, str(i))) for i in range(1_000_000)),
    ),
    "15 MB of an unknown field": (SUBMIT, lambda: request(task("a")) + hostile(field(99, b""))),
    "15 MB of groups": (
        SUBMIT,
        lambda: request(task("a") + hostile(varint(99 << 3 | 3) + varint(99 << 3 | 4))),
    ),
    "1 MB of empty nodes": (SUBMIT, lambda: request(hostile(field(2, b""), 1_000_000))),
    "60 kB of empty nodes": (SUBMIT, lambda: request(hostile(field(2, b""), 60_000))),
    "30 kB of empty nodes": (SUBMIT, lambda: request(hostile(field(2, b""), 30_000))),
    "4 MB ListNodes": (LIST_NODES, lambda: field(1, "large") + hostile(field(99, b""), 4_000_000)),
    "100,000 nodes, no edges": (SUBMIT, lambda: request(nodes_of(100_000), id_="wide")),
    "chain of 100,000": (SUBMIT, lambda: request(chain(100_000), id_="chain")),
    "100,000 nodes, 500,000 edges": (SUBMIT, lambda: request(layered(100_000, 500_000), id_="layered")),
    "the same, validated": (VALIDATE, lambda: request(layered(100_000, 500_000))),
    "the same, planned": (PLAN, lambda: request(layered(100_000, 500_000))),
    "100,000 templates": (VALIDATE, lambda: request(templates(100_000))),
    "1 MiB graph": (VALIDATE, lambda: request(chain(20_000))),
    "60 kB graph": (VALIDATE, lambda: request(chain(1_250))),
    "60 kB of templates": (VALIDATE, lambda: request(templates(1_300))),
    "get of 100,000": (GET, lambda: field(1, "large") + field(2, "layered")),
    "list of 1,000 nodes": (LIST_NODES, lambda: field(1, "large") + field(2, "layered") + b"\x18\xe8\x07"),
    "snapshot of 100,000": (WATCH, lambda: field(1, "large") + field(2, "layered") + b"\x20\x01"),
    "cancel of 100,000 nodes": (CANCEL, lambda: field(1, "large") + field(2, "layered")),
}


# The server seen from outside.


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process and its children have used."""

    cpu_s: float
    rss_mb: float


def usage_of(pid: int) -> Usage:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2].split()
    ticks = os.sysconf("SC_CLK_TCK")
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return Usage(
        cpu_s=(int(fields[11]) + int(fields[12])) / ticks, rss_mb=pages * os.sysconf("SC_PAGESIZE") / 1e6
    )


def ping(address: str, pipe: Connection) -> None:
    """Ping until told to stop; on every message answer with the longest ping since the last."""
    channel = grpc.insecure_channel(address, options=OPTIONS)
    call: Caller = channel.unary_unary(PING)
    longest_s = 0.0
    while True:
        begun_s = time.perf_counter()
        call(b"", timeout=CALL_S)
        longest_s = max(longest_s, time.perf_counter() - begun_s)
        if pipe.poll(PING_GAP_S):
            if pipe.recv() is None:
                return
            pipe.send(longest_s)
            longest_s = 0.0


def longest_ping(pipe: Connection) -> float:
    pipe.send("longest")
    longest_s: float = pipe.recv()
    return longest_s


def answer_to(channel: grpc.Channel, path: str, content: bytes) -> str:
    """Make a call and return the answer in few words."""
    try:
        if path == WATCH:
            watch: Watcher = channel.unary_stream(path)
            frames = watch(content, timeout=CALL_S)
            size = 0
            for frame in frames:
                size += len(frame)
                if frame[:1] != b"\x12":  # No part of the snapshot any more.
                    frames.cancel()
                    break
            return f"OK, {size:,} B"
        call: Caller = channel.unary_unary(path)
        return f"OK, {len(call(content, timeout=CALL_S)):,} B"
    except grpc.RpcError as error:
        refusal = cast("grpc.Call", error)
        return f"{refusal.code().name}: {refusal.details()}"


def measure(server: Server, names: list[str], *, as_json: bool) -> None:
    ours, theirs = multiprocessing.Pipe()
    pinger = multiprocessing.get_context("spawn").Process(target=ping, args=(server.address, theirs))
    pinger.start()
    channel = grpc.insecure_channel(server.address, options=OPTIONS)
    time.sleep(SETTLE_S)
    print(
        f"{'case':32} {'MB':>5} {'call s':>7} {'ping max ms':>11} {'after ms':>8} {'cpu s':>6} {'rss MB':>6}"
    )
    for name in names:
        path, make = CASES[name]
        content = make()
        longest_ping(ours)
        before = usage_of(server.pid)
        begun_s = time.perf_counter()
        answer = answer_to(channel, path, content)
        took_s = time.perf_counter() - begun_s
        during_s = longest_ping(ours)
        time.sleep(SETTLE_S)
        after_s = longest_ping(ours)
        after = usage_of(server.pid)
        row = {
            "case": name,
            "request_mb": round(len(content) / 1e6, 1),
            "call_s": round(took_s, 2),
            "ping_max_ms": round(during_s * 1e3),
            "ping_after_ms": round(after_s * 1e3),
            "cpu_s": round(after.cpu_s - before.cpu_s, 2),
            "rss_mb": round(after.rss_mb),
            "answer": answer[:160],
        }
        if as_json:
            print(json.dumps(row), flush=True)
        else:
            case, size, call, during, late, cpu, rss, text = row.values()
            print(f"{case:32} {size:5} {call:7} {during:11} {late:8} {cpu:6} {rss:6}  {text}", flush=True)
    ours.send(None)
    pinger.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help="all by default")
    parser.add_argument("--store", help="path of a SQLite store; a temporary one by default")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    arguments = parser.parse_args()
    names = [name for name in CASES if not arguments.cases or any(part in name for part in arguments.cases)]
    if not names:
        sys.exit(f"no such case; there are {', '.join(CASES)}")
    with tempfile.TemporaryDirectory() as folder:
        store = arguments.store or str(Path(folder) / "plait.db")
        with Server(Path(folder) / "server.log", store=store) as server:
            measure(server, names, as_json=arguments.json)


if __name__ == "__main__":
    main()
