"""The allocator: which ready node starts next, and at which worker (R4, Q1).

Synchronous: a grant is made in memory the moment everything it takes is free. `trio.CapacityLimiter`s are
used as counters (`acquire_on_behalf_of_nowait`), for trio's own queue is first-in-first-out and for one
limiter, whereas R4 orders by priority and Q1 takes all permits or none.

Rules
1. Requests of one execution and node type need the same permits, so they form a group, a heap in R4's order;
   only its head is looked at. A group that lacks something is parked with each thing it lacks and looked at
   again when one of them comes free.
2. A request holds no permit while it waits. When it has waited 10 s, each permit it lacks is kept for it when
   it comes free, until it starts or is withdrawn: a request later in R4's order does not see that permit
   (`_free_for`). One earlier does.
3. Namespaces take turns: the one that was granted least is first; R4 acts within one. One that has not waited
   for a while begins where the others are: what they were granted meanwhile gives it no head start.
4. Permits of the engine (server, execution, node type) go back at the decision; the worker's slot when the
   handler has ended or was given up. Each is given back once, by whoever holds the `Grant`.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import trio

from plait_server.runtime.worker_slots import WorkerSlots, take_permit

RESERVE_AFTER_S: Final = 10.0
"""Waiting longer than this, a request is kept each permit it lacks (R4)."""

Rank: TypeAlias = tuple[int, int, int, int]


class Request(NamedTuple):
    """A ready node that waits for capacity."""

    namespace: str
    execution_id: str
    node_path: str
    type: str
    priority: int
    remaining: int
    order: int
    ready_s: float
    """trio time at which it was ready."""
    on_grant: Callable[[Grant], None]
    """Called with the grant, in the midst of `dispatch`: it may only take note."""


class _Resource:
    """Something that permits are taken of, and the groups that lack it."""

    __slots__ = ("blocked", "limiter", "name")

    def __init__(self, name: str, limiter: trio.CapacityLimiter | None) -> None:
        self.name = name
        """The reason shown: SERVER_LIMIT, EXECUTION_LIMIT, NODE_TYPE_LIMIT or WORKER_SLOTS."""
        self.limiter = limiter
        """None for worker slots, of which there are many."""
        self.blocked: dict[_Group, None] = {}


class _Group:
    """Requests that need the same permits."""

    __slots__ = ("execution_id", "heap", "lacks", "namespace", "parked", "resources", "type")

    def __init__(self, request: Request, resources: tuple[_Resource, ...]) -> None:
        self.namespace = request.namespace
        self.execution_id = request.execution_id
        self.type = request.type
        self.resources = resources
        """In the order of the reasons; the worker slots last."""
        self.heap: list[tuple[Rank, Request]] = []
        self.lacks: list[_Resource] = []
        """What it is parked with: what its head lacks, and what is kept for it."""
        self.parked: Request | None = None
        """The head that it was parked for."""

    @property
    def head(self) -> tuple[Rank, Request]:
        return self.heap[0]


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
        request: Request,
        worker: WorkerSlots,
        engine: tuple[_Resource, ...],
        queue_s: float,
    ) -> None:
        self._allocator = allocator
        self._engine: tuple[_Resource, ...] = engine
        self._worker: WorkerSlots | None = worker
        self._borrower = object()
        self.execution_id = request.execution_id
        self.node_path = request.node_path
        self.type = request.type
        self.queue_s = queue_s
        for resource in engine:
            if resource.limiter is not None:
                take_permit(resource.limiter, self._borrower)
        worker.take(self._borrower, request.type)

    @property
    def worker(self) -> WorkerSlots | None:
        """The worker; None once its slot was given back."""
        return self._worker

    @property
    def is_empty(self) -> bool:
        """Whether everything was given back."""
        return not self._engine and self._worker is None

    def release_engine(self) -> None:
        """Give the engine's permits back. Idempotent."""
        for resource in self._engine:
            if resource.limiter is not None:
                resource.limiter.release_on_behalf_of(self._borrower)
            self._allocator.freed(resource)
        self._engine = ()

    def release_slot(self) -> None:
        """Give the worker's slot back. Idempotent."""
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.give_back(self._borrower, self.type)
            self._allocator.worker_changed(worker)

    def release(self) -> None:
        """Give everything back. Idempotent."""
        self.release_engine()
        self.release_slot()


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorStatistics:
    """A snapshot of the allocator."""

    waiting: int
    """Requests that wait."""
    running: int
    """Engine permits of the server that are out."""
    server_limit: int
    workers: int
    grants: int
    """Since the start."""


