"""C, L and T: small steps, where frames, calls and commits cost more than nodes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from typing import Final

from plait.v1 import graph_pb2
from plait_server.bench import graphs
from plait_server.bench.client import call, wait_workers
from plait_server.bench.shape import Ceiling, Round, Runner, Shape
from plait_server.bench.site import Meter, Server, Site, run_server, run_worker

_CHAIN: Final = 200
_SINGLES: Final = 200
IN_FLIGHT: Final = 64
DIAMONDS_S: Final = 5.0
_DIAMONDS_QUICK_S: Final = 0.2


@contextlib.contextmanager
def _open_chain(site: Site) -> Generator[Runner]:
    graph = graphs.chain(site.size(_CHAIN, 10))
    with _warm_server(site) as server:
        yield lambda: _run_in_turn(server, graph, count=1, figure="ms_per_node")


@contextlib.contextmanager
def _open_single(site: Site) -> Generator[Runner]:
    count = site.size(_SINGLES, 5)
    with _warm_server(site) as server:
        yield lambda: _run_in_turn(server, graphs.single(), count=count, figure="p50_ms")


@contextlib.contextmanager
def _warm_server(site: Site) -> Generator[Server]:
    with run_server(site) as server, run_worker(site, server):
        wait_workers(server.address)
        _run_in_turn(server, graphs.chain(20), count=1, figure="ms_per_node")
        yield server


def _run_in_turn(server: Server, graph: graph_pb2.Graph, *, count: int, figure: str) -> Round:
    """Run a graph `count` times, one after the other."""
    meter = Meter(server)
    timing = call(
        server.address,
        lambda client: client.close_loop(graph, in_flight=1, is_over=lambda begun: begun >= count),
    )
    nodes = count * len(graph.nodes)
    figures = {
        "p50_ms": timing.quantile_ms(0.5),
        "p99_ms": timing.quantile_ms(0.99),
        "ms_per_node": 1000 * timing.passed_s / nodes,
    }
    if count == 1:
        figures = {figure: figures[figure]}
    return Round(figures=figures, nodes=nodes, cpu_s=meter.cpu_s, rss_bytes=server.rss_bytes)


@contextlib.contextmanager
def _open_diamonds(site: Site) -> Generator[Runner]:
    with _warm_server(site) as server:
        yield lambda: run_diamonds(site, server)


def run_diamonds(site: Site, server: Server) -> Round:
    """Run diamonds, 64 at a time, for some seconds."""
    graph = graphs.diamond()
    meter = Meter(server)
    end_s = time.monotonic() + (_DIAMONDS_QUICK_S if site.is_quick else DIAMONDS_S)
    timing = call(
        server.address,
        lambda client: client.close_loop(
            graph, in_flight=IN_FLIGHT, is_over=lambda _: time.monotonic() >= end_s
        ),
    )
    return Round(
        figures={
            "diamonds_per_s": timing.per_s,
            "p50_ms": timing.quantile_ms(0.5),
            "p99_ms": timing.quantile_ms(0.99),
        },
        nodes=len(timing.latencies_s) * len(graph.nodes),
        cpu_s=meter.cpu_s,
        rss_bytes=server.rss_bytes,
    )


SHAPES = (
    Shape(
        name="C",
        title=f"a chain of {_CHAIN} nodes",
        figure="ms_per_node",
        open=_open_chain,
        rounds=5,
        ceilings=(Ceiling.CALL, Ceiling.COMMIT),
    ),
    Shape(
        name="L",
        title="one node, from the submission to the answer of its end, one at a time",
        figure="p50_ms",
        open=_open_single,
        rounds=5,
        ceilings=(Ceiling.CALL, Ceiling.COMMIT),
    ),
    Shape(
        name="T",
        title=f"diamonds of five nodes, {IN_FLIGHT} at a time",
        figure="diamonds_per_s",
        open=_open_diamonds,
        rounds=5,
        ceilings=(Ceiling.ECHO, Ceiling.COMMIT),
    ),
)
"""The shapes of this module."""
