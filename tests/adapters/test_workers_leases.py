"""Leases: silence, cut streams, workers that come back, with or without what they held (T2)."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait.v1 import worker_hub_service_pb2 as pb
from plait_server.core.run.commands import Disposition
from plait_server.core.run.states import AttemptOutcome
from plait_server.errors import InstanceReplaced, LeaseExpired, StreamReplaced, WorkerIdInUse
from plait_server.ports.workers import AttemptKey
from tests.adapters.workers_streams import NAMESPACE, Attempt, a_hub, complete, exited


def is_lost(attempt: Attempt) -> bool:
    return attempt.result is not None and attempt.result.outcome is AttemptOutcome.LOST


async def test_pings_go_out_and_answers_keep_the_lease(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await trio.sleep(1_000)
        assert len(stream.of("ping")) in (199, 200)
        assert not stream.is_over
        assert attempt.result is None
        assert hub.capacity.slots == {"w.1": 4}


async def test_a_cut_stream_alone_loses_nothing(autojump_clock: MockClock) -> None:
    """T2."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await trio.sleep(1)
        await stream.cut()
        assert hub.capacity.slots == {"w.1": 0}
        assert not hub.workers.list_workers(NAMESPACE)[0].is_attached
        await trio.sleep(13)
        again = await hub.dial(running=[attempt])
        assert again.assigned == []
        assert hub.capacity.slots == {"w.1": 4}
        await trio.sleep(100)
        await again.complete(attempt)
        assert attempt.result is not None
        assert attempt.result.outcome is AttemptOutcome.SUCCEEDED


async def test_a_worker_that_stays_away_loses_what_it_held(autojump_clock: MockClock) -> None:
    """T2, FAILURES 18: after three ping intervals."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await stream.cut()
        await trio.sleep(14.9)
        assert attempt.result is None
        await trio.sleep(0.2)
        assert is_lost(attempt)
        assert attempt.result is not None
        assert attempt.result.failure is not None
        assert attempt.result.failure.code == "WORKER_LOST"
        assert not attempt.result.from_worker
        assert hub.capacity.slots == {}
        assert hub.workers.list_workers(NAMESPACE) == []


async def test_a_silent_worker_gets_nothing_new_after_two_intervals(autojump_clock: MockClock) -> None:
    """FAILURES 20: liveness is proved on the stream itself."""
    async with a_hub() as hub:
        stream = await hub.dial()
        stream.is_answering = False
        await trio.sleep(9.9)
        assert hub.capacity.slots == {"w.1": 4}
        await trio.sleep(0.2)
        assert hub.capacity.slots == {"w.1": 0}
        await stream.tell(complete("whatever"))
        assert hub.capacity.slots == {"w.1": 4}


async def test_a_silent_worker_is_dropped_and_lost_when_its_lease_runs_out(
    autojump_clock: MockClock,
) -> None:
    """T2: its stream is open, and it does not answer."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await trio.sleep(6.5)
        stream.is_answering = False
        await trio.sleep(13)
        assert not stream.is_over
        await trio.sleep(1)
        assert isinstance(stream.error, LeaseExpired)
        assert is_lost(attempt)


async def test_a_rejecting_worker_that_falls_silent_is_not_opened_again(autojump_clock: MockClock) -> None:
    """A pause that ends says nothing of its liveness."""
    async with a_hub() as hub:
        stream = await hub.dial()
        stream.is_answering = False
        await trio.sleep(9.5)
        await stream.tell()
        assert hub.capacity.slots == {"w.1": 4}
        await trio.sleep(10.5)
        assert hub.capacity.slots == {"w.1": 0}


