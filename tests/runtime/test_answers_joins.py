"""Section 6, J2, J4: the exact input that each join makes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from trio.testing import MockClock

from plait_server.core.run.states import ExecutionState, NodeState
from tests.core.graph_text import build
from tests.runtime.world import Runtime, Script, fails, hangs, returns, running


def input_of(runtime: Runtime, path: str) -> object:
    (assignment,) = (each for each in runtime.workers.assigned if each.key.node_path == path)
    return json.loads(assignment.input_json)


def failure_of(path: str) -> dict[str, object]:
    return {
        "code": "UNKNOWN",
        "message": f"UNKNOWN of {path}",
        "node_path": path,
        "attempt": 1,
        "retryable": False,
    }


CASES: dict[str, tuple[str, dict[str, Script], object]] = {
    "a node without edges gets the input": ("z -> end; a -> end", {}, {"in": 1}),
    "one edge gives what it carries": ("a -> z", {"a": returns("[1]")}, [1]),
    "ALL": (
        "a, b, c -> z",
        {"a": returns("1", 3), "b": returns("null", 2), "c": returns('{"x":2}', 1)},
        {"a": 1, "b": None, "c": {"x": 2}},
    ),
    "ALL of the active edges": (
        "node b kind=condition:false; a -> z; b -true-> z; c -> z",
        {"a": returns("1"), "c": returns("3")},
        {"a": 1, "c": 3},
    ),
    "ALL with one active edge of two is an object": (
        "node b kind=condition:false; a -> z; b -true-> z",
        {"a": returns("1")},
        {"a": 1},
    ),
    "an error edge carries the failure": (
        "a -error-> z",
        {"a": fails()},
        failure_of("a"),
    ),
    "ANY": (
        "node z join=ANY; a, b -> z",
        {"a": returns("1", 5), "b": returns("2", 1)},
        {"winner": "b", "output": 2},
    ),
    "ANY won by a failure": (
        "node z join=ANY; a -> z; b -error-> z",
        {"a": hangs, "b": fails()},
        {"winner": "b", "output": failure_of("b")},
    ),
    "QUORUM": (
        "node z join=QUORUM:2; a, b, c -> z",
        {"a": returns("1", 2), "b": returns("2", 5), "c": returns("3", 1)},
        {"a": 1, "c": 3},
    ),
    "COLLECT": (
        "node z join=COLLECT; a, b, c -> z",
        {"a": returns("1", 2), "b": fails(), "c": returns('"x"')},
        {
            "results": [
                {"source": "a", "branch": "0", "success": True, "data": 1},
                {"source": "b", "branch": "0", "success": False, "error": failure_of("b")},
                {"source": "c", "branch": "0", "success": True, "data": "x"},
            ],
            "success_count": 2,
            "failure_count": 1,
        },
    ),
    "COLLECT leaves dead edges out": (
        "node z join=COLLECT; node b kind=condition:true; a -> z; b -false-> z; c -error-> z",
        {"a": returns("1"), "c": fails()},
        {
            "results": [
                {"source": "a", "branch": "0", "success": True, "data": 1},
                {"source": "c", "branch": "0", "success": False, "error": failure_of("c")},
            ],
            "success_count": 1,
            "failure_count": 1,
        },
    ),
    "COLLECT shows the failure that broke an edge": (
        "node z join=COLLECT; a -> b; b, c -> z",
        {"a": fails(), "c": returns("3", 1)},
        {
            "results": [
                {"source": "b", "branch": "0", "success": False, "error": failure_of("a")},
                {"source": "c", "branch": "0", "success": True, "data": 3},
            ],
            "success_count": 1,
            "failure_count": 1,
        },
    ),
    "an ignored failure carries null": (
        "node a on_error=IGNORE; a, b -> z",
        {"a": fails(), "b": returns("2")},
        {"a": None, "b": 2},
    ),
    "a locked node carries its locked output": (
        "node a locked=7; a, b -> z",
        {"b": returns("2")},
        {"a": 7, "b": 2},
    ),
    "a timeout that continues carries null": (
        "node a attempt_timeout=1 on_timeout=CONTINUE; a, b -> z",
        {"a": hangs, "b": returns("2")},
        {"a": None, "b": 2},
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_a_join_gives(autojump_clock: MockClock, case: str) -> None:
    graph, scripts, expected = CASES[case]
    async with running(scripts=scripts) as runtime:
        await runtime.submit(graph, input='{"in":1}')
        await runtime.wait_ended()
        seen: Any = input_of(runtime, "z")
        if "results" in (seen or ()):
            for result in seen["results"]:
                assert result["branch"].startswith("0")
                result["branch"] = "0"
        assert seen == expected


async def test_collect_names_branches_by_their_uncut_path(autojump_clock: MockClock) -> None:
    """J4, B1: each edge of a fork opens a branch, named by ordinal."""
    async with running() as runtime:
        await runtime.submit("node z join=COLLECT; s -> a, b; a, b -> z")
        await runtime.wait_ended()
        seen: Any = input_of(runtime, "z")
        branches = [result["branch"] for result in seen["results"]]
        assert branches == ["0-001", "0-002"]


async def test_a_share_of_successes_that_is_too_low_fails_with_the_object(autojump_clock: MockClock) -> None:
    """Section 6: MIN_SUCCESS_RATE with that object in the failure."""
    async with running(scripts={"a": fails(), "b": returns("2")}) as runtime:
        await runtime.submit("node z join=COLLECT:0.6; a, b -> z")
        execution = await runtime.wait_ended()
        failure = execution.record("z").failure
        assert failure is not None
        assert failure.code == "MIN_SUCCESS_RATE"
        assert failure.details is not None
        assert json.loads(failure.details.json)["success_count"] == 1
        assert [cause.node_path for cause in failure.causes] == ["a"]


async def test_what_outputs_say_is_spliced_as_it_is(autojump_clock: MockClock) -> None:
    """DESIGN 4: the engine parses no further what no expression names."""
    odd = '{"n": 123456789012345678901234567890,  "f":1.500}'
    async with running(scripts={"a": returns(odd)}) as runtime:
        await runtime.submit("a, b -> z")
        await runtime.wait_ended()
        (assignment,) = (each for each in runtime.workers.assigned if each.key.node_path == "z")
        assert odd in assignment.input_json


async def test_a_large_input_goes_by_digest(autojump_clock: MockClock) -> None:
    """DESIGN 4: graphs and payloads over 32 KiB are stored once by digest."""
    big = '"' + "x" * 40_000 + '"'
    async with running(scripts={"a": returns(big), "b": returns(big)}) as runtime:
        await runtime.submit("a, b -> z")
        execution = await runtime.wait_ended()
        (assignment,) = (each for each in runtime.workers.assigned if each.key.node_path == "z")
        assert assignment.input_json == ""
        content = runtime.store.contents["default", assignment.input_digest]
        assert assignment.input_size_bytes == len(content)
        assert json.loads(content) == {"a": "x" * 40_000, "b": "x" * 40_000}
        assert execution.record("a").output == execution.record("b").output


def a_megabyte(name: str) -> str:
    return json.dumps(name + "x" * (1024 * 1024 - 2 - len(name)))


@pytest.mark.parametrize("together", [True, False], ids=["in one step", "one by one"])
async def test_a_join_of_15_mib_is_put_together(autojump_clock: MockClock, together: bool) -> None:
    """DESIGN 7: whatever of it is in memory, in the append under way or in the store."""
    nodes = [f"n{number}" for number in range(15)]
    scripts = {
        node: returns(a_megabyte(node), 0 if together else number) for number, node in enumerate(nodes)
    }
    async with running(scripts=scripts) as runtime:
        runtime.gate.reads_yield = True
        await runtime.submit(f"{', '.join(nodes)} -> y, z")
        execution = await runtime.wait_ended(within_s=1_000)
        assert execution.state is ExecutionState.SUCCEEDED
        (assignment,) = (each for each in runtime.workers.assigned if each.key.node_path == "z")
        assert list(json.loads(runtime.store.contents["default", assignment.input_digest])) == nodes


async def test_an_output_of_more_than_16_mib_fails_the_execution(autojump_clock: MockClock) -> None:
    """DESIGN 7."""
    nodes = [f"n{number}" for number in range(17)]
    scripts = {node: returns(a_megabyte(node)) for node in nodes}
    async with running(scripts=scripts) as runtime:
        await runtime.submit(f"a -> {','.join(nodes)}")
        execution = await runtime.wait_ended(within_s=1_000)
        assert execution.failure is not None
        assert execution.failure.code == "EXPRESSION"


@pytest.mark.parametrize("join", ["ALL", "COLLECT"])
async def test_a_join_of_more_than_16_mib_fails_its_node_and_nothing_else(
    autojump_clock: MockClock, join: str
) -> None:
    """DESIGN 7: a join's input is at most 16 MiB; the server goes on."""
    nodes = [f"n{number}" for number in range(17)]
    scripts = {node: returns(a_megabyte(node)) for node in nodes}
    async with running(scripts=scripts) as runtime:
        await runtime.submit(f"node z join={join}; {', '.join(nodes)} -> z")
        execution = await runtime.wait_ended(within_s=1_000)
        record = execution.record("z")
        assert record.state is NodeState.FAILED
        assert record.failure is not None
        assert record.failure.code == "EXPRESSION"
        assert "limit" in record.failure.message
        await runtime.submit("a -> b", id="other")
        assert (await runtime.wait_ended("other")).state is ExecutionState.SUCCEEDED


