"""Attached workers: assignments, results, and what workers may do wrong."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait.v1 import payload_pb2
from plait.v1 import worker_hub_service_pb2 as pb
from plait_server.core.run.commands import Disposition
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import AttemptOutcome, CancelStage
from plait_server.ports.workers import AttemptKey
from tests.adapters.workers_streams import (
    NAMESPACE,
    Attempt,
    a_hub,
    complete,
    exited,
    fail,
    reject,
)


async def test_an_attempt_is_assigned_and_its_result_comes_back(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute(input_json='{"a":1}')
        await wait_all_tasks_blocked()
        (message,) = stream.of("assign")
        assign = message.assign
        assert (assign.execution_id, assign.node_path, assign.attempt, assign.run) == ("x", "a", 1, 1)
        assert assign.input.json == '{"a":1}'
        assert assign.idempotency_key == "default/x/a"
        assert not assign.HasField("time_left")
        await stream.tell(pb.WorkerMessage(accept=pb.Accept(token=assign.token)))
        await stream.complete(attempt, '{"b":2}')
        assert attempt.result is not None
        assert attempt.result.outcome is AttemptOutcome.SUCCEEDED
        assert attempt.result.output == Payload('{"b":2}')
        assert attempt.result.from_worker


async def test_a_result_is_recorded_when_the_runtime_says_so(autojump_clock: MockClock) -> None:
    """A2: `recorded` is sent when the result is durable, and to the worker that waits for it."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await stream.complete(attempt)
        assert stream.recorded == []
        hub.workers.acknowledge(attempt.key, Disposition.RECORDED, "w")
        hub.workers.acknowledge(attempt.key, Disposition.RECORDED, "w")
        await wait_all_tasks_blocked()
        assert stream.recorded == [(attempt.token, Disposition.RECORDED)]


async def test_a_result_that_is_no_json_fails_its_attempt_and_not_the_stream(
    autojump_clock: MockClock,
) -> None:
    """FAILURES 24: refused, the worker is told, the server alive."""
    async with a_hub() as hub:
        stream = await hub.dial()
        one, two = hub.execute("one"), hub.execute("two", number=3)
        await wait_all_tasks_blocked()
        await stream.complete(one, "NaN")
        await stream.tell(fail(two.token))
        for attempt in (one, two):
            result = attempt.result
            assert result is not None
            assert result.failure is not None
            assert result.failure.node_path == attempt.key.node_path
            assert result.failure.attempt == attempt.key.attempt
            assert result.from_worker
        assert not stream.is_over


async def test_a_forged_token_is_stale(autojump_clock: MockClock) -> None:
    """FAILURES, security: forged and replayed tokens change nothing."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        forged = attempt.token[:-1] + ("b" if attempt.token[-1] != "b" else "c")
        for token in (forged, "", "/", "x/y/z", "0" * 32 + "/default/x/1/1/a"):
            await stream.tell(complete(token))
        assert [result for _, result in stream.recorded] == [Disposition.STALE] * 5
        assert attempt.result is None
        assert hub.delivered == []


async def test_a_token_of_another_namespace_is_stale(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        await hub.dial()
        attempt = hub.execute()
        thief = await hub.dial(worker="thief", instance="thief.1", namespace="other")
        await thief.complete(attempt)
        assert thief.recorded == [(attempt.token, Disposition.STALE)]
        assert attempt.result is None
        assert hub.delivered == []


async def test_a_token_of_another_worker_does_not_end_its_attempt(autojump_clock: MockClock) -> None:
    """FAILURES, security: the runtime is told who sends it, and its answer goes to whom it concerns."""
    async with a_hub() as hub:
        stream = await hub.dial()
        thief = await hub.dial(worker="thief", instance="thief.1")
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await thief.complete(attempt, '"forged"')
        assert attempt.result is None
        assert [(key, result.worker_id) for key, result in hub.delivered] == [(attempt.key, "thief")]
        hub.workers.acknowledge(attempt.key, Disposition.STALE, "thief")
        await wait_all_tasks_blocked()
        assert stream.recorded == []
        assert thief.recorded == [(attempt.token, Disposition.STALE)]
        await stream.complete(attempt)
        assert attempt.result is not None


async def test_a_duplicate_result_is_looked_up(autojump_clock: MockClock) -> None:
    """FAILURES 16: nobody waits for it; the runtime finds out what it is."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await stream.complete(attempt)
        hub.workers.acknowledge(attempt.key, Disposition.RECORDED, "w")
        await stream.complete(attempt)
        assert [key for key, _ in hub.delivered] == [attempt.key]
        hub.workers.acknowledge(attempt.key, Disposition.ALREADY_RECORDED, "w")
        await wait_all_tasks_blocked()
        assert stream.recorded == [
            (attempt.token, Disposition.RECORDED),
            (attempt.token, Disposition.ALREADY_RECORDED),
        ]


