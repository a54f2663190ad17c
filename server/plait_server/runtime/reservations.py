"""The reservations in one namespace, at one moment (R4; rule 3 of the allocator)."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable

from plait_server.runtime.namespace_queues import TypeQueue
from plait_server.runtime.waiting import Group, Rank
from plait_server.runtime.worker_slots import WorkerPool, WorkerSlots


class Reservations:
    """The groups whose first own requests may reserve permits, in R4's order.

    Computed once for many queries; it is outdated as soon as anything is granted, offered, withdrawn or returned.
    """

    __slots__ = ("_groups", "_ranks", "_slots")

    def __init__(self, groups: Iterable[Group | None]) -> None:
        found = [
            (group.own_rank, group) for group in groups if group is not None and group.own_rank is not None
        ]
        found.sort(key=lambda each: each[0])
        self._ranks: list[Rank] = [rank for rank, _ in found]
        self._groups = [group for _, group in found]
        self._slots: list[tuple[int, WorkerSlots]] | None = None
        """The reserved slots, and the rank that each is reserved for; computed when first needed."""

    def is_kept(self, free: int, exhausted_s: float, rank: Rank, kind: TypeQueue | None = None) -> bool:
        """Return whether all free permits are reserved for groups earlier than `rank`.

        Args:
            free: How many permits are free.
            exhausted_s: The last time at which none was free.
            rank: The rank of the request that needs one.
            kind: The only type that needs these permits; None if all types do.
        """
        end = bisect_left(self._ranks, rank)
        if free > end:
            return False
        groups = self._groups[:end]
        return free <= sum((kind is None or each.kind is kind) and each.keeps(exhausted_s) for each in groups)

    def slot_for(self, kind: TypeQueue, rank: Rank) -> WorkerSlots | None:
        """Choose a worker with a slot that is not reserved for a group earlier than `rank`; None if there is none."""
        best = kind.pool.best()
        if best is None or not self._ranks or self._ranks[0] >= rank:
            return best
        if self._slots is None:
            self._slots = self._kept_slots()
        end = bisect_left(self._ranks, rank)
        kept = Counter(worker for place, worker in self._slots if place < end)
        return kind.pool.best_beside(kept) if kept else best

    def _kept_slots(self) -> list[tuple[int, WorkerSlots]]:
        slots: list[tuple[int, WorkerSlots]] = []
        kept: Counter[WorkerSlots] = Counter()
        used_up: dict[WorkerPool, None] = {}
        for place, group in enumerate(self._groups):
            pool = group.kind.pool
            if pool in used_up or not group.keeps(pool.exhausted_s):
                continue
            worker = pool.best_beside(kept) if kept else pool.best()
            if worker is None:
                used_up[pool] = None
                continue
            kept[worker] += 1
            slots.append((place, worker))
        return slots
