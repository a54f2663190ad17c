"""Cancel and timeouts: C1, T4 to T6."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.core.run.commands import AttemptResult, Disposition
from plait_server.core.run.events import CancelReceipt, CancelRequested, Event
from plait_server.core.run.states import AttemptOutcome, CancelStage, ExecutionState, NodeState
from plait_server.ports.workers import Assignment, AttemptKey
from plait_server.runtime import executor
from tests.runtime.world import NAMESPACE, Runtime, fails, hangs, result_of, returns, running


def receipts(runtime: Runtime, path: str) -> list[CancelStage]:
    return [
        event.detail.stage
        for event in runtime.events()
        if isinstance(event.detail, CancelReceipt) and event.node_path == path
    ]


async def test_cancel_answers_at_once_and_ends_with_the_last_receipt(autojump_clock: MockClock) -> None:
    """C1."""
    async with running(scripts={"a": hangs, "b": hangs}) as runtime:
        runtime.workers.exit_s = {"a": 2, "b": 6}
        await runtime.submit("a, b -> c; d -> c")
        await trio.sleep(1)
        await runtime.cancel()
        assert trio.current_time() == 1
        view = await runtime.supervisor.view(NAMESPACE, "x")
        assert view.execution.state is ExecutionState.CANCELLING
        assert {view.execution.record(path).state for path in "abc"} == {NodeState.CANCELLED}
        execution = await runtime.wait_ended()
        assert trio.current_time() == 7
        assert execution.state is ExecutionState.CANCELLED
        for path in "ab":
            assert receipts(runtime, path) == [
                CancelStage.REQUESTED,
                CancelStage.DELIVERED,
                CancelStage.ACKNOWLEDGED,
                CancelStage.EXITED,
            ]
        assert runtime.workers.paths.count("c") == 0
        runtime.assert_nothing_is_held()


async def test_cancel_of_a_large_graph_answers_when_every_node_is_cancelled(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C1: every node not ended is CANCELLED at the decision, though that takes several appends."""
    # Time stands still while a step decides, so it would end with its inputs alone.
    monkeypatch.setattr(executor, "INPUTS_MAX", 1)
    names = ", ".join(f"n{number}" for number in range(1_000))
    async with running(scripts=dict.fromkeys(names.split(", "), hangs)) as runtime:
        runtime.workers.exit_s = {"n0": 3}
        await runtime.submit(f"{names} -> end")
        await wait_all_tasks_blocked()
        await runtime.cancel()
        view = await runtime.supervisor.view(NAMESPACE, "x")
        assert view.execution.state is ExecutionState.CANCELLING
        assert {record.state for record in view.execution.root.records} == {NodeState.CANCELLED}
        parts = [item for batch in runtime.gate.batches for item in batch if len(item.events) > 100]
        assert len(parts) > 2


async def test_a_handler_that_does_not_end_is_abandoned_after_the_grace_time(
    autojump_clock: MockClock,
) -> None:
    """C1."""
    async with running(scripts={"a": hangs}) as runtime:
        runtime.workers.exit_s = {"a": 1_000}
        await runtime.submit("a -> b")
        await trio.sleep(1)
        await runtime.cancel()
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.CANCELLED
        assert trio.current_time() == 11
        assert receipts(runtime, "a")[-1] is CancelStage.ABANDONED
        runtime.assert_nothing_is_held()


async def test_a_result_in_the_instant_of_the_cancel_ends_the_wait_for_its_handler(
    autojump_clock: MockClock,
) -> None:
    """C1, T6: the cancel was journaled first, so the result goes to the audit; its handler has EXITED."""
    has_result = trio.Event()

    async def run(assignment: Assignment) -> AttemptResult:
        await has_result.wait()
        return result_of(assignment.key, output_json="1")

    def on_events(events: Sequence[Event]) -> None:
        # After the append and before the attempt is stopped: its task has been woken when its scope is cancelled.
        if isinstance(events[0].detail, CancelRequested):
            has_result.set()

    async with running(scripts={"a": run}) as runtime:
        runtime.observer.on_events = on_events
        await runtime.submit("a -> b")
        await wait_all_tasks_blocked()
        await runtime.cancel()
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.CANCELLED
        assert receipts(runtime, "a") == [CancelStage.REQUESTED, CancelStage.EXITED]
        assert runtime.workers.told == [("a", 1, Disposition.STALE)]
        runtime.assert_nothing_is_held()


