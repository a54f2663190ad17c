"""Which executions run, and which wait in the queue of their namespace (Q3)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.core.definition.graph import Policy
from plait_server.core.namespace_settings import NamespaceSettings, QueueOrder
from plait_server.core.run.states import ExecutionState, NodeState, PauseMode
from plait_server.errors import ExecutionExists, QueueFull
from plait_server.ports.journal import RequestRecord
from plait_server.runtime import controls
from tests.runtime.world import EPOCH_S, NAMESPACE, Runtime, fails, returns, running

ONE = NamespaceSettings(running_max=1)
SLOW = {"a": returns("null", after_s=10)}


async def submit(runtime: Runtime, *ids: str) -> None:
    """Submit one after the other, an instant apart."""
    for id_ in ids:
        await runtime.submit("node a", id=id_)
        await trio.sleep(0.001)


async def state(runtime: Runtime, id_: str) -> ExecutionState | None:
    return (await runtime.supervisor.view(NAMESPACE, id_)).execution.state


async def begun(runtime: Runtime, *ids: str) -> list[str]:
    """Return the executions in the order in which they began, once all have ended."""
    ended = [await runtime.wait_ended(each) for each in ids]
    await wait_all_tasks_blocked()
    return [each.execution_id for each in sorted(ended, key=lambda each: each.started_s)]


async def test_as_many_as_allowed_run_at_once_and_the_others_are_queued(autojump_clock: MockClock) -> None:
    """Q3: at most [1,000] executions of a namespace run at once; the others are QUEUED."""
    async with running(scripts=SLOW, settings=NamespaceSettings(running_max=2)) as runtime:
        await submit(runtime, "x1", "x2", "x3", "x4")
        statistics = runtime.supervisor.statistics()
        assert (statistics.live, statistics.queued) == (2, 2)
        assert await state(runtime, "x3") is ExecutionState.QUEUED
        view = await runtime.supervisor.view(NAMESPACE, "x3")
        assert view.queue_text == "waits for a running slot of namespace default (2 of 2 running)"
        assert await begun(runtime, "x4", "x3", "x2", "x1") == ["x1", "x2", "x3", "x4"]
        assert runtime.admission.counts(NAMESPACE) == (0, 0)


async def test_a_submission_without_an_id_waits_as_well(autojump_clock: MockClock) -> None:
    async with running(scripts=SLOW, settings=ONE) as runtime:
        first = await runtime.submit("node a", id="")
        second = await runtime.submit("node a", id="")
        assert (first.state, second.state) == (ExecutionState.RUNNING, ExecutionState.QUEUED)
        assert (await runtime.wait_ended(second.execution_id)).state is ExecutionState.SUCCEEDED


async def test_submissions_at_once_share_the_slots(autojump_clock: MockClock) -> None:
    """Q3, with submissions whose appends are under way."""
    async with running(scripts=SLOW, settings=NamespaceSettings(running_max=3, queue_max=4)) as runtime:
        refused: list[str] = []

        async def submit_one(number: int) -> None:
            try:
                await runtime.submit("node a", id=f"x{number}" if number % 2 else "")
            except QueueFull as error:
                refused.append(error.message)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(submit_one, number)
        assert runtime.admission.counts(NAMESPACE) == (3, 4)
        assert len(refused) == 3


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        (QueueOrder.FIFO, ["x1", "x2", "x3", "x4"]),
        (QueueOrder.LIFO, ["x1", "x4", "x3", "x2"]),
        (QueueOrder.PRIORITY, ["x1", "x2", "x3", "x4"]),
    ],
)
async def test_the_order_of_a_queue(
    order: QueueOrder, expected: list[str], autojump_clock: MockClock
) -> None:
    """Q3: order FIFO, LIFO or PRIORITY."""
    async with running(scripts=SLOW, settings=NamespaceSettings(running_max=1, order=order)) as runtime:
        await submit(runtime, "x1", "x2", "x3", "x4")
        assert await begun(runtime, "x1", "x2", "x3", "x4") == expected


async def test_the_highest_priority_begins_first(autojump_clock: MockClock) -> None:
    """Q3, R4: by priority, then by submission; also after a restart, and after an update."""
    store = MemoryStore()
    settings = NamespaceSettings(running_max=1, order=QueueOrder.PRIORITY)
    priorities = {"x1": 0, "low": -1, "old": 0, "high": 5, "new": 0, "raised": -9}
    async with running(store, scripts=SLOW, settings=settings) as runtime:
        for id_, priority in priorities.items():
            await runtime.submit("node a", id=id_, priority=priority)
            await trio.sleep(0.001)
        wanted = controls.WantedSettings(priority=7, policy=Policy(), policy_fields=(), locks=(), etag="")
        await runtime.control(controls.update(wanted), "raised")
        await trio.sleep(2)
    async with running(store, scripts=SLOW, settings=settings) as runtime:
        assert await begun(runtime, *priorities) == ["x1", "raised", "high", "old", "new", "low"]


async def test_a_pause_takes_an_execution_out_of_the_queue_until_it_is_resumed(
    autojump_clock: MockClock,
) -> None:
    """C2, Q3: one that is paused before it began does not begin; resumed, it has its old place."""
    async with running(scripts=SLOW, settings=ONE) as runtime:
        await submit(runtime, "x1", "x2", "x3", "x4")
        await runtime.control(controls.pause(PauseMode.WAIT, ""), "x2")
        assert await state(runtime, "x2") is ExecutionState.PAUSED
        assert runtime.admission.counts(NAMESPACE) == (1, 2)
        await trio.sleep(12)
        assert await state(runtime, "x3") is ExecutionState.RUNNING
        await runtime.control(controls.resume("null", ""), "x2")
        assert await state(runtime, "x2") is ExecutionState.QUEUED
        assert await begun(runtime, "x1", "x2", "x3", "x4") == ["x1", "x3", "x2", "x4"]


async def test_a_paused_execution_holds_no_slot(autojump_clock: MockClock) -> None:
    """Q3: one that is PAUSED lets another begin; resumed, it goes on at once."""
    async with running(scripts={**SLOW, "b": returns("null", after_s=10)}, settings=ONE) as runtime:
        await runtime.submit("a -> b", id="x1")
        await submit(runtime, "x2", "x3")
        await runtime.control(controls.pause(PauseMode.WAIT, ""), "x1")
        await trio.sleep(11)
        assert await state(runtime, "x1") is ExecutionState.PAUSED
        assert await state(runtime, "x2") is ExecutionState.RUNNING
        await runtime.control(controls.resume("null", ""), "x1")
        await wait_all_tasks_blocked()
        assert runtime.admission.counts(NAMESPACE) == (2, 1)
        assert await begun(runtime, "x1", "x2", "x3") == ["x1", "x2", "x3"]


async def test_a_full_queue_refuses_before_anything_is_written(autojump_clock: MockClock) -> None:
    """Q3: a full queue is RESOURCE_EXHAUSTED with retry advice."""
    settings = NamespaceSettings(running_max=1, queue_max=1)
    async with running(scripts=SLOW, settings=settings) as runtime:
        await submit(runtime, "x1", "x2")
        items = runtime.committer.statistics().items
        with pytest.raises(
            QueueFull, match="queue of namespace 'default' is full: 1 executions may wait"
        ) as caught:
            await runtime.submit("node a", id="x3")
        assert caught.value.retry_after_s
        assert runtime.committer.statistics().items == items
        await runtime.wait_ended("x1")
        await wait_all_tasks_blocked()
        await runtime.submit("node a", id="x3")


async def test_overload_is_shed_at_the_door_and_what_was_accepted_ends(autojump_clock: MockClock) -> None:
    """FAILURES 42: five times the capacity; refused with a time to retry, and the oldest first within the limits."""
    settings = NamespaceSettings(running_max=2, queue_max=3)
    async with running(scripts=SLOW, settings=settings) as runtime:
        accepted: list[str] = []
        for number in range(100):
            try:
                await runtime.submit("node a", id=f"x{number}")
            except QueueFull:
                pass
            else:
                accepted.append(f"x{number}")
            assert runtime.supervisor.statistics().live <= 2
            await trio.sleep(1)
        assert 20 <= len(accepted) <= 26
        assert await begun(runtime, *accepted) == accepted
        for id_ in accepted:
            execution = await runtime.wait_ended(id_)
            assert execution.state is ExecutionState.SUCCEEDED
            assert execution.started_s - execution.created_s < 25


async def test_a_repeated_request_is_answered_though_the_queue_is_full(autojump_clock: MockClock) -> None:
    """K3: what was accepted stays accepted."""
    request = RequestRecord(method="SubmitGraph", request_id="r", fingerprint=b"f", execution_id="x2")
    async with running(scripts=SLOW, settings=NamespaceSettings(running_max=1, queue_max=1)) as runtime:
        await submit(runtime, "x1")
        await runtime.submit("node a", id="x2", request=request)
        again = await runtime.submit("node a", id="x2", request=request)
        assert again.state is ExecutionState.QUEUED


async def test_a_taken_id_gives_slot_and_place_back(autojump_clock: MockClock) -> None:
    async with running(scripts=SLOW, settings=NamespaceSettings(running_max=2, queue_max=1)) as runtime:
        await submit(runtime, "x1")
        with pytest.raises(ExecutionExists):
            await runtime.submit("node a", id="x1")
        await submit(runtime, "x2")
        with pytest.raises(ExecutionExists):
            await runtime.submit("node a", id="x2")
        await submit(runtime, "x3")
        assert runtime.admission.counts(NAMESPACE) == (2, 1)


async def test_an_execution_in_which_everything_waits_holds_no_slot(autojump_clock: MockClock) -> None:
    """Q3: an execution in which everything WAITS holds no running slot; when it goes on, new ones wait."""
    async with running(scripts={"b": returns("null", after_s=10), **SLOW}, settings=ONE) as runtime:
        await runtime.submit("node d kind=delay:15; d -> a", id="waits")
        await wait_all_tasks_blocked()
        await submit(runtime, "x1", "x2", "x3", "x4")
        assert runtime.admission.counts(NAMESPACE) == (1, 3)
        await trio.sleep(16)
        # It went on at second 15, although x2 had the only slot.
        assert runtime.admission.counts(NAMESPACE) == (2, 2)
        await trio.sleep(5)
        # x2 has ended, and there is no slot for x3.
        assert runtime.admission.counts(NAMESPACE) == (1, 2)
        assert await begun(runtime, "x4", "x3", "x2", "x1") == ["x1", "x2", "x3", "x4"]
        assert (await runtime.wait_ended("x3")).started_s == pytest.approx(EPOCH_S + 25, abs=0.1)


async def test_a_sleeping_execution_holds_no_slot_and_goes_on_at_once(autojump_clock: MockClock) -> None:
    """Q3, of an execution that is only a row and a due time meanwhile."""
    async with running(scripts=SLOW, settings=ONE) as runtime:
        await runtime.submit("node d kind=delay:600; d -> a", id="sleeps")
        await trio.sleep(1)
        assert runtime.supervisor.statistics().asleep == 1
        for number in range(3):
            await submit(runtime, f"x{number}")
        await runtime.wait_ended("x2")
        await trio.sleep(595)
        await submit(runtime, "y1", "y2")
        sleeper = await runtime.wait_ended("sleeps")
        assert sleeper.root.records[1].started_s == pytest.approx(EPOCH_S + 600, abs=1)


async def test_a_node_that_backs_off_keeps_the_slot(autojump_clock: MockClock) -> None:
    """Q3: backing off is not WAITING; else a broken dependency would let in one execution after the other."""
    async with running(scripts={"a": fails("UNAVAILABLE")}, settings=ONE) as runtime:
        await runtime.submit("node a retry=3 backoff=10", id="x1")
        await runtime.submit("node b", id="x2")
        await trio.sleep(5)
        assert await state(runtime, "x2") is ExecutionState.QUEUED


async def test_a_queue_survives_a_restart_in_its_order(autojump_clock: MockClock) -> None:
    """Q3: what was accepted is never dropped; ready when the rows are known (FAILURES 5)."""
    store = MemoryStore()
    async with running(store, scripts=SLOW, settings=ONE) as runtime:
        await submit(runtime, "x1", "x2", "x3")
    async with running(
        store, scripts=SLOW, settings=NamespaceSettings(running_max=1, queue_max=0)
    ) as runtime:
        statistics = runtime.supervisor.statistics()
        assert (statistics.queued, statistics.unread + statistics.live) == (2, 1)
        with pytest.raises(QueueFull):
            await runtime.submit("node a", id="x4")
        assert await begun(runtime, "x3", "x2", "x1") == ["x1", "x2", "x3"]


async def test_a_wait_that_is_too_long_ends_the_execution(autojump_clock: MockClock) -> None:
    """Q3: one whose wait ends is TIMED_OUT/QUEUE_TIMEOUT, with all its nodes CANCELLED."""
    settings = NamespaceSettings(running_max=1, queue_timeout_s=15)
    async with running(scripts=SLOW, settings=settings) as runtime:
        await submit(runtime, "x1", "x2")
        await runtime.submit("a -> b", id="x3")
        execution = await runtime.wait_ended("x3")
        assert (execution.state, execution.reason) == (ExecutionState.TIMED_OUT, "QUEUE_TIMEOUT")
        assert {(each.state, each.reason) for each in execution.root.records} == {
            (NodeState.CANCELLED, "QUEUE_TIMEOUT")
        }
        assert execution.ended_s == pytest.approx(EPOCH_S + 15, abs=0.1)
        assert (await runtime.wait_ended("x2")).state is ExecutionState.SUCCEEDED
        await wait_all_tasks_blocked()
        assert runtime.admission.counts(NAMESPACE) == (0, 0)


async def test_a_wait_that_ended_while_the_server_was_down_ends_at_the_start(
    autojump_clock: MockClock,
) -> None:
    """Q3: the wait is measured from the submission, also over a restart; a free slot does not help any more."""
    store = MemoryStore()
    settings = NamespaceSettings(running_max=1, queue_timeout_s=15)
    async with running(store, scripts=SLOW, settings=settings) as runtime:
        await submit(runtime, "x1", "x2")
    await trio.sleep(20)
    async with running(store, scripts=SLOW, settings=NamespaceSettings(running_max=5)) as runtime:
        assert (await runtime.wait_ended("x2")).reason == "QUEUE_TIMEOUT"
        assert (await runtime.wait_ended("x1")).state is ExecutionState.SUCCEEDED


async def test_a_cancel_does_not_wait_for_a_slot(autojump_clock: MockClock) -> None:
    """C1, of an execution that has not begun."""
    async with running(scripts=SLOW, settings=ONE) as runtime:
        await submit(runtime, "x1", "x2", "x3")
        await runtime.cancel("x2")
        assert await state(runtime, "x2") is ExecutionState.CANCELLED
        assert runtime.admission.counts(NAMESPACE) == (1, 1)
        assert await begun(runtime, "x1", "x3") == ["x1", "x3"]


async def test_a_call_that_is_gone_leaves_the_execution_in_its_place(autojump_clock: MockClock) -> None:
    """Q3: what was accepted is never dropped, also if the caller of a cancel is gone before it is decided."""
    async with running(scripts=SLOW, settings=ONE) as runtime:
        await submit(runtime, "x1", "x2", "x3")
        woken = await runtime.supervisor._wake((NAMESPACE, "x2"))  # as a cancel does
        assert woken is not None
        await trio.sleep(2)
        assert runtime.supervisor.statistics().queued == 2
        assert await begun(runtime, "x1", "x2", "x3") == ["x1", "x2", "x3"]


async def test_changed_settings_take_effect_at_once(autojump_clock: MockClock) -> None:
    """Q2, Q3: raising a limit starts those that wait, lowering it aborts nothing."""
    async with running(scripts=SLOW, settings=ONE) as runtime:
        await submit(runtime, "x1", "x2", "x3", "x4", "x5")
        runtime.namespaces.set(NAMESPACE, NamespaceSettings(running_max=3, order=QueueOrder.LIFO))
        await wait_all_tasks_blocked()
        assert [await state(runtime, each) for each in ("x1", "x4", "x5")] == [ExecutionState.RUNNING] * 3
        runtime.namespaces.set(NAMESPACE, NamespaceSettings(running_max=1))
        await wait_all_tasks_blocked()
        assert runtime.admission.counts(NAMESPACE) == (3, 2)
        assert (await runtime.wait_ended("x5")).state is ExecutionState.SUCCEEDED
        await wait_all_tasks_blocked()
        assert runtime.admission.counts(NAMESPACE) == (1, 1)


async def test_those_who_watch_a_queued_execution_learn_that_it_began(autojump_clock: MockClock) -> None:
    """A3: a watcher gets everything."""
    async with running(scripts=SLOW, settings=ONE) as runtime:
        await submit(runtime, "x1", "x2")
        with trio.fail_after(11):
            await runtime.supervisor.wait_moved(NAMESPACE, "x2")
