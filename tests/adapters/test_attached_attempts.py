"""Attempts at attached workers: assigned, ended in every way, recorded; and what cannot be believed."""

import json

import pytest
import trio
import trio.testing

from plait.v1 import failure_pb2, payload_pb2
from plait.v1 import worker_hub_service_pb2 as hub
from plait_server.adapters.workers.tokens import Tokens
from plait_server.core.commands import Taken
from plait_server.core.failures import INVALID_RESULT, TOO_LARGE, UNKNOWN
from plait_server.core.payload import Payload
from plait_server.core.states import AttemptOutcome
from plait_server.ports.workers import AttemptKey, Report
from tests.adapters.attached_stage import (
    INSTANCE,
    NAMESPACE,
    TOKENS,
    Call,
    Far,
    Hub,
    assignment,
    complete,
    drain,
    hello,
    open_hub,
    reject,
)


async def report_of(call: Call) -> Report:
    report = await call.wait()
    assert report is not None
    return report


async def started(stage: Hub, far: Far, node_path: str = "a") -> Call:
    """Have an attempt assigned."""
    call = stage.execute(node_path)
    assert await far.kinds() == ["assign"]
    return call


async def test_an_attempt_is_assigned_whole(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = stage.execute("loop/a", attempt=3)
        (message,) = await far.quiet()
        assign = message.assign
        assert (assign.execution_id, assign.node_path, assign.attempt, assign.run) == ("x-1", "loop/a", 3, 1)
        assert (assign.type, assign.input.json, assign.time_left.ToSeconds()) == ("t", '{"n":1}', 60)
        assert (assign.traceparent, assign.token) == ("00-1-2-01", call.token)
        assert TOKENS.read(assign.token) == call.assignment.key


async def test_a_large_input_is_named_and_no_bound_is_absent(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        task = assignment()._replace(
            input_json="", input_digest="d" * 64, input_size_bytes=40_000, time_left_s=0.0
        )
        stage.carry_out(task)
        (message,) = await far.quiet()
        assert (message.assign.input.digest, message.assign.input.size_bytes) == ("d" * 64, 40_000)
        assert not message.assign.HasField("time_left")


async def test_a_result_is_reported_and_recorded(autojump_clock: trio.testing.MockClock) -> None:
    """A4: a worker is told what became of its result."""
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        far.say(
            hub.WorkerMessage(accept=hub.Accept(token=call.token)),
            complete(call.token, '{"x": 1}', {"tokens": "12", "usd": "0.0025"}),
        )
        report = await report_of(call)
        assert report == Report(
            AttemptOutcome.SUCCEEDED,
            '{"x": 1}',
            usage={"tokens": "12", "usd": "0.0025"},
            from_worker=True,
        )
        assert await far.kinds() == []
        stage.workers.tell(call.assignment.key, Taken.RECORDED, "w")
        (message,) = await far.quiet()
        assert message.recorded.token == call.token
        assert message.recorded.result == hub.RECORDED_RESULT_RECORDED
        stage.workers.tell(call.assignment.key, Taken.RECORDED, "w")
        assert await far.kinds() == []
        assert stage.delivered == []


@pytest.mark.parametrize("taken", list(Taken))
async def test_each_answer_has_its_name_on_the_wire(
    taken: Taken, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        far.say(complete(call.token))
        await call.wait()
        stage.workers.tell(call.assignment.key, taken, "w")
        (message,) = await far.quiet()
        name = hub.RecordedResult.Name(message.recorded.result)
        assert name == f"RECORDED_RESULT_{taken.name}"


async def test_a_result_without_output_is_null(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        far.say(hub.WorkerMessage(complete=hub.Complete(token=call.token)))
        assert (await report_of(call)).output_json == "null"


@pytest.mark.parametrize(
    ("output", "code"),
    [
        (payload_pb2.Payload(json="{"), INVALID_RESULT),
        (payload_pb2.Payload(json=""), INVALID_RESULT),
        (payload_pb2.Payload(json="NaN"), INVALID_RESULT),
        (payload_pb2.Payload(json='"' + "x" * (1024 * 1024) + '"'), TOO_LARGE),
        (payload_pb2.Payload(json='"' + "\u00e4" * (512 * 1024) + '"'), TOO_LARGE),
        (payload_pb2.Payload(digest="0" * 64), INVALID_RESULT),
    ],
    ids=["cut", "empty", "nan", "large", "wide", "digest"],
)
async def test_a_result_that_is_no_payload_fails_the_attempt(output: payload_pb2.Payload, code: str) -> None:
    """S2.1: INVALID_RESULT is no JSON, TOO_LARGE is over the payload's limit; the policy says what is repeated."""
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        far.say(
            hub.WorkerMessage(
                complete=hub.Complete(
                    token=call.token, output=output, usage=hub.UsageTotals(amounts={"u": "1"})
                )
            )
        )
        report = await report_of(call)
        assert report.outcome is AttemptOutcome.FAILED
        assert report.failure is not None
        assert (report.failure.code, report.retryable) == (code, None)
        assert (report.failure.node_path, report.failure.attempt) == ("a", 1)
        assert report.from_worker
        assert report.usage == {"u": "1"}
        # The stream goes on.
        other = await started(stage, far, "b")
        far.say(complete(other.token))
        assert (await report_of(other)).outcome is AttemptOutcome.SUCCEEDED


@pytest.mark.parametrize(
    "amount",
    ["", "-1", "1e3", "NaN", "Infinity", "1_0", "1 ", "1\n", "\u0661", "\u00b2", "1.2.3", ".5", "1" * 42],
    ids=str.encode,
)
async def test_usage_that_is_no_exact_decimal_fails_the_attempt(
    amount: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        far.say(complete(call.token, usage={"u": amount}))
        report = await report_of(call)
        assert report.failure is not None
        assert (report.failure.code, report.retryable) == (INVALID_RESULT, None)
        assert report.usage is None


@pytest.mark.parametrize("amount", ["0", "007", "1.", "0.0025", "1" * 40, "1" * 20 + "." + "1" * 20])
async def test_exact_decimals_are_taken_as_they_come(
    amount: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        far.say(complete(call.token, usage={"u": amount}))
        report = await report_of(call)
        assert (report.outcome, report.usage) == (AttemptOutcome.SUCCEEDED, {"u": amount})


async def test_a_failure_is_reported_with_the_workers_advice(autojump_clock: trio.testing.MockClock) -> None:
    """T1: the worker's own word and its `retry_after`."""
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        fail = hub.Fail(
            token=call.token,
            code="BUSY",
            message="try later",
            details=payload_pb2.Payload(json='{"q":9}'),
            retryable=True,
            causes=[failure_pb2.Failure(code="DEEPER", message="why")],
            usage=hub.UsageTotals(amounts={"u": "1"}),
        )
        fail.retry_after.FromMilliseconds(2500)
        far.say(hub.WorkerMessage(fail=fail))
        report = await report_of(call)
        assert (report.outcome, report.retryable, report.retry_after_s) == (AttemptOutcome.FAILED, True, 2.5)
        assert report.usage == {"u": "1"}
        failure = report.failure
        assert failure is not None
        assert (failure.code, failure.message, failure.details) == ("BUSY", "try later", Payload('{"q":9}'))
        assert [cause.code for cause in failure.causes] == ["DEEPER"]
        assert (failure.node_path, failure.attempt) == ("a", 1)


async def test_a_failure_without_advice_leaves_it_to_the_policy(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        far.say(hub.WorkerMessage(fail=hub.Fail(token=call.token, code="no code")))
        report = await report_of(call)
        assert (report.retryable, report.retry_after_s) == (None, None)
        assert report.failure is not None
        assert report.failure.code == UNKNOWN


async def test_what_is_wrong_with_a_failure_is_said_and_the_failure_stands(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        far.say(
            hub.WorkerMessage(
                fail=hub.Fail(
                    token=call.token,
                    code="C",
                    message="broken",
                    details=payload_pb2.Payload(json="{"),
                    retryable=True,
                )
            )
        )
        report = await report_of(call)
        assert report.failure is not None
        assert report.failure.code == "C"
        assert report.failure.details is None
        assert report.failure.message.startswith("broken (its details were dropped")
        assert report.retryable is True


@pytest.mark.parametrize("code", ["NO_SLOT", "UNKNOWN_TYPE", "MY_OWN"])
async def test_a_worker_that_refuses_gets_nothing_for_a_second(
    code: str, autojump_clock: trio.testing.MockClock
) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        far.say(reject(call.token, code))
        report = await report_of(call)
        since_s = trio.current_time()
        assert report.outcome is AttemptOutcome.RETURNED
        assert not report.from_worker
        assert report.failure is not None
        assert (report.failure.code, report.failure.message) == (code, "not now")
        assert stage.capacity.slots[INSTANCE] == 0
        await trio.sleep_until(since_s + 0.99)
        assert stage.capacity.slots[INSTANCE] == 0
        await trio.sleep_until(since_s + 1.01)
        assert stage.capacity.slots[INSTANCE] == 4


async def test_what_a_draining_worker_hands_back_costs_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """T3."""
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        far.say(drain(), reject(call.token, "DRAINING"))
        assert (await report_of(call)).outcome is AttemptOutcome.RETURNED
        assert stage.capacity.slots[INSTANCE] == 0


async def test_the_pause_of_a_worker_that_went_does_not_meet_it_when_it_comes_anew(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        far.say(reject(call.token, "NO_SLOT"))
        await call.wait()
        far.close()
        await far.ended.wait()
        again = await stage.attach()
        assert stage.capacity.slots[INSTANCE] == 4
        await trio.sleep(2)
        assert stage.capacity.slots[INSTANCE] == 4
        assert not again.ended.is_set()


async def test_a_forged_token_is_stale(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        forged = [Tokens(b"another key").make(call.assignment.key), call.token[:-1] + "b", "", "/", "ü/ü"]
        for token in forged:
            far.say(complete(token))
            (message,) = await far.quiet()
            assert (message.recorded.token, message.recorded.result) == (token, hub.RECORDED_RESULT_STALE)
        assert not call.done.is_set()
        assert stage.delivered == []


async def test_a_token_of_another_namespace_is_stale(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        token = TOKENS.make(AttemptKey("other", "x-1", 1, "a", 1))
        far.say(complete(token), reject(token, "DRAINING"))
        (message,) = await far.quiet()
        assert (message.recorded.token, message.recorded.result) == (token, hub.RECORDED_RESULT_STALE)
        assert stage.delivered == []


async def test_a_result_that_nobody_waits_for_is_delivered_and_answered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_hub() as stage:
        key = AttemptKey(NAMESPACE, "x-9", 2, "b", 4)
        token = TOKENS.make(key)
        far = await stage.attach(hello(finished=[token]))
        far.say(complete(token, "7"))
        assert await far.kinds() == []
        ((told, report, worker_id),) = stage.delivered
        assert (told, report.output_json, worker_id) == (key, "7", "w")
        assert report.from_worker
        stage.workers.tell(key, Taken.ALREADY_RECORDED, "w")
        (message,) = await far.quiet()
        assert message.recorded.result == hub.RECORDED_RESULT_ALREADY_RECORDED


async def test_an_attempt_handed_back_that_nobody_waits_for_is_delivered(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        key = AttemptKey(NAMESPACE, "x-9", 1, "b", 1)
        far.say(reject(TOKENS.make(key), "DRAINING"))
        await far.quiet()
        ((told, report, _),) = stage.delivered
        assert (told, report.outcome) == (key, AttemptOutcome.RETURNED)


async def test_nobody_is_told_when_the_worker_is_away(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        far.say(complete(call.token))
        await call.wait()
        far.close()
        await far.ended.wait()
        stage.workers.tell(call.assignment.key, Taken.RECORDED, "w")
        stage.workers.tell(AttemptKey(NAMESPACE, "x", 1, "never", 1), Taken.RECORDED, "w")
        again = await stage.attach(hello(finished=[call.token]))
        again.say(complete(call.token))
        assert await again.kinds() == []
        assert [key for key, _, _ in stage.delivered] == [call.assignment.key]


async def test_what_a_handler_says_reaches_the_observer(autojump_clock: trio.testing.MockClock) -> None:
    async with open_hub() as stage:
        far = await stage.attach()
        call = await started(stage, far)
        far.say(
            hub.WorkerMessage(progress=hub.Progress(token=call.token, fraction=0.5, message="half")),
            hub.WorkerMessage(log=hub.LogLine(token=call.token, level="WARNING", message="hot")),
            hub.WorkerMessage(
                heartbeat=hub.AttemptHeartbeat(
                    token=call.token, details=payload_pb2.Payload(json=json.dumps("beat"))
                )
            ),
            hub.WorkerMessage(log=hub.LogLine(token="unknown", level="ERROR", message="nobody's")),
        )
        await far.quiet()
        assert stage.observer.said == [
            ("a", "progress", "0.5 half"),
            ("a", "WARNING", "hot"),
            ("a", "heartbeat", '"beat"'),
        ]