@pytest.mark.parametrize(
    "code", ["NO_SLOT", "DRAINING", "UNSPECIFIED"], ids=["no slot", "draining", "silent"]
)
async def test_a_worker_that_rejects_gets_nothing_for_a_while(autojump_clock: MockClock, code: str) -> None:
    """RETURNED without spinning: otherwise the two would go on for ever in one instant."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await stream.tell(reject(attempt.token, code))
        assert attempt.result is not None
        assert attempt.result.outcome is AttemptOutcome.RETURNED
        assert not attempt.result.from_worker
        assert hub.capacity.slots == {"w.1": 0}
        await trio.sleep(1.1)
        assert hub.capacity.slots == {"w.1": 4}


async def test_the_pause_of_a_worker_that_went_does_not_meet_it_when_it_comes_anew(
    autojump_clock: MockClock,
) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await stream.tell(reject(attempt.token))
        await stream.close()
        await hub.dial(slots=5)
        assert hub.capacity.slots == {"w.1": 5}
        await trio.sleep(2)
        assert hub.capacity.slots == {"w.1": 5}


async def test_an_attempt_handed_back_that_nobody_waits_for_is_looked_up(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = Attempt(AttemptKey(NAMESPACE, "x", 1, "a", 1))
        foreign = Attempt(AttemptKey("other", "x", 1, "a", 1))
        for each in (attempt, foreign):
            await stream.tell(reject(hub.tokens.make(each.key), "DRAINING"))
        assert [(key, result.outcome) for key, result in hub.delivered] == [
            (attempt.key, AttemptOutcome.RETURNED)
        ]


async def test_nothing_is_kept_of_what_is_over(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt, held = hub.execute("a"), hub.execute("b")
        await wait_all_tasks_blocked()
        attempt.stop()
        await wait_all_tasks_blocked()
        assert repr(hub.workers) == "<AttachedWorkers <Leases 1 attached of 1>, 1 graces>"
        await stream.tell(exited(attempt.token))
        assert repr(hub.workers) == "<AttachedWorkers <Leases 1 attached of 1>, 0 graces>"
        await stream.cut()
        assert repr(hub.workers) == "<AttachedWorkers <Leases 0 attached of 1>, 0 graces>"
        await trio.sleep(20)
        assert held.result is not None
        assert repr(hub.workers) == "<AttachedWorkers <Leases 0 attached of 0>, 0 graces>"


async def test_a_worker_that_comes_again_begins_without_its_pause(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        kept, returned = hub.execute("kept"), hub.execute("returned")
        await wait_all_tasks_blocked()
        await stream.tell(reject(returned.token))
        assert hub.capacity.slots == {"w.1": 0}
        await stream.cut()
        again = await hub.dial(running=[kept])
        assert hub.capacity.slots == {"w.1": 4}
        await again.tell(pb.WorkerMessage(credit=pb.Credit(slots=3)))
        assert hub.capacity.slots == {"w.1": 3}


async def test_an_attempt_that_is_over_may_be_given_out_again(autojump_clock: MockClock) -> None:
    """The execution was read again: the same attempt goes to the worker that no longer has it, however it ended."""
    async with a_hub() as hub:
        stream = await hub.dial()
        for end in (complete, reject, exited, None):
            first = hub.execute()
            await wait_all_tasks_blocked()
            if end is None:
                stream.flow = trio.Event()
                hub.execute("in the transport")
                await wait_all_tasks_blocked()
                first = hub.execute("b")
                await wait_all_tasks_blocked()
            if end in (exited, None):
                first.stop()
                await wait_all_tasks_blocked()
            if end is not None:
                await stream.tell(end(first.token))
            assert first.is_over
            if end is None:
                stream.flow.set()
            before = stream.assigned.count(first.token)
            second = hub.execute(first.key.node_path, recovered=True)
            await wait_all_tasks_blocked()
            assert stream.assigned.count(first.token) == before + 1
            await stream.complete(second)
            assert second.result is not None
            await trio.sleep(2)


async def test_a_worker_that_drained_and_comes_again_takes_work(autojump_clock: MockClock) -> None:
    """T3: only another stream begins anew; what held it back before is over."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        await stream.tell(pb.WorkerMessage(drain=pb.Drain()), pb.WorkerMessage(credit=pb.Credit(slots=3)))
        assert hub.capacity.slots == {"w.1": 0}
        await stream.cut()
        await hub.dial(running=[attempt])
        assert hub.capacity.slots == {"w.1": 4}
        assert not hub.workers.list_workers(NAMESPACE)[0].is_draining


