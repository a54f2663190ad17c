"""Executions that are not live are kept for those who look at them, within bounds."""

from __future__ import annotations

import gc
import weakref

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.core.definition.analysis import analyze, build_adjacency
from plait_server.core.definition.graph import Graph, Node, Task
from plait_server.core.run.execution import Execution
from plait_server.runtime.resting import ELEMENTS_MAX, KEPT_MAX, LARGE_ELEMENTS, LARGE_KEPT_S, Resting
from tests.runtime.world import NAMESPACE, fails, hangs, running


def execution(nodes: int) -> Execution:
    graph = Graph(nodes=tuple(Node(id=f"n{number}", kind=Task(type="t")) for number in range(nodes)))
    return Execution(graph, analyze(graph, build_adjacency(graph)))


SMALL, LARGE, HUGE = execution(1), execution(LARGE_ELEMENTS + 1), execution(ELEMENTS_MAX + 1)


def test_the_newest_are_kept() -> None:
    resting = Resting()
    for number in range(KEPT_MAX + 5):
        resting.put(("n", str(number)), SMALL)
    assert resting.get(("n", "4")) is None
    assert resting.get(("n", "5")) is SMALL


async def test_what_is_kept_is_bounded_by_nodes_but_for_the_newest() -> None:
    resting = Resting()
    resting.put(("n", "a"), SMALL)
    resting.put(("n", "b"), HUGE)
    assert resting.get(("n", "a")) is None
    assert resting.get(("n", "b")) is HUGE
    resting.put(("n", "c"), SMALL)
    assert resting.get(("n", "b")) is None
    assert resting.get(("n", "c")) is SMALL


async def test_a_large_one_is_forgotten_after_the_last_look(autojump_clock: MockClock) -> None:
    resting = Resting()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(resting.run)
        resting.put(("n", "small"), SMALL)
        resting.put(("n", "large"), LARGE)
        for _ in range(3):
            await trio.sleep(LARGE_KEPT_S - 1)
            assert resting.get(("n", "large")) is LARGE
        await trio.sleep(LARGE_KEPT_S + 1)
        assert resting.get(("n", "large")) is None
        assert resting.get(("n", "small")) is SMALL
        resting.put(("n", "large"), LARGE)
        await trio.sleep(LARGE_KEPT_S + 1)
        assert resting.get(("n", "large")) is None
        nursery.cancel_scope.cancel()


async def test_one_reads_for_all_who_ask_at_the_same_time() -> None:
    resting = Resting()
    go_on = trio.Event()
    reads: list[str] = []
    got: list[Execution | None] = []

    async def load() -> Execution:
        reads.append("x")
        await go_on.wait()
        return SMALL

    async def ask() -> None:
        got.append(await resting.read(("n", "x"), load))

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        go_on.set()
    assert reads == ["x"]
    assert got.count(None) == 2


async def test_a_sleeping_execution_is_read_once_until_it_goes_on(autojump_clock: MockClock) -> None:
    async with running() as runtime:
        await runtime.submit("node a kind=delay:600; a -> b")
        await trio.sleep(10)
        first = await runtime.supervisor.view(NAMESPACE, "x")
        assert first.executor is None
        assert (await runtime.supervisor.view(NAMESPACE, "x")).execution is first.execution
        await trio.sleep(600)
        later = await runtime.supervisor.view(NAMESPACE, "x")
        assert later.execution.sequence > first.execution.sequence
        assert later.execution is not first.execution


async def test_an_execution_that_ended_is_freed_without_the_garbage_collector(
    autojump_clock: MockClock,
) -> None:
    """The memory of a large execution is freed at once; a full garbage collection may be hours away."""
    async with running(scripts={"b": hangs, "c": fails()}) as runtime:
        gc.collect()
        gc.disable()
        try:
            await runtime.submit("policy CONTINUE; a -> d; b -> f; c -> e", id="x0")
            await trio.sleep(1)
            executor = runtime.supervisor._locations.executor((NAMESPACE, "x0"))
            assert executor is not None
            refs = weakref.ref(executor.execution), weakref.ref(executor)
            del executor
            await runtime.cancel("x0")
            await runtime.wait_ended("x0")
            await trio.sleep(1)
            assert refs[0]() is not None
            runtime.supervisor._resting.drop((NAMESPACE, "x0"))
            runtime.workers.listeners.clear()
            assert [ref() for ref in refs] == [None, None]
        finally:
            gc.enable()
