"""The asyncio loop of the bridge: what holds of trio-asyncio's own loop holds of one that runs callbacks in bursts."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator

import pytest
import sniffio
import trio
import trio_asyncio
from trio.testing import MockClock

from plait_server.runtime import asyncio_bridge, burst_loop
from plait_server.runtime.asyncio_bridge import callable_from_asyncio, callable_from_trio
from plait_server.runtime.burst_loop import CALLBACKS_MAX


@pytest.fixture
async def loop() -> AsyncGenerator[asyncio.AbstractEventLoop]:
    async with asyncio_bridge.open_loop():
        yield asyncio.get_running_loop()


async def rounds(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


async def test_callbacks_run_in_order_in_one_round(loop: asyncio.AbstractEventLoop) -> None:
    ran: list[int] = []
    await rounds(3)
    for number in range(CALLBACKS_MAX // 2):
        loop.call_soon(ran.append, number)
    await rounds(3)
    assert ran == list(range(CALLBACKS_MAX // 2))


async def test_trio_tasks_run_however_many_callbacks_there_are(loop: asyncio.AbstractEventLoop) -> None:
    """Rule 2: callbacks that queue others without end do not keep trio tasks from running."""
    count = 0

    def again() -> None:
        nonlocal count
        count += 1
        if count < 50 * CALLBACKS_MAX:
            loop.call_soon(again)

    loop.call_soon(again)
    seen: list[int] = []
    while count < 50 * CALLBACKS_MAX:
        await trio.lowlevel.checkpoint()
        seen.append(count)
    steps = [after - before for before, after in itertools.pairwise(seen)]
    # Trio runs the tasks of a round in any order: two of the loop may be next to each other.
    assert max(steps) <= 2 * (CALLBACKS_MAX + 1)
    assert len(seen) >= 25


async def test_slow_callbacks_end_the_round(
    autojump_clock: MockClock, loop: asyncio.AbstractEventLoop
) -> None:
    """Rule 2: a round ends after some time, too."""
    ran: list[int] = []

    def slow(number: int) -> None:
        autojump_clock.jump(burst_loop.ROUND_S_MAX * 0.6)
        ran.append(number)

    for number in range(30):
        loop.call_soon(slow, number)
    seen: list[int] = []
    while len(ran) < 30:
        await trio.lowlevel.checkpoint()
        seen.append(len(ran))
    # Each round runs the first and two more; two rounds may follow each other, as above.
    assert max(after - before for before, after in itertools.pairwise([0, *seen])) <= 6


async def test_cancelled_callback_does_not_run(loop: asyncio.AbstractEventLoop) -> None:
    ran: list[str] = []
    handle = loop.call_soon(ran.append, "cancelled before")
    loop.call_soon(ran.append, "first")
    later = None

    def cancel_next() -> None:
        assert later is not None
        later.cancel()

    loop.call_soon(cancel_next)
    later = loop.call_soon(ran.append, "cancelled by the one before")
    loop.call_soon(ran.append, "last")
    handle.cancel()
    await rounds(4)
    assert ran == ["first", "last"]


async def test_timers_fire_in_order_of_their_times_and_not_before(
    autojump_clock: MockClock, loop: asyncio.AbstractEventLoop
) -> None:
    fired: list[tuple[str, float]] = []

    def note(name: str) -> None:
        fired.append((name, trio.current_time()))

    begun_s = trio.current_time()
    loop.call_later(2.0, note, "late")
    loop.call_later(1.0, note, "early")
    cancelled = loop.call_later(1.5, note, "never")
    loop.call_soon(note, "now")
    cancelled.cancel()
    await trio.sleep(3)
    assert [(name, time_s - begun_s) for name, time_s in fired] == [
        ("now", 0.0),
        ("early", 1.0),
        ("late", 2.0),
    ]


async def test_due_timer_goes_before_what_is_queued(
    autojump_clock: MockClock, loop: asyncio.AbstractEventLoop
) -> None:
    """Rule 1."""
    ran: list[str] = []
    loop.call_later(1.0, ran.append, "timer")

    def pass_time() -> None:
        ran.append("first")
        autojump_clock.jump(1.0)

    await rounds(3)
    loop.call_soon(pass_time)
    loop.call_soon(ran.append, "second")
    await rounds(4)
    assert ran == ["first", "timer", "second"]


async def test_exception_of_a_callback_ends_the_loop_and_not_those_before(autojump_clock: MockClock) -> None:
    """Rule 5: it goes where trio-asyncio's loop sends it."""
    ran: list[str] = []

    def fail() -> None:
        raise ValueError("on purpose")

    async def main() -> None:
        async with asyncio_bridge.open_loop():
            loop = asyncio.get_running_loop()
            loop.call_soon(ran.append, "before")
            loop.call_soon(fail)
            loop.call_soon(ran.append, "after")
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await main()
    assert caught.group_contains(ValueError, match="on purpose")
    assert ran == ["before", "after"]


