"""Turns go round the keys; who waits is bounded."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from plait_server.adapters.turns import NoTurn, Turns


class Stage:
    """Turns that are taken by name, and ended when told."""

    def __init__(self, turns: Turns, nursery: trio.Nursery) -> None:
        self.turns = turns
        self.nursery = nursery
        self.begun: list[str] = []
        self.ends: dict[str, trio.Event] = {}
        self.scopes: dict[str, trio.CancelScope] = {}

    async def ask(self, *names: str) -> None:
        """Ask for turns, one after the other; the key is the first letter."""
        for name in names:
            self.nursery.start_soon(self._take, name)
            await wait_all_tasks_blocked()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await wait_all_tasks_blocked()

    async def _take(self, name: str) -> None:
        self.ends[name], self.scopes[name] = trio.Event(), trio.CancelScope()
        with self.scopes[name]:
            async with self.turns.turn(name[0], 1, is_bounded=not name.endswith("!")):
                self.begun.append(name)
                await self.ends[name].wait()


async def test_free_places_go_round_the_keys() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(Turns(1, waiting_max=100, weight_max=100), nursery)
        await stage.ask("a1", "a2", "a3", "a4", "b1", "b2", "c1")
        for _ in range(7):
            await stage.end(stage.begun[-1])
        assert stage.begun == ["a1", "a2", "b1", "c1", "a3", "b2", "a4"]
        assert stage.turns.statistics().running == 0


async def test_one_key_waits_in_half_of_the_queue_alone() -> None:
    async with trio.open_nursery() as nursery:
        turns = Turns(1, waiting_max=4, weight_max=100)
        stage = Stage(turns, nursery)
        await stage.ask("a1", "a2", "a3")
        with pytest.raises(NoTurn):
            await turns._take("a", 1)
        await stage.ask("b1", "c1")
        with pytest.raises(NoTurn):
            await turns._take("d", 1)
        assert turns.statistics().waiting == 4
        nursery.cancel_scope.cancel()


async def test_what_waits_is_bounded_by_weight() -> None:
    async with trio.open_nursery() as nursery:
        turns = Turns(1, waiting_max=100, weight_max=10)
        stage = Stage(turns, nursery)
        await stage.ask("a1", "a2")
        with pytest.raises(NoTurn):
            await turns._take("a", 5)
        with pytest.raises(NoTurn):
            await turns._take("b", 6)
        nursery.cancel_scope.cancel()


async def test_those_who_cannot_be_refused_keep_nobody_from_waiting() -> None:
    async with trio.open_nursery() as nursery:
        turns = Turns(1, waiting_max=4, weight_max=4)
        stage = Stage(turns, nursery)
        await stage.ask("a1", "a2!", "a3!", "a4!", "a5!", "a6!", "b1", "a7", "a8")
        assert (turns.statistics().waiting, turns.statistics().waiting_weight) == (8, 3)
        with pytest.raises(NoTurn):
            await turns._take("a", 1)
        stage.scopes["a3!"].cancel()
        for _ in range(8):
            await stage.end(stage.begun[-1])
        assert stage.begun == ["a1", "a2!", "b1", "a4!", "a5!", "a6!", "a7", "a8"]
        assert (turns.statistics().waiting, turns.statistics().waiting_weight) == (0, 0)


async def test_who_is_cancelled_leaves_no_trace() -> None:
    async with trio.open_nursery() as nursery:
        stage = Stage(Turns(1, waiting_max=100, weight_max=100), nursery)
        await stage.ask("a1", "a2", "b1")
        stage.scopes["a2"].cancel()
        await wait_all_tasks_blocked()
        assert stage.turns.statistics().waiting == 1
        stage.ends["a1"].set()
        stage.scopes["b1"].cancel()  # In the instant in which it is granted.
        await wait_all_tasks_blocked()
        await stage.ask("c1")
        assert stage.begun[-1] == "c1"
        await stage.end("c1")
        assert stage.turns.statistics().running == 0