async def test_cancel_is_idempotent(autojump_clock: MockClock) -> None:
    """C1: and on an ended execution it changes nothing."""
    async with running(scripts={"a": hangs}) as runtime:
        runtime.workers.exit_s = {"a": 3}
        await runtime.submit("a -> b")
        await trio.sleep(1)
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(runtime.cancel)
        await runtime.cancel()
        await runtime.wait_ended()
        await runtime.cancel()
        assert runtime.names().count("CancelRequested") == 1
        assert runtime.workers.stopped == [("a", 1, "CANCELLED")]


async def test_a_cancel_of_what_waits_ends_at_once(autojump_clock: MockClock) -> None:
    """C1: nothing runs, so no receipt is waited for, and no request is left behind."""
    async with running(slots=0) as runtime:
        await runtime.submit("a, b -> c")
        await wait_all_tasks_blocked()
        await runtime.cancel()
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.CANCELLED
        runtime.attach_worker()
        await trio.sleep(100)
        assert runtime.workers.assigned == []
        runtime.assert_nothing_is_held()


async def test_of_a_result_and_a_cancel_in_the_same_instant_one_wins(autojump_clock: MockClock) -> None:
    """T6: whichever is journaled first wins, and the other goes to the audit."""
    async with running(scripts={"a": returns("1", 5)}) as runtime, trio.open_nursery() as nursery:
        await runtime.submit("a -> b")
        await trio.sleep(5)
        nursery.start_soon(runtime.cancel)
        execution = await runtime.wait_ended()
        assert execution.state in (ExecutionState.CANCELLED, ExecutionState.SUCCEEDED)
        outcome = execution.record("a").attempts[0].outcome
        told = [taken for path, _, taken in runtime.workers.told if path == "a"]
        if outcome is AttemptOutcome.SUCCEEDED:
            assert told == [Disposition.RECORDED]
        else:
            assert outcome is AttemptOutcome.CANCELLED
            assert told in ([], [Disposition.STALE])


async def test_an_attempt_that_takes_too_long_is_stopped_and_retried_if_the_policy_says(
    autojump_clock: MockClock,
) -> None:
    """T4, T5."""
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("node a attempt_timeout=3 retry=2 codes=DEADLINE_EXCEEDED backoff=4; a -> b")
        execution = await runtime.wait_ended()
        record = execution.record("a")
        assert record.state is NodeState.TIMED_OUT
        assert [attempt.outcome for attempt in record.attempts] == [AttemptOutcome.TIMED_OUT] * 2
        assert execution.failure is not None
        assert execution.failure.code == "DEADLINE_EXCEEDED"
        assert trio.current_time() == 3 + 4 * runtime.seams.dice + 3
        await wait_all_tasks_blocked()
        assert runtime.workers.stopped == [("a", 1, "TIMED_OUT"), ("a", 2, "TIMED_OUT")]
        runtime.assert_nothing_is_held()


async def test_a_timeout_is_told_to_the_worker_with_its_assignment(autojump_clock: MockClock) -> None:
    """T4: the worker knows how much time it has."""
    async with running() as runtime:
        await runtime.submit("node a attempt_timeout=3; a -> b")
        await runtime.wait_ended()
        assert [assignment.time_left_s for assignment in runtime.workers.assigned] == [3, 0]


async def test_a_result_and_its_timeout_in_the_same_instant_end_the_attempt_once(
    autojump_clock: MockClock,
) -> None:
    """T6, FAILURES 35: whichever is journaled first wins; the other changes nothing."""
    for number in range(20):
        async with running(scripts={"a": returns("1", 3)}) as runtime:
            await runtime.submit("node a attempt_timeout=3; a -> b", id=f"x{number}")
            execution = await runtime.wait_ended(f"x{number}")
            await trio.sleep(20)
            assert runtime.names(f"x{number}").count("AttemptEnded") == len(set(runtime.workers.paths))
            told = [taken for path, _, taken in runtime.workers.told if path == "a"]
            if execution.record("a").state is NodeState.SUCCEEDED:
                assert told == [Disposition.RECORDED]
                assert runtime.workers.stopped == []
            else:
                assert execution.record("a").state is NodeState.TIMED_OUT
                assert Disposition.RECORDED not in told
            runtime.assert_nothing_is_held()


async def test_a_node_times_out_over_all_its_attempts(autojump_clock: MockClock) -> None:
    """T4: RUNNING and BACKING_OFF count."""
    async with running(scripts={"a": fails("UNAVAILABLE", after_s=2)}) as runtime:
        await runtime.submit("node a node_timeout=7 retry=9 backoff=4 multiplier=1; a -> b")
        execution = await runtime.wait_ended()
        assert execution.record("a").state is NodeState.TIMED_OUT
        assert trio.current_time() == 7
        runtime.assert_nothing_is_held()


