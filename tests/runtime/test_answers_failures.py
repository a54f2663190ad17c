"""J2, J4: what carries a failure carries all of it, its details too where they are kept by digest."""

from __future__ import annotations

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.core.limits import INLINE_BYTES_MAX
from plait_server.core.run.states import ExecutionState
from tests.runtime.world import NAMESPACE, Runtime, fails, hangs, returns, running

LONG = json.dumps("d" * INLINE_BYTES_MAX)
"""Details that are kept by digest."""


def input_of(runtime: Runtime, path: str) -> Any:  # noqa: ANN401 -- Parsed JSON is looked into freely.
    (assignment,) = (each for each in runtime.workers.assigned if each.key.node_path == path)
    if assignment.input_digest:
        return json.loads(runtime.store.contents[NAMESPACE, assignment.input_digest])
    return json.loads(assignment.input_json)


async def test_details_over_32_kib_are_kept_by_digest(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": fails(details_json=LONG)}) as runtime:
        await runtime.submit("node a")
        execution = await runtime.wait_ended()
        failure = execution.record("a").failure
        assert failure is not None
        assert failure.details is not None
        assert failure.details.size_bytes == len(LONG)
        assert runtime.store.contents[NAMESPACE, failure.details.digest].decode() == LONG


@pytest.mark.parametrize("reads_yield", [False, True])
@pytest.mark.parametrize("graph", ["a -error-> z", "a -error-> z; b -> z"], ids=["alone", "joined"])
async def test_an_error_edge_carries_details_by_digest(
    autojump_clock: MockClock, graph: str, reads_yield: bool
) -> None:
    """J2: an ACTIVE error edge carries the failure as an object, also after a crash."""
    store = MemoryStore()
    scripts = {"a": fails(details_json=LONG), "b": returns("1", 5), "z": hangs}
    async with running(store, scripts=scripts) as runtime:
        runtime.gate.reads_yield = reads_yield
        await runtime.submit(graph)
        await trio.sleep(10)
        seen = input_of(runtime, "z")
        assert seen.get("a", seen)["details"] == json.loads(LONG)
        runtime.crash()
    async with running(store) as again:
        again.gate.reads_yield = reads_yield
        await again.wait_ended()
        assert input_of(again, "z") == seen


async def test_collect_carries_details_by_digest(autojump_clock: MockClock) -> None:
    """J4: a failure in COLLECT's object."""
    async with running(scripts={"a": fails(details_json=LONG)}) as runtime:
        await runtime.submit("node z join=COLLECT; a, b -> z")
        await runtime.wait_ended()
        assert input_of(runtime, "z")["results"][0]["error"]["details"] == json.loads(LONG)


async def test_a_when_and_an_expression_see_details_by_digest(autojump_clock: MockClock) -> None:
    text = "size(output.details) == 32768"
    async with running(scripts={"a": fails(details_json=LONG)}) as runtime:
        await runtime.submit(f"a -error-> b when={text.replace(' ', '')}")
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED


async def test_details_of_a_join_that_failed_are_kept_by_digest(autojump_clock: MockClock) -> None:
    """Section 6: MIN_SUCCESS_RATE with that object in the failure, however long it is."""
    async with running(scripts={"a": fails(details_json=LONG), "b": returns("2")}) as runtime:
        await runtime.submit("node z join=COLLECT:0.6; a, b -> z; z -error-> y")
        execution = await runtime.wait_ended()
        failure = execution.record("z").failure
        assert failure is not None
        assert failure.details is not None
        assert failure.details.digest
        seen = input_of(runtime, "y")
        assert seen["details"]["results"][0]["error"]["details"] == json.loads(LONG)
        assert seen["causes"][0]["details"] == json.loads(LONG)


async def test_a_join_does_not_fail_for_what_failures_have_to_say(autojump_clock: MockClock) -> None:
    """DESIGN 7: a join's input is at most 16 MiB; past it, failures show their codes and messages."""
    names = [f"n{number}" for number in range(17)]
    large = {name: fails(details_json=json.dumps(name + "x" * (1024 * 1024 - 6))) for name in names}
    async with running(scripts=large) as runtime:
        await runtime.submit(f"node z join=COLLECT; {', '.join(names)} -> z")
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        errors = [result["error"] for result in input_of(runtime, "z")["results"]]
        assert [error["message"] for error in errors] == [f"UNKNOWN of {name}" for name in names]
        assert all(error["details_omitted"] and "details" not in error for error in errors)


async def test_details_of_causes_are_left_out_where_they_are_too_much(autojump_clock: MockClock) -> None:
    """The node that handles a failed join does not fail because that failure is large."""
    names = [f"n{number}" for number in range(17)]
    large = {name: fails(details_json=json.dumps(name + "x" * (1024 * 1024 - 6))) for name in names}
    async with running(scripts=large) as runtime:
        await runtime.submit(f"node z join=ANY; {', '.join(names)} -> z; z -error-> y")
        await runtime.wait_ended()
        causes = input_of(runtime, "y")["causes"]
        assert len(causes) == 17
        assert all(cause["details_omitted"] and "details" not in cause for cause in causes)
