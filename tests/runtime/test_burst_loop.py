"""The asyncio loop of the bridge: what holds of asyncio's own loop holds of one that runs in bursts."""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import AsyncGenerator

import pytest
import trio
import trio.testing
import trio_asyncio
from trio.testing import MockClock

from plait_server.runtime import asyncio_bridge
from plait_server.runtime.asyncio_bridge import callable_from_asyncio, callable_from_trio
from plait_server.runtime.burst_loop import BURST_S_MAX, CALLBACKS_MAX

CALLBACKS = 50


@pytest.fixture
async def loop() -> AsyncGenerator[asyncio.AbstractEventLoop]:
    async with asyncio_bridge.open_loop() as loop:
        yield loop


async def rounds(count: int) -> None:
    for _ in range(count):
        await trio.lowlevel.checkpoint()


async def test_callbacks_run_in_order_in_one_round(loop: asyncio.AbstractEventLoop) -> None:
    """Rule 1."""
    ran: list[int] = []
    await rounds(3)
    for number in range(CALLBACKS):
        loop.call_soon(ran.append, number)
    await rounds(3)
    assert ran == list(range(CALLBACKS))


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
    # Trio runs the tasks of a round in any order: two turns of the loop may be next to each other.
    assert max(steps) <= 2 * CALLBACKS_MAX
    assert len(seen) >= 25


async def test_slow_callbacks_end_the_round(
    autojump_clock: MockClock, loop: asyncio.AbstractEventLoop
) -> None:
    """Rule 2: bursts end after some time, too."""
    count = 0

    def slow() -> None:
        nonlocal count
        autojump_clock.jump(BURST_S_MAX * 0.6)
        count += 1
        if count < 30:
            loop.call_soon(slow)

    loop.call_soon(slow)
    seen: list[int] = []
    while count < 30:
        await trio.lowlevel.checkpoint()
        seen.append(count)
    # The bursts end after the second; two turns may follow each other, as above.
    assert max(after - before for before, after in itertools.pairwise([0, *seen])) <= 4


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


async def test_timer_that_a_callback_sets_wakes_the_loop(
    autojump_clock: MockClock, loop: asyncio.AbstractEventLoop
) -> None:
    """Its time is trio's, and comes before that of the timer that was waited for."""
    fired: list[float] = []
    loop.call_later(100, fired.append, 100)
    await trio.sleep(1)
    loop.call_soon(loop.call_later, 1, fired.append, 2)
    await trio.sleep(10)
    assert fired == [2]