async def test_what_it_lacks_is_assigned_again_under_the_same_attempt(autojump_clock: MockClock) -> None:
    """FAILURES 3: sent again only to an instance whose in-flight list lacks it."""
    async with a_hub() as hub:
        stream = await hub.dial()
        running, finished, lacking = hub.execute("running"), hub.execute("finished"), hub.execute("lacking")
        await wait_all_tasks_blocked()
        await stream.cut()
        again = await hub.dial(running=[running], finished=[finished])
        assert again.assigned == [lacking.token]
        await again.complete(finished)
        await again.complete(running)
        await again.complete(lacking)
        for attempt in (running, finished, lacking):
            assert attempt.result is not None
            assert attempt.result.outcome is AttemptOutcome.SUCCEEDED


async def test_what_nobody_waits_for_is_cancelled_as_stale(autojump_clock: MockClock) -> None:
    """Rule 3: unless its execution is being read back."""
    async with a_hub() as hub:
        foreign = Attempt(AttemptKey("other", "x", 1, "a", 1))
        stale, current, forged = (Attempt(AttemptKey(NAMESPACE, "x", 1, name, 1)) for name in "scf")
        for attempt in (foreign, stale, current):
            attempt.token = hub.tokens.make(attempt.key)
        forged.token = "f" * 40
        hub.current += [current.key, foreign.key]
        stream = await hub.dial(running=[foreign, stale, current, forged])
        assert sorted(stream.cancelled) == sorted(
            (attempt.token, "STALE") for attempt in (foreign, stale, forged)
        )


async def test_after_a_restart_the_lease_is_granted_anew(autojump_clock: MockClock) -> None:
    """FAILURES 3: a worker that does not come back loses it when the lease has run out, not before."""
    async with a_hub() as hub:
        await trio.sleep(1_000)
        attempt = hub.execute(recovered=True)
        await trio.sleep(14.9)
        assert attempt.result is None
        (snapshot,) = hub.workers.list_workers(NAMESPACE)
        assert (snapshot.is_attached, snapshot.attached_time_s) == (False, 0)
        await trio.sleep(0.2)
        assert is_lost(attempt)


async def test_after_a_restart_a_worker_keeps_what_it_runs(autojump_clock: MockClock) -> None:
    """FAILURES 3, whichever is first: the worker, or the execution that is read back."""
    for worker_first in (True, False):
        async with a_hub() as hub:
            attempt = Attempt(AttemptKey(NAMESPACE, "x", 1, "a", 1))
            attempt.token = hub.tokens.make(attempt.key)
            hub.current.append(attempt.key)
            if worker_first:
                stream = await hub.dial(running=[attempt])
                attempt = hub.execute(recovered=True)
                await wait_all_tasks_blocked()
            else:
                attempt = hub.execute(recovered=True)
                await trio.sleep(5)
                stream = await hub.dial(running=[attempt])
            assert stream.assigned == []
            assert stream.cancelled == []
            await trio.sleep(100)
            await stream.complete(attempt)
            assert attempt.result is not None


async def test_a_result_of_a_former_life_finds_its_execution(autojump_clock: MockClock) -> None:
    """FAILURES 2, 19: tokens survive a restart."""
    async with a_hub() as hub:
        attempt = Attempt(AttemptKey(NAMESPACE, "x", 1, "a", 1))
        attempt.token = hub.tokens.make(attempt.key)
        stream = await hub.dial(finished=[attempt])
        await stream.complete(attempt)
        assert [(key, result.worker_id) for key, result in hub.delivered] == [(attempt.key, "w")]
        hub.workers.acknowledge(attempt.key, Disposition.RECORDED, "w")
        await wait_all_tasks_blocked()
        assert stream.recorded == [(attempt.token, Disposition.RECORDED)]


async def test_a_new_instance_of_a_worker_that_is_gone_loses_at_once(autojump_clock: MockClock) -> None:
    """T2: its worker came back without it."""
    async with a_hub() as hub:
        await trio.sleep(1)
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await stream.cut()
        await hub.dial(instance="w.2")
        assert is_lost(attempt)
        assert hub.capacity.slots == {"w.2": 4}


