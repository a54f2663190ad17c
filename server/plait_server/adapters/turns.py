"""Turns: who may use one of a few places next, fairly between keys.

Whoever finds no place free waits in the queue of its key; free places go round the keys that have somebody
waiting, so that a thousand of one key delay the first of another by one turn. The queues are bounded in number
and weight, a key to half of it: one key can neither fill the memory nor keep the others out.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio


class NoTurn(Exception):
    """Too many wait already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStatistics:
    """A snapshot of the turns."""

    running: int
    """Places in use."""
    waiting: int
    """Turns that wait for a place."""
    waiting_weight: int
    """The weight of those that may be refused."""


@dataclass(eq=False, slots=True)
class _Waiter:
    weight: int
    """What it counts against the bounds; 0 if it may not be refused."""
    is_bounded: bool
    granted: trio.Event


class Turns:
    """Hands out places.

    Args:
        places: How many may be in use at once.
        waiting_max: How many may wait, of one key half as many.
        weight_max: What those who wait may weigh together, of one key half as much.
    """

    def __init__(self, places: int, *, waiting_max: int, weight_max: int) -> None:
        self._free = places
        self._places = places
        self._waiting_max = waiting_max
        self._weight_max = weight_max
        self._queues: OrderedDict[str, deque[_Waiter]] = OrderedDict()
        self._waiting = self._bounded = self._weight = 0

    def __repr__(self) -> str:
        return f"<Turns {self.statistics()}>"

    def statistics(self) -> TurnStatistics:
        """Take a snapshot."""
        return TurnStatistics(
            running=self._places - self._free, waiting=self._waiting, waiting_weight=self._weight
        )

    @asynccontextmanager
    async def turn(self, key: str, weight: int, *, is_bounded: bool = True) -> AsyncGenerator[None]:
        """Hold a place, once it is this key's turn.

        Args:
            key: Whose turn it is.
            weight: What it weighs while it waits.
            is_bounded: Whether it may be refused, and counts when others are. What waits on behalf of an execution is
                bounded elsewhere.

        Raises:
            NoTurn: too many wait already.
        """
        await self._take(key, weight, is_bounded=is_bounded)
        try:
            yield
        finally:
            self._give_back()

    async def _take(self, key: str, weight: int, *, is_bounded: bool = True) -> None:
        if self._free and not self._queues:
            self._free -= 1
            return
        queue = self._queues.get(key, deque[_Waiter]())
        if is_bounded:
            own = [waiter.weight for waiter in queue if waiter.is_bounded]
            if (
                self._bounded >= self._waiting_max
                or self._weight + weight > self._weight_max
                or 2 * len(own) >= self._waiting_max
                or 2 * (sum(own) + weight) > self._weight_max
            ):
                raise NoTurn
        self._queues.setdefault(key, queue)
        waiter = _Waiter(weight if is_bounded else 0, is_bounded, trio.Event())
        queue.append(waiter)
        self._waiting += 1
        self._bounded += is_bounded
        self._weight += waiter.weight
        try:
            await waiter.granted.wait()
        except trio.Cancelled:
            if waiter.granted.is_set():
                self._give_back()
            else:
                self._forget(key, waiter)
            raise

    def _give_back(self) -> None:
        if not self._queues:
            self._free += 1
            return
        key, queue = next(iter(self._queues.items()))
        waiter = queue[0]
        self._queues.move_to_end(key)
        self._forget(key, waiter)
        waiter.granted.set()

    def _forget(self, key: str, waiter: _Waiter) -> None:
        queue = self._queues[key]
        queue.remove(waiter)
        if not queue:
            del self._queues[key]
        self._waiting -= 1
        self._bounded -= waiter.is_bounded
        self._weight -= waiter.weight
