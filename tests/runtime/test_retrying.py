"""Retries, lost and returned attempts: T1 to T3, in virtual time."""

from __future__ import annotations

import itertools

import trio
from trio.testing import MockClock

from plait_server.core.run.states import AttemptOutcome, ExecutionState, NodeState
from tests.runtime.world import NAMESPACE, ends_as, fails, in_turn, returns, running

LOST, RETURNED = AttemptOutcome.LOST, AttemptOutcome.RETURNED


async def test_backoff_grows_by_its_multiplier_up_to_its_bound(autojump_clock: MockClock) -> None:
    """T1, with full jitter at half: 1, 2, 4, 4 seconds halved."""
    starts: list[float] = []
    async with running(scripts={"a": fails("UNAVAILABLE")}) as runtime:
        runtime.workers.on_assign = lambda _: starts.append(trio.current_time())
        await runtime.submit("node a retry=5 max_backoff=4; a -> b")
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.FAILED
        assert [later - sooner for sooner, later in itertools.pairwise(starts)] == [0.5, 1, 2, 2]
        assert [attempt.outcome for attempt in execution.record("a").attempts] == [AttemptOutcome.FAILED] * 5


async def test_jitter_is_full(autojump_clock: MockClock) -> None:
    """T1: from nothing to the whole delay."""
    for dice, delay_s in ((0.0, 0.0), (0.999, 7.992)):
        async with running(scripts={"a": in_turn(fails("ABORTED"), returns("1"))}) as runtime:
            runtime.seams.dice = dice
            before = trio.current_time()
            await runtime.submit("node a retry=2 backoff=8; a -> b")
            await runtime.wait_ended()
            assert trio.current_time() - before == delay_s


async def test_the_workers_word_wins_over_the_computed_delay(autojump_clock: MockClock) -> None:
    """T1."""
    async with running(scripts={"a": in_turn(fails("ABORTED", retry_after_s=33), returns("1"))}) as runtime:
        await runtime.submit("node a retry=2; a -> b")
        await runtime.wait_ended()
        assert trio.current_time() == 33


async def test_no_permit_is_held_while_backing_off(autojump_clock: MockClock) -> None:
    """T1: no slot is held; the node is shown as BACKING_OFF, and until when."""
    async with running(slots=1, scripts={"a": in_turn(fails("ABORTED"), returns("1"))}) as runtime:
        await runtime.submit("node a retry=2 backoff=60; a -> b")
        await trio.sleep(1)
        view = await runtime.supervisor.view(NAMESPACE, "x")
        assert view.execution.record("a").state is NodeState.BACKING_OFF
        assert view.execution.record("a").due_s == runtime.seams.now_s() + 29
        runtime.assert_nothing_is_held()
        await runtime.submit("c -> d", id="y")
        await runtime.wait_ended("y")
        assert trio.current_time() == 1
        assert (await runtime.wait_ended()).state is ExecutionState.SUCCEEDED


async def test_an_ordinary_exception_is_retried(autojump_clock: MockClock) -> None:
    """T1: every code is retried but those that another attempt cannot help."""
    async with running(scripts={"a": fails("UNKNOWN"), "c": fails("NOT_FOUND")}) as runtime:
        await runtime.submit("node a retry=3; a -> b; node c retry=3 on_error=IGNORE")
        execution = await runtime.wait_ended()
        assert len(execution.record("a").attempts) == 3
        assert len(execution.record("c").attempts) == 1


async def test_a_lost_attempt_is_redone_without_using_up_attempts(autojump_clock: MockClock) -> None:
    """T2."""
    script = in_turn(ends_as(LOST), ends_as(LOST), ends_as(LOST), returns("1"))
    async with running(scripts={"a": script}) as runtime:
        await runtime.submit("a -> b")
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        outcomes = [attempt.outcome for attempt in execution.record("a").attempts]
        assert outcomes == [LOST, LOST, LOST, AttemptOutcome.SUCCEEDED]


async def test_the_loss_after_the_last_redo_is_poison(autojump_clock: MockClock) -> None:
    """T2, FAILURES 22."""
    async with running(scripts={"a": ends_as(LOST)}) as runtime:
        await runtime.submit("node a lost=2; a -> b")
        execution = await runtime.wait_ended()
        assert execution.failure is not None
        assert execution.failure.code == "POISON"
        assert len(execution.record("a").attempts) == 3
        runtime.assert_nothing_is_held()


async def test_a_returned_attempt_costs_nothing(autojump_clock: MockClock) -> None:
    """T3."""
    script = in_turn(*[ends_as(RETURNED)] * 20, returns("1"))
    async with running(scripts={"a": script}) as runtime:
        await runtime.submit("a -> b")
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        assert len(execution.record("a").attempts) == 21
        runtime.assert_nothing_is_held()


async def test_attempts_of_a_node_get_the_same_input_and_idempotency_goes_with_the_path(
    autojump_clock: MockClock,
) -> None:
    """A4: the key names the node's path; the number fences."""
    script = in_turn(fails("ABORTED"), ends_as(LOST), returns("1"))
    async with running(scripts={"src": returns('{"n":1}'), "a": script}) as runtime:
        await runtime.submit("node a retry=3; src -> a; a -> b")
        await runtime.wait_ended()
        attempts = [each for each in runtime.workers.assigned if each.key.node_path == "a"]
        assert [each.key.attempt for each in attempts] == [1, 2, 3]
        assert {each.input_json for each in attempts} == {'{"n":1}'}
        assert len({each.traceparent for each in attempts}) == 3