async def test_a_large_locked_output_goes_by_digest(autojump_clock: MockClock) -> None:
    """C4: it may be 1 MiB, and an event at most 256 KiB."""
    big = '"' + "x" * 40_000 + '"'
    graph = build("a -> b")
    locked = replace(graph.nodes[0], locked=True, locked_output=big)
    async with running() as runtime:
        await runtime.submit(replace(graph, nodes=(locked, *graph.nodes[1:])))
        execution = await runtime.wait_ended()
        record = execution.record("a")
        assert (record.state, record.reason) == (NodeState.SKIPPED, "LOCKED")
        assert record.output is not None
        (assignment,) = runtime.workers.assigned
        assert assignment.input_digest == record.output.digest
        assert runtime.store.contents["default", record.output.digest].decode() == big


async def test_an_input_that_a_join_made_is_made_and_kept_once(autojump_clock: MockClock) -> None:
    """J2: the first attempt starts with what was made when its node began."""
    long = '"' + "x" * 40_000 + '"'
    async with running(scripts={"a": returns(long), "b": returns(long)}) as runtime:
        await runtime.submit("a, b -> c")
        await runtime.wait_ended()
        appended = [item.contents for batch in runtime.gate.batches for item in batch]
        sizes = [len(content) for contents in appended for content in contents.values()]
        assert sum(size > 80_000 for size in sizes) == 1