async def test_after_a_restart_a_new_instance_takes_nothing_from_one_that_may_come(
    autojump_clock: MockClock,
) -> None:
    """FAILURES 3: what was not here since the server's start has its whole lease to come back."""
    async with a_hub() as hub:
        await trio.sleep(1)
        attempt = hub.execute(recovered=True)
        first = await hub.dial(instance="w.2")
        assert attempt.result is None
        await first.close()
        stream = await hub.dial(running=[attempt])
        await stream.complete(attempt)
        assert attempt.result is not None
        assert attempt.result.outcome is AttemptOutcome.SUCCEEDED


async def test_a_live_instance_keeps_its_worker_id(autojump_clock: MockClock) -> None:
    """T2: a live instance that still answers keeps its worker id, and the newcomer is refused."""
    async with a_hub() as hub:
        first = await hub.dial()
        attempt = hub.execute()
        await trio.sleep(12)
        second = await hub.dial(instance="w.2")
        assert trio.current_time() == 12  # Asked at once, not at the next ping.
        assert isinstance(second.error, WorkerIdInUse)
        assert second.error.fields == {"worker_id": "w", "instance_id": "w.1"}
        assert "w.1" in second.error.message
        assert second.heard == []
        assert attempt.result is None
        assert not first.is_over
        assert hub.capacity.slots == {"w.1": 4}
        # Its own second stream is another matter, and so is the same id in another namespace.
        assert (await hub.dial(running=[attempt])).error is None
        assert (await hub.dial(instance="w.3", namespace="other")).error is None


async def test_an_instance_that_does_not_answer_gives_way_to_a_newcomer(autojump_clock: MockClock) -> None:
    """T2: a new instance of its worker attached; the wait for the old one is bounded."""
    async with a_hub() as hub:
        first = await hub.dial()
        attempt = hub.execute()
        await trio.sleep(12)
        first.is_answering = False
        second = await hub.dial(instance="w.2")
        await trio.sleep(4.9)
        assert attempt.result is None
        assert hub.capacity.slots == {"w.1": 4}
        # Words of its own are no answer: they may have been under way for long.
        await first.tell(
            pb.WorkerMessage(credit=pb.Credit(slots=3)), pb.WorkerMessage(pong=pb.Pong(number=0))
        )
        await trio.sleep(0.2)
        assert is_lost(attempt)
        assert isinstance(first.error, InstanceReplaced)
        assert len(second.of("welcome")) == 1
        assert hub.capacity.slots == {"w.2": 4}
        assert [each.instance_id for each in hub.workers.list_workers(NAMESPACE)] == ["w.2"]
        # Should it live after all, it is the newcomer now.
        back = await hub.dial(running=[attempt])
        assert isinstance(back.error, WorkerIdInUse)


