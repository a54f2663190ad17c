"""Runs the bench: ceilings and shapes in turn, several rounds, medians (the machine's speed drifts meanwhile)."""

from __future__ import annotations

import contextlib
import json as json_module
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path
from typing import Final

import apsw
import grpc

from plait.v1 import execution_service_pb2, execution_service_pb2_grpc, graph_pb2, state_pb2
from plait_server.bench.echo import echo_messages_per_s

FAN: Final = 1_000
"""Nodes between the first and the last: F of the design."""
ROUNDS: Final = 5
ECHO_S: Final = 2.0
COMMITS: Final = 300
NODES_PER_ECHO: Final = 0.5
"""What is required: durable nodes a second for each echo message a second."""
_START_S: Final = 30.0


def run(*, json: bool, quick: bool) -> int:
    """Measure, print, and give the exit code: 0 if the required ratio was reached, 1 if not.

    Args:
        json: Print one line of JSON in place of the table.
        quick: One round in place of five.
    """
    figures = _measure(1 if quick else ROUNDS)
    medians = {name: statistics.median(values) for name, values in figures.items()}
    ratio = medians["fan_nodes_per_s"] / medians["echo_messages_per_s"]
    pair_ratio = medians["pair_nodes_per_s"] / medians["echo_messages_per_s"]
    passed = min(ratio, pair_ratio) >= NODES_PER_ECHO
    if json:
        line = {name: round(value, 1) for name, value in medians.items()}
        line |= {"fan_per_echo": round(ratio, 3), "pair_per_echo": round(pair_ratio, 3)}
        line |= {"required": NODES_PER_ECHO, "passed": passed, "cores": os.cpu_count() or 1}
        sys.stdout.write(json_module.dumps(line) + "\n")
    else:
        _print(figures, ratio, pair_ratio, passed=passed)
    return 0 if passed else 1


def _measure(rounds: int) -> dict[str, list[float]]:
    figures: dict[str, list[float]] = {
        "echo_messages_per_s": [],
        "commits_per_s": [],
        "fan_nodes_per_s": [],
        "pair_nodes_per_s": [],
    }
    with (
        tempfile.TemporaryDirectory(prefix="plait-bench-") as folder,
        _process("plait_server.bench.echo") as echo,
        _plait(Path(folder)) as address,
    ):
        port = int(_line(echo))
        stub = execution_service_pb2_grpc.ExecutionServiceStub(grpc.insecure_channel(address))
        _fan(stub)  # Connections and caches are warm from here on.
        for _ in range(rounds):
            figures["echo_messages_per_s"].append(echo_messages_per_s(port, ECHO_S))
            figures["commits_per_s"].append(_commits_per_s(Path(folder) / "ceiling.db"))
            figures["fan_nodes_per_s"].append(_fan(stub))
            figures["pair_nodes_per_s"].append(_pair(stub))
    return figures


def _fan(stub: execution_service_pb2_grpc.ExecutionServiceStub) -> float:
    begun_s = time.perf_counter()
    submitted = stub.SubmitGraph(execution_service_pb2.SubmitGraphRequest(graph=_graph()))
    request = execution_service_pb2.WaitExecutionRequest(execution_id=submitted.execution.execution_id)
    ended = stub.WaitExecution(request)
    if ended.execution.state != state_pb2.EXECUTION_STATE_SUCCEEDED:
        message = f"the bench's execution ended in state {ended.execution.state}"
        raise RuntimeError(message)
    return (FAN + 2) / (time.perf_counter() - begun_s)


def _pair(stub: execution_service_pb2_grpc.ExecutionServiceStub) -> float:
    """Two side by side, together: the server's loop is never idle."""
    begun_s = time.perf_counter()
    threads = [threading.Thread(target=_fan, args=(stub,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 2 * (FAN + 2) / (time.perf_counter() - begun_s)


def _graph() -> graph_pb2.Graph:
    graph = graph_pb2.Graph(name="bench", policy=graph_pb2.Policy(max_concurrency=FAN))
    task = graph_pb2.Task(type="bench.noop")
    graph.nodes.append(graph_pb2.Node(id="first", task=task))
    graph.nodes.append(graph_pb2.Node(id="last", task=task))
    for index in range(FAN):
        graph.nodes.append(graph_pb2.Node(id=f"n{index}", task=task))
        graph.edges.append(graph_pb2.Edge(source="first", target=f"n{index}"))
        graph.edges.append(graph_pb2.Edge(source=f"n{index}", target="last"))
    return graph


def _commits_per_s(path: Path) -> float:
    """Measure how many durable commits of one row SQLite makes a second."""
    connection = apsw.Connection(str(path))
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE IF NOT EXISTS ceiling (content BLOB)")
        begun_s = time.perf_counter()
        for _ in range(COMMITS):
            connection.execute("INSERT INTO ceiling VALUES (?)", (b"x" * 100,))
        return COMMITS / (time.perf_counter() - begun_s)
    finally:
        connection.close()


@contextlib.contextmanager
def _plait(folder: Path) -> Generator[str]:
    """Start a server and a worker, each a process of its own; gives the server's address."""
    arguments = ["--listen", "127.0.0.1:0", "--store", str(folder / "plait.db"), "--log-level", "WARNING"]
    with _process("plait_server", "serve", *arguments) as server:
        address = _line(server).split()[-1]
        worker = ["plait_server.bench.noop_worker:worker", "--connect", address]
        with _process("plait_worker", *worker):
            yield address


@contextlib.contextmanager
def _process(module: str, *arguments: str) -> Generator[subprocess.Popen[str]]:
    with subprocess.Popen(  # noqa: S603 # our own modules
        [sys.executable, "-m", module, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def _line(process: subprocess.Popen[str]) -> str:
    """Read the first line that a process prints."""
    assert process.stdout is not None  # it was asked for
    line = process.stdout.readline()
    if not line:
        message = f"{process.args!r} ended before it was ready; start it by hand to see why"
        raise RuntimeError(message)
    return line.strip()


def _print(figures: dict[str, list[float]], ratio: float, pair_ratio: float, *, passed: bool) -> None:
    rows = [
        ("echo over grpc.aio, 64 in flight", "messages/s", "echo_messages_per_s"),
        ("SQLite commit, synchronous=FULL", "commits/s", "commits_per_s"),
        (f"fan-out/fan-in of {FAN} no-op nodes", "nodes/s", "fan_nodes_per_s"),
        ("two of them side by side, together", "nodes/s", "pair_nodes_per_s"),
    ]
    out = [f"{'':36} {'min':>8} {'median':>8} {'max':>8}"]
    for label, unit, name in rows:
        values = figures[name]
        out.append(
            f"{label:36} {min(values):8.0f} {statistics.median(values):8.0f} {max(values):8.0f} {unit}"
        )
    out.append(
        f"durable nodes for each echo message: {ratio:.2f}, side by side {pair_ratio:.2f}; "
        f"required {NODES_PER_ECHO}: {'reached' if passed else 'NOT reached'}"
    )
    sys.stdout.write("\n".join(out) + "\n")
