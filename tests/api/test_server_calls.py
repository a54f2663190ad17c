"""Calls that are open when the server stops are told so; none is left hanging."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from plait_server.api.grpc_server import CHECKED_AT_ONCE, STARTS, OpenCalls
from plait_server.api.methods import SERVICES
from plait_server.errors import ExecutionNotFound, PlaitError, ShuttingDown, Unauthenticated


async def test_answers_and_errors_pass_through() -> None:
    calls = OpenCalls()

    async def answer() -> int:
        await trio.lowlevel.checkpoint()
        return 5

    async def refuse() -> int:
        await trio.lowlevel.checkpoint()
        raise ExecutionNotFound

    assert await calls.serve(answer) == 5
    with pytest.raises(ExecutionNotFound):
        await calls.serve(refuse)


async def test_open_calls_end_as_shutting_down() -> None:
    calls = OpenCalls()
    ended: list[str] = []

    async def call(name: str) -> None:
        with pytest.raises(ShuttingDown):
            await calls.serve(trio.sleep_forever)
        ended.append(name)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call, "one")
        nursery.start_soon(call, "two")
        await wait_all_tasks_blocked()
        calls.close()
    assert sorted(ended) == ["one", "two"]
    with pytest.raises(ShuttingDown):
        await calls.serve(trio.sleep_forever)


def test_a_server_that_is_told_to_stop_starts_nothing_and_serves_the_rest() -> None:
    paths = {
        f"/{service.full_name}/{method.name}" for service in SERVICES.values() for method in service.methods
    }
    assert paths >= STARTS
    calls = OpenCalls()
    for path in paths:
        calls.check_start(path)
    calls.refuse_starts()
    for path in paths - STARTS:
        calls.check_start(path)
    for path in STARTS:
        with pytest.raises(ShuttingDown):
            calls.check_start(path)


async def test_cancel_by_the_client_is_no_shutdown() -> None:
    calls = OpenCalls()
    with trio.CancelScope() as client:
        client.cancel()
        await calls.serve(trio.sleep_forever)
    assert client.cancelled_caught


async def test_work_that_may_not_be_cut_ends_first() -> None:
    """A submission that is being written is answered, or told; it is never half done."""
    calls = OpenCalls()
    written: list[bool] = []
    durable = trio.Event()

    async def submit() -> None:
        with trio.CancelScope(shield=True):
            await durable.wait()
            written.append(True)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(calls.serve, submit)
        await wait_all_tasks_blocked()
        calls.close()
        await wait_all_tasks_blocked()
        assert not written
        durable.set()
    assert written


async def test_calls_that_lost_their_access_end_with_the_reason() -> None:
    calls = OpenCalls()
    lost: list[int] = []

    def check_of(number: int) -> Callable[[], PlaitError | None]:
        return lambda: Unauthenticated(f"call {number}") if number % 2 else None

    async def call(number: int) -> None:
        with pytest.raises(Unauthenticated, match=f"call {number}$"):
            await calls.serve(trio.sleep_forever, check=check_of(number))
        lost.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(2 * CHECKED_AT_ONCE + 2):
            nursery.start_soon(call, number)
        await wait_all_tasks_blocked()
        await calls.check()
        await wait_all_tasks_blocked()
        assert sorted(lost) == list(range(1, 2 * CHECKED_AT_ONCE + 2, 2))
        nursery.cancel_scope.cancel()
