"""The slots of one worker, as the allocator counts them."""

from __future__ import annotations

from collections.abc import Mapping

import trio


class WorkerSlots:
    """What the allocator knows of one worker: its slots and the types it serves."""

    def __init__(self, namespace: str, worker_id: str, instance_id: str, types: Mapping[str, int]) -> None:
        self.namespace = namespace
        self.worker_id = worker_id
        self.instance_id = instance_id
        self.slots = trio.CapacityLimiter(1)
        self.is_open = False
        """Whether it takes new attempts."""
        self.types: dict[str, trio.CapacityLimiter | None] = {}
        self.set_types(types)

    def __repr__(self) -> str:
        state = "open" if self.is_open else "closed"
        return (
            f"<WorkerSlots {self.worker_id} {state} {self.slots.borrowed_tokens}/{self.slots.total_tokens}>"
        )

    def set_types(self, types: Mapping[str, int]) -> None:
        """Learn the types it serves and how many attempts of each it takes at once; 0 is no limit of its own."""
        for name, limit in types.items():
            limiter = self.types.get(name)
            if limiter is None:
                self.types[name] = trio.CapacityLimiter(limit) if limit else None
            elif limit:
                limiter.total_tokens = limit

    def set_slots(self, slots: int) -> None:
        """Change how many attempts it takes at once; 0 means nothing new."""
        self.is_open = slots > 0
        if slots > 0:
            self.slots.total_tokens = slots

    def free(self, node_type: str) -> int:
        """Count the attempts of a type that it could take now."""
        if not self.is_open or node_type not in self.types:
            return 0
        free = int(self.slots.total_tokens) - self.slots.borrowed_tokens
        limiter = self.types[node_type]
        if limiter is not None:
            free = min(free, int(limiter.available_tokens))
        return max(0, free)

    def take(self, borrower: object, node_type: str) -> None:
        """Take a slot; beyond the number of slots too, for an attempt that the worker already holds."""
        for limiter in (self.slots, self.types.get(node_type)):
            if limiter is not None:
                take_permit(limiter, borrower)

    def give_back(self, borrower: object, node_type: str) -> None:
        """Give a slot back."""
        self.slots.release_on_behalf_of(borrower)
        limiter = self.types.get(node_type)
        # An attempt that was held before the worker was known took no permit of its type.
        if limiter is not None and borrower in limiter.statistics().borrowers:
            limiter.release_on_behalf_of(borrower)


def take_permit(limiter: trio.CapacityLimiter, borrower: object) -> None:
    """Take a permit, beyond the limit too: an attempt that already runs counts even past a limit that was lowered."""
    try:
        limiter.acquire_on_behalf_of_nowait(borrower)
    except trio.WouldBlock:
        # An attempt that already runs counts even past a limit that was lowered since, and past others that do.
        total = limiter.total_tokens
        limiter.total_tokens = limiter.borrowed_tokens + 1
        limiter.acquire_on_behalf_of_nowait(borrower)
        limiter.total_tokens = total