async def test_a_result_sent_again_while_it_is_looked_up_is_answered_once(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = Attempt(AttemptKey(NAMESPACE, "x", 1, "late", 1))
        attempt.token = hub.tokens.make(attempt.key)
        for _ in range(3):
            await stream.complete(attempt)
        assert len(hub.delivered) == 1
        for _ in range(3):
            hub.workers.acknowledge(attempt.key, Disposition.STALE, "w")
        await wait_all_tasks_blocked()
        assert stream.recorded == [(attempt.token, Disposition.STALE)]
        # Once it was answered, it is a new question; so it is on a new stream, answered or not.
        await stream.complete(attempt)
        assert len(hub.delivered) == 2
        await stream.cut()
        again = await hub.dial()
        await again.complete(attempt)
        assert len(hub.delivered) == 3
        # And what an attempt's own task waits for is never passed over.
        attempt = hub.execute("late", recovered=True)
        await wait_all_tasks_blocked()
        await again.complete(attempt)
        assert attempt.result is not None


async def test_credit_changes_the_slots(autojump_clock: MockClock) -> None:
    async with a_hub() as hub:
        stream = await hub.dial()
        for slots, seen in ((9, 9), (0, 0), (-5, 0), (1_000_000, 10_000), (3, 3)):
            await stream.tell(pb.WorkerMessage(credit=pb.Credit(slots=slots)))
            assert hub.capacity.slots == {"w.1": seen}


async def test_a_draining_worker_gets_nothing_new_and_finishes(autojump_clock: MockClock) -> None:
    """T3."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempts = [hub.execute("a"), hub.execute("b")]
        await wait_all_tasks_blocked()
        await stream.tell(pb.WorkerMessage(drain=pb.Drain()))
        assert hub.capacity.slots == {"w.1": 0}
        assert hub.workers.list_workers(NAMESPACE)[0].is_draining
        await stream.tell(reject(attempts[1].token, "DRAINING"))
        await trio.sleep(30)
        assert hub.capacity.slots == {"w.1": 0}
        await stream.complete(attempts[0])
        outcomes = [attempt.result and attempt.result.outcome for attempt in attempts]
        assert outcomes == [AttemptOutcome.SUCCEEDED, AttemptOutcome.RETURNED]
        await stream.close()
        assert stream.is_over
        assert stream.error is None
        assert hub.capacity.slots == {}
        assert hub.workers.list_workers(NAMESPACE) == []


async def test_what_is_queued_goes_out_together(autojump_clock: MockClock) -> None:
    """DESIGN 4: frames are batched adaptively."""
    async with a_hub() as hub:
        stream = await hub.dial(slots=100)
        for number in range(50):
            hub.execute(f"n{number}")
        await wait_all_tasks_blocked()
        assert len(stream.assigned) == 50
        assert len(stream.frames) <= 4


async def test_reports_of_handlers_are_observed_and_their_usage_handed_on(autojump_clock: MockClock) -> None:
    """U1: what is no exact decimal is not counted; what was said before a loss counts."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        token = attempt.token
        await stream.tell(
            pb.WorkerMessage(progress=pb.Progress(token=token, fraction=0.5, message="half")),
            pb.WorkerMessage(log=pb.LogLine(token=token, level="LOG_LEVEL_WARNING", message="hm")),
            pb.WorkerMessage(
                heartbeat=pb.AttemptHeartbeat(token=token, details=payload_pb2.Payload(json="3"))
            ),
            pb.WorkerMessage(usage=pb.Usage(token=token, unit="tokens", amount="0.1")),
            pb.WorkerMessage(usage=pb.Usage(token=token, unit="tokens", amount="0.2")),
            pb.WorkerMessage(usage=pb.Usage(token=token, unit="tokens", amount="-5")),
            pb.WorkerMessage(usage=pb.Usage(token=token, unit="tokens", amount="1e9")),
            pb.WorkerMessage(log=pb.LogLine(token="unknown", level="LOG_LEVEL_INFO", message="whose?")),
        )
        # Of each report the attempt hears, whatever becomes of it.
        assert attempt.heard == ["", "", "3", "", ""]
        assert hub.observer.said == [
            ("a", "progress", "0.5 half"),
            ("a", "WARNING", "hm"),
            ("a", "heartbeat", "3"),
        ]
        await stream.cut()
        await trio.sleep(20)
        assert attempt.result is not None
        assert attempt.result.outcome is AttemptOutcome.LOST
        assert attempt.result.usage is None
        assert attempt.used == [("tokens", "0.1"), ("tokens", "0.2")]


@pytest.mark.parametrize(
    ("unit", "amount", "said"),
    [
        ("tokens", "1e9", "'1e9' cannot be counted"),
        ("a unit", "1", "a unit must match"),
        ("u64", "1", "64 units"),
    ],
)
async def test_usage_that_cannot_be_counted_fails_the_attempt_at_its_end(
    unit: str, amount: str, said: str, autojump_clock: MockClock
) -> None:
    """U1: amounts are exact decimals; what is none fails the attempt with a clear message."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        count = 64 if unit == "u64" else 1
        for number in range(count):
            await stream.tell(
                pb.WorkerMessage(usage=pb.Usage(token=attempt.token, unit=f"u{number}", amount="1"))
            )
        await stream.tell(pb.WorkerMessage(usage=pb.Usage(token=attempt.token, unit=unit, amount=amount)))
        await stream.tell(complete(attempt.token, "1"))
        result = attempt.result
        assert result is not None
        assert result.failure is not None
        assert (result.outcome, result.failure.code) == (AttemptOutcome.FAILED, "INVALID_RESULT")
        assert said in result.failure.message
        assert len(attempt.used) == count


async def test_what_an_abandoned_handler_used_is_handed_on(autojump_clock: MockClock) -> None:
    """U1: a result that comes when nobody waits any more is not lost."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute()
        await wait_all_tasks_blocked()
        attempt.stop()
        await trio.sleep(11)
        assert attempt.stages[-1] is CancelStage.ABANDONED
        totals = pb.UsageTotals(amounts={"u": "2"})
        await stream.tell(pb.WorkerMessage(exited=pb.Exited(token=attempt.token, usage=totals)))
        assert [(key, result.outcome, result.usage) for key, result in hub.delivered] == [
            (attempt.key, AttemptOutcome.CANCELLED, {"u": "2"})
        ]


async def test_an_answer_and_what_its_step_assigns_go_in_one_frame(autojump_clock: MockClock) -> None:
    """A frame costs more than a message: trio runs the tasks of a round in any order, and the writer lets all run."""
    async with a_hub() as hub:
        stream = await hub.dial()
        attempt = hub.execute("0")
        await wait_all_tasks_blocked()
        for number in range(1, 20):
            await stream.complete(attempt)
            count = len(stream.frames)
            hub.workers.acknowledge(attempt.key, Disposition.RECORDED, "w")
            attempt = hub.execute(str(number))
            await wait_all_tasks_blocked()
            (frame,) = stream.frames[count:]
            kinds = [message.WhichOneof("message") for message in frame.messages]
            assert kinds == ["recorded", "assign"]
