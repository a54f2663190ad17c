"""F2, F3, S2.3: what expressions see, what they may give, and the execution's output."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from plait_server.adapters.expressions.inline import InlineOffload
from plait_server.core.definition.graph import Graph
from plait_server.core.json_text import JsonValue
from plait_server.core.run.states import ExecutionState, NodeState
from plait_server.ports.evaluator import ExpressionError, Helper, Work
from tests.core.graph_text import build
from tests.runtime.world import NAMESPACE, Script, fails, hangs, returns, running


def graph(text: str, *, inputs: Mapping[str, str] | None = None, output: str = "") -> Graph:
    """Build a graph with inputs and an output that hold spaces."""
    built = build(text)
    nodes = tuple(replace(node, input=(inputs or {}).get(node.id, node.input)) for node in built.nodes)
    return replace(built, nodes=nodes, output=output or built.output)


async def run_to_end(
    what: Graph | str, scripts: Mapping[str, Script], input_json: str = "null"
) -> dict[str, object]:
    async with running(scripts=scripts) as runtime:
        await runtime.submit(what, input=input_json)
        execution = await runtime.wait_ended()
        return {
            "state": execution.state,
            "output": json.loads(execution.output.json) if execution.output is not None else "absent",
            "code": execution.failure.code if execution.failure is not None else None,
            "message": execution.failure.message if execution.failure is not None else "",
            "inputs": {each.key.node_path: json.loads(each.input_json) for each in runtime.workers.assigned},
        }


async def test_variables_of_an_input(autojump_clock: MockClock) -> None:
    """DESIGN 4: input, execution, nodes; a string that is one expression yields its value."""
    template = json.dumps(
        {
            "whole": "{{ input }}",
            "text": "n is {{ nodes.a.output.n }}",
            "id": "{{ execution.id }}",
            "in": "{{ execution.input.k }}",
            "plain": [1, True],
        }
    )
    ended = await run_to_end(graph("a -> z", inputs={"z": template}), {"a": returns('{"n":3}')}, '{"k":"v"}')
    assert ended["inputs"]["z"] == {  # type: ignore[index] # JSON
        "whole": {"n": 3},
        "text": "n is 3",
        "id": "x",
        "in": "v",
        "plain": [1, True],
    }


async def test_an_absent_output_is_asked_with_has(autojump_clock: MockClock) -> None:
    """F3: of a node that FAILED, was skipped or has not ended."""
    template = '{"a":"{{ has(nodes.a.output) }}","b":"{{ has(nodes.b.output) }}"}'
    text = "policy CONTINUE; node z join=COLLECT; a, b -> z"
    ended = await run_to_end(graph(text, inputs={"z": template}), {"a": fails(), "b": returns("1")})
    assert ended["inputs"]["z"] == {"a": False, "b": True}  # type: ignore[index] # JSON


async def test_naming_an_absent_output_fails_the_node_without_an_attempt(autojump_clock: MockClock) -> None:
    """F3."""
    async with running(scripts={"a": fails()}) as runtime:
        await runtime.submit(graph("node z join=COLLECT; a, b -> z", inputs={"z": '"{{ nodes.a.output }}"'}))
        execution = await runtime.wait_ended()
        record = execution.record("z")
        assert record.state is NodeState.FAILED
        assert record.attempts == ()
        assert execution.failure is not None
        assert execution.failure.code == "EXPRESSION"


@pytest.mark.parametrize(
    ("setting", "scripts"),
    [
        ("on_error=IGNORE", {"a": fails()}),
        ("attempt_timeout=1 on_timeout=CONTINUE", {"a": hangs}),
    ],
    ids=["ignored", "continued"],
)
async def test_an_output_may_be_null(
    autojump_clock: MockClock, setting: str, scripts: dict[str, Script]
) -> None:
    """F3: under IGNORE and `on_timeout: CONTINUE` it is null, and there."""
    template = '{"is":"{{ has(nodes.a.output) }}","null":"{{ nodes.a.output == null }}"}'
    ended = await run_to_end(graph(f"node a {setting}; a -> z", inputs={"z": template}), scripts)
    assert ended["inputs"]["z"] == {"is": True, "null": True}  # type: ignore[index] # JSON


async def test_a_failure_can_be_named(autojump_clock: MockClock) -> None:
    """F3: the failure is `nodes.x.failure`."""
    ended = await run_to_end(
        graph("a -error-> z", inputs={"z": '"{{ nodes.a.failure.code }}"'}), {"a": fails("ABORTED")}
    )
    assert ended["inputs"]["z"] == "ABORTED"  # type: ignore[index] # JSON


@pytest.mark.parametrize("when", ["output.absent", "output.n", '"text"'])
async def test_a_when_that_gives_no_boolean_fails_its_node(autojump_clock: MockClock, when: str) -> None:
    """F2: decided together with its result, and not retried."""
    async with running(scripts={"a": returns('{"n":1}')}) as runtime:
        await runtime.submit(f"node a retry=5; a -> b when={when}")
        execution = await runtime.wait_ended()
        record = execution.record("a")
        assert record.state is NodeState.FAILED
        assert len(record.attempts) == 1
        assert record.failure is not None
        assert record.failure.code == "EXPRESSION"
        assert "a -> b" in record.failure.message


async def test_whens_choose_edges(autojump_clock: MockClock) -> None:
    ended = await run_to_end(
        "a -> b when=output.n>1; a -> c when=output.n<1; a -> d when=has(output.n)", {"a": returns('{"n":2}')}
    )
    assert sorted(ended["inputs"]) == ["a", "b", "d"]  # type: ignore[call-overload] # paths


async def test_on_an_error_edge_a_when_that_cannot_be_evaluated_is_false(autojump_clock: MockClock) -> None:
    """F2."""
    ended = await run_to_end(
        "a -error-> b when=output.absent.x==1; a -error-> c when=output.code=='UNKNOWN'", {"a": fails()}
    )
    assert sorted(ended["inputs"]) == ["a", "c"]  # type: ignore[call-overload] # paths
    assert ended["state"] is ExecutionState.SUCCEEDED


@pytest.mark.parametrize(
    ("kind", "word"),
    [("condition:input.n", "true or false"), ("switch:input.n:x,y", "string")],
    ids=["condition", "switch"],
)
async def test_a_condition_of_another_type_fails(autojump_clock: MockClock, kind: str, word: str) -> None:
    """Section 5: a condition's value must be a boolean, a switch's a string, else it FAILS (EXPRESSION)."""
    handle = "true" if kind.startswith("condition") else "x"
    ended = await run_to_end(f"node c kind={kind}; a -> c; c -{handle}-> b", {"a": returns('{"n":1}')})
    assert ended["state"] is ExecutionState.FAILED
    assert ended["code"] == "EXPRESSION"
    assert word in str(ended["message"])


async def test_a_switch_selects_its_case_or_default(autojump_clock: MockClock) -> None:
    text = "node s kind=switch:input:x,y; a -> s; s -x-> x; s -y-> y; s -default-> other"
    for value, chosen in (("x", "x"), ("y", "y"), ("z", "other")):
        ended = await run_to_end(text, {"a": returns(json.dumps(value))})
        assert sorted(ended["inputs"]) == sorted(["a", chosen])  # type: ignore[call-overload] # paths


# The output (S2.3).


@pytest.mark.parametrize(
    ("text", "scripts", "output"),
    [
        ("a -> b", {"b": returns("[1]")}, [1]),
        ("a -> b, c", {"b": returns("1"), "c": returns("2")}, {"b": 1, "c": 2}),
        ("policy CONTINUE; a -> b, c", {"b": returns("1"), "c": fails()}, {"b": 1}),
        ("node b locked=5; a -> b, c", {"c": returns("2")}, {"b": 5, "c": 2}),
        ("node b on_error=IGNORE; a -> b", {"b": fails()}, None),
        ("node k kind=condition:false; k -true-> b", {}, None),
        ("node k kind=condition:false; k -true-> b, c", {}, {}),
        ("policy CONTINUE collect_errors; a -> b", {"b": returns("1")}, {"output": 1, "errors": []}),
    ],
    ids=["one sink", "two", "one of two failed", "locked", "ignored", "dead", "all dead", "collect_errors"],
)
async def test_the_output_is_made_of_the_sinks(
    autojump_clock: MockClock, text: str, scripts: dict[str, Script], output: object
) -> None:
    """S2.3."""
    assert (await run_to_end(text, scripts))["output"] == output


async def test_collect_errors_adds_all_failures_in_order(autojump_clock: MockClock) -> None:
    """E5."""
    ended = await run_to_end(
        "policy CONTINUE collect_errors; a -> b; c -> d; e -> f",
        {"a": fails(after_s=2), "c": fails("OWN", after_s=1), "f": returns("6")},
    )
    assert ended["state"] is ExecutionState.PARTIALLY_SUCCEEDED
    output: Any = ended["output"]
    assert output["output"] == {"f": 6}
    assert [error["node_path"] for error in output["errors"]] == ["c", "a"]


async def test_the_graphs_output_is_evaluated(autojump_clock: MockClock) -> None:
    """S2.3: `input` is the execution's there."""
    ended = await run_to_end(
        graph("a -> b", output="{'sum': nodes.a.output + 1, 'in': input}"), {"a": returns("41")}, '"i"'
    )
    assert ended["output"] == {"sum": 42, "in": "i"}


