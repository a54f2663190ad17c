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
        "_borrower",
        "_engine",
        "_worker",
        "execution_id",
        "node_path",
        "queue_s",
        "type",
    )

    def __init__(
        self,
        allocator: Allocator,
        request: PermitRequest,
        worker: WorkerSlots,
        engine: tuple[Limit, ...],
        queue_s: float,
    ) -> None:
        self._allocator = allocator
        self._engine: tuple[Limit, ...] = engine
        self._worker: WorkerSlots | None = worker
        self._borrower = object()
        self.execution_id = request.execution_id
        self.node_path = request.node_path
        self.type = request.type
        self.queue_s = queue_s
        for limit in engine:
            take_permit(limit.limiter, self._borrower)
        worker.take(self._borrower, request.type)

    @property
    def worker(self) -> WorkerSlots | None:
        """The worker; None once its slot was returned."""
        return self._worker

    @property
    def is_empty(self) -> bool:
        """Whether everything was returned."""
        return not self._engine and self._worker is None

    def release_engine(self) -> None:
        """Return the engine's permits. Idempotent."""
        engine, self._engine = self._engine, ()
        if engine:
            self._allocator.give_back(engine, self._borrower)

    def release_slot(self) -> None:
        """Return the worker's slot. Idempotent."""
        worker, self._worker = self._worker, None
        if worker is not None:
            self._allocator.change_worker(worker, lambda: worker.give_back(self._borrower))

    def release(self) -> None:
        """Return everything. Idempotent."""
        self.release_engine()
        self.release_slot()
