"""The workers that the allocator knows, and their pools by namespace and node type."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from plait_server.runtime.namespace_queues import Namespaces
from plait_server.runtime.worker_slots import WorkerPool, WorkerPools, WorkerSlots


class WorkerTable:
    """The workers by instance. Each change of their room makes ready whatever may have lacked it."""

    def __init__(self, namespaces: Namespaces) -> None:
        self._namespaces = namespaces
        self._instances: dict[tuple[str, str], WorkerSlots] = {}
        self._pools = WorkerPools()

    def __repr__(self) -> str:
        return f"<WorkerTable {len(self._instances)} workers>"

    def __len__(self) -> int:
        """Return how many workers there are."""
        return len(self._instances)

    def attach(
        self, namespace: str, worker_id: str, instance_id: str, slots: int, types: Mapping[str, int]
    ) -> None:
        """Add a worker; one that comes back keeps the slots that its attempts hold."""
        worker = self.find_or_add(namespace, worker_id, instance_id)
        worker.set_types(types)
        for name in types:
            self.pool(namespace, name)
        self.change(worker, lambda: worker.set_slots(slots))

    def find_or_add(self, namespace: str, worker_id: str, instance_id: str) -> WorkerSlots:
        """Return a worker; one that is not attached is added, and gets no attempts until it is."""
        worker = self._instances.get((namespace, instance_id))
        if worker is None:
            worker = WorkerSlots(namespace, worker_id, instance_id, {})
            self._instances[namespace, instance_id] = worker
        return worker

    def set_slots(self, namespace: str, instance_id: str, slots: int) -> None:
        """Change how many attempts a worker runs at once; at 0 it gets no new ones."""
        worker = self._instances.get((namespace, instance_id))
        if worker is not None:
            self.change(worker, lambda: worker.set_slots(slots))

    def remove(self, namespace: str, instance_id: str) -> None:
        """Remove a worker that is gone. Idempotent."""
        worker = self._instances.pop((namespace, instance_id), None)
        if worker is None:
            return
        for name in worker.types:
            self._pools.remove(worker, name)
            self.forget_unused_pool(worker.namespace, name)

    def slots_in_use(self, namespace: str, instance_id: str) -> int:
        """Return how many slots of a worker are in use."""
        worker = self._instances.get((namespace, instance_id))
        return worker.slots.borrowed_tokens if worker is not None else 0

    def change(self, worker: WorkerSlots, change: Callable[[], None]) -> None:
        """Change a worker's capacity, and make ready whatever may have lacked it."""
        is_known = self._instances.get((worker.namespace, worker.instance_id)) is worker
        names = list(worker.types) if is_known else []
        namespace = self._namespaces.find(worker.namespace)
        # A worker may serve many types, and this runs for each slot of it that comes free: only the
        # types that have waiting requests look at the workers.
        kinds = namespace.kinds if namespace is not None else {}
        waiting = [kinds[name] for name in names if name in kinds]
        exhausted = [kind.pool for kind in waiting if kind.pool.best() is None]
        change()
        for pool in exhausted:
            pool.exhausted_s = trio.current_time()
        for name in names:
            self._pools.get(worker.namespace, name).add(worker)
        for kind in waiting:
            self._namespaces.make_ready(kind)

    def pool(self, namespace: str, node_type: str) -> WorkerPool:
        """Return the pool of a type; create it if there is none."""
        return self._pools.get(namespace, node_type)

    def unserved_s(self, namespace: str, node_type: str) -> float:
        """Return for how long no worker has served a type: 0 if one does, infinite if none is remembered."""
        return self._pools.unserved_s(namespace, node_type)

    def forget_unused_pool(self, namespace: str, node_type: str) -> None:
        """Remove the pool of a type that is neither served nor waited for. Idempotent."""
        queue = self._namespaces.find(namespace)
        if queue is None or node_type not in queue.kinds:
            self._pools.forget_empty(namespace, node_type)
