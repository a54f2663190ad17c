"""T4, T5: heartbeats between the worker and the machine."""

from __future__ import annotations

import trio
from trio.testing import MockClock

from plait_server.core.run.commands import AttemptResult
from plait_server.core.run.states import AttemptOutcome
from plait_server.ports.workers import Assignment
from tests.runtime.world import Runtime, Script, fails, hangs, in_turn, returns, running


def beats(runtime: Runtime, every_s: float, times: int) -> Script:
    """Send heartbeats, then be silent."""

    async def run(assignment: Assignment) -> AttemptResult:
        listener = runtime.workers.listeners[assignment.key.node_path]
        for number in range(times):
            await trio.sleep(every_s)
            listener.on_heard(str(number))
        return await hangs(assignment)

    return run


async def test_a_silent_attempt_is_cancelled_and_its_details_go_to_the_next(
    autojump_clock: MockClock,
) -> None:
    """T4, T5: the worker is told TIMED_OUT; the next attempt is told what the last heartbeat said."""
    async with running() as runtime:
        runtime.workers.scripts["a"] = in_turn(beats(runtime, 4, 3), fails("UNAVAILABLE"), returns("1"))
        await runtime.submit("node a heartbeat=5 retry=3")
        execution = await runtime.wait_ended()
        first, second, third = execution.record("a").attempts
        assert (first.outcome, first.ended_s - first.started_s) == (AttemptOutcome.TIMED_OUT, 17)
        assert runtime.workers.stopped == [("a", 1, "TIMED_OUT")]
        # The second said nothing by itself, so the third is told what the first one said.
        details = [assignment.heartbeat_details for assignment in runtime.workers.assigned]
        assert details == ["", "2", "2"]
        assert {assignment.heartbeat_timeout_s for assignment in runtime.workers.assigned} == {5.0}
        assert (second.outcome, third.outcome) == (AttemptOutcome.FAILED, AttemptOutcome.SUCCEEDED)
        runtime.assert_nothing_is_held()


async def test_a_clock_that_jumps_ends_no_attempt(autojump_clock: MockClock) -> None:
    """FAILURES 13: silence is measured by the monotonic clock."""
    async with running() as runtime:
        runtime.workers.scripts["a"] = beats(runtime, 4, 3)
        await runtime.submit("node a heartbeat=5")
        await trio.sleep(9)
        runtime.seams.offset_s += 100_000_000
        await trio.sleep(7)
        assert [event.node_path for event in runtime.events() if event.attempt] == ["a"]
        await runtime.wait_ended()
        assert trio.current_time() == 17


async def test_after_a_restart_a_worker_has_the_whole_time_to_be_heard(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        runtime.workers.scripts["a"] = beats(runtime, 4, 1)
        await runtime.submit("node a heartbeat=10 retry=2 backoff=0")
        await trio.sleep(9)
        runtime.crash()
    async with running(runtime.store, scripts={"a": in_turn(hangs, returns("1"))}) as again:
        execution = await again.wait_ended()
        assert trio.current_time() == 19
        assert execution.record("a").attempts[0].outcome is AttemptOutcome.TIMED_OUT


async def test_more_time_counts_for_a_worker_that_gets_the_attempt_again(autojump_clock: MockClock) -> None:
    """T4: the attempt's timeout moves, also after a restart."""
    async with running() as runtime:

        async def extends(assignment: Assignment) -> AttemptResult:
            await trio.sleep(4)
            runtime.workers.listeners["a"].on_extend(20)
            return await hangs(assignment)

        runtime.workers.scripts["a"] = extends
        await runtime.submit("node a attempt_timeout=5")
        await trio.sleep(10)
        runtime.crash()
    async with running(runtime.store, scripts={"a": hangs}) as again:
        await again.wait_ended()
        assert [assignment.time_left_s for assignment in again.workers.assigned] == [14]
        assert trio.current_time() == 24
