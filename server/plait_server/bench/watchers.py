"""W: an execution that many watch from its beginning to its end."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Final, cast

import grpc
import grpc.aio

from plait_server.api.watching import EVENTS_TAG
from plait_server.bench import graphs
from plait_server.bench.client import Client, Pb, call, wait_workers
from plait_server.bench.shape import Ceiling, Round, Runner, Shape
from plait_server.bench.site import BenchFailed, Meter, Server, Site, run_server, run_worker

_WATCHERS: Final = 1_000
_NODES: Final = 1_000
_CHANNELS: Final = 10
"""A connection carries at most 1,000 streams, and is read by one thread."""
_MORE: Final = 0x80
"""What a byte of a varint is at least, if more follow."""


@contextlib.contextmanager
def _open(site: Site) -> Generator[Runner]:
    watchers, nodes = site.size(_WATCHERS, 20), site.size(_NODES, 20)
    with run_server(site) as server, run_worker(site, server, name="patient"):
        wait_workers(server.address)
        _run(site, server, min(watchers, 10), nodes)
        yield lambda: _run(site, server, watchers, nodes)


def _run(site: Site, server: Server, watchers: int, nodes: int) -> Round:
    gate = site.folder / "gate"
    gate.unlink(missing_ok=True)
    meter = Meter(server)
    figures = call(server.address, lambda client: _measure(client, server.address, gate, watchers, nodes))
    return Round(figures=figures, nodes=nodes + 2, cpu_s=meter.cpu_s, rss_bytes=server.rss_bytes)


async def _measure(
    client: Client, address: str, gate: Path, watchers: int, nodes: int
) -> Mapping[str, float]:
    """Run an execution that is watched; its first node waits at a gate until all watchers are there."""
    waiting = asyncio.Semaphore(0)
    async with contextlib.AsyncExitStack() as stack:
        channels = [
            # Without an argument of their own, channels to one address share a connection.
            await stack.enter_async_context(
                grpc.aio.insecure_channel(address, options=[("plait.bench.channel", number)])
            )
            for number in range(min(watchers, _CHANNELS))
        ]
        execution_id = await client.submit(graphs.gated_fan(nodes, str(gate)))
        async with asyncio.TaskGroup() as tasks:
            watching = [
                tasks.create_task(_watch(channels[number % len(channels)], execution_id, waiting))
                for number in range(watchers)
            ]
            for _ in range(watchers):
                await waiting.acquire()
            begun_s = time.perf_counter()
            gate.touch()  # noqa: ASYNC240 # nothing else is to be done at this moment
            execution = await client.wait(execution_id)
            ended_s = time.perf_counter() - begun_s
        passed_s = time.perf_counter() - begun_s
    sizes = {task.result()[0] for task in watching}
    if len(sizes) != 1:
        raise BenchFailed(f"watchers of one execution were sent events of {sorted(sizes)} bytes")
    return {
        "events_per_s": watchers * execution.last_sequence / passed_s,
        "frames_per_s": sum(task.result()[1] for task in watching) / passed_s,
        "nodes_per_s": (nodes + 2) / ended_s,
    }


async def _watch(channel: grpc.aio.Channel, execution_id: str, waiting: asyncio.Semaphore) -> tuple[int, int]:
    """Watch to the end; return the bytes of the events, and the number of frames."""
    method = cast(
        "grpc.aio.UnaryStreamMultiCallable[bytes, bytes]",
        channel.unary_stream("/plait.v1.ExecutionService/WatchExecution"),
    )
    watch = method(Pb.WatchExecutionRequest(execution_id=execution_id).SerializeToString())
    size = count = 0
    last = b""
    while isinstance(frame := await watch.read(), bytes):
        last = frame
        count += 1
        if frame.startswith(EVENTS_TAG):
            # Without the tag of the frame and the length behind it: watchers are sent frames of other sizes.
            header = next(at + 1 for at in range(1, len(frame)) if frame[at] < _MORE)
            size += len(frame) - header
        elif Pb.WatchExecutionResponse.FromString(frame).HasField("caught_up"):
            waiting.release()
    if not Pb.WatchExecutionResponse.FromString(last).HasField("end"):
        raise BenchFailed("a watcher's stream ended without its final frame")
    return size, count


SHAPES = (
    Shape(
        name="W",
        title=f"{_WATCHERS:,} watchers of an execution of {_NODES:,} nodes",
        figure="events_per_s",
        open=_open,
        rounds=3,
        ceilings=(Ceiling.ECHO, Ceiling.COMMIT),
    ),
)
"""The shapes of this module."""