async def test_an_output_that_cannot_be_evaluated_fails_the_execution(autojump_clock: MockClock) -> None:
    """S2.3."""
    ended = await run_to_end(graph("a -> b", output="nodes.a.output.x"), {"a": returns("1")})
    assert ended["state"] is ExecutionState.FAILED
    assert ended["code"] == "EXPRESSION"


# What cannot run in place.


class SlowOffload:
    """Evaluates as asked, some time later."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.turns = 0
        self.is_over = False
        self._inner = InlineOffload()

    @asynccontextmanager
    async def turn(self, namespace: str, execution_id: str) -> AsyncGenerator[Helper]:
        self.turns += 1
        try:
            yield self
        finally:
            self.turns -= 1

    async def run(self, work: Work, source: str, variables: Mapping[str, JsonValue]) -> str:
        self.asked.append(source)
        await trio.sleep(5)
        if "bad" in source:
            message = "took too long"
            raise ExpressionError(message)
        return await self._inner.run(work, source, variables)


LONG = json.dumps(list(range(3_000)))


async def test_what_is_not_cheap_is_offloaded_and_holds_nobody_up(autojump_clock: MockClock) -> None:
    """Port rule 6; meanwhile the execution takes other inputs."""
    offload = SlowOffload()
    async with running(scripts={"a": returns(LONG), "quick": returns("1", 2)}, offload=offload) as runtime:
        await runtime.submit(
            graph(
                "a -> z; quick -> next; node c kind=condition:input.exists(i,i==2999); a -> c; c -true-> end",
                inputs={"z": '"{{ size(input.map(i, i + 1)) }}"'},
            )
        )
        await trio.sleep(3)
        assert "next" in runtime.workers.paths
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        assert len(offload.asked) == 2
        (assignment,) = (each for each in runtime.workers.assigned if each.key.node_path == "z")
        assert assignment.input_json == "3000"


async def test_a_question_that_is_out_keeps_its_execution_awake(autojump_clock: MockClock) -> None:
    """R1: its node starts once it is answered, however far away the next timer is."""
    async with running(scripts={"a": returns(LONG)}, offload=SlowOffload()) as runtime:
        text = "node nap kind=delay:7200; a -> z"
        await runtime.submit(graph(text, inputs={"z": '"{{ size(input.map(i, i + 1)) }}"'}))
        await trio.sleep(10)
        assert runtime.workers.paths == ["a", "z"]


async def test_an_offload_that_fails_fails_the_node(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": returns(LONG)}, offload=SlowOffload()) as runtime:
        await runtime.submit(graph("a -> z", inputs={"z": '"{{ size(input.map(bad, bad + 1)) }}"'}))
        execution = await runtime.wait_ended()
        assert execution.failure is not None
        assert (execution.failure.code, execution.failure.message) == ("EXPRESSION", "took too long")
        assert execution.record("z").attempts == ()


async def test_a_cancel_during_an_offload_drops_its_answer(autojump_clock: MockClock) -> None:
    async with running(scripts={"a": returns(LONG)}, offload=SlowOffload()) as runtime:
        await runtime.submit(graph("a -> z", inputs={"z": '"{{ size(input.map(i, i + 1)) }}"'}))
        await trio.sleep(2)
        await runtime.cancel()
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.CANCELLED
        await trio.sleep(20)
        assert runtime.workers.paths == ["a"]
        assert runtime.supervisor.statistics().live == 0


async def test_few_evaluations_of_an_execution_are_out_at_once_and_its_end_drops_the_rest(
    autojump_clock: MockClock,
) -> None:
    """However many nodes need one: the others wait in the executor, without a task or a copy of what they see."""
    offload = SlowOffload()
    many = "; ".join(f"a -> z{number}" for number in range(50))
    inputs = {f"z{number}": '"{{ size(input.map(i, i + 1)) }}"' for number in range(50)}
    async with running(scripts={"a": returns(LONG), "quick": returns("1", 2)}, offload=offload) as runtime:
        await runtime.submit(graph(f"{many}; quick -> next", inputs=inputs))
        await trio.sleep(3)
        assert "next" in runtime.workers.paths
        assert len(offload.asked) == 2
        await trio.sleep(5)
        assert len(offload.asked) == 4
        assert offload.turns == 2
        await runtime.cancel()
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.CANCELLED
        await trio.sleep(0.1)
        assert runtime.supervisor.statistics().live == 0
        assert offload.turns == 0
        assert len(offload.asked) == 4


async def test_who_has_to_give_up_its_turn_takes_another(autojump_clock: MockClock) -> None:
    offload = SlowOffload()
    offload.is_over = True
    async with running(scripts={"a": returns(LONG)}, offload=offload) as runtime:
        await runtime.submit(
            graph("a -> y; a -> z", inputs=dict.fromkeys("yz", '"{{ size(input.map(i, i + 1)) }}"'))
        )
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        assert len(offload.asked) == 2


async def test_a_rendered_input_over_1_mib_fails_the_node(autojump_clock: MockClock) -> None:
    """DESIGN 7."""
    half = '"' + "x" * 600_000 + '"'
    async with running(scripts={"a": returns(half)}) as runtime:
        await runtime.submit(graph("a -> z", inputs={"z": '["{{ input }}","{{ input }}"]'}))
        execution = await runtime.wait_ended()
        assert execution.record("z").state is NodeState.FAILED
        assert execution.failure is not None
        assert execution.failure.code == "EXPRESSION"


async def test_inputs_are_read_again_after_a_restart(autojump_clock: MockClock) -> None:
    """A1: rendered inputs stand in events, joined ones follow from them; nothing is evaluated again."""
    big = '"' + "x" * 40_000 + '"'
    async with running(scripts={"a": returns(big), "j": hangs, "r": hangs}) as runtime:
        await runtime.submit(graph("a, b -> j; a -> r", inputs={"r": '{"got":"{{ input }}"}'}))
        await trio.sleep(1)
        before = {each.key.node_path: each for each in runtime.workers.assigned}
        runtime.crash()
    async with running(runtime.store) as again:
        again.gate.reads_yield = True
        await again.wait_ended()
        after = {each.key.node_path: each for each in again.workers.assigned}
        for path in ("j", "r"):
            assert after[path]._replace(recovered=False) == before[path]
        assert (NAMESPACE, after["j"].input_digest) in again.store.contents