async def test_the_executions_timeout_cancels_all_and_ends_at_once(autojump_clock: MockClock) -> None:
    """T5: CANCELLED/EXECUTION_TIMEOUT, workers are told as in C1, and it is TIMED_OUT at once."""
    async with running(scripts={"a": hangs}) as runtime:
        runtime.workers.exit_s = {"a": 5}
        await runtime.submit("policy timeout=30; a -> b")
        execution = await runtime.wait_ended()
        assert trio.current_time() == 30
        assert execution.state is ExecutionState.TIMED_OUT
        assert {record.reason for record in execution.root.records} == {"EXECUTION_TIMEOUT"}
        await wait_all_tasks_blocked()
        assert runtime.workers.stopped == [("a", 1, "EXECUTION_TIMEOUT")]
        last = len(runtime.events())
        await trio.sleep(10)
        assert len(runtime.events()) == last
        assert [kind for kind, _, _ in runtime.audit()] == ["CANCEL_RECEIPT"] * 3
        runtime.assert_nothing_is_held()


async def test_a_late_result_of_an_ended_execution_is_stale_and_audited(autojump_clock: MockClock) -> None:
    """A5, FAILURES 19: it changes nothing; its worker is told."""
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("policy timeout=5; a -> b")
        await runtime.wait_ended()
        await trio.sleep(100)
        assert runtime.supervisor.statistics().live == 0
        last = len(runtime.events())
        key = AttemptKey(NAMESPACE, "x", 1, "a", 1)
        runtime.supervisor.deliver(key, result_of(key, output_json="1", worker_id="w"))
        await wait_all_tasks_blocked()
        assert runtime.workers.told == [("a", 1, Disposition.STALE)]
        assert runtime.audit()[-1] == ("STALE_RESULT", "a", 1)
        assert len(runtime.events()) == last


async def test_a_result_that_comes_again_is_already_recorded(autojump_clock: MockClock) -> None:
    """FAILURES 16: exactly one AttemptEnded; live and ended alike."""
    async with running(scripts={"b": returns("1", 100)}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        key = AttemptKey(NAMESPACE, "x", 1, "a", 1)
        again = result_of(key, output_json="1", worker_id="w")
        runtime.supervisor.deliver(key, again)
        await wait_all_tasks_blocked()
        await runtime.wait_ended()
        runtime.supervisor.deliver(key, again)
        await wait_all_tasks_blocked()
        assert [taken for path, _, taken in runtime.workers.told if path == "a"] == [
            Disposition.RECORDED,
            Disposition.ALREADY_RECORDED,
            Disposition.ALREADY_RECORDED,
        ]
        assert runtime.names().count("AttemptEnded") == 2
        assert runtime.audit() == []


async def test_a_result_of_another_worker_is_stale(autojump_clock: MockClock) -> None:
    """FAILURES, security: a worker may only complete its own attempt."""
    async with running(scripts={"a": returns("1", 100)}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        key = AttemptKey(NAMESPACE, "x", 1, "a", 1)
        forged = result_of(key, output_json='"forged"', worker_id="thief")
        runtime.supervisor.deliver(key, forged)
        await wait_all_tasks_blocked()
        assert runtime.workers.told == [("a", 1, Disposition.STALE)]
        assert runtime.audit() == [("STALE_RESULT", "a", 1)]
        execution = await runtime.wait_ended()
        assert execution.output is not None
        assert execution.output.json == "1"


async def test_results_of_what_is_not_known_are_stale(autojump_clock: MockClock) -> None:
    """A4: a worker keeps no result for ever."""
    async with running(scripts={"a": returns("1", 100)}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        for execution_id, path, attempt in (("nobody", "a", 1), ("x", "nobody", 1), ("x", "a", 9)):
            key = AttemptKey(NAMESPACE, execution_id, 1, path, attempt)
            runtime.supervisor.deliver(key, result_of(key, worker_id="w"))
        await wait_all_tasks_blocked()
        assert sorted(runtime.workers.told) == [
            ("a", 1, Disposition.STALE),
            ("a", 9, Disposition.STALE),
            ("nobody", 1, Disposition.STALE),
        ]


async def test_what_a_worker_holds_is_current_while_its_attempt_runs(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": returns("1", 5)}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        key = AttemptKey(NAMESPACE, "x", 1, "a", 1)
        assert await runtime.supervisor.is_current(key)
        assert not await runtime.supervisor.is_current(key._replace(attempt=2))
        assert not await runtime.supervisor.is_current(key._replace(node_path="b"))
        assert not await runtime.supervisor.is_current(key._replace(execution_id="nobody"))
        assert not await runtime.supervisor.is_current(key._replace(namespace="other"))
        await runtime.wait_ended()
        assert not await runtime.supervisor.is_current(key)
