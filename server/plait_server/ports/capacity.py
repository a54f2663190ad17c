"""The capacity port: tells the allocator which workers there are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol


class Capacity(Protocol):
    """The capacity that workers offer. The id of an instance is unique in its namespace."""

    def attach_worker(
        self, namespace: str, worker_id: str, instance_id: str, slots: int, types: Mapping[str, int]
    ) -> None:
        """Add a worker with `slots` slots, and a limit for each type that it serves (0: no limit of its own)."""

    def set_worker_slots(self, namespace: str, instance_id: str, slots: int) -> None:
        """Change how many attempts a worker runs at once; at 0 it gets no new ones."""

    def remove_worker(self, namespace: str, instance_id: str) -> None:
        """Remove a worker that is gone. Idempotent."""

    def slots_in_use(self, namespace: str, instance_id: str) -> int:
        """Return how many slots of a worker are in use."""
        ...
