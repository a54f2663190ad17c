"""A worker that runs beside a test."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from datetime import timedelta

from plait_worker import Worker
from plait_worker.threads import HandlerThreads
from tests.workers.scripted_hub import (
    ScriptedHub,
    Stream,
)


def make_worker(
    namespace: str = "default",
    labels: dict[str, str] | None = None,
    threads: HandlerThreads | None = None,
    drain_timeout: timedelta | None = None,
) -> Worker:
    return Worker(
        namespace,
        "w",
        labels,
        drain_timeout=drain_timeout,
        threads=threads,
        # Without waits between tries.
        jitter=lambda: 0.0,
    )


@contextlib.asynccontextmanager
async def serving(worker: Worker, server: ScriptedHub) -> AsyncGenerator[asyncio.Task[None], None]:
    """Run a worker beside the test; at the end it is drained, or the test has seen its end."""
    task = asyncio.create_task(worker.run(server.address, handle_signals=False))
    try:
        yield task
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait([task])


async def finish(worker: Worker, stream: Stream, task: asyncio.Task[None]) -> None:
    """Drain a worker that holds nothing."""
    worker.drain()
    # A worker that has not read `welcome` yet has no one to tell.
    await stream.expect_end(skipping=("drain",))
    await task