async def test_what_was_queued_before_the_end_runs() -> None:
    ran: list[int] = []
    async with asyncio_bridge.open_loop():
        loop = asyncio.get_running_loop()
        for number in range(3 * CALLBACKS_MAX):
            loop.call_soon(ran.append, number)
    assert ran == list(range(3 * CALLBACKS_MAX))


async def test_calls_cross_both_ways_and_so_do_their_results(loop: asyncio.AbstractEventLoop) -> None:
    async def in_trio(value: int) -> int:
        assert sniffio.current_async_library() == "trio"
        await trio.lowlevel.checkpoint()
        return value + 1

    async def in_asyncio(value: int) -> list[int]:
        assert sniffio.current_async_library() == "asyncio"
        await asyncio.sleep(0)
        calls = [callable_from_asyncio(in_trio)(value + number) for number in range(CALLBACKS_MAX)]
        found = list(await asyncio.gather(*calls))
        assert sniffio.current_async_library() == "asyncio"
        return found

    assert await callable_from_trio(in_asyncio)(1) == [number + 2 for number in range(CALLBACKS_MAX)]
    assert sniffio.current_async_library() == "trio"
    assert asyncio.get_running_loop() is loop


async def test_cancel_of_trio_reaches_asyncio(
    autojump_clock: MockClock, loop: asyncio.AbstractEventLoop
) -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await asyncio.sleep(1_000)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    with trio.move_on_after(1) as scope:
        await callable_from_trio(wait)()
    assert scope.cancelled_caught
    assert seen == ["cancelled"]


async def test_cancel_of_asyncio_reaches_trio(
    autojump_clock: MockClock, loop: asyncio.AbstractEventLoop
) -> None:
    seen: list[str] = []

    async def wait() -> None:
        try:
            await trio.sleep(1_000)
        except trio.Cancelled:
            seen.append("cancelled")
            raise

    async def call() -> None:
        task = asyncio.ensure_future(callable_from_asyncio(wait)())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    await callable_from_trio(call)()
    assert seen == ["cancelled"]


async def test_trio_task_has_begun_when_the_next_callback_runs(loop: asyncio.AbstractEventLoop) -> None:
    """Rule 4."""
    ran: list[str] = []

    async def in_trio() -> None:
        ran.append("task")
        await trio.lowlevel.checkpoint()

    def begin() -> None:
        callable_from_asyncio(in_trio)()
        loop.call_soon(ran.append, "next")

    loop.call_soon(begin)
    await rounds(8)
    assert ran == ["task", "next"]


async def test_callbacks_from_other_threads_arrive(loop: asyncio.AbstractEventLoop) -> None:
    done = trio.Event()
    await trio.to_thread.run_sync(loop.call_soon_threadsafe, done.set)
    with trio.fail_after(10):
        await done.wait()


async def test_private_attributes_are_those_of_trio_asyncio(loop: asyncio.AbstractEventLoop) -> None:
    """Another release of trio-asyncio may rename them."""
    assert isinstance(loop, trio_asyncio.TrioEventLoop)
    for name in ("_q_recv", "_timers", "_nursery", "_main_loop_one"):
        assert hasattr(loop, name)
