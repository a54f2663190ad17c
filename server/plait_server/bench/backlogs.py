"""B: executions that wait must not slow down those that run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Generator
from typing import Final

from plait_server.bench import graphs
from plait_server.bench.client import Client, call, wait_workers
from plait_server.bench.shape import Ceiling, Requirement, Round, Runner, Shape
from plait_server.bench.site import Meter, Server, Site, run_server, run_worker

_WAITING: Final = 10_000
_MEASURED: Final = 2_000
_SLOTS: Final = 20
_BUSY: Final = 2 * _SLOTS
"""Executions in flight where none is to wait: enough to keep the slots busy."""
_LANES: Final = 16
"""Calls at once."""


class _Line:
    """Single-node executions in the order of their submission; one is submitted for each that ends."""

    def __init__(self) -> None:
        self._open: deque[str] = deque()

    async def lengthen(self, client: Client, count: int) -> None:
        """Submit more of them."""
        left = iter(range(count))

        async def lane() -> None:
            for _ in left:
                self._open.append(await client.submit(graphs.single()))

        async with asyncio.TaskGroup() as tasks:
            for _ in range(_LANES):
                tasks.create_task(lane())

    async def advance(self, client: Client, count: int) -> float:
        """Wait for the ends of the next ones, submitting as many; return the seconds."""
        left = iter(range(count))

        async def lane() -> None:
            for _ in left:
                await client.wait(self._open.popleft())
                self._open.append(await client.submit(graphs.single()))

        begun_s = time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_LANES):
                tasks.create_task(lane())
        return time.perf_counter() - begun_s


@contextlib.contextmanager
def _open(site: Site) -> Generator[Runner]:
    count, waiting = site.size(_MEASURED, 40), site.size(_WAITING, 100)
    with (
        run_server(site, site.store("short")) as short,
        run_server(site, site.store("long")) as long,
    ):
        lines = {short: _Line(), long: _Line()}
        call(short.address, lambda client: lines[short].lengthen(client, _BUSY))
        call(long.address, lambda client: lines[long].lengthen(client, waiting + _BUSY))
        with run_worker(site, short, slots=_SLOTS), run_worker(site, long, slots=_SLOTS):
            wait_workers(short.address)
            wait_workers(long.address)
            for server, line in lines.items():
                _advance(server, line, _BUSY)

            def run() -> Round:
                without_s, _ = _advance(short, lines[short], count)
                passed_s, cpu_s = _advance(long, lines[long], count)
                return Round(
                    figures={
                        "executions_per_s": count / passed_s,
                        "none_waiting_executions_per_s": count / without_s,
                        "per_none_waiting": without_s / passed_s,
                    },
                    nodes=count,
                    cpu_s=cpu_s,
                    rss_bytes=long.rss_bytes,
                )

            yield run


def _advance(server: Server, line: _Line, count: int) -> tuple[float, float | None]:
    meter = Meter(server)
    passed_s = call(server.address, lambda client: line.advance(client, count))
    return passed_s, meter.cpu_s


SHAPES = (
    Shape(
        name="B",
        title=f"single nodes on {_SLOTS} slots, {_WAITING:,} executions waiting, against none",
        figure="executions_per_s",
        open=_open,
        rounds=3,
        ceilings=(Ceiling.CALL, Ceiling.COMMIT),
        requirements=(Requirement(figure="per_none_waiting", at_least=0.8),),
    ),
)
"""The shapes of this module."""
