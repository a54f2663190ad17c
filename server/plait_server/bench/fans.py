"""F, N and E: fan-outs, where a frame and a commit carry many nodes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator

from plait_server.bench import graphs
from plait_server.bench.client import call, wait_workers
from plait_server.bench.shape import Ceiling, Requirement, Round, Runner, Shape
from plait_server.bench.site import Meter, Server, Site, run_process, run_server, run_worker

_FAN = 1_000
_FAN_QUICK = 20
_ENDLESS_S = 10.0
_ENDLESS_QUICK_S = 0.2
_NODES_PER_ECHO = Requirement(figure="per_echo", at_least=0.5)


@contextlib.contextmanager
def _open_fan(site: Site, count: int) -> Generator[Runner]:
    with run_server(site) as server, run_worker(site, server):
        wait_workers(server.address)
        _run_fan(server, _FAN_QUICK)  # Connections and caches are warm from here on.
        yield lambda: _run_fan(server, site.size(count, _FAN_QUICK))


def _run_fan(server: Server, count: int) -> Round:
    graph = graphs.fan(count)
    meter = Meter(server)
    timing = call(
        server.address,
        lambda client: client.close_loop(graph, in_flight=1, is_over=lambda begun: begun == 1),
    )
    nodes = len(graph.nodes)
    return Round(
        figures={"nodes_per_s": nodes / timing.passed_s},
        nodes=nodes,
        cpu_s=meter.cpu_s,
        rss_bytes=server.rss_bytes,
    )


@contextlib.contextmanager
def _open_endless(site: Site) -> Generator[Runner]:
    """Each round has a server of its own, for the server tells of its commits when it stops."""
    yield lambda: _run_endless(site)


def _run_endless(site: Site) -> Round:
    graph = graphs.fan(site.size(_FAN, _FAN_QUICK))
    with run_server(site) as server, run_worker(site, server):
        wait_workers(server.address)
        meter = Meter(server)
        end_s = time.monotonic() + (_ENDLESS_QUICK_S if site.is_quick else _ENDLESS_S)
        timing = call(
            server.address,
            lambda client: client.close_loop(graph, in_flight=2, is_over=lambda _: time.monotonic() >= end_s),
        )
        cpu_s, rss_bytes = meter.cpu_s, server.rss_bytes
        commits = server.stop()
    return Round(
        figures={"nodes_per_s": timing.per_s * len(graph.nodes), **commits},
        nodes=len(timing.latencies_s) * len(graph.nodes),
        cpu_s=cpu_s,
        rss_bytes=rss_bytes,
    )


@contextlib.contextmanager
def _open_plain(site: Site, workers: int, slots: int) -> Generator[Runner]:
    with (
        run_server(site) as server,
        run_process(
            "plait_server.bench.plain_worker",
            server.address,
            str(workers),
            str(slots),
            log=site.folder / "worker.log",
        ),
    ):
        wait_workers(server.address, workers)
        _run_fan(server, _FAN_QUICK)
        yield lambda: _run_fan(server, site.size(_FAN, _FAN_QUICK))


def _fan_shape(count: int, rounds: int) -> Shape:
    return Shape(
        name=f"F-{count}",
        title=f"fan-out and fan-in of {count:,} nodes",
        figure="nodes_per_s",
        open=lambda site: _open_fan(site, count),
        rounds=rounds,
        ceilings=(Ceiling.ECHO, Ceiling.COMMIT),
        requirements=(_NODES_PER_ECHO,) if count == _FAN else (),
    )


SHAPES = (
    _fan_shape(1_000, rounds=5),
    _fan_shape(10_000, rounds=3),
    _fan_shape(100_000, rounds=1),
    Shape(
        name="N",
        title="two fan-outs of 1,000 nodes at a time without end, for 10 s",
        figure="nodes_per_s",
        open=_open_endless,
        rounds=3,
        ceilings=(Ceiling.ECHO, Ceiling.COMMIT),
        requirements=(_NODES_PER_ECHO,),
    ),
    Shape(
        name="E-frames",
        title="F-1000 with a worker of 256 slots that writes a frame a message",
        figure="nodes_per_s",
        open=lambda site: _open_plain(site, workers=1, slots=256),
        rounds=5,
        ceilings=(Ceiling.ECHO, Ceiling.COMMIT),
    ),
    Shape(
        name="E-workers",
        title="F-1000 with 32 such workers of 2 slots",
        figure="nodes_per_s",
        open=lambda site: _open_plain(site, workers=32, slots=2),
        rounds=5,
        ceilings=(Ceiling.ECHO, Ceiling.COMMIT),
    ),
)
"""The shapes of this module."""
