"""Executions from their submission to their end."""

from __future__ import annotations

import json

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.core.run.commands import Disposition
from plait_server.core.run.events import AttemptStarted
from plait_server.core.run.states import ExecutionState, NodeState
from tests.runtime.world import NAMESPACE, fails, hangs, returns, running, with_limit


async def test_a_graph_runs_to_its_end(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": returns("1", 2), "b": returns("2", 3), "c": returns("3")}) as runtime:
        await runtime.submit("a, b -> c")
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        assert execution.output is not None
        assert execution.output.json == "3"
        assert runtime.names() == [
            "ExecutionSubmitted",
            "ExecutionStarted",
            "AttemptStarted",
            "AttemptStarted",
            "AttemptEnded",
            "AttemptEnded",
            "AttemptStarted",
            "AttemptEnded",
            "ExecutionEnded",
        ]
        assert trio.current_time() == 3
        runtime.assert_nothing_is_held()


async def test_sources_start_together_and_a_slow_node_holds_nobody_back(autojump_clock: MockClock) -> None:
    """R1, R5."""
    async with running(scripts={"slow": returns("0", 100), "quick": returns("0", 1)}) as runtime:
        await runtime.submit("quick -> next; slow, next -> end")
        await wait_all_tasks_blocked()
        assert sorted(runtime.workers.paths) == ["quick", "slow"]
        await trio.sleep(2)
        assert runtime.workers.paths[2:] == ["next"]
        await runtime.wait_ended()


async def test_a_node_runs_once_however_many_edges_lead_to_it(autojump_clock: MockClock) -> None:
    """R3."""
    async with running() as runtime:
        await runtime.submit("a, b, c, d -> e")
        await runtime.wait_ended()
        assert runtime.workers.paths.count("e") == 1


async def test_under_levels_a_node_waits_for_all_lower_levels(autojump_clock: MockClock) -> None:
    """R2, Q6: it is shown as held by its level."""
    async with running(scripts={"slow": returns("0", 100)}) as runtime:
        await runtime.submit("scheduling LEVELS; quick -> next; slow -> last")
        await trio.sleep(50)
        assert sorted(runtime.workers.paths) == ["quick", "slow"]
        view = await runtime.supervisor.view(NAMESPACE, "x")
        record = view.execution.record("next")
        assert view.is_queued(record)
        assert view.queue_reason(record) == "LEVEL"
        await runtime.wait_ended()
        assert sorted(runtime.workers.paths[2:]) == ["last", "next"]


async def test_an_execution_keeps_its_limit(autojump_clock: MockClock) -> None:
    """Q1; Q6 names it."""
    nodes = [f"n{number}" for number in range(6)]
    async with running(scripts=dict.fromkeys(nodes, returns("0", 10))) as runtime:
        await runtime.submit(with_limit(f"{', '.join(nodes)} -> end", 2))
        await trio.sleep(5)
        assert runtime.allocator.statistics().running == 2
        view = await runtime.supervisor.view(NAMESPACE, "x")
        assert view.queue_reason(view.execution.record("n5")) == "EXECUTION_LIMIT"
        await runtime.wait_ended()
        assert trio.current_time() == 30
        runtime.assert_nothing_is_held()


async def test_a_type_without_a_worker_waits_visibly_and_starts_when_one_comes(
    autojump_clock: MockClock,
) -> None:
    """Q6, FAILURES 23: NO_WORKER; nothing spins, and a worker wakes it at once."""
    async with running(slots=0) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(80_000)
        view = await runtime.supervisor.view(NAMESPACE, "x")
        record = view.execution.record("a")
        assert view.is_queued(record)
        assert view.queue_reason(record) == "NO_WORKER"
        assert record.state is NodeState.IDLE
        before = trio.current_time()
        runtime.attach_worker()
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        assert trio.current_time() == before


async def test_the_queue_time_stands_in_the_event(autojump_clock: MockClock) -> None:
    async with running(slots=1, scripts={"a": returns("0", 7)}) as runtime:
        await runtime.submit("a, b -> c")
        await runtime.wait_ended()
        waits = {
            event.node_path: event.detail.queue_s
            for event in runtime.events()
            if isinstance(event.detail, AttemptStarted)
        }
        assert waits == {"a": 0.0, "b": 7.0, "c": 0.0}


async def test_every_result_is_answered_once(autojump_clock: MockClock) -> None:
    """A4: a worker keeps a result until it is told what became of it."""
    async with running(scripts={"b": fails()}) as runtime:
        await runtime.submit("policy CONTINUE; a -> c; b -> c")
        await runtime.wait_ended()
        assert sorted(runtime.workers.told) == [
            ("a", 1, Disposition.RECORDED),
            ("b", 1, Disposition.RECORDED),
        ]


async def test_the_events_of_one_step_are_one_append(autojump_clock: MockClock) -> None:
    """DESIGN 3: the starts of all sources stand in one item."""
    nodes = ", ".join(f"n{number}" for number in range(10))
    async with running() as runtime:
        await runtime.submit(f"{nodes} -> end")
        await runtime.wait_ended()
        counts = [len(item.events) for batch in runtime.gate.batches for item in batch]
        # Submitted; started with ten attempts; ten ends with the join's start; its end with the execution's.
        assert counts == [1, 11, 11, 2]


async def test_live_and_replayed_state_are_equal(autojump_clock: MockClock) -> None:
    """A1."""
    scripts = {"a": fails("ABORTED"), "b": returns('{"n":1}', 1)}
    async with running(scripts=scripts) as runtime:
        await runtime.submit("policy CONTINUE; node a retry=2; b -> c when=output.n==1; a -error-> d")
        await runtime.wait_ended()
        live = (await runtime.supervisor.view(NAMESPACE, "x")).execution
        assert live.digest() == (await runtime.replay()).digest()
        assert [event.sequence for event in runtime.events()] == list(range(1, live.sequence + 1))
        assert [event for _, event in runtime.observer.events] == runtime.events()[1:]


async def test_executions_share_a_server_and_end_alone(autojump_clock: MockClock) -> None:
    async with running(scripts={"b": fails()}) as runtime:
        for number in range(20):
            await runtime.submit("a -> b" if number % 2 else "a -> c", id=f"x{number}")
        states = [(await runtime.wait_ended(f"x{number}")).state for number in range(20)]
        assert states == [ExecutionState.SUCCEEDED, ExecutionState.FAILED] * 10
        runtime.assert_nothing_is_held()


async def test_fail_fast_fails_at_once_and_the_receipts_go_to_the_audit(autojump_clock: MockClock) -> None:
    """E4: the scope does not wait for its aborted attempts; A5: nothing follows the terminal event."""
    async with running(scripts={"a": fails(after_s=1), "b": hangs, "c": hangs}) as runtime:
        runtime.workers.exit_s = {"b": 5, "c": 60}
        await runtime.submit("a, b, c -> d")
        execution = await runtime.wait_ended()
        assert trio.current_time() == 1
        assert execution.state is ExecutionState.FAILED
        assert execution.record("b").state is NodeState.IDLE
        assert execution.record("b").reason == "SIBLING_FAILED"
        await wait_all_tasks_blocked()
        assert sorted(runtime.workers.stopped) == [("b", 1, "SIBLING_FAILED"), ("c", 1, "SIBLING_FAILED")]
        last = len(runtime.events())
        await trio.sleep(100)
        assert len(runtime.events()) == last
        assert [entry for entry in runtime.audit() if entry[1] == "b"] == [("CANCEL_RECEIPT", "b", 1)] * 3
        assert [entry for entry in runtime.audit() if entry[1] == "c"] == [("CANCEL_RECEIPT", "c", 1)] * 3
        assert json.loads(runtime.store.executions[NAMESPACE, "x"].audit[-1].detail) == {"stage": "ABANDONED"}
        runtime.assert_nothing_is_held()


async def test_the_loser_of_a_race_is_told(autojump_clock: MockClock) -> None:
    """J1, C1: losers are told likewise."""
    async with running(scripts={"a": returns("1", 1), "b": hangs}) as runtime:
        await runtime.submit("node c join=ANY; a, b -> c")
        execution = await runtime.wait_ended()
        assert execution.record("b").reason == "RACE_LOST"
        assert runtime.workers.stopped == [("b", 1, "RACE_LOST")]
        assert execution.output is not None
        assert json.loads(execution.output.json) == {"winner": "a", "output": 1}
        await trio.sleep(1)
        runtime.assert_nothing_is_held()


async def test_live_and_replayed_times_are_equal_whatever_the_clock_resolves(
    autojump_clock: MockClock,
) -> None:
    """A1: events keep microseconds, so the live state does too."""
    async with running(scripts={"a": fails("ABORTED"), "b": hangs}) as runtime:
        runtime.seams.offset_s = 0.000_000_4
        await runtime.submit("node a retry=2 backoff=40.1234567; a, b -> c")
        await wait_all_tasks_blocked()
        live = (await runtime.supervisor.view(NAMESPACE, "x")).execution
        assert live.digest() == (await runtime.replay()).digest()
