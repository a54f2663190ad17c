"""R and H: what a store holds, and what it costs: open executions at a restart, ended ones ever after."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Generator, Sequence
from typing import Final

from plait.v1 import event_pb2
from plait_server.bench import graphs
from plait_server.bench.client import Client, call, wait_workers
from plait_server.bench.latencies import run_diamonds
from plait_server.bench.shape import Ceiling, Requirement, Round, Runner, Shape
from plait_server.bench.site import Site, run_server, run_worker
from plait_server.bench.stores import fill, record

_OPEN: Final = 10_000
_KEPT: Final = 100_000
_CALLS: Final = 100
_CALLS_QUICK: Final = 3
_CALL_EVERY_S: Final = 0.01
_LONG_S: Final = 3_600.0


@contextlib.contextmanager
def _open_restart(site: Site) -> Generator[Runner]:
    """Half of the executions wait for a worker, the others run at one that is gone."""
    count = site.size(_OPEN, 50)
    waiting = record(site, "waiting", _begin_waiting)
    running = record(site, "running", _begin_running)
    fill(site.store(), [waiting, running], count)
    yield lambda: _restart(site, count)


async def _begin_waiting(client: Client) -> str:
    execution_id = await client.submit(graphs.single(graphs.UNSERVED))
    await client.wait_event(execution_id, event_pb2.EVENT_TYPE_EXECUTION_STARTED)
    return execution_id


async def _begin_running(client: Client) -> str:
    execution_id = await client.submit(graphs.sleepers(1, _LONG_S))
    await client.wait_event(execution_id, event_pb2.EVENT_TYPE_ATTEMPT_STARTED)
    return execution_id


def _restart(site: Site, count: int) -> Round:
    calls = site.size(_CALLS, _CALLS_QUICK)
    begun_s = time.perf_counter()
    with run_server(site) as server:
        ready_s = time.perf_counter() - begun_s
        ready_cpu_s = server.cpu_s or 0.0
        # Spread over all, so that most are of executions that have not been read back yet.
        asked = [f"kept-{number * count // calls}" for number in range(calls)]
        calls_s = call(server.address, lambda client: _ask(client, asked))
        cpu_s, rss_bytes = server.cpu_s, server.rss_bytes
        server.kill()
    return Round(
        figures={
            "ready_s": ready_s,
            "ready_cpu_s": ready_cpu_s,
            "call_p50_ms": 1000 * calls_s[len(calls_s) // 2],
            "call_max_ms": 1000 * calls_s[-1],
        },
        nodes=count,
        cpu_s=cpu_s,
        rss_bytes=rss_bytes,
    )


async def _ask(client: Client, execution_ids: Sequence[str]) -> list[float]:
    """Read executions one after the other, while the server reads all of them back; ascending times."""
    calls_s: list[float] = []
    for execution_id in execution_ids:
        begun_s = time.perf_counter()
        await client.get(execution_id)
        calls_s.append(time.perf_counter() - begun_s)
        await asyncio.sleep(_CALL_EVERY_S)
    return sorted(calls_s)


@contextlib.contextmanager
def _open_kept(site: Site) -> Generator[Runner]:
    recording = record(site, "recorded", _run_diamond)
    fill(site.store("full"), [recording], site.size(_KEPT, 100))
    with (
        run_server(site, site.store("empty")) as empty,
        run_server(site, site.store("full")) as full,
        run_worker(site, empty),
        run_worker(site, full),
    ):
        for server in (empty, full):
            wait_workers(server.address)
            run_diamonds(site, server)

        def run() -> Round:
            without = run_diamonds(site, empty)
            found = run_diamonds(site, full)
            rate, rate_without = (each.figures["diamonds_per_s"] for each in (found, without))
            figures = {"empty_diamonds_per_s": rate_without, "per_empty": rate / rate_without}
            if found.cpu_s and without.cpu_s:
                # Less noisy than the rates, which share the machine with whatever else runs.
                cpu_per_empty = (found.cpu_s / found.nodes) / (without.cpu_s / without.nodes)
                figures["cpu_per_empty"] = cpu_per_empty
            return Round(
                figures={**found.figures, **figures},
                nodes=found.nodes,
                cpu_s=found.cpu_s,
                rss_bytes=found.rss_bytes,
            )

        yield run


async def _run_diamond(client: Client) -> str:
    return (await client.run(graphs.diamond())).execution_id


SHAPES = (
    Shape(
        name="R",
        title=f"a start with {_OPEN:,} open executions, half of them running; calls meanwhile",
        figure="ready_s",
        open=_open_restart,
        rounds=5,
        ceilings=(Ceiling.CALL, Ceiling.COMMIT),
        requirements=(Requirement(figure="ready_s", at_most=2.0),),
    ),
    Shape(
        name="H",
        title=f"T with {_KEPT:,} executions kept, against an empty store",
        figure="diamonds_per_s",
        open=_open_kept,
        rounds=5,
        ceilings=(Ceiling.ECHO, Ceiling.COMMIT),
        # Flat: what is left is the noise of two servers that take turns.
        requirements=(Requirement(figure="per_empty", at_least=0.9),),
    ),
)
"""The shapes of this module."""
