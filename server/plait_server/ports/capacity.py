"""The capacity port: how those who know the workers tell the allocator of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Capacity(Protocol):
    """What workers offer."""

    def attach_worker(
        self, namespace: str, worker_id: str, instance_id: str, slots: int, types: Mapping[str, int]
    ) -> None:
        """Let a worker take `slots` attempts at once, of each type at most so many (0: no limit of its own)."""

    def set_worker_slots(self, instance_id: str, slots: int) -> None:
        """Change how many attempts a worker takes at once; 0 means nothing new."""

    def remove_worker(self, instance_id: str) -> None:
        """Forget a worker that is gone. Idempotent."""

    def slots_in_use(self, instance_id: str) -> int:
        """Count the slots of a worker that are taken."""
        ...
