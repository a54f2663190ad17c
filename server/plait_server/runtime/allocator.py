"""The allocator: which ready node starts next, and at which worker (R4, Q1).

Synchronous: a grant is made in memory the moment everything it takes is free. `trio.CapacityLimiter`s are
used as counters (`acquire_on_behalf_of_nowait`), for trio's own queue is first-in-first-out and for one
limiter, whereas R4 orders by priority and Q1 takes all permits or none.

Rules
1. A request needs a permit of the server, of its execution and of its node type (if that has a limit), and a
   slot of a worker: all or none. It holds nothing while it waits. One that lacks something is passed over.
2. R4's order holds within a namespace. Namespaces take turns: the one that was granted least is first. One that
   has not waited for a while begins where the others are: what they were granted meanwhile gives it no head start.
3. A request that has waited 10 s is kept each permit it lacked since, when that comes free, until it starts or
   is withdrawn: requests later in R4's order do not see the permit, earlier ones do. A kept slot is one of the
   worker with the most room that serves the type. Of requests that need the same permits only the first reserves,
   for the others cannot start before it, and their permits would lie idle: the first of an execution, if that
   has no permit free, and of those whose executions have one, the first of each node type. One that no worker
   serves reserves nothing. Between namespaces nothing is kept: a namespace that waits for its own workers would
   stop all others.
4. Permits of the engine (server, execution, node type) go back at the decision; the worker's slot when the
   handler has ended or was given up. Each is given back once, by whoever holds the `Grant`.

How it costs O(log n)
- Requests that need the same permits are in one `TypeQueue`, a heap of groups by rank; what its first group lacks,
  all lack, but for their executions' permits. So a queue is looked at by its first group alone. A group whose
  execution has no permit free moves to that execution's heap, until one comes free.
- What comes free makes ready those that may have lacked it: a slot the queues of the types that its worker
  serves, a permit of a node type the queues of that type, a permit of an execution its first blocked group (when
  that has gone on, the next). For the server nobody is woken: what is ready stays ready while it has no permit.
- What is ready is taken in R4's order from a heap for each namespace, and namespaces by turns from another.
- What a request is kept is worked out from times: it lacks what was exhausted after it had waited for 10 s. There
  is nothing to be kept up to date for each request. The cost is linear in the reservers of the namespace (node
  types, and executions with no permit free), once a dispatch and grant, and only if anything has waited for 10 s.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

import trio

from plait_server.runtime.grant import Grant
from plait_server.runtime.reservations import Reservations
from plait_server.runtime.waiting import (
    Entry,
    ExecutionQueue,
    Group,
    Item,
    Limit,
    NamespaceQueue,
    Rank,
    Request,
    TypeLimit,
    TypeQueue,
)
from plait_server.runtime.worker_slots import WorkerPool, WorkerSlots

_NAMESPACES_MIN: Final = 64
"""As many namespaces are always remembered; with more, those without executions are forgotten from time to time."""


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
        self._server = Limit("SERVER_LIMIT", server_limit)
        self._types = {name: TypeLimit(limit) for name, limit in type_limits.items()}
        self._executions: dict[tuple[str, str], ExecutionQueue] = {}
        self._opened = 0
        self._pools: dict[tuple[str, str], WorkerPool] = {}
        """(namespace, type) -> its workers; there for each type that is served or waited for."""
        self._instances: dict[str, WorkerSlots] = {}
        self._requests: dict[tuple[str, str, str], Entry] = {}
        """(namespace, execution, path) -> the request that waits."""
        self._namespaces: dict[str, NamespaceQueue] = {}
        self._namespaces_made = 0
        self._namespaces_max = _NAMESPACES_MIN
        """At so many namespaces those without executions are forgotten."""
        self._queue: list[tuple[int, int, NamespaceQueue]] = []
        """A heap of the namespaces in which something is ready, by turn."""
        self._holding: dict[NamespaceQueue, None] = {}
        """Those in which something is held for permits that are kept for others."""
        self._turn = 0
        """The turn of the newest grant; no namespace in the queue is behind it."""
        self._arrivals = 0
        self._grants = 0
        self._moment = 0
        """Grows whenever what is kept for whom may have changed since it was worked out."""
        self.is_held = False
        """While true nothing is granted: the permits of what already runs are still being taken back."""
        self.on_capacity: Callable[[], None] = lambda: None
        """Called when something came free for which requests wait; the owner then calls `dispatch` soon."""

    def __repr__(self) -> str:
        return f"<Allocator {len(self._requests)} waiting, {len(self._instances)} workers>"

    # Executions and workers come and go.

    def open_execution(self, namespace: str, execution_id: str, limit: int, submitted_s: float = 0.0) -> None:
        """Make an execution known, with its limit and the time of its submission. Idempotent."""
        key = namespace, execution_id
        if key not in self._executions:
            self._opened += 1
            queue = self._namespace(namespace)
            queue.open += 1
            self._executions[key] = ExecutionQueue(queue, execution_id, limit, submitted_s, self._opened)

    def close_execution(self, namespace: str, execution_id: str) -> None:
        """Forget an execution that has no grants left; its requests are withdrawn. Idempotent."""
        execution = self._executions.pop((namespace, execution_id), None)
        if execution is None:
            return
        waiting = [
            entry for group in execution.groups.values() for _, entry in group.entries if entry.is_waiting
        ]
        # The last ones first: they leave the heaps from the end.
        for entry in reversed(waiting):
            self._remove(entry)
        execution.namespace.open -= 1
        if waiting and self._holding:
            self.on_capacity()  # They may have been kept what others lack.

    def attach_worker(
        self, namespace: str, worker_id: str, instance_id: str, slots: int, types: Mapping[str, int]
    ) -> None:
        """Let a worker take attempts; one that comes back keeps the slots that its attempts hold."""
        worker = self._instances.get(instance_id)
        if worker is None:
            worker = self._instances[instance_id] = WorkerSlots(namespace, worker_id, instance_id, {})
        worker.set_types(types)
        for name in types:
            self._pool(namespace, name)
        self.change_worker(worker, lambda: worker.set_slots(slots))

    def set_worker_slots(self, instance_id: str, slots: int) -> None:
        """Change how many attempts a worker takes at once; 0 means nothing new."""
        worker = self._instances.get(instance_id)
        if worker is not None:
            self.change_worker(worker, lambda: worker.set_slots(slots))

    def remove_worker(self, instance_id: str) -> None:
        """Forget a worker that is gone. Idempotent."""
        worker = self._instances.pop(instance_id, None)
        if worker is None:
            return
        for name in worker.types:
            pool = self._pools.get((worker.namespace, name))
            if pool is not None:
                pool.remove(worker)
                self._forget_pool(worker.namespace, name)

    def slots_in_use(self, instance_id: str) -> int:
        """Count the slots of a worker that are taken."""
        worker = self._instances.get(instance_id)
        return worker.slots.borrowed_tokens if worker is not None else 0

    # Requests.

    def offer(self, request: Request) -> None:
        """Queue a request; `dispatch` grants it when it can."""
        execution = self._executions[request.namespace, request.execution_id]
        namespace = execution.namespace
        group = execution.groups.get(request.type)
        if group is None:
            kind = self._kind(namespace, request.type)
            kind.count += 1
            group = execution.groups[request.type] = Group(execution, kind)
        self._arrivals += 1
        rank: Rank = (
            -request.priority,
            -request.remaining,
            execution.submitted_s,
            execution.number,
            request.order,
            self._arrivals,
        )
        entry = Entry(rank, request, group)
        group.add(entry)
        namespace.arrive(entry)
        self._requests[request.namespace, request.execution_id, request.node_path] = entry
        if group.entries[0][1] is entry:
            self._place(group)

    def withdraw(self, namespace: str, execution_id: str, node_path: str) -> None:
        """Take a request back. Idempotent."""
        entry = self._requests.get((namespace, execution_id, node_path))
        if entry is not None:
            self._remove(entry)
            if self._holding:
                self.on_capacity()  # It may have been kept what another lacks.

    def take_back(self, request: Request, worker_id: str, instance_id: str) -> Grant:
        """Account for an attempt that already runs (after a restart), whatever the limits say."""
        worker = self._instances.get(instance_id)
        if worker is None:
            # It has not come back yet; until then it takes nothing.
            worker = WorkerSlots(request.namespace, worker_id, instance_id, {})
            self._instances[instance_id] = worker
        execution = self._executions[request.namespace, request.execution_id]
        grant = Grant(self, request, worker, self._engine(execution, request.type), 0.0)
        self._note_exhausted(execution)
        return grant

    def reason(self, namespace: str, execution_id: str, node_path: str) -> str:
        """Say why a request waits (Q6): NO_WORKER or the first limit it lacks; empty if it does not wait."""
        entry = self._requests.get((namespace, execution_id, node_path))
        if entry is None:
            return ""
        kind, execution = entry.group.kind, entry.group.execution
        if not kind.pool.has_workers:
            return "NO_WORKER"
        for limit in (self._server, execution, kind.limit):
            if limit is not None and limit.free <= 0:
                return limit.name
        if kind.pool.best() is None:
            return "WORKER_SLOTS"
        # What is free is kept for others.
        if not execution.has_permit_for(entry.group):
            return execution.name
        self._moment += 1
        return self._lacks(kind, entry.rank)

    def dispatch(self) -> None:
        """Grant whatever can be granted now, in order."""
        if self.is_held:
            return
        self._moment += 1
        holding = list(self._holding)
        self._holding.clear()
        for namespace in holding:
            for item in namespace.take_held():
                self._make_ready(item)
        while self._queue and self._server.free > 0:
            namespace = heapq.heappop(self._queue)[2]
            if self._grant_first(namespace):
                self._turn = namespace.turn
                namespace.turn += 1
            namespace.is_queued = False
            self._enqueue(namespace)

    # For grants.

    def give_back(self, engine: tuple[Limit, ...], borrower: object) -> None:
        """Take permits of the engine back, and have looked at what may have lacked them."""
        for limit in engine:
            limit.give_back(borrower)
            if isinstance(limit, ExecutionQueue):
                self._note_exhausted(limit)
                self._make_ready(limit)
            elif isinstance(limit, TypeLimit):
                for kind in limit.kinds:
                    self._make_ready(kind)
        self._tell()

    def change_worker(self, worker: WorkerSlots, change: Callable[[], None]) -> None:
        """Change what a worker has room for, and have looked at what may have lacked it."""
        is_known = self._instances.get(worker.instance_id) is worker
        names = list(worker.types) if is_known else []
        namespace = self._namespaces.get(worker.namespace)
        # A worker may serve many types, and each slot of it that comes free comes here: what needs a look at the
        # workers is done for the types alone for which something waits.
        kinds = namespace.kinds if namespace is not None else {}
        waiting = [kinds[name] for name in names if name in kinds]
        exhausted = [kind.pool for kind in waiting if kind.pool.best() is None]
        change()
        for pool in exhausted:
            pool.exhausted_s = trio.current_time()
        for name in names:
            self._pools[worker.namespace, name].add(worker)
        for kind in waiting:
            self._make_ready(kind)
        self._tell()

    def statistics(self) -> AllocatorStatistics:
        """Take a snapshot."""
        limiter = self._server.limiter
        return AllocatorStatistics(
            waiting=len(self._requests),
            running=limiter.borrowed_tokens,
            server_limit=int(limiter.total_tokens),
            workers=len(self._instances),
            grants=self._grants,
        )

    # Inside: granting.

    def _grant_first(self, namespace: NamespaceQueue) -> bool:
        """Grant the first request of a namespace that can start; False if none can, and nothing is ready then."""
        while (ready := namespace.take_ready()) is not None:
            rank, item = ready
            if isinstance(item, ExecutionQueue):
                self._let_go_on(item, rank)
                continue
            group = item.first()
            if group is None or item.pool.best() is None:
                continue
            if group.rank != rank:
                self._make_ready(item)  # Its first was withdrawn or is blocked.
                continue
            worker = self._worker_for(item, rank)
            if worker is not None:
                self._grant(group, worker)
                self._make_ready(item)
                return True
        return False

    def _let_go_on(self, execution: ExecutionQueue, rank: Rank) -> None:
        """Move the first blocked group back to the queue of its type, if a permit is free for it."""
        group = execution.peek()
        if group is None or execution.free <= 0:
            return
        if group.rank == rank:
            if not execution.has_permit_for(group):
                execution.namespace.hold(execution)
                return
            self._moment += 1
            group.kind.add(group)
            self._make_ready(group.kind)
        self._make_ready(execution)

    def _worker_for(self, kind: TypeQueue, rank: Rank) -> WorkerSlots | None:
        """Choose a worker for the first group of a type; None if it lacks anything."""
        if kind.limit is not None and kind.limit.free <= 0:
            return None
        if not self._lacks(kind, rank):
            return self._reservations(kind.namespace).slot_for(kind, rank)
        kind.namespace.hold(kind)
        return None

    def _lacks(self, kind: TypeQueue, rank: Rank) -> str:
        """Name the first thing of which all is kept for earlier groups; empty if there is enough of everything."""
        reservations = self._reservations(kind.namespace)
        server, limit = self._server, kind.limit
        if reservations.is_kept(server.free, server.exhausted_s, rank):
            return server.name
        if limit is not None and reservations.is_kept(limit.free, limit.exhausted_s, rank, kind):
            return limit.name
        return "" if reservations.slot_for(kind, rank) is not None else "WORKER_SLOTS"

    def _reservations(self, namespace: NamespaceQueue) -> Reservations:
        known = namespace.reservations
        if known is not None and known[0] == self._moment:
            return known[1]
        reservations = Reservations(namespace.reservers(trio.current_time()))
        namespace.reservations = self._moment, reservations
        return reservations

    def _grant(self, group: Group, worker: WorkerSlots) -> None:
        entry = group.entries[0][1]
        request = entry.request
        queue_s = max(0.0, trio.current_time() - request.ready_s)
        grant = Grant(self, request, worker, self._engine(group.execution, request.type), queue_s)
        self._grants += 1
        self._moment += 1
        self._remove(entry)
        self._note_exhausted(group.execution)
        request.on_grant(grant)

    # Inside: who waits where.

    def _place(self, group: Group) -> None:
        """Put a group where its first request belongs now; one that is empty is forgotten."""
        group.trim()
        execution, kind = group.execution, group.kind
        if not group.entries:
            group.rank = None
            del execution.groups[kind.name]
            kind.count -= 1
            if not kind.count:
                self._forget_kind(kind)
            self._note_exhausted(execution)
            return
        group.rank = group.entries[0][0]
        execution.note(group)
        self._note_exhausted(execution)
        if group.is_blocked:
            self._make_ready(execution)
        else:
            kind.add(group)
            self._make_ready(kind)

    def _remove(self, entry: Entry) -> None:
        request, group = entry.request, entry.group
        del self._requests[request.namespace, request.execution_id, request.node_path]
        entry.is_waiting = False
        # An entry may stay in a heap for long, and whom it would call is a whole execution.
        del entry.request
        group.waiting -= 1
        group.execution.namespace.leave()
        if group.entries[0][1] is entry:
            self._place(group)
        else:
            group.trim()

    def _make_ready(self, item: Item) -> None:
        item.namespace.make_ready(item)
        self._enqueue(item.namespace)

    def _enqueue(self, namespace: NamespaceQueue) -> None:
        if namespace.has_ready and not namespace.is_queued:
            namespace.is_queued = True
            namespace.turn = max(namespace.turn, self._turn)
            heapq.heappush(self._queue, (namespace.turn, namespace.number, namespace))

    def _tell(self) -> None:
        if self._queue or self._holding:
            self.on_capacity()

    def _note_exhausted(self, execution: ExecutionQueue) -> None:
        if execution.groups and execution.free <= 0:
            execution.namespace.exhausted[execution] = None
        else:
            execution.namespace.exhausted.pop(execution, None)

    def _engine(self, execution: ExecutionQueue, node_type: str) -> tuple[Limit, ...]:
        limit = self._types.get(node_type)
        return (self._server, execution) if limit is None else (self._server, execution, limit)

    def _namespace(self, name: str) -> NamespaceQueue:
        namespace = self._namespaces.get(name)
        if namespace is None:
            if len(self._namespaces) >= self._namespaces_max:
                self._forget_namespaces()
            self._namespaces_made += 1
            namespace = NamespaceQueue(name, self._namespaces_made, self._holding)
            self._namespaces[name] = namespace
        return namespace

    def _forget_namespaces(self) -> None:
        # One that has had its turn more recently than the others would gain one by being forgotten.
        self._namespaces = {
            name: each for name, each in self._namespaces.items() if each.open or each.turn > self._turn
        }
        self._namespaces_max = max(_NAMESPACES_MIN, 2 * len(self._namespaces))

    def _kind(self, namespace: NamespaceQueue, node_type: str) -> TypeQueue:
        kind = namespace.kinds.get(node_type)
        if kind is None:
            limit = self._types.get(node_type)
            pool = self._pool(namespace.name, node_type)
            kind = namespace.kinds[node_type] = TypeQueue(namespace, node_type, limit, pool)
            if limit is not None:
                limit.kinds[kind] = None
        return kind

    def _pool(self, namespace: str, node_type: str) -> WorkerPool:
        pool = self._pools.get((namespace, node_type))
        if pool is None:
            pool = self._pools[namespace, node_type] = WorkerPool(node_type)
        return pool

    def _forget_kind(self, kind: TypeQueue) -> None:
        del kind.namespace.kinds[kind.name]
        if kind.limit is not None:
            del kind.limit.kinds[kind]
        self._forget_pool(kind.namespace.name, kind.name)

    def _forget_pool(self, namespace: str, node_type: str) -> None:
        queue = self._namespaces.get(namespace)
        pool = self._pools[namespace, node_type]
        if not pool.has_workers and (queue is None or node_type not in queue.kinds):
            del self._pools[namespace, node_type]
