"""The gate: few inside at once, in order, and nobody who waits for a peer holds up the others."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.runtime.pacing import AT_ONCE, HOLD_S, Gate


class Crowd:
    """Tasks that go through a gate and stay inside until they are let out."""

    def __init__(self, gate: Gate, nursery: trio.Nursery) -> None:
        self._gate = gate
        self._nursery = nursery
        self.came_in: list[int] = []
        self.went_out: list[int] = []
        self.exits: dict[int, trio.Event] = {}
        self.scopes: dict[int, trio.CancelScope] = {}

    async def add(self, count: int) -> None:
        for _ in range(count):
            number = len(self.exits)
            self.exits[number], self.scopes[number] = trio.Event(), trio.CancelScope()
            self._nursery.start_soon(self._pass, number)
            await wait_all_tasks_blocked()

    async def let_out(self, number: int) -> None:
        self.exits[number].set()
        await wait_all_tasks_blocked()

    async def _pass(self, number: int) -> None:
        with self.scopes[number]:
            async with self._gate.passing():
                self.came_in.append(number)
                await self.exits[number].wait()
            self.went_out.append(number)


async def test_few_are_inside_at_once_and_they_come_in_order() -> None:
    async with trio.open_nursery() as nursery:
        crowd = Crowd(Gate(), nursery)
        await crowd.add(AT_ONCE + 3)
        assert crowd.came_in == list(range(AT_ONCE))
        for number in (5, 0):
            await crowd.let_out(number)
        assert crowd.came_in == list(range(AT_ONCE + 2))
        nursery.cancel_scope.cancel()


async def test_one_that_stays_long_holds_nobody_up(autojump_clock: MockClock) -> None:
    """A slow watcher slows nobody (A3): after HOLD_S its place is another's."""
    async with trio.open_nursery() as nursery:
        crowd = Crowd(Gate(), nursery)
        nursery.start_soon(crowd.add, 3 * AT_ONCE)
        await trio.sleep(HOLD_S * 1.5)
        assert len(crowd.came_in) == 2 * AT_ONCE
        await trio.sleep(HOLD_S)
        assert crowd.came_in == list(range(3 * AT_ONCE))
        for number in range(3 * AT_ONCE):
            crowd.exits[number].set()
    assert len(crowd.went_out) == 3 * AT_ONCE


async def test_those_who_are_cancelled_while_they_wait_are_passed_over() -> None:
    """The one at the gate, and one behind it: neither takes the turn of the others with it."""
    async with trio.open_nursery() as nursery:
        crowd = Crowd(Gate(), nursery)
        await crowd.add(AT_ONCE + 4)
        for number in (AT_ONCE, AT_ONCE + 2):
            crowd.scopes[number].cancel()
        await crowd.let_out(0)
        await crowd.let_out(1)
        assert crowd.came_in[AT_ONCE:] == [AT_ONCE + 1, AT_ONCE + 3]
        nursery.cancel_scope.cancel()
