"""Locations: the single owner of where each open or damaged execution is.

An execution has at most one location. One without a location has ended or was never submitted; only the journal
knows which. Each location carries all that is needed to continue from there, so moving an execution is one
assignment, and no other state has to be updated with it.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from itertools import count
from typing import Final, NamedTuple, TypeAlias

import trio

from plait_server.errors import EventDamaged
from plait_server.runtime.admission import Queued
from plait_server.runtime.executor import Executor

_SPARE_ENTRIES: Final = 16
"""Outdated entries of the heap that are always allowed, so that a small heap is not rebuilt all the time."""

Key: TypeAlias = tuple[str, str]
"""Namespace and execution id."""


class Live(NamedTuple):
    """It is run by an executor."""

    executor: Executor
    owner_epoch: int


class Asleep(NamedTuple):
    """It waits for a time far in the future; it exists only in the journal."""

    owner_epoch: int
    last_sequence: int
    due_time_s: float
    """The wall time at which it has to continue."""


class Unread(NamedTuple):
    """It was open when the server started and has not been read back yet."""

    owner_epoch: int


class Loading(NamedTuple):
    """It is being read back, and gets another location when that is done."""

    owner_epoch: int
    moved: trio.Event
    """Set when it gets another location."""


class Damaged(NamedTuple):
    """It is quarantined (K4)."""

    error: EventDamaged


Location: TypeAlias = Live | Queued | Asleep | Unread | Loading | Damaged


class Locations:
    """The location of every execution that has one."""

    def __init__(self) -> None:
        self._locations: dict[Key, Location] = {}
        self._counts: Counter[type[Location]] = Counter()
        self._unread: deque[Key] = deque()
        """In the order in which they were added; some may have other locations by now."""
        self._sleepers: list[tuple[float, int, Key, Asleep | Queued]] = []
        """A heap of those with a due time, by that; some may have other locations by now."""
        self._awaited: dict[Key, trio.Event] = {}
        """Set when the execution gets another location."""
        self._order = count()

    def __repr__(self) -> str:
        counts = ", ".join(f"{number} {kind.__name__.lower()}" for kind, number in self._counts.items())
        return f"<Locations {counts}>"

    def get(self, key: Key) -> Location | None:
        """Return the location of an execution; None if it has ended or does not exist."""
        return self._locations.get(key)

    def count(self, kind: type[Location]) -> int:
        """Return how many executions have this kind of location."""
        return self._counts[kind]

    def executor(self, key: Key) -> Executor | None:
        """Return the executor of a live execution; None if it is not live."""
        location = self._locations.get(key)
        return location.executor if isinstance(location, Live) else None

    def put(self, key: Key, location: Location) -> None:
        """Move an execution; wake the callers that wait for it to be loaded."""
        self.remove(key)
        self._locations[key] = location
        self._counts[type(location)] += 1
        if isinstance(location, Unread):
            self._unread.append(key)
        elif isinstance(location, (Asleep, Queued)) and location.due_time_s is not None:
            heapq.heappush(self._sleepers, (location.due_time_s, next(self._order), key, location))
            self._trim_sleepers()

    def remove(self, key: Key) -> None:
        """Forget the location of an execution, because it has ended. Idempotent."""
        location = self._locations.pop(key, None)
        if location is not None:
            self._counts[type(location)] -= 1
            if isinstance(location, Loading):
                location.moved.set()
            elif isinstance(location, Queued):
                location.leave()
        if (awaited := self._awaited.pop(key, None)) is not None:
            awaited.set()

    async def wait_moved(self, key: Key) -> None:
        """Wait until an execution gets another location, or loses the one that it has."""
        awaited = self._awaited.setdefault(key, trio.Event())
        try:
            await awaited.wait()
        finally:
            if not awaited.statistics().tasks_waiting and self._awaited.get(key) is awaited:
                del self._awaited[key]

    def first_unread(self) -> Key | None:
        """Return the execution that has been unread for longest; None if all are read."""
        while self._unread:
            if isinstance(self._locations.get(self._unread[0]), Unread):
                return self._unread[0]
            self._unread.popleft()
        return None

    def loading(self) -> list[Loading]:
        """Return the executions that are being read back."""
        return [each for each in self._locations.values() if isinstance(each, Loading)]

    def first_due(self) -> tuple[Key, float] | None:
        """Return the sleeping or queued execution that is due first, and its due time; None if none has one."""
        while self._sleepers:
            due_time_s, _, key, location = self._sleepers[0]
            if self._locations.get(key) is location:
                return key, due_time_s
            heapq.heappop(self._sleepers)
        return None

    def _trim_sleepers(self) -> None:
        if len(self._sleepers) > 2 * (self._counts[Asleep] + self._counts[Queued]) + _SPARE_ENTRIES:
            self._sleepers = [each for each in self._sleepers if self._locations.get(each[2]) is each[3]]
            heapq.heapify(self._sleepers)
