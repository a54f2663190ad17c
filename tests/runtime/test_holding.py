"""Pause, resume and update of executions that run, sleep or have ended: C2, C10, R4."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.core.definition.graph import Policy
from plait_server.core.run.states import ExecutionState, NodeState, PauseMode
from plait_server.errors import EtagMismatch, ExecutionNotPaused, ExecutionOver, InvalidRequest
from plait_server.ports.journal import RequestRecord
from plait_server.runtime import controls
from plait_server.runtime.controls import WantedLock, WantedSettings
from plait_server.runtime.locations import Asleep
from tests.core.graph_text import build
from tests.runtime.world import NAMESPACE, Runtime, hangs, returns, running

PAUSE = controls.pause(PauseMode.WAIT, "maintenance")
ABORT = controls.pause(PauseMode.ABORT, "maintenance")
RESUME = controls.resume("null", "")


def settings(
    *,
    priority: int | None = None,
    max_concurrency: int | None = None,
    locks: tuple[WantedLock, ...] = (),
    etag: str = "",
) -> WantedSettings:
    policy = Policy(max_concurrency=max_concurrency or 0)
    fields = ("max_concurrency",) if max_concurrency is not None else ()
    return WantedSettings(priority, policy, fields, locks, etag)


async def state_of(runtime: Runtime, id: str = "x") -> ExecutionState | None:
    return (await runtime.supervisor.view(NAMESPACE, id)).execution.state


async def test_a_pause_lets_the_running_finish_and_starts_nothing(autojump_clock: MockClock) -> None:
    """C2: nothing new is dispatched; running nodes finish (PAUSING, then PAUSED)."""
    async with running(scripts={"a": returns("1", after_s=5)}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        await runtime.control(PAUSE)
        assert await state_of(runtime) is ExecutionState.PAUSING
        await trio.sleep(10)
        assert await state_of(runtime) is ExecutionState.PAUSED
        assert runtime.workers.paths == ["a"]
        await runtime.control(controls.resume('{"approved":true}', ""))
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        assert runtime.names().count("ExecutionPaused") == 1
        runtime.assert_nothing_is_held()


async def test_an_abort_gives_permits_back_and_runs_the_node_again(autojump_clock: MockClock) -> None:
    """C2: or are aborted to IDLE with `mode: ABORT`."""
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        await runtime.control(ABORT)
        assert await state_of(runtime) is ExecutionState.PAUSED
        await trio.sleep(20)
        runtime.assert_nothing_is_held()
        assert runtime.workers.stopped == [("a", 1, "PAUSED")]
        runtime.workers.scripts["a"] = returns("1")
        await runtime.control(RESUME)
        assert (await runtime.wait_ended()).state is ExecutionState.SUCCEEDED
        assert runtime.workers.paths == ["a", "a", "b"]


async def test_resume_data_is_a_variable(autojump_clock: MockClock) -> None:
    """C2: Resume carries data, readable as `resume`."""
    async with running(scripts={"a": returns("1", after_s=5)}) as runtime:
        await runtime.submit('a -> b; node b kind=transform input={"by":"{{resume.approver}}"}')
        await trio.sleep(1)
        await runtime.control(PAUSE)
        await trio.sleep(10)
        await runtime.control(controls.resume('{"approver":"ann"}', ""))
        execution = await runtime.wait_ended()
        output = execution.record("b").output
        assert output is not None
        assert output.json == '{"by":"ann"}'


async def test_a_paused_execution_sleeps_and_survives_a_restart(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": returns("1", after_s=5)}) as runtime:
        await runtime.submit("a -> b")
        await trio.sleep(1)
        await runtime.control(PAUSE)
        await trio.sleep(10)
        assert isinstance(runtime.supervisor._locations.get((NAMESPACE, "x")), Asleep)
        runtime.crash()
        async with running(runtime.store) as again:
            assert await state_of(again) is ExecutionState.PAUSED
            await trio.sleep(100)
            assert again.workers.paths == []
            await again.control(RESUME)
            assert (await again.wait_ended()).state is ExecutionState.SUCCEEDED


async def test_a_paused_execution_that_waited_for_capacity_sleeps(autojump_clock: MockClock) -> None:
    async with running(slots=1, scripts={"a": hangs}) as runtime:
        await runtime.submit("a", id="first")
        await wait_all_tasks_blocked()
        await runtime.submit("b")
        await wait_all_tasks_blocked()
        await runtime.control(PAUSE)
        await wait_all_tasks_blocked()
        assert isinstance(runtime.supervisor._locations.get((NAMESPACE, "x")), Asleep)
        assert runtime.allocator.statistics().waiting == 0
        await runtime.control(RESUME)
        await wait_all_tasks_blocked()
        assert runtime.allocator.statistics().waiting == 1


async def test_what_does_not_fit_the_state_is_refused(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit("a")
        with pytest.raises(ExecutionNotPaused) as not_paused:
            await runtime.control(RESUME)
        assert not_paused.value.fields["state"] == "RUNNING"
        with pytest.raises(EtagMismatch) as stale:
            await runtime.control(controls.update(settings(priority=3, etag="settings-99")))
        assert stale.value.fields["etag"] == "settings-0"
        unknown = WantedLock("missing", is_locked=True, output_json=None)
        with pytest.raises(InvalidRequest, match="missing"):
            await runtime.control(controls.update(settings(priority=3, locks=(unknown,))))
        before = len(runtime.events())
        runtime.workers.exit_s = {"a": 5}
        await runtime.cancel()
        for make in (PAUSE, RESUME, controls.update(settings(priority=3))):
            with pytest.raises(ExecutionOver):
                await runtime.control(make)
        await runtime.wait_ended()
        for make in (PAUSE, RESUME, controls.update(settings(priority=3))):
            with pytest.raises(ExecutionOver):
                await runtime.control(make)
        assert "PauseRequested" not in runtime.names()[before:]


async def test_a_repeated_request_takes_effect_once(autojump_clock: MockClock) -> None:
    """K3: the same request id gets the same answer, although the execution is not paused any more."""
    async with running(scripts={"a": returns("1", after_s=50)}) as runtime:
        await runtime.submit("a -> b")
        request = RequestRecord(method="PauseExecution", request_id="r", fingerprint=b"1", execution_id="x")
        await runtime.control(PAUSE, request=request)
        await runtime.control(RESUME)
        await runtime.control(PAUSE, request=request)
        assert await state_of(runtime) is ExecutionState.RUNNING


async def test_an_update_raises_the_limit_at_once(autojump_clock: MockClock) -> None:
    """C10: an update takes effect at once, and aborts nothing. Q2: lowering one aborts nothing."""
    async with running(scripts=dict.fromkeys("abcd", hangs)) as runtime:
        await runtime.submit(build("policy limit=1", "a; b; c; d"))
        await wait_all_tasks_blocked()
        assert len(runtime.workers.paths) == 1
        await runtime.control(controls.update(settings(max_concurrency=3)))
        await wait_all_tasks_blocked()
        assert len(runtime.workers.paths) == 3
        await runtime.control(controls.update(settings(max_concurrency=1)))
        await wait_all_tasks_blocked()
        assert runtime.allocator.statistics().running == 3


async def test_a_higher_priority_goes_first(autojump_clock: MockClock) -> None:
    """R4: higher priority of the execution, then of the node, first."""
    async with running(slots=1, scripts={"a": returns("1", after_s=5)}) as runtime:
        await runtime.submit("a", id="first")
        await wait_all_tasks_blocked()
        await runtime.submit("b; node b priority=9", id="later")
        await runtime.submit("c", id="last")
        await wait_all_tasks_blocked()
        await runtime.control(controls.update(settings(priority=5)), "last")
        await runtime.wait_ended("later")
        assert runtime.workers.paths == ["a", "c", "b"]


async def test_a_lock_takes_effect_on_what_waits(autojump_clock: MockClock) -> None:
    """C4, C10."""
    async with running(slots=1, scripts={"a": returns("1", after_s=5)}) as runtime:
        await runtime.submit("a; b -> c; node a priority=9")
        await wait_all_tasks_blocked()
        lock = WantedLock("b", is_locked=True, output_json="7")
        await runtime.control(controls.update(settings(locks=(lock,))))
        execution = await runtime.wait_ended()
        assert execution.record("b").state is NodeState.SKIPPED
        assert runtime.workers.paths == ["a", "c"]
        runtime.assert_nothing_is_held()
