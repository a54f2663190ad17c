"""The gathering of results: what waits, how long, and what does not wait."""

from __future__ import annotations

import itertools

import trio
from trio.testing import MockClock

from plait_server.core.run.states import ExecutionState
from plait_server.runtime.gathering import (
    ATTEMPTS_FEW,
    GATHER_S,
    GATHER_S_MAX,
    INPUTS_ENOUGH,
    MANY_S,
    RESULTS_MANY,
    Gathering,
)
from tests.runtime.world import returns, running


def busy() -> Gathering:
    """Make one at which results just came, of more attempts than few."""
    gathering = Gathering()
    gathering.attempts = ATTEMPTS_FEW + 1
    for _ in range(RESULTS_MANY):
        gathering.note_result()
    return gathering


async def waited_s(gathering: Gathering, inputs: int = 1) -> float:
    begun_s = trio.current_time()
    await gathering.wait(inputs)
    return trio.current_time() - begun_s


async def test_a_step_waits_once_when_nothing_more_comes(autojump_clock: MockClock) -> None:
    assert await waited_s(busy()) == GATHER_S


async def test_a_step_waits_while_results_come_but_not_for_ever(autojump_clock: MockClock) -> None:
    gathering = busy()
    async with trio.open_nursery() as nursery:

        async def keep_coming() -> None:
            while True:
                await trio.sleep(GATHER_S / 2)
                gathering.note_result()

        nursery.start_soon(keep_coming)
        assert abs(await waited_s(gathering) - GATHER_S_MAX) < 1e-9
        nursery.cancel_scope.cancel()


async def test_those_that_wait_go_on_in_one_instant(autojump_clock: MockClock) -> None:
    gathering = busy()
    went_s: list[float] = []

    async def wait_after(delay_s: float) -> None:
        await trio.sleep(delay_s)
        await gathering.wait(1)
        went_s.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(wait_after, number * GATHER_S / 8)
    assert len(set(went_s)) == 1


async def test_the_others_go_on_when_the_first_is_cancelled(autojump_clock: MockClock) -> None:
    gathering = busy()
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as scope:
            nursery.start_soon(gathering.wait, 1)
            scope.cancel()
            await gathering.wait(1)
    assert await waited_s(gathering) <= GATHER_S


async def test_few_attempts_few_results_or_many_inputs_do_not_wait(autojump_clock: MockClock) -> None:
    """The three cases in which nobody waits."""
    gathering = busy()
    gathering.attempts = ATTEMPTS_FEW
    assert await waited_s(gathering) == 0
    assert await waited_s(busy(), INPUTS_ENOUGH) == 0
    gathering = busy()
    await trio.sleep(2 * MANY_S)
    assert await waited_s(gathering) == 0


async def test_results_at_many_moments_share_an_append(autojump_clock: MockClock) -> None:
    names = [f"n{number}" for number in range(20)]
    scripts = {name: returns("1", 1 + number * GATHER_S / 4) for number, name in enumerate(names)}
    async with running(scripts=scripts) as runtime:
        await runtime.submit(", ".join(names) + " -> last")
        execution = await runtime.wait_ended()
        assert execution.state is ExecutionState.SUCCEEDED
        # 20 results in 1.25 ms, one by one, and some steps before and after.
        assert len(runtime.gate.batches) < 15
        runtime.assert_nothing_is_held()
        assert runtime.committer.gathering.attempts == 0


async def test_a_chain_takes_no_longer(autojump_clock: MockClock) -> None:
    async with running(scripts={name: returns("1") for name in "abcdefgh"}) as runtime:
        await runtime.supervisor.wait_whole()
        await runtime.submit("\n".join(f"{a} -> {b}" for a, b in itertools.pairwise("abcdefgh")))
        await runtime.wait_ended()
        events = runtime.events()
        assert events[-1].time_s == events[0].time_s
