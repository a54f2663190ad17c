"""A grant: the capacity that an attempt holds while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from plait_server.runtime.limit import Limit
from plait_server.runtime.waiting import PermitRequest
from plait_server.runtime.worker_slots import WorkerSlots, take_permit

if TYPE_CHECKING:
    from plait_server.runtime.allocator import Allocator


class Grant:
    """Permits and a worker for one attempt."""

    __slots__ = (
        "_allocator",
        "_engine",
        "_worker",
        "attempt",
        "execution_id",
        "namespace",
        "node_path",
        "number",
        "queue_s",
        "since_s",
        "type",
    )

    def __init__(
        self,
        allocator: Allocator,
        request: PermitRequest,
        worker: WorkerSlots,
        engine: tuple[Limit, ...],
        *,
        number: int,
        since_s: float,
        queue_s: float = 0.0,
    ) -> None:
        self._allocator = allocator
        self._engine: tuple[Limit, ...] = engine
        self._worker: WorkerSlots | None = worker
        self.namespace = request.namespace
        self.execution_id = request.execution_id
        self.node_path = request.node_path
        self.type = request.type
        self.number = number
        """Grows from grant to grant."""
        self.attempt = 0
        """The number of the attempt that holds it; 0 as long as there is none."""
        self.since_s = since_s
        """The trio time since which it is held."""
        self.queue_s = queue_s
        for limit in engine:
            take_permit(limit.limiter, self)
        worker.take(self, request.type)

    def __repr__(self) -> str:
        return f"<Grant of {self.execution_id} {self.node_path}>"

    @property
    def worker(self) -> WorkerSlots | None:
        """The worker; None once its slot was returned."""
        return self._worker

    @property
    def holds_engine(self) -> bool:
        """Whether it holds permits of the engine."""
        return bool(self._engine)

    @property
    def is_empty(self) -> bool:
        """Whether everything was returned."""
        return not self._engine and self._worker is None

    def join(self, limit: Limit) -> None:
        """Hold a permit of another limit, too, as long as it holds those of the engine."""
        if self._engine:
            take_permit(limit.limiter, self)
            self._engine = *self._engine, limit

    def release_engine(self) -> None:
        """Return the engine's permits. Idempotent."""
        engine, self._engine = self._engine, ()
        if engine:
            self._allocator.give_back(engine, self)

    def release_slot(self) -> None:
        """Return the worker's slot. Idempotent."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._allocator.give_back_slot(worker, self)

    def release(self) -> None:
        """Return everything. Idempotent."""
        self.release_engine()
        self.release_slot()