async def test_exception_of_a_callback_is_logged_and_ends_nothing(
    loop: asyncio.AbstractEventLoop, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 5."""
    ran: list[str] = []

    def fail() -> None:
        raise ValueError("on purpose")

    loop.call_soon(fail)
    loop.call_soon(ran.append, "after")
    with caplog.at_level(logging.ERROR):
        await rounds(4)
    assert ran == ["after"]
    (record,) = caplog.records
    assert "on purpose" in str(record.exc_info)


async def test_exit_in_a_callback_ends_the_owner_of_the_loop() -> None:
    """Rule 5."""

    async def main() -> None:
        async with asyncio_bridge.open_loop() as loop:
            loop.call_soon(exit, 3)
            await trio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await main()
    assert caught.group_contains(SystemExit)


async def test_files_wake_the_loop(loop: asyncio.AbstractEventLoop) -> None:
    """Level-triggered, as in asyncio: what is not read is told again."""
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)  # socket's signature
        read: list[bytes] = []
        loop.add_reader(near, lambda: read.append(near.recv(1)))
        for _ in range(2):
            await trio.to_thread.run_sync(far.sendall, b"ab")
            with trio.fail_after(10):
                while read[-2:] != [b"a", b"b"]:  # noqa: ASYNC110 # a callback of asyncio's tells nobody
                    await trio.sleep(0.001)
            read.clear()
        loop.remove_reader(near)


async def test_what_was_queued_before_the_end_runs() -> None:
    ran: list[int] = []
    async with asyncio_bridge.open_loop() as loop:
        for number in range(CALLBACKS):
            loop.call_soon(ran.append, number)
    assert ran == list(range(CALLBACKS))


async def test_calls_cross_both_ways_and_so_do_their_results(loop: asyncio.AbstractEventLoop) -> None:
    async def in_trio(value: int) -> int:
        await trio.lowlevel.checkpoint()
        return value + 1

    async def in_asyncio(value: int) -> list[int]:
        assert asyncio.get_running_loop() is loop
        await asyncio.sleep(0)
        calls = [callable_from_asyncio(in_trio)(value + number) for number in range(CALLBACKS)]
        return list(await asyncio.gather(*calls))

    assert await callable_from_trio(in_asyncio)(1) == [number + 2 for number in range(CALLBACKS)]


async def test_exceptions_cross_both_ways(loop: asyncio.AbstractEventLoop) -> None:
    async def in_trio() -> None:
        raise ValueError("of trio")

    async def in_asyncio() -> None:
        with pytest.raises(ValueError, match="of trio"):
            await callable_from_asyncio(in_trio)()
        raise KeyError("of asyncio")

    with pytest.raises(KeyError, match="of asyncio"):
        await callable_from_trio(in_asyncio)()


async def test_call_that_need_not_wait_is_a_checkpoint(loop: asyncio.AbstractEventLoop) -> None:
    async def at_once() -> int:
        return 1

    with trio.testing.assert_checkpoints():
        assert await callable_from_trio(at_once)() == 1


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


async def test_cancelled_call_ends_when_the_trio_function_has_ended(
    autojump_clock: MockClock, loop: asyncio.AbstractEventLoop
) -> None:
    """Rule 4: asyncio's task is not gone before what it called."""
    seen: list[str] = []

    async def linger() -> None:
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                await trio.sleep(1)
            seen.append("trio")

    async def call() -> None:
        task = asyncio.ensure_future(callable_from_asyncio(linger)())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        seen.append("asyncio")

    await callable_from_trio(call)()
    assert seen == ["trio", "asyncio"]


async def test_error_of_a_nursery_that_is_cancelled_arrives_alone(
    autojump_clock: MockClock, loop: asyncio.AbstractEventLoop
) -> None:
    """Only trio may see its cancels."""

    async def in_trio() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.sleep(1)
            raise ValueError("on purpose")

    async def call() -> None:
        with pytest.raises(ExceptionGroup) as caught:
            await callable_from_asyncio(in_trio)()
        assert caught.group_contains(ValueError, match="on purpose")

    await callable_from_trio(call)()


async def test_close_cancels_calls_and_tasks_and_waits_for_them(autojump_clock: MockClock) -> None:
    """Also when the loop is left by a cancel, which must not keep what is cancelled from ending."""
    seen: list[str] = []

    async def in_trio() -> None:
        try:
            await trio.sleep_forever()
        finally:
            seen.append("trio")

    async def in_asyncio() -> None:
        try:
            await asyncio.sleep(1_000)
        finally:
            await asyncio.sleep(0.1)
            seen.append("asyncio")

    with trio.move_on_after(1):
        async with asyncio_bridge.open_loop() as loop:
            loop.create_task(in_asyncio())
            loop.call_soon(callable_from_asyncio(in_trio))
            await trio.sleep_forever()
    assert seen == ["trio", "asyncio"]


async def test_callbacks_from_other_threads_arrive(loop: asyncio.AbstractEventLoop) -> None:
    done = trio.Event()
    await trio.to_thread.run_sync(loop.call_soon_threadsafe, done.set)
    with trio.fail_after(10):
        await done.wait()


async def test_private_attributes_are_those_of_trio_asyncio() -> None:
    """Another release may rename them."""
    async with trio_asyncio.open_loop() as loop:
        for name in (
            "_q_send",
            "_timers",
            "_nursery",
            "_token",
            "_main_loop_one",
            "_io_task",
            "_queue_handle",
        ):
            assert hasattr(loop, name), name
