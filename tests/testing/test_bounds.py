"""The simulator finds what is larger than a client with default limits takes."""

from __future__ import annotations

import pytest
import trio

from plait.v1 import execution_service_pb2
from plait_server.testing.simulation.bounds import check_answer, check_event, check_frame
from plait_server.testing.simulation.world import World, run_in_virtual_time

MIB = 1024 * 1024


def test_what_is_within_its_bound_passes() -> None:
    world = World(1)
    check_answer(world, "ListEvents", bytes(4 * MIB))
    check_answer(world, "GetPayload", None)
    check_frame(world, "WatchExecution", bytes(MIB))
    check_frame(world, "WatchExecution", execution_service_pb2.WatchExecutionResponse())
    check_event(world, bytes(MIB // 4))
    assert world.failure is None


@pytest.mark.parametrize("what", ["answer", "frame", "event"])
def test_what_is_over_its_bound_fails_the_seed(what: str) -> None:
    world = World(1)

    async def check() -> None:
        match what:
            case "answer":
                check_answer(world, "ListEvents", bytes(4 * MIB + 1))
            case "frame":
                check_frame(world, "WatchExecution", bytes(MIB + 1))
            case _:
                check_event(world, bytes(MIB // 4 + 1))
        await trio.lowlevel.checkpoint()

    run_in_virtual_time(world, check)
    assert world.failure is not None
    assert world.failure.check == "DESIGN 4"
