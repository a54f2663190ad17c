"""Q1: of the nodes of a namespace that have a concurrency key one runs at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio
from trio.testing import MockClock

from plait_server.core.definition.graph import Graph
from plait_server.core.run.states import ExecutionState
from tests.core.graph_text import build
from tests.runtime.world import NAMESPACE, Runtime, hangs, returns, running


def keyed(expression: str) -> Graph:
    """A node `a` with this key, and whatever else follows it."""
    graph = build("a -> b")
    return replace(graph, nodes=(replace(graph.nodes[0], concurrency_key=expression), *graph.nodes[1:]))


async def why(runtime: Runtime, id: str) -> str:
    view = await runtime.supervisor.view(NAMESPACE, id)
    return view.queue_reason(view.execution.record("a"))


async def test_nodes_with_the_same_key_run_one_after_the_other(autojump_clock: MockClock) -> None:
    """Q1, Q6: whichever execution they are in; others are not held up."""
    async with running(scripts={"a": returns("1", after_s=10)}) as runtime:
        for id, customer in (("x", "7"), ("y", "7"), ("z", "8")):
            await runtime.submit(keyed("input.customer"), id=id, input=f'{{"customer":"{customer}"}}')
        await trio.sleep(1)
        assert await why(runtime, "y") == "KEY_LIMIT"
        starts = {id: (await runtime.wait_ended(id)).record("a").attempts[0].started_s for id in "xyz"}
        assert starts["z"] == starts["x"]
        assert starts["y"] - starts["x"] == 10
        runtime.assert_nothing_is_held()


async def test_a_restart_takes_the_permit_of_the_key_back(autojump_clock: MockClock) -> None:
    """Q1: running attempts hold their permits before anything new is granted."""
    async with running(scripts={"a": hangs}) as runtime:
        await runtime.submit(keyed("'k'"), id="x")
        await trio.sleep(1)
        await runtime.submit(keyed("'k'"), id="y")
        await trio.sleep(1)
        runtime.crash()
    async with running(runtime.store, scripts={"a": returns("1", after_s=10)}) as again:
        await trio.sleep(5)
        assert [each.key.execution_id for each in again.workers.assigned] == ["x"]
        await again.wait_ended("y")
        again.assert_nothing_is_held()


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("7", "must be a string of 1 to 128 characters, and it gave 7: 7"),
        ("''", "and it gave one of 0"),
        ("input.text", "and it gave one of 129"),
        ("input.missing", "missing"),
    ],
)
async def test_what_is_no_key_fails_the_node(autojump_clock: MockClock, expression: str, said: str) -> None:
    async with running() as runtime:
        text = "x" * 129
        await runtime.submit(keyed(expression), input=f'{{"text":"{text}"}}')
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.FAILED
        assert execution.failure is not None
        assert execution.failure.code == "EXPRESSION"
        assert said in execution.failure.message
