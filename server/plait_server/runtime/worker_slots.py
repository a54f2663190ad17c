"""The slots of the workers, as the allocator counts them: by worker, and by node type."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping

import trio

_SPARE_ENTRIES = 16
"""Outdated entries of a pool's heap that are always allowed, so that a small pool is not rebuilt all the time."""
_LEFT_TYPES_MAX = 10_000
"""Types of which the time without a worker is remembered: workers name what they serve, and may name anything."""


class WorkerSlots:
    """A worker as the allocator knows it: its slots and the types it serves."""

    def __init__(self, namespace: str, worker_id: str, instance_id: str, types: Mapping[str, int]) -> None:
        self.namespace = namespace
        self.worker_id = worker_id
        self.instance_id = instance_id
        self.slots = trio.CapacityLimiter(1)
        self.is_open = False
        """Whether it takes new attempts."""
        self.types: dict[str, trio.CapacityLimiter | None] = {}
        self._of_type: dict[object, trio.CapacityLimiter] = {}
        """Borrower -> the limiter of a type that it took a permit of."""
        self.set_types(types)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return (
            f"<WorkerSlots {self.worker_id} {state} {self.slots.borrowed_tokens}/{self.slots.total_tokens}>"
        )

    def set_types(self, types: Mapping[str, int]) -> None:
        """Set the types it serves and how many attempts of each it runs at once; 0 means no limit of its own."""
        for name, limit in types.items():
            limiter = self.types.get(name)
            if limiter is None:
                self.types[name] = trio.CapacityLimiter(limit) if limit else None
            elif limit:
                limiter.total_tokens = limit

    def set_slots(self, slots: int) -> None:
        """Change how many attempts it runs at once; at 0 it gets no new ones."""
        self.is_open = slots > 0
        if slots > 0:
            self.slots.total_tokens = slots

    def free(self, node_type: str) -> int:
        """Return how many attempts of a type it could take now."""
        if not self.is_open or node_type not in self.types:
            return 0
        free = int(self.slots.total_tokens) - self.slots.borrowed_tokens
        limiter = self.types[node_type]
        if limiter is not None:
            free = min(free, int(limiter.available_tokens))
        return max(0, free)

    def take(self, borrower: object, node_type: str) -> None:
        """Take a slot; an attempt that the worker already runs may exceed the number of slots."""
        take_permit(self.slots, borrower)
        limiter = self.types.get(node_type)
        if limiter is not None:
            take_permit(limiter, borrower)
            self._of_type[borrower] = limiter

    def give_back(self, borrower: object) -> None:
        """Return a borrower's slot."""
        self.slots.release_on_behalf_of(borrower)
        # An attempt that was held before the worker was known took no permit of its type.
        limiter = self._of_type.pop(borrower, None)
        if limiter is not None:
            limiter.release_on_behalf_of(borrower)


