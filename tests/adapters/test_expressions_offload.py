"""The helper process: what is done in it, and that nothing in it can last or grow."""

import os
from pathlib import Path

import pytest
import trio

from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.expressions.offload import ProcessOffload
from plait_server.core.json_text import JsonValue
from plait_server.ports.evaluator import ExpressionError, Offload, Work

EVALUATOR = CelEvaluator()
LONG: dict[str, JsonValue] = {"input": list(range(3000))}
DOUBLING = "[[1]]" + ".map(x, x + x)" * 27 + "[0].size()"


def offload(deadline_s: float = 60.0, processes: int = 2) -> ProcessOffload:
    """Return one whose deadline a slow machine meets."""
    return ProcessOffload(EVALUATOR, deadline_s=deadline_s, processes=processes)


async def run_in(helper: Offload, source: str, variables: dict[str, JsonValue]) -> str:
    """Evaluate in a turn of its own."""
    async with helper.turn("default", "x") as turn:
        return await turn.run(Work.EVALUATE, source, variables)


async def test_an_expression_is_evaluated_and_its_value_comes_back() -> None:
    helper = offload()
    port: Offload = helper
    text = await run_in(port, "{'é': input.map(x, x * 2).size(), 'n': null}", LONG)
    assert text == '{"n":null,"é":3000}'
    assert helper.statistics().finished == 1


async def test_what_is_evaluated_in_one_turn_shares_a_process() -> None:
    helper = offload()
    async with helper.turn("default", "x") as turn:
        assert await turn.run(Work.EVALUATE, "input.map(x, x + 1)[2999]", LONG) == "3000"
        with pytest.raises(ExpressionError, match="input has no key"):
            await turn.run(Work.EVALUATE, "input.x + 1", {"input": {}})
        document = '{"n": "{{ input.map(x, x).size() }}", "s": "{{ input[0] }}"}'
        assert await turn.run(Work.RENDER, document, LONG) == '{"n": 3000, "s": 0}'
        long = await turn.run(Work.EVALUATE, "input + '\\n'", {"input": "x" * 1_000_000})
        assert len(long) == 1_000_004
    assert (helper.statistics().started, helper.statistics().finished) == (1, 4)


async def test_another_turn_has_another_process() -> None:
    """Nothing of one execution is left for another."""
    helper = offload()
    before = _children()
    assert await run_in(helper, "1 + 1", {}) == "2"
    assert _children() <= before
    assert await run_in(helper, "1 + 2", {}) == "3"
    assert helper.statistics().started == 2


async def test_an_error_comes_back_as_it_is_in_place() -> None:
    with pytest.raises(ExpressionError, match=r"input has no key 'x'; .*: in `input.x \+ 1`"):
        await run_in(offload(), "input.x + 1", {"input": {}})
    with pytest.raises(ExpressionError, match="there is no variable 'foo'"):
        await run_in(offload(), "foo", {})


async def test_loops_beyond_ten_thousand_rounds_are_refused() -> None:
    with pytest.raises(
        ExpressionError, match="its loops take more than 10,000 rounds; let a worker compute it"
    ):
        await run_in(offload(), "input.all(x, input.all(y, x + y >= 0))", LONG)


async def test_only_what_is_read_is_sent() -> None:
    """The rest could not even be written as JSON."""
    endless: list[JsonValue] = []
    endless.append(endless)
    variables: dict[str, JsonValue] = {
        "input": {"a": 1, "b": endless},
        "nodes": {"n": {"output": endless}, "m": {"output": 2}},
    }
    async with offload().turn("default", "x") as turn:
        assert await turn.run(Work.EVALUATE, "input.a + nodes.m.output", variables) == "3"
        assert await turn.run(Work.RENDER, '["{{ input.a }}"]', variables) == "[1]"


async def test_at_its_deadline_a_process_is_killed() -> None:
    helper = offload(deadline_s=0.05)
    before = _children()
    with pytest.raises(
        ExpressionError, match=r"it takes longer than 0.05 s; let a worker compute it: in `\[\["
    ):
        await run_in(helper, DOUBLING, {})
    assert helper.statistics().stopped == 1
    assert helper.statistics().running == 0
    assert _children() <= before


async def test_at_the_end_of_its_processor_time_a_process_ends() -> None:
    helper = ProcessOffload(EVALUATOR, cpu_s=0, deadline_s=60.0)

    async def evaluate_without_end() -> None:
        async with helper.turn("default", "x") as turn:
            while True:
                await turn.run(Work.EVALUATE, "input.map(x, input.map(y, y))", {"input": list(range(99))})

    with pytest.raises(ExpressionError, match="it takes longer than 0 s of processor time; let a worker"):
        await evaluate_without_end()
    assert helper.statistics().started == 1


async def test_at_its_memory_limit_an_evaluation_ends() -> None:
    with pytest.raises(ExpressionError, match="memory"):
        await run_in(offload(), DOUBLING, {})


async def test_a_process_that_dies_for_lack_of_memory_is_reported() -> None:
    helper = ProcessOffload(EVALUATOR, deadline_s=60, memory_bytes=1024 * 1024)
    with pytest.raises(ExpressionError, match="memory"):
        await run_in(helper, DOUBLING, {})


async def test_after_one_that_was_ended_the_turn_goes_on_in_another_process() -> None:
    helper = offload(deadline_s=60.0)
    async with helper.turn("default", "x") as turn:
        assert await turn.run(Work.EVALUATE, "1 + 1", {}) == "2"
        with pytest.raises(ExpressionError, match="memory"):
            await turn.run(Work.EVALUATE, DOUBLING, {})
        assert await turn.run(Work.EVALUATE, "1 + 2", {}) == "3"
    statistics = helper.statistics()
    # It was tried in a process of its own too: what others left behind must not decide.
    assert (statistics.started, statistics.stopped, statistics.finished) == (3, 1, 2)


async def test_a_turn_is_over_when_others_wait_for_long_enough(
    autojump_clock: trio.testing.MockClock,
) -> None:
    helper = ProcessOffload(EVALUATOR, processes=1, turn_s=0.25)
    order: list[str] = []

    async def hold(name: str) -> None:
        async with helper.turn(name, "x") as turn:
            order.append(name)
            assert not turn.is_over
            await trio.sleep(0.25)
            assert turn.is_over == (name == "first")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold, "first")
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(hold, "second")
    assert order == ["first", "second"]


async def test_a_cancelled_caller_leaves_no_process() -> None:
    helper = offload()
    before = _children()
    with trio.move_on_after(0.2) as scope:
        await run_in(helper, DOUBLING, LONG)
    assert scope.cancelled_caught
    assert _children() <= before
    assert helper.statistics().running == 0


async def test_only_so_many_processes_run_at_once() -> None:
    helper = offload(processes=1)
    texts: list[str] = []

    async def evaluate(number: int) -> None:
        texts.append(await run_in(helper, f"{number} + input", {"input": 0}))

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
    assert await run_in(offload(), "1 + 1", {}) == "2"


def _children() -> frozenset[str]:
    """Return the processes that were started and not yet seen to their end; none where there is no /proc."""
    lists = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return frozenset(child for path in lists for child in path.read_text(encoding="ascii").split())
