"""Places: round the namespaces, within one round its executions."""

from __future__ import annotations

import trio
from trio.testing import wait_all_tasks_blocked

from plait_server.adapters.expressions.places import Places


class Line:
    """Records who asked for the only place, and in which order they got it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.places = Places(1)
        self.order: list[str] = []
        self._nursery = nursery

    async def ask(self, namespace: str, execution_id: str, times: int = 1) -> None:
        for _ in range(times):
            self._nursery.start_soon(self._hold, namespace, execution_id)
            await wait_all_tasks_blocked()

    async def _hold(self, namespace: str, execution_id: str) -> None:
        await self.places.acquire(namespace, execution_id)
        self.order.append(f"{namespace}.{execution_id}")
        await trio.lowlevel.checkpoint()
        self.places.release()


async def test_places_go_round_namespaces_then_executions() -> None:
    async with trio.open_nursery() as nursery:
        line = Line(nursery)
        await line.places.acquire("one", "a")
        await line.ask("one", "a", times=3)
        await line.ask("one", "b", times=2)
        await line.ask("two", "c", times=2)
        assert (line.places.running, line.places.waiting) == (1, 7)
        line.places.release()
    assert line.order == ["one.a", "two.c", "one.b", "two.c", "one.a", "one.b", "one.a"]
    assert (line.places.running, line.places.waiting) == (0, 0)


async def test_who_gives_up_waiting_leaves_nothing() -> None:
    places = Places(1)
    await places.acquire("one", "a")
    with trio.move_on_after(0) as scope:
        await places.acquire("one", "a")
    assert scope.cancelled_caught
    assert places.waiting == 0
    places.release()
    assert places.running == 0


async def test_a_place_that_is_given_to_one_who_gives_up_goes_on() -> None:
    order: list[str] = []
    places = Places(1)
    scope = trio.CancelScope()

    async def give_up() -> None:
        with scope:
            await places.acquire("one", "a")
            order.append("gave up")

    async def wait() -> None:
        await places.acquire("one", "b")
        order.append("waited")

    await places.acquire("one", "x")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(give_up)
        await wait_all_tasks_blocked()
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        scope.cancel()
        places.release()
    assert order == ["waited"]
    assert places.running == 1
