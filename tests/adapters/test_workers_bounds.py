"""Bounds of a stream: a worker that sends much, or does not read."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait.v1 import worker_hub_service_pb2 as pb
from plait_server.core.run.commands import Disposition
from plait_server.errors import SlowConsumer
from tests.adapters.workers_streams import (
    NAMESPACE,
    a_hub,
    complete,
)


async def test_a_worker_is_read_slowly_while_its_results_wait(autojump_clock: MockClock) -> None:
    """With 32 MiB of results that are not durable, one frame a second is read."""
    async with a_hub() as hub:
        stream = await hub.dial(slots=100)
        attempts = [hub.execute(f"n{number}") for number in range(60)]
        await wait_all_tasks_blocked()
        text = '"' + "x" * 1_000_000 + '"'
        for attempt in attempts:
            await stream.say(complete(attempt.token, text))
        await wait_all_tasks_blocked()
        ended = [attempt for attempt in attempts if attempt.result is not None]
        assert len(ended) == 34
        await trio.sleep(3.5)
        ended = [attempt for attempt in attempts if attempt.result is not None]
        assert len(ended) == 37
        for attempt in ended:
            hub.workers.acknowledge(attempt.key, Disposition.RECORDED, "w")
        await wait_all_tasks_blocked()
        assert all(attempt.result is not None for attempt in attempts)
        assert trio.current_time() == 3.5


async def test_a_worker_that_takes_no_frame_for_a_lease_loses_its_stream(autojump_clock: MockClock) -> None:
    """It sends, so it is alive, and does not read."""
    async with a_hub() as hub:
        stream = await hub.dial()
        await trio.sleep(1)
        stream.flow = trio.Event()
        hub.execute()
        for _ in range(14):
            await trio.sleep(1)
            await stream.tell(pb.WorkerMessage(pong=pb.Pong()))
        assert not stream.is_over
        await trio.sleep(1.1)
        assert isinstance(stream.error, SlowConsumer)
        assert stream.is_over


async def test_a_worker_that_lets_its_answers_pile_up_loses_its_stream(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        stream.flow = trio.Event()
        for _ in range(300):
            await stream.tell(*[complete("x" * 4_000)] * 20)
        assert isinstance(stream.error, SlowConsumer)
        assert hub.workers.list_workers(NAMESPACE) == []


async def test_others_run_between_the_pieces_of_a_frame(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        turns = 0

        async def count() -> None:
            nonlocal turns
            while not stream.recorded:
                turns += 1
                await trio.lowlevel.checkpoint()

        pongs = [pb.WorkerMessage(pong=pb.Pong(number=1))] * 10_000
        await stream.say(*pongs, complete("forged"))
        await count()
        assert turns >= 20