async def test_an_instance_that_leaves_while_it_is_asked_gives_way_at_once(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        first = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        first.is_answering = False
        second = await hub.dial(instance="w.2")
        await first.cut()
        assert trio.current_time() == 0.0
        assert len(second.of("welcome")) == 1
        assert is_lost(attempt)


async def test_of_two_newcomers_one_is_admitted(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        first = await hub.dial()
        first.is_answering = False
        newcomers = [await hub.dial(instance=name) for name in ("w.2", "w.3")]
        await trio.sleep(20)
        assert first.is_over
        assert sorted(isinstance(each.error, WorkerIdInUse) for each in newcomers) == [False, True]
        assert len(hub.capacity.slots) == 1


async def test_a_newcomer_that_leaves_while_it_waits_costs_nobody_anything(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        first = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        first.is_answering = False
        second = await hub.dial(instance="w.2")
        await second.cut()
        first.is_answering = True
        await trio.sleep(60)
        assert attempt.result is None
        assert hub.capacity.slots == {"w.1": 4}


async def test_a_worker_of_the_same_id_elsewhere_loses_nothing_here(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await stream.cut()
        await hub.dial(instance="w.2", namespace="other")
        assert attempt.result is None


async def test_a_second_stream_of_an_instance_replaces_the_first(autojump_clock: MockClock) -> None:
    """Its old stream is half dead; the worker knows better."""
    async with a_hub() as hub:
        first = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        second = await hub.dial(running=[attempt])
        assert isinstance(first.error, StreamReplaced)
        assert hub.capacity.slots == {"w.1": 4}
        await trio.sleep(100)
        assert attempt.result is None
        await second.complete(attempt)
        assert attempt.result is not None


async def test_a_result_that_its_stream_lost_is_told_on_the_next(autojump_clock: MockClock) -> None:
    """A4: the worker keeps it until it is told."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await stream.complete(attempt)
        await stream.cut()
        hub.workers.acknowledge(attempt.key, Disposition.RECORDED, "w")
        again = await hub.dial(finished=[attempt])
        await again.complete(attempt)
        assert [key for key, _ in hub.delivered] == [attempt.key]
        hub.workers.acknowledge(attempt.key, Disposition.ALREADY_RECORDED, "w")
        await wait_all_tasks_blocked()
        assert again.recorded == [(attempt.token, Disposition.ALREADY_RECORDED)]


async def test_a_late_word_of_a_lost_attempt_is_looked_up(autojump_clock: MockClock) -> None:
    """FAILURES 19: a worker that returns late is told STALE by who knows."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await stream.cut()
        await trio.sleep(60)
        assert is_lost(attempt)
        again = await hub.dial(running=[attempt])
        assert again.cancelled == [(attempt.token, "STALE")]
        await again.tell(exited(attempt.token))
        await again.complete(attempt)
        assert [key for key, _ in hub.delivered] == [attempt.key]


async def test_an_attempt_for_a_worker_that_has_just_left_is_lost(autojump_clock: MockClock) -> None:
    """T2: it was granted before the worker left, and its start is durable."""
    async with a_hub() as hub:
        stream = await hub.dial()
        await stream.close()
        attempt = hub.execute()
        await trio.sleep(15.1)
        assert is_lost(attempt)


async def test_a_shutdown_tells_workers_nothing(autojump_clock: MockClock) -> None:
    """FAILURES 3: what runs stays with its worker."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        attempt.scope.cancel()
        await wait_all_tasks_blocked()
        assert attempt.is_over
        assert stream.cancelled == []
        assert attempt.stages == []


async def test_a_lease_counts_from_the_last_word(autojump_clock: MockClock) -> None:
    """T2: a stream that was cut, came back and was cut again has its whole lease from then on."""
    async with a_hub() as hub:
        first = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await first.cut()
        await trio.sleep(10)
        second = await hub.dial(running=[attempt])
        await second.cut()
        await trio.sleep(14.9)  # The first lease has run out meanwhile.
        assert attempt.result is None
        await trio.sleep(0.2)
        assert is_lost(attempt)


async def test_pings_are_numbered(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        await trio.sleep(51)
        assert [message.ping.number for message in stream.of("ping")] == list(range(1, 11))


async def test_what_is_asked_for_while_it_is_looked_up_is_not_cancelled(autojump_clock: MockClock) -> None:
    """Rule 4: its execution was read back in the meantime."""
    async with a_hub() as hub:
        attempt = Attempt(AttemptKey(NAMESPACE, "x", 1, "a", 1))
        attempt.token = hub.tokens.make(attempt.key)
        hub.is_looking_up = trio.Event()
        stream = await hub.dial(running=[attempt])
        attempt = hub.execute(recovered=True)
        await wait_all_tasks_blocked()
        hub.is_looking_up.set()
        await wait_all_tasks_blocked()
        assert stream.cancelled == []
        await stream.complete(attempt)
        assert attempt.result is not None


async def test_thousands_that_nobody_wants_are_looked_up_one_by_one(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        held: list[Attempt] = []
        for number in range(2_000):
            attempt = Attempt(AttemptKey(NAMESPACE, "x", 1, f"n{number}", 1))
            attempt.token = hub.tokens.make(attempt.key)
            held.append(attempt)
        stream = await hub.dial(running=held)
        assert stream.cancelled == [(attempt.token, "STALE") for attempt in held]
        assert hub.looking_up_max == 1
