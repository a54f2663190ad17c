"""What is to be decided next in an execution: J5's order, over all its scopes (N4).

The first of these that has something goes on:

- `skips`: nodes whose join says SKIPPED, in the order of the decisions;
- `racing`: scopes in which nobody waits for some nodes any more (J1), to be cancelled together;
- `sweeping`: scopes that an unhandled failure stopped (E4), whose other nodes have not been put back yet;
- scopes that may be over, the innermost first;
- `decided`: the other nodes whose join was decided and of which no event has told since, in the order of the
  decisions.

All of it follows from events and is filled by `Scope.apply_*` alone, the same live and on replay. An entry is not
searched for when its scope is closed: it is dropped when its turn comes.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait_server.core.run.scope import NodeRecord, Scope


class Agenda:
    """The work of one execution's scopes."""

    __slots__ = ("_arrivals", "_over", "decided", "leveled", "racing", "skips", "sweeping")

    def __init__(self) -> None:
        # Worked off from the front: the first of a plain dict is found behind all that were taken before.
        self.skips: OrderedDict[NodeRecord, None] = OrderedDict()
        self.decided: OrderedDict[NodeRecord, None] = OrderedDict()
        self.racing: dict[Scope, None] = {}
        self.sweeping: dict[Scope, None] = {}
        self.leveled: dict[Scope, None] = {}
        """Scopes that have come to a higher level, in which nodes may be held by theirs (R2)."""
        self._over: list[tuple[int, int, Scope]] = []
        self._arrivals = 0

    def forget(self, record: NodeRecord) -> None:
        """Take a node off: an event tells of it."""
        self.skips.pop(record, None)
        self.decided.pop(record, None)

    def clear(self) -> None:
        """Drop everything: nothing is decided any more."""
        self.skips.clear()
        self.decided.clear()
        self.racing.clear()
        self.sweeping.clear()
        self.leveled.clear()
        self._over.clear()

    def look_at(self, scope: Scope) -> None:
        """Have a scope looked at: it may be over."""
        if not scope.is_looked_at:
            scope.is_looked_at = True
            self._arrivals += 1
            heapq.heappush(self._over, (-scope.depth, self._arrivals, scope))

    def next_skip(self) -> NodeRecord | None:
        """Return the node that is skipped next; it stays until an event tells of it."""
        while self.skips:
            record = next(iter(self.skips))
            if not record.scope.is_closed:
                return record
            del self.skips[record]
        return None

    def take_race(self) -> Scope | None:
        """Take a scope that has losers."""
        while self.racing:
            scope = next(iter(self.racing))
            del self.racing[scope]
            if scope.losers and not scope.is_closed:
                return scope
        return None

    def take_sweep(self) -> Scope | None:
        """Take a scope whose nodes are to be put back."""
        while self.sweeping:
            scope = next(iter(self.sweeping))
            del self.sweeping[scope]
            if not scope.is_dropped:
                return scope
        return None

    def take_over(self) -> Scope | None:
        """Take a scope that may be over."""
        while self._over:
            _, _, scope = heapq.heappop(self._over)
            scope.is_looked_at = False
            if not scope.is_dropped:
                return scope
        return None

    def take_decided(self) -> NodeRecord | None:
        """Take the node whose join was decided first."""
        while self.decided:
            record, _ = self.decided.popitem(last=False)
            if not record.scope.is_closed:
                return record
        return None
