"""Cancels at attached workers: each step is reported in order, and ends within the grace time (C1)."""

import trio
from trio.testing import MockClock

from plait.v1 import worker_hub_service_pb2 as hub
from plait_server.core.commands import Taken
from plait_worker.session import CancelRequested, WorkerSession
from tests.adapters.attached_stage import (
    GRACE_S,
    INSTANCE,
    QUIET_S,
    assignment,
    cancel_ack,
    complete,
    exited,
    hello,
    open_hub,
    pong,
    reject,
)


async def test_a_worker_is_told_and_each_step_is_reported(autojump_clock: MockClock) -> None:
    """C1."""
    async with open_hub() as stage:
        far = await stage.attach()
        call = stage.execute()
        await far.quiet()
        call.cancel("SIBLING_FAILED")
        (message,) = await far.quiet()
        assert (message.cancel.token, message.cancel.reason) == (call.token, "SIBLING_FAILED")
        assert message.cancel.grace.ToSeconds() == GRACE_S
        assert call.stages == ["DELIVERED"]
        far.say(cancel_ack(call.token))
        await far.quiet()
        assert call.stages == ["DELIVERED", "ACKNOWLEDGED"]
        assert not call.done.is_set()
        far.say(exited(call.token))
        assert await call.wait() is None
        assert call.stages == ["DELIVERED", "ACKNOWLEDGED", "EXITED"]
        assert await far.kinds() == []


async def test_a_handler_that_does_not_end_is_abandoned(autojump_clock: MockClock) -> None:
    """C1."""
    async with open_hub() as stage:
        far = await stage.attach()
        call = stage.execute()
        await far.quiet()
        since_s = trio.current_time()
        call.cancel("CANCELLED")
        far.say(cancel_ack(call.token))
        await call.wait()
        far.heard()
        assert abs(call.ended_s - since_s - GRACE_S) < 0.01
        assert call.stages[-1] == "ABANDONED"
        # What it says in the end changes nothing.
        far.say(exited(call.token), pong())
        assert await far.kinds() == []
        assert call.stages[-1] == "ABANDONED"


async def test_a_worker_that_comes_back_is_told_again(autojump_clock: MockClock) -> None:
    """C1: a worker that comes back is told again."""
    async with open_hub() as stage:
        far = await stage.attach()
        call = stage.execute()
        await far.quiet()
        far.close()
        await far.ended.wait()
        call.cancel("CANCELLED")
        await trio.sleep(1)
        assert call.stages == []
        again = stage.open(hello(running=[call.token]))
        _, message = await again.quiet()
        assert (message.cancel.token, message.cancel.reason) == (call.token, "CANCELLED")
        again.say(cancel_ack(call.token), exited(call.token))
        await call.wait()
        assert call.stages == ["DELIVERED", "ACKNOWLEDGED", "EXITED"]


async def test_a_worker_that_comes_back_without_the_attempt_has_ended_it(autojump_clock: MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = stage.execute()
        await far.quiet()
        far.close()
        await far.ended.wait()
        call.cancel("CANCELLED")
        await trio.sleep(1)
        again = await stage.attach()
        await call.wait()
        assert call.stages == ["EXITED"]
        assert again.heard() == []


async def test_a_result_during_a_cancel_is_late(autojump_clock: MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = stage.execute()
        await far.quiet()
        call.cancel("RACE_LOST")
        await far.quiet()
        far.say(complete(call.token, "9"))
        assert await call.wait() is None
        assert call.stages == ["DELIVERED", "EXITED"]
        ((key, report, worker_id),) = stage.delivered
        assert (key, report.output_json, worker_id) == (call.assignment.key, "9", "w")
        stage.workers.tell(key, Taken.STALE, "w")
        (message,) = await far.quiet()
        assert message.recorded.result == hub.RECORDED_RESULT_STALE


async def test_a_result_in_the_moment_of_the_cancel_is_late(autojump_clock: MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = stage.execute()
        await far.quiet()
        (held,) = stage.workers._workers[INSTANCE].held.values()
        far.say(complete(call.token, "9"))
        await held.done.wait()
        call.cancel("CANCELLED")
        await call.wait()
        if call.report is None:
            assert call.stages == ["EXITED"]
            assert [key for key, _, _ in stage.delivered] == [call.assignment.key]
        else:
            assert call.stages == []
            assert stage.delivered == []


async def test_an_attempt_handed_back_during_a_cancel_has_ended(autojump_clock: MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = stage.execute()
        await far.quiet()
        call.cancel("CANCELLED")
        await far.quiet()
        far.say(reject(call.token, "DRAINING"))
        await call.wait()
        assert call.stages == ["DELIVERED", "EXITED"]
        assert stage.delivered == []


async def test_a_shutdown_tells_the_worker_nothing(autojump_clock: MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = stage.execute()
        await far.quiet()
        since_s = trio.current_time()
        call.cancel("")
        await call.wait()
        assert call.ended_s - since_s < QUIET_S
        assert await far.kinds() == []
        assert call.stages == []


async def test_control_messages_stand_before_assigns(autojump_clock: MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        first = stage.execute("a")
        await far.quiet()
        far.stall()
        stage.execute("b")  # Goes into the transport, and waits there.
        await trio.sleep(QUIET_S)
        stage.execute("c")
        await trio.sleep(QUIET_S)
        first.cancel("CANCELLED")
        await trio.sleep(QUIET_S)
        far.resume()
        messages = await far.quiet()
        assert [each.WhichOneof("message") for each in messages] == ["assign", "cancel", "assign"]
        assert (messages[1].cancel.token, messages[2].assign.node_path) == (first.token, "c")


async def test_a_frame_is_at_most_one_mebibyte(autojump_clock: MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        far.stall()
        stage.execute("first")
        await trio.sleep(QUIET_S)
        large = '"' + "x" * 400_000 + '"'
        for name in "abcde":
            stage.carry_out(assignment(name)._replace(input_json=large))
        await trio.sleep(QUIET_S)
        far.frames.clear()
        far.resume()
        assert await far.kinds() == ["assign"] * 6
        assert len(far.frames) > 2
        assert all(frame.ByteSize() <= 1024 * 1024 for frame in far.frames)


async def test_an_attempt_that_was_cancelled_before_it_was_sent_starts_no_handler(
    autojump_clock: MockClock,
) -> None:
    """C1: after EXITED nothing of the attempt runs, however much stood before it in the stream."""
    async with open_hub() as stage:
        session = WorkerSession(worker_id="w", instance_id=INSTANCE, types={"t": 0}, slots=4, sdk="sans-io")
        session.connected()
        far = stage.open()
        opening = session.take_frame()
        assert opening is not None
        far.say_frame(opening)
        assert session.receive(await far.next_frame())
        far.stall()
        stage.execute("a")
        await trio.sleep(QUIET_S)
        call = stage.execute("b")
        await trio.sleep(QUIET_S)
        call.cancel("CANCELLED")
        await trio.sleep(QUIET_S)
        far.resume()
        for _ in range(10):
            await far.quiet()
            for frame in far.frames:
                for event in session.receive(frame):
                    if isinstance(event, CancelRequested) and event.token in session.running:
                        session.exited(event.token)
            far.frames.clear()
            while (answer := session.take_frame()) is not None:
                far.say_frame(answer)
        assert call.done.is_set()
        assert call.stages[-1] == "EXITED"
        assert call.token not in session.running
