"""The helper process: what is done in it, and that nothing in it can last or grow."""

import os
from pathlib import Path

import pytest
import trio

from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.expressions.offload import ProcessOffload
from plait_server.core.json_text import JsonValue
from plait_server.ports.evaluator import (
    ExpressionError,
    Offload,
    Work,
    evaluate_anywhere,
    render_anywhere,
)

EVALUATOR = CelEvaluator()
LONG: dict[str, JsonValue] = {"input": list(range(3000))}
DOUBLING = "[[1]]" + ".map(x, x + x)" * 27 + "[0].size()"


def offload(deadline_s: float = 60.0, processes: int = 2) -> ProcessOffload:
    """Give one whose deadline a slow machine meets."""
    return ProcessOffload(EVALUATOR, deadline_s=deadline_s, processes=processes)


async def test_an_expression_is_evaluated_and_its_value_comes_back() -> None:
    helper = offload()
    port: Offload = helper
    text = await port.run(Work.EVALUATE, "{'é': input.map(x, x * 2).size(), 'n': null}", LONG)
    assert text == '{"n":null,"é":3000}'
    assert helper.statistics().finished == 1


async def test_what_needs_it_goes_there() -> None:
    value = await evaluate_anywhere(EVALUATOR.compile("input.map(x, x + 1)"), LONG, offload())
    assert value == list(range(1, 3001))
    template = EVALUATOR.compile_template('{"n": "{{ input.map(x, x).size() }}", "s": "{{ input[0] }}"}')
    assert await render_anywhere(template, LONG, offload()) == '{"n": 3000, "s": 0}'


async def test_an_error_comes_back_as_it_is_in_place() -> None:
    with pytest.raises(ExpressionError, match=r"input has no key 'x'; .*: in `input.x \+ 1`"):
        await offload().run(Work.EVALUATE, "input.x + 1", {"input": {}})
    with pytest.raises(ExpressionError, match="there is no variable 'foo'"):
        await offload().run(Work.EVALUATE, "foo", {})


async def test_loops_beyond_ten_thousand_rounds_are_refused() -> None:
    with pytest.raises(
        ExpressionError, match="its loops take more than 10,000 rounds; let a worker compute it"
    ):
        await offload().run(Work.EVALUATE, "input.all(x, input.all(y, x + y >= 0))", LONG)


async def test_only_what_is_read_is_sent() -> None:
    """The rest could not even be written as JSON."""
    endless: list[JsonValue] = []
    endless.append(endless)
    variables: dict[str, JsonValue] = {
        "input": {"a": 1, "b": endless},
        "nodes": {"n": {"output": endless}, "m": {"output": 2}},
    }
    assert await offload().run(Work.EVALUATE, "input.a + nodes.m.output", variables) == "3"
    assert await offload().run(Work.RENDER, '["{{ input.a }}"]', variables) == "[1]"


async def test_at_its_deadline_a_process_is_killed() -> None:
    helper = offload(deadline_s=0.05)
    before = _children()
    with pytest.raises(
        ExpressionError, match=r"it takes longer than 0.05 s; let a worker compute it: in `\[\["
    ):
        await helper.run(Work.EVALUATE, DOUBLING, {})
    assert helper.statistics().stopped == 1
    assert helper.statistics().running == 0
    assert _children() <= before


async def test_at_its_memory_limit_an_evaluation_ends() -> None:
    with pytest.raises(ExpressionError, match="memory"):
        await offload().run(Work.EVALUATE, DOUBLING, {})


async def test_a_process_that_dies_for_lack_of_memory_is_reported() -> None:
    helper = ProcessOffload(EVALUATOR, deadline_s=60, memory_bytes=1024 * 1024)
    with pytest.raises(ExpressionError, match="memory"):
        await helper.run(Work.EVALUATE, DOUBLING, {})


async def test_a_cancelled_caller_leaves_no_process() -> None:
    helper = offload()
    before = _children()
    with trio.move_on_after(0.2) as scope:
        await helper.run(Work.EVALUATE, DOUBLING, LONG)
    assert scope.cancelled_caught
    assert _children() <= before
    assert helper.statistics().running == 0


async def test_only_so_many_processes_run_at_once() -> None:
    helper = offload(processes=1)
    texts: list[str] = []

    async def evaluate(number: int) -> None:
        texts.append(await helper.run(Work.EVALUATE, f"{number} + input", {"input": 0}))

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(evaluate, number)
        await trio.testing.wait_all_tasks_blocked()
        assert (helper.statistics().running, helper.statistics().waiting) == (1, 2)
        assert "waiting=2" in repr(helper)
    assert sorted(texts) == ["0", "1", "2"]
    assert helper.statistics().finished == 3


async def test_the_process_has_nothing_of_the_service_s_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that would stop the interpreter from starting does not reach it."""
    monkeypatch.setenv("PYTHONHOME", "/nowhere")
    assert await offload().run(Work.EVALUATE, "1 + 1", {}) == "2"


def _children() -> frozenset[str]:
    """Give the processes that were started and not yet seen to their end; none where there is no /proc."""
    lists = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return frozenset(child for path in lists for child in path.read_text(encoding="ascii").split())
