"""Leases: which instances there are, which of them owns a worker's id, and how long each keeps its attempts.

Rules
1. A lease belongs to a process instance and outlives its stream: a cut stream alone loses nothing. After a
   lease without any message, the instance's attempts are LOST (T2).
2. A worker id belongs to one instance at a time. If another instance attaches with the id of one that has a stream,
   the server pings the old one at once. If that answers, the new one is refused; if not, the old one is lost and the
   new one replaces it. A detached instance of that worker is lost at once; one that has not attached since the
   server's start keeps its lease.
3. An instance has one stream. A second one replaces the first: the worker knows better which of them works.
4. The allocator knows an instance while it has a lease. Every change of the number of its slots is passed on here.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Final

import trio

from plait_server.adapters.workers.holding import LEASE_INTERVALS, WorkerInstance
from plait_server.adapters.workers.session_events import Hello, SlotsChanged
from plait_server.adapters.workers.streams import Stream
from plait_server.errors import (
    FieldViolation,
    InstanceReplaced,
    InvalidRequest,
    StreamReplaced,
    WorkerIdInUse,
)
from plait_server.ports.capacity import Capacity
from plait_server.ports.log_fields import assignment_fields
from plait_server.ports.workers import Assignment, WorkerSnapshot

logger = logging.getLogger(__name__)

REJECT_PAUSE_S: Final = 1.0
"""Seconds without new attempts for a worker that refused one for its own reasons; otherwise the two would spin."""


class Leases:
    """All instances that have a lease. `run` is started once."""

    def __init__(self, capacity: Capacity, ping_s: float) -> None:
        self._capacity = capacity
        self._ping_s = ping_s
        self.lease_s: Final = ping_s * LEASE_INTERVALS
        """The length of a lease, in seconds."""
        self._workers: dict[tuple[str, str], WorkerInstance] = {}
        """Instance id -> worker, attached or not."""
        self._attached: dict[tuple[str, str], WorkerInstance] = {}
        """(namespace, worker id) -> the instance that has a stream."""
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Leases {len(self._attached)} attached of {len(self._workers)}>"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Manage the leases until cancelled. Streams may outlive it by some steps, but start nothing."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                self._nursery = None

    @property
    def is_running(self) -> bool:
        """Whether `run` has begun and was not cancelled."""
        return self._nursery is not None

    def snapshots(self, namespace: str, offset_s: float) -> Sequence[WorkerSnapshot]:
        """Describe the workers of a namespace, by worker id and instance.

        Args:
            namespace: The namespace.
            offset_s: The wall clock's time minus trio's.
        """
        return [
            worker.snapshot(self._capacity.slots_in_use(namespace, worker.instance_id), offset_s)
            for worker in sorted(self._workers.values(), key=lambda each: (each.worker_id, each.instance_id))
            if worker.namespace == namespace
        ]

    def attached(self, namespace: str, worker_id: str) -> WorkerInstance | None:
        """Return the instance of a worker that has a stream, if one has."""
        return self._attached.get((namespace, worker_id))

    def of_assignment(self, assignment: Assignment) -> WorkerInstance:
        """Return the instance that an attempt was granted to; after a restart its lease starts in full."""
        worker = self._workers.get((assignment.key.namespace, assignment.worker_instance_id))
        if worker is None:
            worker = WorkerInstance(
                assignment.key.namespace, assignment.worker_id, assignment.worker_instance_id, self._ping_s
            )
            self._workers[worker.key] = worker
            self._expire_later(worker)
        return worker

    # Coming and going.

    async def claim_id(self, hello: Hello) -> None:
        """Make sure that no other instance of the worker is attached (rule 2).

        Raises:
            WorkerIdInUse: Another instance is attached and alive.
        """
        # Again after each wait, because a third instance may have been quicker.
        while (other := self._attached.get((hello.namespace, hello.worker_id))) is not None:
            stream = other.stream
            if other.instance_id == hello.instance_id or stream is None:
                return
            if await stream.is_answering(self._ping_s):
                text = (
                    f"the worker id {hello.worker_id} is in use: its instance {other.instance_id} is attached and "
                    "answers; stop that process, or give this one a worker id of its own"
                )
                raise WorkerIdInUse(text, worker_id=hello.worker_id, instance_id=other.instance_id)
            if other.stream is stream:
                text = "worker %s: instance %s does not answer, and gives way to %s"
                logger.warning(text, other.worker_id, other.instance_id, hello.instance_id)
                self._lose(other)

    def admit(self, hello: Hello, stream: Stream) -> WorkerInstance:
        """Attach a stream to an instance whose id was claimed.

        Raises:
            InvalidRequest: The instance belongs to another worker.
        """
        worker = self._workers.get((hello.namespace, hello.instance_id))
        if worker is None:
            worker = WorkerInstance(hello.namespace, hello.worker_id, hello.instance_id, self._ping_s)
            self._workers[worker.key] = worker
            self._lose_others(worker)
        elif worker.worker_id != hello.worker_id:
            text = "names an instance of another worker; make a new id at each start"
            raise InvalidRequest([FieldViolation(field="hello.instance_id", message=text)])
        elif worker.stream is not None:
            worker.stream.end(StreamReplaced())
        worker.hello, worker.stream = hello, stream
        worker.slots, worker.is_draining, worker.is_paused = hello.slots, False, False
        worker.attached_s = trio.current_time()
        self._attached[worker.namespace, worker.worker_id] = worker
        self.heard(worker)
        worker.at_worker = dict.fromkeys([*hello.running, *hello.finished])
        self._capacity.attach_worker(
            hello.namespace, hello.worker_id, hello.instance_id, hello.slots, hello.types
        )
        logger.info("worker %s attached: %d slots, %d types", hello.worker_id, hello.slots, len(hello.types))
        return worker

    def detach(self, worker: WorkerInstance, stream: Stream) -> None:
        """Record the end of a stream; nothing changes if its instance has another one."""
        if worker.stream is not stream:
            return
        self._unlink(worker)
        self.offer_slots(worker)
        logger.info("worker %s detached, holding %d attempts", worker.worker_id, len(worker.held))
        if worker.held:
            self._expire_later(worker)
        else:
            self._forget(worker)

    # What an attached worker reports.

    def heard(self, worker: WorkerInstance) -> None:
        """Renew a lease."""
        was_quiet = worker.is_quiet
        worker.heard_s = trio.current_time()
        if was_quiet:
            self.offer_slots(worker)

    def change_slots(self, worker: WorkerInstance, change: SlotsChanged) -> None:
        """Change a worker's number of slots. Credit does not end a drain; only a new stream does (T3)."""
        worker.slots, worker.is_draining = change.slots, worker.is_draining or change.is_draining
        self.offer_slots(worker)
        if change.is_draining:
            logger.info("worker %s drains", worker.worker_id)

    def pause(self, worker: WorkerInstance) -> None:
        """Give a worker no attempts for a while, because it has refused one."""
        if not worker.is_draining and self._nursery is not None and not worker.is_paused:
            worker.is_paused = True
            self.offer_slots(worker)
            self._nursery.start_soon(self._resume_later, worker)

    def offer_slots(self, worker: WorkerInstance) -> None:
        """Tell the allocator how many attempts a worker accepts now."""
        self._capacity.set_worker_slots(worker.namespace, worker.instance_id, worker.open_slots)

    # Inside.

    async def _resume_later(self, worker: WorkerInstance) -> None:
        await trio.sleep(REJECT_PAUSE_S)
        worker.is_paused = False
        if (
            self._workers.get(worker.key) is worker
        ):  # Otherwise it is gone, or has attached again in the meantime.
            self.offer_slots(worker)

    def _unlink(self, worker: WorkerInstance) -> None:
        worker.stream = None
        if self._attached.get((worker.namespace, worker.worker_id)) is worker:
            del self._attached[worker.namespace, worker.worker_id]

    def _expire_later(self, worker: WorkerInstance) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._expire, worker)

    async def _expire(self, worker: WorkerInstance) -> None:
        await trio.sleep_until(worker.lease_end_s)
        is_gone = worker.stream is None and self._workers.get(worker.key) is worker
        if is_gone and trio.current_time() >= worker.lease_end_s:
            self._lose(worker)

    def _lose_others(self, newcomer: WorkerInstance) -> None:
        for other in list(self._workers.values()):
            is_same = other.worker_id == newcomer.worker_id and other.namespace == newcomer.namespace
            # One that has not attached since the server's start may still do so.
            if is_same and other is not newcomer and other.hello is not None:
                self._lose(other)

    def _lose(self, worker: WorkerInstance) -> None:
        """Drop a worker that is gone; its attempts are LOST (T2)."""
        if worker.stream is not None:
            worker.stream.end(InstanceReplaced())
            self._unlink(worker)
        for held in list(worker.held.values()):
            if not held.reason and not held.done.is_set():
                fields = assignment_fields(held.assignment)
                logger.warning("an attempt is lost with worker %s", worker.worker_id, extra=fields)
                held.lose(worker.worker_id, self.lease_s)
        self._forget(worker)

    def _forget(self, worker: WorkerInstance) -> None:
        if self._workers.get(worker.key) is worker:
            del self._workers[worker.key]
            self._capacity.remove_worker(*worker.key)
