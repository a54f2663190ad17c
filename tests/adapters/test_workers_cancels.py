"""Cancels at attached workers: C1's receipts, the grace time, and workers that come back."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait.v1 import worker_hub_service_pb2 as pb
from plait_server.core.run.states import AttemptOutcome, CancelStage
from tests.adapters.workers_streams import a_hub, cancel_ack, exited, reject

DELIVERED, ACKNOWLEDGED = CancelStage.DELIVERED, CancelStage.ACKNOWLEDGED
EXITED, ABANDONED = CancelStage.EXITED, CancelStage.ABANDONED


async def test_each_step_of_a_cancel_is_reported(autojump_clock: MockClock) -> None:
    """C1."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        attempt.stop("RACE_LOST")
        await wait_all_tasks_blocked()
        assert stream.cancelled == [(attempt.token, "RACE_LOST")]
        assert stream.of("cancel")[0].cancel.grace.seconds == 10
        await stream.tell(cancel_ack(attempt.token))
        await trio.sleep(4)
        assert not attempt.is_over
        await stream.tell(exited(attempt.token))
        assert attempt.is_over
        assert attempt.stages == [DELIVERED, ACKNOWLEDGED, EXITED]
        assert attempt.result is None


async def test_a_handler_that_does_not_end_is_abandoned_after_the_grace(autojump_clock: MockClock) -> None:
    """C1."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        attempt.stop()
        await wait_all_tasks_blocked()
        await stream.tell(cancel_ack(attempt.token))
        await trio.sleep(20)
        assert attempt.is_over
        assert attempt.receipts[-1] == (10.0, ABANDONED)
        await stream.tell(exited(attempt.token))
        assert attempt.stages == [DELIVERED, ACKNOWLEDGED, ABANDONED]


async def test_delivered_means_that_the_transport_took_it(autojump_clock: MockClock) -> None:
    """C1: a stream that takes nothing delivers nothing."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        stream.flow = trio.Event()
        attempt.stop()
        await trio.sleep(3)
        assert attempt.stages == []
        stream.flow.set()
        await wait_all_tasks_blocked()
        assert attempt.receipts == [(3.0, DELIVERED)]


async def test_what_was_never_sent_need_not_be_cancelled(autojump_clock: MockClock) -> None:
    """C1: a cancel overtakes no assign of its own; the handler never starts, and nobody waits for it."""
    async with a_hub() as hub:
        stream = await hub.dial()
        stream.flow = trio.Event()
        hub.execute("in the transport")
        await wait_all_tasks_blocked()
        one, two = hub.execute("one"), hub.execute("two")
        await wait_all_tasks_blocked()
        for late in (one, two):
            late.stop()
        await trio.sleep(1)
        stream.flow.set()
        await wait_all_tasks_blocked()
        assert len(stream.assigned) == 1
        assert stream.cancelled == []
        assert one.stages == two.stages == [EXITED]
        assert one.is_over
        assert two.is_over


async def test_a_cancel_waits_for_a_worker_that_is_away_and_is_told_again(autojump_clock: MockClock) -> None:
    """C1: a worker that comes back is told again."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        attempt.stop()
        await wait_all_tasks_blocked()
        await stream.cut()
        await trio.sleep(3)
        again = await hub.dial(running=[attempt])
        assert again.cancelled == [(attempt.token, "CANCELLED")]
        await again.tell(cancel_ack(attempt.token), exited(attempt.token))
        assert attempt.stages[-2:] == [ACKNOWLEDGED, EXITED]
        assert attempt.is_over


async def test_a_worker_that_comes_back_without_it_has_ended_it(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await stream.cut()
        attempt.stop()
        await trio.sleep(3)
        assert not attempt.is_over
        again = await hub.dial()
        assert again.assigned == []
        assert attempt.receipts == [(3.0, EXITED)]


async def test_a_worker_that_stays_away_is_given_up_after_the_grace(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await stream.cut()
        attempt.stop()
        await trio.sleep(30)
        assert attempt.receipts == [(10.0, ABANDONED)]


async def test_a_result_in_place_of_the_exit_ends_the_handler_and_is_looked_up(
    autojump_clock: MockClock,
) -> None:
    """T6: the cancel was journaled first; the result goes to who can tell."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        attempt.stop()
        await wait_all_tasks_blocked()
        await stream.complete(attempt)
        assert attempt.is_over
        assert attempt.stages == [DELIVERED, EXITED]
        assert attempt.result is None
        assert [key for key, _ in hub.delivered] == [attempt.key]


async def test_a_result_in_the_same_instant_as_its_cancel_is_not_lost(autojump_clock: MockClock) -> None:
    """T6, A4: its worker is told what became of it, whichever was first; which is, is left to chance."""
    async with a_hub() as hub:
        stream = await hub.dial(slots=100)
        for number in range(40):
            attempt = hub.execute(f"n{number}")
            await wait_all_tasks_blocked()
            if number % 2:
                attempt.stop()
                await stream.complete(attempt)
            else:
                await stream.say(pb.WorkerMessage(complete=pb.Complete(token=attempt.token)))
                attempt.stop()
                await wait_all_tasks_blocked()
            assert attempt.is_over
            assert (attempt.result is not None) + len(hub.delivered) == 1
            hub.delivered.clear()


async def test_a_hand_back_in_place_of_the_exit_ends_the_handler(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        attempt.stop()
        await wait_all_tasks_blocked()
        await stream.tell(reject(attempt.token))
        assert attempt.stages == [DELIVERED, EXITED]
        assert attempt.result is None


async def test_receipts_of_what_is_not_being_cancelled_are_ignored(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await stream.tell(cancel_ack(attempt.token), cancel_ack("unknown"), exited("unknown"))
        assert attempt.stages == []
        assert attempt.result is None
        await stream.complete(attempt)
        assert attempt.result is not None
        assert attempt.result.outcome is AttemptOutcome.SUCCEEDED