class Allocator:
    """Grants capacity to ready nodes."""

    def __init__(self, *, server_limit: int, type_limits: Mapping[str, int]) -> None:
        self._server = _Resource("SERVER_LIMIT", trio.CapacityLimiter(server_limit))
        self._types = {
            name: _Resource("NODE_TYPE_LIMIT", trio.CapacityLimiter(limit))
            for name, limit in type_limits.items()
        }
        self._executions: dict[tuple[str, str], _Resource] = {}
        self._slots: dict[tuple[str, str], _Resource] = {}
        self._workers: dict[tuple[str, str], dict[str, WorkerSlots]] = {}
        """(namespace, type) -> instance id -> worker."""
        self._instances: dict[str, WorkerSlots] = {}
        self._groups: dict[tuple[str, str, str], _Group] = {}
        self._requests: dict[tuple[str, str, str], Request] = {}
        """(namespace, execution, path) -> the request that waits."""
        self._runnable: dict[_Group, None] = {}
        self._granted: dict[str, int] = {}
        """Namespace -> grants, for the turns."""
        self._turns = 0
        """The turn of the newest grant; no namespace that waits is behind it."""
        self._arrivals = 0
        self._grants = 0
        self.on_capacity: Callable[[], None] = lambda: None
        """Called when something came free for which requests wait; the owner then calls `dispatch` soon."""

    def __repr__(self) -> str:
        return f"<Allocator {len(self._requests)} waiting, {len(self._instances)} workers>"

    # Executions and workers come and go.

    def open_execution(self, namespace: str, execution_id: str, limit: int) -> None:
        """Make the limit of an execution known. Idempotent."""
        key = namespace, execution_id
        if key not in self._executions:
            self._executions[key] = _Resource("EXECUTION_LIMIT", trio.CapacityLimiter(limit))

    def close_execution(self, namespace: str, execution_id: str) -> None:
        """Forget an execution that has no requests and no grants left. Idempotent."""
        self._executions.pop((namespace, execution_id), None)

    def attach_worker(
        self, namespace: str, worker_id: str, instance_id: str, slots: int, types: Mapping[str, int]
    ) -> None:
        """Let a worker take attempts; one that comes back keeps the slots that its attempts hold."""
        worker = self._instances.get(instance_id)
        if worker is None:
            worker = self._instances[instance_id] = WorkerSlots(namespace, worker_id, instance_id, types)
        for name in types:
            self._workers.setdefault((namespace, name), {})[instance_id] = worker
        worker.set_types(types)
        self.set_worker_slots(instance_id, slots)

    def set_worker_slots(self, instance_id: str, slots: int) -> None:
        """Change how many attempts a worker takes at once; 0 means nothing new."""
        worker = self._instances.get(instance_id)
        if worker is not None:
            worker.set_slots(slots)
            self.worker_changed(worker)

    def remove_worker(self, instance_id: str) -> None:
        """Forget a worker that is gone. Idempotent."""
        worker = self._instances.pop(instance_id, None)
        if worker is None:
            return
        for name in worker.types:
            self._workers.get((worker.namespace, name), {}).pop(instance_id, None)

    def slots_in_use(self, instance_id: str) -> int:
        """Count the slots of a worker that are taken."""
        worker = self._instances.get(instance_id)
        return worker.slots.borrowed_tokens if worker is not None else 0

    def worker_changed(self, worker: WorkerSlots) -> None:
        """Look again at what waits for a worker: it has a free slot, or more of them."""
        for name in worker.types:
            resource = self._slots.get((worker.namespace, name))
            if resource is not None:
                self.freed(resource)

    # Requests.

    def offer(self, request: Request) -> None:
        """Queue a request; `dispatch` grants it when it can."""
        key = request.namespace, request.execution_id, request.type
        group = self._groups.get(key)
        resources = self._resources(request)
        if group is None or group.resources[1] is not resources[1]:
            # One of another limit is left over from before the execution was read again; all of it was withdrawn.
            group = self._groups[key] = _Group(request, resources)
        self._arrivals += 1
        rank = -request.priority, -request.remaining, request.order, self._arrivals
        heapq.heappush(group.heap, (rank, request))
        self._requests[request.namespace, request.execution_id, request.node_path] = request
        if not group.lacks or group.head[1] is request:
            self._unpark(group)

    def withdraw(self, namespace: str, execution_id: str, node_path: str) -> None:
        """Take a request back. Idempotent; the heap forgets it when it comes to its head."""
        request = self._requests.pop((namespace, execution_id, node_path), None)
        if request is not None:
            group = self._groups.get((namespace, execution_id, request.type))
            if group is not None and group.head[1] is request:
                self._unpark(group)

    def take_back(self, request: Request, worker_id: str, instance_id: str) -> Grant:
        """Account for an attempt that already runs (after a restart), whatever the limits say."""
        worker = self._instances.get(instance_id)
        if worker is None:
            # It has not come back yet; until then it takes nothing.
            worker = WorkerSlots(request.namespace, worker_id, instance_id, {})
            self._instances[instance_id] = worker
        engine = self._resources(request)[:-1]
        return Grant(self, request, worker, engine, 0.0)

    def reason(self, namespace: str, execution_id: str, node_path: str) -> str:
        """Say why a request waits (Q6): NO_WORKER or the first limit it lacks; empty if it does not wait."""
        request = self._requests.get((namespace, execution_id, node_path))
        if request is None:
            return ""
        if not self._workers.get((namespace, request.type)):
            return "NO_WORKER"
        for resource in self._resources(request):
            if self._tokens(resource, request) <= 0:
                return resource.name
        return (
            self._groups[namespace, execution_id, request.type].lacks[0].name
            if self._is_parked(request)
            else ""
        )

    def dispatch(self) -> None:
        """Grant whatever can be granted now, in order."""
        while self._runnable:
            self._dispatch_runnable()
        if not self._requests:
            # Nobody waits for a turn: past grants do not count against anyone later.
            self._granted.clear()
            self._turns = 0

    def freed(self, resource: _Resource) -> None:
        """Look again at the groups that lack a resource."""
        if resource.blocked:
            for group in list(resource.blocked):
                self._unpark(group)
            self.on_capacity()

    def statistics(self) -> AllocatorStatistics:
        """Take a snapshot."""
        limiter = self._server.limiter
        return AllocatorStatistics(
            waiting=len(self._requests),
            running=limiter.borrowed_tokens if limiter is not None else 0,
            server_limit=int(limiter.total_tokens) if limiter is not None else 0,
            workers=len(self._instances),
            grants=self._grants,
        )

    # Inside.

    def _dispatch_runnable(self) -> None:
        queue = [
            (self._turn(group), group.head[0], index, group)
            for index, group in enumerate(self._take_runnable())
        ]
        heapq.heapify(queue)
        count = len(queue)
        while queue:
            _, _, _, group = heapq.heappop(queue)
            worker = self._startable(group)
            if worker is None:
                continue
            _, request = heapq.heappop(group.heap)
            del self._requests[request.namespace, request.execution_id, request.node_path]
            queue_s = max(0.0, trio.current_time() - request.ready_s)
            grant = Grant(self, request, worker, group.resources[:-1], queue_s)
            self._grants += 1
            self._turns = self._turn(group)
            self._granted[group.namespace] = self._turns + 1
            request.on_grant(grant)
            if self._trim(group):
                count += 1
                heapq.heappush(queue, (self._turn(group), group.head[0], count, group))

    def _resources(self, request: Request) -> tuple[_Resource, ...]:
        execution = self._executions[request.namespace, request.execution_id]
        slots = self._slots.get((request.namespace, request.type))
        if slots is None:
            slots = self._slots[request.namespace, request.type] = _Resource("WORKER_SLOTS", None)
        of_type = self._types.get(request.type)
        if of_type is None:
            return self._server, execution, slots
        return self._server, execution, of_type, slots

    def _turn(self, group: _Group) -> int:
        return max(self._turns, self._granted.get(group.namespace, 0))

    def _take_runnable(self) -> list[_Group]:
        runnable, self._runnable = self._runnable, {}
        return [group for group in runnable if self._trim(group)]

    def _trim(self, group: _Group) -> bool:
        """Drop withdrawn requests from the head; False if the group is empty, which forgets it."""
        while group.heap:
            request = group.heap[0][1]
            if self._requests.get((request.namespace, request.execution_id, request.node_path)) is request:
                return True
            heapq.heappop(group.heap)
        self._park(group, [])
        key = group.namespace, group.execution_id, group.type
        if self._groups.get(key) is group:
            del self._groups[key]
        return False

    def _unpark(self, group: _Group) -> None:
        # It stays with what it lacks until it is looked at, for its reservations count until then.
        self._runnable[group] = None

    def _is_parked(self, request: Request) -> bool:
        group = self._groups.get((request.namespace, request.execution_id, request.type))
        return group is not None and bool(group.lacks)

    def _startable(self, group: _Group) -> WorkerSlots | None:
        """Find a worker if nothing is lacking; else park the group with all it lacks."""
        rank, request = group.head
        lacks = [
            resource for resource in group.resources if self._free_for(resource, group, rank, request) <= 0
        ]
        keeps = lacks
        if lacks and group.parked is request and self._reserves(request):
            # What came free since is kept for it until the rest has come free too.
            keeps = [resource for resource in group.resources if resource in lacks or resource in group.lacks]
        self._park(group, keeps)
        group.parked = request
        if lacks:
            return None
        workers = self._workers.get((group.namespace, group.type), {})
        return max(workers.values(), key=lambda worker: worker.free(group.type), default=None)

    def _park(self, group: _Group, lacks: list[_Resource]) -> None:
        for resource in group.lacks:
            if resource not in lacks:
                del resource.blocked[group]
                if resource.limiter is None or resource.limiter.available_tokens > 0:
                    # What was kept for it may be another's now.
                    for other in resource.blocked:
                        self._unpark(other)
        for resource in lacks:
            resource.blocked[group] = None
        group.lacks = lacks

    def _reserves(self, request: Request) -> bool:
        return trio.current_time() - request.ready_s >= RESERVE_AFTER_S

    def _free_for(self, resource: _Resource, group: _Group, rank: Rank, request: Request) -> int:
        """Count the permits that a request may see: those kept for others earlier in R4's order are not among them."""
        tokens = self._tokens(resource, request)
        if tokens <= 0 or not resource.blocked:
            return tokens
        for other in resource.blocked:
            if other is group or not other.heap:
                continue
            other_rank, waiting = other.head
            if other_rank < rank and self._reserves(waiting):
                tokens -= 1
                if tokens <= 0:
                    break
        return tokens

    def _tokens(self, resource: _Resource, request: Request) -> int:
        if resource.limiter is not None:
            return int(resource.limiter.available_tokens)
        workers = self._workers.get((request.namespace, request.type), {})
        return sum(worker.free(request.type) for worker in workers.values())