class WorkerPool:
    """The workers of a namespace that serve one node type.

    `best` costs O(log workers): a heap by free slots, whose outdated entries are dropped when they come to the
    top. A worker with more room than before must be passed to `add` again, which only records it; one with less
    room need not be.
    """

    __slots__ = ("_changed", "_count", "_heap", "_node_type", "_workers", "exhausted_s")

    def __init__(self, node_type: str) -> None:
        self._node_type = node_type
        self._workers: dict[WorkerSlots, int] = {}
        """Each worker and its number in the order of attaching."""
        self._heap: list[tuple[int, int, WorkerSlots]] = []
        """For each worker with room, at least one entry that claims that much room or more, except for those below."""
        self._changed: dict[WorkerSlots, None] = {}
        """Workers that may have more room than their entries claim; `best` makes new ones."""
        self._count = 0
        self.exhausted_s = float("-inf")
        """The last trio time at which no slot was free."""

    def __repr__(self) -> str:
        return f"<WorkerPool {self._node_type} of {len(self._workers)}>"

    @property
    def has_workers(self) -> bool:
        """Whether any worker serves the type, with room or without."""
        return bool(self._workers)

    def add(self, worker: WorkerSlots) -> None:
        """Add a worker, or record that it has more room."""
        if worker not in self._workers:
            self._count += 1
            self._workers[worker] = self._count
        self._changed[worker] = None

    def remove(self, worker: WorkerSlots) -> None:
        """Remove a worker. Idempotent."""
        self._workers.pop(worker, None)

    def best(self) -> WorkerSlots | None:
        """Return the worker with the most room, of equals the first to attach; None if no slot is free."""
        if self._changed:
            self._note_room()
        heap = self._heap
        while heap:
            claimed, place, worker = heap[0]
            free = worker.free(self._node_type) if self._workers.get(worker) == place else 0
            if free == -claimed:
                return worker
            if 0 < free < -claimed:
                heapq.heapreplace(heap, (-free, place, worker))
            else:
                heapq.heappop(heap)
        return None

    def best_beside(self, kept: Mapping[WorkerSlots, int]) -> WorkerSlots | None:
        """Return the worker with the most room if some slots do not count, otherwise as `best` does; O(workers)."""
        found, room = None, 0
        for worker in self._workers:
            free = worker.free(self._node_type) - kept.get(worker, 0)
            if free > room:
                found, room = worker, free
        return found

    def _note_room(self) -> None:
        """Add entries for the workers that have changed."""
        for worker in self._changed:
            place = self._workers.get(worker)
            free = worker.free(self._node_type)
            if free and place is not None:
                heapq.heappush(self._heap, (-free, place, worker))
        self._changed.clear()
        if len(self._heap) > 2 * len(self._workers) + _SPARE_ENTRIES:
            self._heap = [
                (-free, place, each)
                for each, place in self._workers.items()
                if (free := each.free(self._node_type))
            ]
            heapq.heapify(self._heap)


class WorkerPools:
    """The pools of all namespaces; there is one for each type that is served or waited for."""

    def __init__(self) -> None:
        self._pools: dict[tuple[str, str], WorkerPool] = {}
        self._left_s: dict[tuple[str, str], float] = {}
        """When the last worker of a type left, the earliest first."""

    def __repr__(self) -> str:
        return f"<WorkerPools, {len(self._pools)} of them>"

    def get(self, namespace: str, node_type: str) -> WorkerPool:
        """Return the pool of a type; create it if there is none."""
        pool = self._pools.get((namespace, node_type))
        if pool is None:
            pool = self._pools[namespace, node_type] = WorkerPool(node_type)
        return pool

    def remove(self, worker: WorkerSlots, node_type: str) -> None:
        """Remove a worker that is gone from the pool of a type."""
        namespace = worker.namespace
        pool = self.get(namespace, node_type)
        was_served = pool.has_workers
        pool.remove(worker)
        if was_served and not pool.has_workers:
            self._left_s.pop((namespace, node_type), None)
            self._left_s[namespace, node_type] = trio.current_time()
            if len(self._left_s) > _LEFT_TYPES_MAX:
                del self._left_s[next(iter(self._left_s))]

    def unserved_s(self, namespace: str, node_type: str) -> float:
        """Return for how long no worker has served a type: 0 if one does, infinite if none is remembered."""
        pool = self._pools.get((namespace, node_type))
        if pool is not None and pool.has_workers:
            return 0.0
        return trio.current_time() - self._left_s.get((namespace, node_type), -math.inf)

    def forget_empty(self, namespace: str, node_type: str) -> None:
        """Remove a pool without workers. Idempotent."""
        pool = self._pools.get((namespace, node_type))
        if pool is not None and not pool.has_workers:
            del self._pools[namespace, node_type]


def take_permit(limiter: trio.CapacityLimiter, borrower: object) -> None:
    """Take a permit, even beyond a limit that was lowered, because a running attempt counts regardless."""
    try:
        limiter.acquire_on_behalf_of_nowait(borrower)
    except trio.WouldBlock:
        # A running attempt counts even past a limit that was lowered, and past others that run.
        total = limiter.total_tokens
        limiter.total_tokens = limiter.borrowed_tokens + 1
        limiter.acquire_on_behalf_of_nowait(borrower)
        limiter.total_tokens = total
