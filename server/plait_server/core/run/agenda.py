"""The queue of decisions in an execution, in the order of J5 over all its scopes (N4).

The first of these that is not empty supplies the next step:

- `skips`: nodes whose join says SKIPPED, in the order of the decisions;
- `racing`: scopes with losers, nodes whose output is no longer wanted (J1), to be cancelled together;
- `sweeping`: scopes stopped by an unhandled failure (E4), whose other nodes have not been put back to IDLE yet;
- scopes that may be over, the innermost first, and of equally deep ones the one that was opened first;
- `decided`: the other nodes whose join was decided and that have had no event since, in the order of the
  decisions.

All of it follows from events and is filled by `Scope.apply_*` alone, the same live and on replay. When a scope is
closed, its entries are not searched for: each is dropped when its turn comes.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from plait_server.core.run.scope import NodeRecord, Scope


class Agenda:
    """The pending decisions of one execution's scopes."""

    __slots__ = ("_over", "decided", "leveled", "paused_s", "racing", "skips", "sweeping", "time_s", "turns")

    def __init__(self) -> None:
        # Worked off from the front: the first of a plain dict is found behind all that were taken before.
        self.skips: OrderedDict[NodeRecord, None] = OrderedDict()
        self.decided: OrderedDict[NodeRecord, None] = OrderedDict()
        self.racing: dict[Scope, None] = {}
        self.sweeping: dict[Scope, None] = {}
        self.leveled: dict[Scope, None] = {}
        """Scopes whose lowest unfinished level has risen, so that held nodes may start (R2)."""
        self._over: list[tuple[int, int, Scope]] = []
        self.time_s = 0.0
        """When the event that is being applied was decided."""
        self.paused_s = 0.0
        """How long the execution had been paused by then."""
        self.turns = 0
        """How many turns were given."""

    def decide(self, record: NodeRecord) -> None:
        """Queue a node that an event made ready, or whose join failed."""
        self._give_turn(record)
        self.decided[record] = None
        record.ready_s, record.ready_paused_s = self.time_s, self.paused_s

    def skip(self, record: NodeRecord) -> None:
        """Queue a node whose join says SKIPPED."""
        self._give_turn(record)
        self.skips[record] = None

    def forget(self, record: NodeRecord) -> None:
        """Remove a node, because an event has recorded what becomes of it."""
        record.turn = 0
        self.skips.pop(record, None)
        self.decided.pop(record, None)

    def lose(self, record: NodeRecord) -> None:
        """Remove a node that has lost a race (J1), unless its own join skips it first."""
        if record not in self.skips:
            record.turn = 0
            self.decided.pop(record, None)

    def clear(self) -> None:
        """Drop everything, because nothing more is decided."""
        self.skips.clear()
        self.decided.clear()
        self.racing.clear()
        self.sweeping.clear()
        self.leveled.clear()
        self._over.clear()

    def look_at(self, scope: Scope) -> None:
        """Queue a scope to be checked, because it may be over."""
        if not scope.is_looked_at:
            scope.is_looked_at = True
            heapq.heappush(self._over, (-scope.depth, scope.first_sequence, scope))

    def next_skip(self) -> NodeRecord | None:
        """Return the next node to skip; it stays queued until its event."""
        while self.skips:
            record = next(iter(self.skips))
            if not record.scope.is_closed:
                return record
            del self.skips[record]
        return None

    def take_race(self) -> Scope | None:
        """Remove and return a scope that has losers."""
        while self.racing:
            scope = next(iter(self.racing))
            del self.racing[scope]
            if scope.losers and not scope.is_closed:
                return scope
        return None

    def take_sweep(self) -> Scope | None:
        """Remove and return a scope whose nodes are to be put back to IDLE."""
        while self.sweeping:
            scope = next(iter(self.sweeping))
            del self.sweeping[scope]
            if not scope.is_dropped:
                return scope
        return None

    def take_over(self) -> Scope | None:
        """Remove and return a scope that may be over."""
        while self._over:
            _, _, scope = heapq.heappop(self._over)
            scope.is_looked_at = False
            if not scope.is_dropped:
                return scope
        return None

    def take_decided(self) -> NodeRecord | None:
        """Remove and return the node whose join was decided first."""
        while self.decided:
            record, _ = self.decided.popitem(last=False)
            if not record.scope.is_closed:
                return record
        return None

    def _give_turn(self, record: NodeRecord) -> None:
        self.turns += 1
        record.turn = self.turns
