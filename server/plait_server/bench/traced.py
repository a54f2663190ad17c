"""S: the cost of tracing: the same load on a server that is traced and on one that is not.

Every span of the traced server is recorded, and a round fails if one does not reach the sink. The worker is not
traced, for its spans cost its own processor time. The machine's speed drifts, so each round runs both servers one
right after the other, in alternating order, and compares the two. The processor time of the traced server is measured
until its last span has arrived, up to a second after the last execution ended.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Final

from plait.v1 import graph_pb2
from plait_server.bench import graphs
from plait_server.bench.client import Timing, call, wait_workers
from plait_server.bench.latencies import IN_FLIGHT
from plait_server.bench.shape import Requirement, Round, Runner, Shape
from plait_server.bench.sink import Sink, run_sink
from plait_server.bench.site import BenchFailed, Meter, Server, Site, run_server, run_worker

_RATIO: Final = "traced_per_plain"
NOT_TRACED: Final = "spans are not sent"
"""Logged by a server that lacks the extra `otel`."""
_FAN: Final = 1_000
_CHAIN: Final = 200
_TURN_S: Final = 3.0
_TURN_QUICK_S: Final = 0.2
_ROUNDS: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What both servers run, and how it is measured."""

    graph: graph_pb2.Graph
    in_flight: int
    figure: str
    read: Callable[[Timing, int], float]
    """Returns the figure of a turn, given the nodes of the graph."""


@dataclass(frozen=True, slots=True)
class Turn:
    """What was measured in a turn of one server."""

    value: float
    passed_s: float
    nodes: int
    cpu_s: float | None
    span_count: int = 0


FANS: Final = Load(
    graph=graphs.fan(_FAN),
    in_flight=1,
    figure="nodes_per_s",
    read=lambda timing, nodes: nodes * timing.per_s,
)
"""Fan-outs, one after the other."""


def spans_of(graph: graph_pb2.Graph, executions: int = 1) -> Mapping[str, int]:
    """Count the spans of executions whose nodes are tasks that succeed at once, by the first word of their names.

    Spans of queue waits are not counted: how many there are depends on the machine's speed.
    """
    outgoing = Counter(edge.source for edge in graph.edges)
    sources = len(graph.nodes) - len({edge.target for edge in graph.edges})
    branches = sum(count for count in (sources, *outgoing.values()) if count > 1)
    nodes = executions * len(graph.nodes)
    return {"execution": executions, "branch": executions * branches, "node": nodes, "attempt": nodes}


@contextlib.contextmanager
def _open(site: Site, load: Load) -> Generator[Runner]:
    with (
        run_sink() as sink,
        run_server(site, site.store("plain")) as plain,
        run_server(site, site.store("traced"), environment=sink.environment) as traced,
        run_worker(site, plain),
        run_worker(site, traced),
    ):
        if NOT_TRACED in traced.log:
            raise BenchFailed(traced.log)
        sides = [(plain, None), (traced, sink)]
        for server, of_server in sides:
            wait_workers(server.address)
            take_turn(load, server, of_server, _TURN_QUICK_S)  # Caches are warm from here on.
        seconds = _TURN_QUICK_S if site.is_quick else _TURN_S

        def run() -> Round:
            sides.reverse()
            turns = {server: take_turn(load, server, of_server, seconds) for server, of_server in sides}
            return _compare(load, turns[plain], turns[traced], traced)

        yield run


def take_turn(load: Load, server: Server, sink: Sink | None, seconds: float) -> Turn:
    """Run the graph again and again for some seconds, then wait for the spans if there is a sink."""
    meter = Meter(server)
    end_s = time.monotonic() + seconds
    timing = call(
        server.address,
        lambda client: client.close_loop(
            load.graph, in_flight=load.in_flight, is_over=lambda _: time.monotonic() >= end_s
        ),
    )
    executions, nodes = len(timing.latencies_s), len(load.graph.nodes)
    span_count = 0
    if sink is not None:
        span_count = sum(sink.wait_spans(spans_of(load.graph, executions)).spans.values())
        sink.clear()
    return Turn(load.read(timing, nodes), timing.passed_s, executions * nodes, meter.cpu_s, span_count)


def _compare(load: Load, plain: Turn, traced: Turn, server: Server) -> Round:
    figures = {
        _RATIO: traced.value / plain.value,
        f"plain_{load.figure}": plain.value,
        f"traced_{load.figure}": traced.value,
        "spans_per_node": traced.span_count / traced.nodes,
        "spans_per_s": traced.span_count / traced.passed_s,
    }
    if plain.cpu_s and traced.cpu_s:
        plain_ms, traced_ms = 1000 * plain.cpu_s / plain.nodes, 1000 * traced.cpu_s / traced.nodes
        figures |= {
            "plain_cpu_ms_per_node": plain_ms,
            "traced_cpu_ms_per_node": traced_ms,
            "traced_cpu_per_plain": traced_ms / plain_ms,
        }
    return Round(figures=figures, nodes=traced.nodes, cpu_s=traced.cpu_s, rss_bytes=server.rss_bytes)


def _shape(name: str, title: str, load: Load, *requirements: Requirement) -> Shape:
    return Shape(
        name=name,
        title=f"{title}: a server with all its spans, beside one that is not",
        figure=_RATIO,
        open=lambda site: _open(site, load),
        rounds=_ROUNDS,
        ceilings=(),
        requirements=requirements,
    )


SHAPES = (
    _shape(
        "S-F",
        f"fan-outs of {_FAN:,} nodes, one after the other",
        FANS,
        Requirement(figure=_RATIO, at_least=0.7),
    ),
    _shape(
        "S-C",
        f"chains of {_CHAIN} nodes, one after the other",
        Load(
            graph=graphs.chain(_CHAIN),
            in_flight=1,
            figure="ms_per_node",
            read=lambda timing, nodes: timing.quantile_ms(0.5) / nodes,
        ),
    ),
    _shape(
        "S-L",
        "one node at a time, from the submission to the answer of its end",
        Load(
            graph=graphs.single(),
            in_flight=1,
            figure="p50_ms",
            read=lambda timing, _: timing.quantile_ms(0.5),
        ),
        Requirement(figure=_RATIO, at_most=1.1),
    ),
    _shape(
        "S-T",
        f"diamonds of five nodes, {IN_FLIGHT} at a time",
        Load(
            graph=graphs.diamond(),
            in_flight=IN_FLIGHT,
            figure="diamonds_per_s",
            read=lambda timing, _: timing.per_s,
        ),
    ),
)
"""The shapes of this module."""
