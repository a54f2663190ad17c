"""Leases: cut streams, workers that come back, fall silent, or are lost; in virtual time."""

import trio
from trio.testing import MockClock

from plait.v1 import worker_hub_service_pb2 as hub
from plait_server.core.states import AttemptOutcome
from plait_server.ports.workers import AttemptKey
from tests.adapters.attached_stage import (
    INSTANCE,
    LEASE_S,
    NAMESPACE,
    PING_S,
    QUIET_S,
    TOKENS,
    assignment,
    complete,
    hello,
    open_hub,
    pong,
)


async def test_a_cut_stream_alone_loses_nothing(autojump_clock: MockClock) -> None:
    """T2: what still runs goes on, what the worker lacks is assigned again under the same attempt."""
    async with open_hub() as stage:
        far = await stage.attach()
        runs, finished, lacking = (stage.execute(name) for name in "abc")
        assert await far.kinds() == ["assign"] * 3
        far.close()
        await far.ended.wait()
        await trio.sleep(LEASE_S - 1)
        again = stage.open(hello(running=[runs.token], finished=[finished.token]))
        welcome, assign = await again.quiet()
        assert welcome.HasField("welcome")
        assert (assign.assign.token, assign.assign.attempt) == (lacking.token, 1)
        again.say(complete(runs.token, "1"), complete(finished.token, "2"), complete(lacking.token, "3"))
        outputs = [(await call.wait()) for call in (runs, finished, lacking)]
        assert [report and report.output_json for report in outputs] == ["1", "2", "3"]
        assert stage.delivered == []


async def test_a_lease_runs_out_after_three_intervals(autojump_clock: MockClock) -> None:
    """T2."""
    async with open_hub() as stage:
        far = await stage.attach()
        call = stage.execute()
        await far.quiet()
        far.say(
            hub.WorkerMessage(usage=hub.Usage(token=call.token, unit="u", amount="0.5")),
            hub.WorkerMessage(usage=hub.Usage(token=call.token, unit="u", amount="1.25")),
        )
        await far.quiet()
        far.say(pong())
        far.close()
        await far.ended.wait()
        heard_s = trio.current_time()
        report = await call.wait()
        assert report is not None
        assert abs(call.ended_s - heard_s - LEASE_S) < 0.01
        assert (report.outcome, report.from_worker) == (AttemptOutcome.LOST, False)
        assert report.failure is not None
        assert (report.failure.code, report.failure.node_path) == ("WORKER_LOST", "a")
        assert report.usage is None
        assert call.used == [("u", "0.5"), ("u", "1.25")]  # What it said it used, it used.
        await trio.sleep(QUIET_S)
        assert INSTANCE not in stage.capacity.slots
        assert stage.workers.list_workers(NAMESPACE) == []


async def test_a_new_instance_means_that_a_detached_one_is_gone(autojump_clock: MockClock) -> None:
    """T2."""
    async with open_hub() as stage:
        far = await stage.attach()
        call = stage.execute()
        await far.quiet()
        far.close()
        await far.ended.wait()
        started_s = trio.current_time()
        await stage.attach(hello(instance_id="w-2"))
        report = await call.wait()
        assert report is not None
        assert report.outcome is AttemptOutcome.LOST
        assert call.ended_s - started_s < QUIET_S
        assert list(stage.capacity.slots) == ["w-2"]


async def test_a_new_stream_of_an_instance_ends_the_old_one(autojump_clock: MockClock) -> None:
    async with open_hub() as stage:
        old = await stage.attach()
        call = stage.execute()
        await old.quiet()
        new = await stage.attach(hello(running=[call.token]))
        await old.ended.wait()
        assert old.error is None
        assert stage.capacity.slots == {INSTANCE: 4}
        new.say(complete(call.token))
        assert (await call.wait()) is not None


async def test_silence_stops_new_work_and_an_answer_brings_it_back(autojump_clock: MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        await trio.sleep(PING_S)
        far.say(pong())
        heard_s = trio.current_time()
        await trio.sleep_until(heard_s + 2 * PING_S - QUIET_S)
        assert stage.capacity.slots[INSTANCE] == 4
        await trio.sleep_until(heard_s + 2 * PING_S + QUIET_S)
        assert stage.capacity.slots[INSTANCE] == 0
        assert not far.ended.is_set()
        far.say(pong())
        await far.quiet()
        assert stage.capacity.slots[INSTANCE] == 4


async def test_a_stream_without_answers_is_dropped_and_its_attempts_are_lost(
    autojump_clock: MockClock,
) -> None:
    """T2."""
    async with open_hub() as stage:
        far = await stage.attach()
        started_s = trio.current_time()
        call = stage.execute()
        await far.ended.wait()
        report = await call.wait()
        assert report is not None
        assert report.outcome is AttemptOutcome.LOST
        assert LEASE_S - 1 < call.ended_s - started_s < LEASE_S + QUIET_S


async def test_a_worker_that_answers_its_pings_stays(autojump_clock: MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        numbers = []
        for _ in range(20):
            for message in (await far.next_frame()).messages:
                numbers.append(message.ping.number)
                far.say(pong(message.ping.number))
        assert numbers == list(range(1, 21))
        assert stage.capacity.slots == {INSTANCE: 4}


async def test_after_a_restart_a_worker_has_a_whole_lease_to_come_back(autojump_clock: MockClock) -> None:
    """T2; what it names goes on (contract of the port, 3)."""
    async with open_hub() as stage:
        kept = stage.execute("a")
        lost = stage.carry_out(assignment("b", instance_id="v-1")._replace(worker_id="v"))
        started_s = trio.current_time()
        await trio.sleep(LEASE_S - 1)
        assert not kept.done.is_set()
        far = await stage.attach(hello(running=[kept.token]))
        assert far.heard() == []
        report = await lost.wait()
        assert report is not None
        assert report.outcome is AttemptOutcome.LOST
        assert abs(lost.ended_s - started_s - LEASE_S) < 0.01
        far.say(complete(kept.token))
        assert (await kept.wait()) is not None


async def test_an_attempt_that_is_read_back_later_is_not_sent_again(autojump_clock: MockClock) -> None:
    async with open_hub() as stage:
        key = AttemptKey(NAMESPACE, "x-1", 1, "a", 1)
        stage.current.add(key)
        far = await stage.attach(hello(running=[TOKENS.make(key)]))
        assert await far.kinds() == []
        call = stage.execute()
        assert await far.kinds() == []
        far.say(complete(call.token))
        assert (await call.wait()) is not None


async def test_what_a_worker_runs_and_nobody_wants_is_cancelled(autojump_clock: MockClock) -> None:
    async with open_hub() as stage:
        gone = TOKENS.make(AttemptKey(NAMESPACE, "x-0", 1, "a", 1))
        foreign_key = AttemptKey("other", "x-0", 1, "a", 1)
        stage.current.add(foreign_key)
        foreign = TOKENS.make(foreign_key)
        far = stage.open(hello(running=[gone, foreign, "forged"], finished=["done"]))
        _, *messages = await far.quiet()
        assert {(each.cancel.token, each.cancel.reason) for each in messages} == {
            (gone, "STALE"),
            (foreign, "STALE"),
            ("forged", "STALE"),
        }
