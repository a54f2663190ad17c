"""The graphs of the bench."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable

from plait.v1 import graph_pb2, payload_pb2
from plait_server.core.limits import MAX_CONCURRENCY_MAX, NODES_MAX

NOOP = "bench.noop"
SLEEP = "bench.sleep"
FAIL = "bench.fail"
GATE = "bench.gate"
UNSERVED = "bench.unserved"
"""A type that no worker serves."""


def fan(count: int) -> graph_pb2.Graph:
    """Make a graph of `count` nodes side by side between a first and a last one, or as many as are allowed."""
    middle = [f"n{index}" for index in range(min(count, NODES_MAX - 2))]
    edges = [edge for name in middle for edge in (("first", name), (name, "last"))]
    return _graph(["first", "last", *middle], edges, concurrency=min(count, MAX_CONCURRENCY_MAX))


def gated_fan(count: int, path: str) -> graph_pb2.Graph:
    """Make a fan whose first node waits until there is a file."""
    graph = fan(count)
    graph.nodes[0].task.type = GATE
    graph.nodes[0].input.json = json.dumps(path)
    return graph


def chain(count: int) -> graph_pb2.Graph:
    """Make a graph of `count` nodes one after the other."""
    names = [f"n{index}" for index in range(count)]
    return _graph(names, itertools.pairwise(names))


def diamond() -> graph_pb2.Graph:
    """Make a graph of five nodes, three of them side by side."""
    return fan(3)


def single(type: str = NOOP) -> graph_pb2.Graph:
    """Make a graph of one node."""
    return _graph(["n"], [], type=type)


def sleepers(count: int, seconds: float) -> graph_pb2.Graph:
    """Make a graph of `count` independent nodes that sleep."""
    graph = _graph([f"n{index}" for index in range(count)], [], type=SLEEP)
    for node in graph.nodes:
        node.input.CopyFrom(payload_pb2.Payload(json=str(seconds)))
    return graph


def failing(after_s: float, beside_s: float) -> graph_pb2.Graph:
    """Make a graph of two independent nodes: `a` sleeps and fails, `b` sleeps."""
    graph = sleepers(2, beside_s)
    graph.nodes[0].id, graph.nodes[1].id = "a", "b"
    graph.nodes[0].task.type = FAIL
    graph.nodes[0].input.json = str(after_s)
    return graph


def _graph(
    names: Iterable[str],
    edges: Iterable[tuple[str, str]],
    *,
    type: str = NOOP,
    concurrency: int = 0,
) -> graph_pb2.Graph:
    task = graph_pb2.Task(type=type)
    return graph_pb2.Graph(
        name="bench",
        nodes=[graph_pb2.Node(id=name, task=task) for name in names],
        edges=[graph_pb2.Edge(source=source, target=target) for source, target in edges],
        policy=graph_pb2.Policy(max_concurrency=concurrency),
    )
