"""Turns: share a few places fairly between keys.

If no place is free, a caller waits in the queue of its key. Free places go to the waiting keys in rotation, so that a
thousand callers of one key delay the first of another by one turn. The queues are bounded in number and weight, and
one key to half of that, so that it can neither fill the memory nor lock the others out.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio


class NoTurn(Exception):
    """Too many callers are waiting already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStatistics:
    """A snapshot of the turns."""

    running: int
    """Places in use."""
    waiting: int
    """Callers that wait for a place."""
    waiting_weight: int
    """The total weight of the waiting callers that may be refused."""


@dataclass(eq=False, slots=True)
class _Waiter:
    weight: int
    """Its weight against the bounds; 0 if it may not be refused."""
    is_bounded: bool
    granted: trio.Event


class Turns:
    """Assigns places to callers.

    Args:
        places: How many may be in use at once.
        waiting_max: How many callers may wait; for one key, half as many.
        weight_max: The most that waiting callers may weigh together; for one key, half as much.
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
            weight: Its weight while it waits.
            is_bounded: Whether it may be refused, and counts against the bounds. Callers on behalf of an execution
                are bounded elsewhere.

        Raises:
            NoTurn: Too many callers are waiting already.
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
