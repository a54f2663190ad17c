"""The allocator: which ready node starts next, and at which worker (R4, Q1).

Synchronous: a grant is made in memory the moment everything it takes is free. `trio.CapacityLimiter`s are
used as counters (`acquire_on_behalf_of_nowait`), because trio's own queue is first-in-first-out and serves one
limiter, whereas R4 orders by priority and Q1 takes all permits or none.

Rules
1. A request needs a permit of the server, of its namespace and of its node type (where these have limits), of its
   execution, of each scope around it that has a limit (N1), and of its concurrency key (if it has one), a start at the
   rate of its type, and a slot of a worker: all or none. It holds nothing while it waits. One that lacks something is
   skipped.
2. R4's order holds within a namespace. Namespaces take turns: the one with the fewest grants for its weight is
   first. One that had nothing waiting for a while starts level with the others, so the grants that they got in the
   meantime give it no head start.
3. A request that has waited 10 s reserves each permit that it has lacked since, once the permit comes free, until
   it starts or is withdrawn: requests later in R4's order do not see the permit, earlier ones do. A reserved slot
   belongs to the worker with the most room that serves the type. Of requests that need the same permits only the
   first reserves, because the others cannot start before it, and their permits would lie idle. A permit of an
   execution, a scope or a key is reserved for the first request under that limit. Everything else is reserved for
   the first request of an execution, if it lacks a permit of the execution or of a scope in it, and, among those
   that lack neither, nor one of their key, for the first of each node type. A request that lacks its key's permit
   reserves that alone: the others would lie idle for as long as another attempt has the key, and the key is kept for
   it. A request that no worker serves reserves nothing, nor does one that the rate of its type holds back.
   There are no reservations between namespaces: a namespace that waits for its own workers would stop all others.
4. The engine's permits (server, execution, scopes, node type) are returned at the decision; the worker's slot when
   the handler has ended or was abandoned. Each is returned once, by the owner of the `Grant`.

How it costs O(log n)
- Requests that need the same permits are in one `TypeQueue`, a heap of groups by rank; what its first group lacks,
  all lack, except for the permits of executions and scopes. So only the first group of a queue is examined. A
  group whose execution has no permit free moves to that execution's heap, until one comes free; a group inside it
  whose scope has none to that scope's. Scopes inside an execution are reached only through its group, so
  that a permit that comes free moves one group, however many scopes are open. Keys are shared by executions, and so
  have lines of their own (`key_limits`).
- A freed permit makes ready whatever may have lacked it: a slot the queues of the types that its worker serves, a
  permit of a node type the queues of that type, a permit of an execution or scope its first blocked group (once that
  has started, the next), a permit of a key its lines. A permit of the server or of a namespace makes nothing ready,
  because queues stay ready while it has none.
- Ready items are taken in R4's order from one heap for each namespace, and namespaces in turn from another.
- Reservations are computed from times: a request lacks what was exhausted after it had waited for 10 s, so there is
  no state to update for each request. The cost is linear in the reservers of the namespace (node types, and
  executions with a request that lacks a permit of theirs), for each dispatch and grant, and only if anything has
  waited for 10 s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import assert_never

import trio

from plait_server.core.limit_values import LimitKind, LimitName, LimitValue
from plait_server.runtime.grant import Grant
from plait_server.runtime.key_limits import KeyLimit
from plait_server.runtime.limit import Limit
from plait_server.runtime.limit_table import LimitTable, LimitUse
from plait_server.runtime.namespace_queues import NamespaceQueue, Namespaces, TypeQueue
from plait_server.runtime.rate import PacedQueues
from plait_server.runtime.reservations import Reservations
from plait_server.runtime.waiting import (
    Entry,
    ExecutionQueue,
    Group,
    PermitRequest,
    Rank,
    ScopeQueue,
    SharedLimit,
)
from plait_server.runtime.waiting_groups import WaitingGroups
from plait_server.runtime.waiting_types import WaitingTypes
from plait_server.runtime.worker_slots import WorkerSlots
from plait_server.runtime.worker_table import WorkerTable


@dataclass(frozen=True, slots=True, kw_only=True)
class AllocatorStatistics:
    """A snapshot of the allocator."""

    waiting: int
    """Requests that wait."""
    running: int
    """Permits of the server in use."""
    server_limit: int
    workers: int
    grants: int
    """Since the start."""


class Allocator:
    """Grants capacity to ready nodes."""

    def __init__(
        self,
        *,
        server_limit: int,
        limits: Mapping[LimitName, LimitValue] | None = None,
    ) -> None:
        self._limits = LimitTable(server_limit)
        self._server = self._limits.server
        self._executions: dict[tuple[str, str], ExecutionQueue] = {}
        self._opened = 0
        self._requests: dict[tuple[str, str, str], Entry] = {}
        """(namespace, execution, path) -> the waiting request."""
        self._types = WaitingTypes()
        self._namespaces = Namespaces(self._limits.of_namespace)
        self._paced = PacedQueues()
        self._workers = WorkerTable(self._namespaces)
        self._groups = WaitingGroups(self._limits, self._namespaces, self._workers, self._paced)
        self._arrivals = 0
        self._grants = 0
        self._grant_number = 0
        self._moment = 0
        """Incremented whenever the reservations may have changed since they were computed."""
        self.is_held = False
        """While true nothing is granted, because the permits of running attempts are still being reclaimed."""
        self.on_capacity: Callable[[], None] = lambda: None
        """Called when capacity came free for waiting requests, or `next_start_s` is earlier than it was; the owner
        then calls `dispatch` soon.
        """
        for name, value in (limits or {}).items():
            self.set_limit(name, value)

    def __repr__(self) -> str:
        return f"<Allocator {len(self._requests)} waiting, {len(self._workers)} workers>"

    # Limits change (Q2): raising one wakes who waits for it, lowering one aborts nothing.

    def set_limit(self, name: LimitName, value: LimitValue | None) -> None:
        """Give a limit a value, or none: then a key has the default, and another limit does not bind."""
        limit = self._limits.change(name, value)
        match name.kind:
            case LimitKind.NAMESPACE | LimitKind.TYPE:
                for kind in self._namespaces.kinds_of(name.namespace, name.name):
                    self._groups.bind(kind)
            case LimitKind.SERVER | LimitKind.KEY:
                pass
            case _:
                assert_never(name.kind)
        if limit is not None:
            limit.wake(self._namespaces)
        self._moment += 1
        self._tell()

    def limits_in_use(self) -> Iterator[LimitName]:
        """Return the limits that exist because something uses them, in no order."""
        return self._limits.in_use()

    def use_of(self, name: LimitName, *, namespace: str, most: int) -> LimitUse:
        """Return who uses a limit; of the holders the first `most` in a namespace, or in all if that is empty."""
        return self._limits.use_of(name, self._namespaces, namespace=namespace, most=most)

    @property
    def next_start_s(self) -> float:
        """The trio time at which the owner must call `dispatch`, because a rate allows a start; maybe infinite."""
        return self._paced.next_s

    def share_by(self, weight_of: Callable[[str], int]) -> None:
        """Share the turns between namespaces by their weights, which may change at any time."""
        self._namespaces.weight_of = weight_of

    # Executions and workers come and go.

    def open_execution(
        self, namespace: str, execution_id: str, limit: int, submitted_s: float = 0.0, *, priority: int = 0
    ) -> None:
        """Add an execution, with its limit, the time of its submission, and its priority. Idempotent."""
        key = namespace, execution_id
        if key not in self._executions:
            self._opened += 1
            queue = self._namespaces.get(namespace)
            queue.open += 1
            self._executions[key] = ExecutionQueue(queue, limit, priority, submitted_s, self._opened)

    def change_execution(self, namespace: str, execution_id: str, limit: int, priority: int) -> None:
        """Change an execution's limit, and the priority of the requests that it makes from now on."""
        execution = self._executions[namespace, execution_id]
        execution.urgency = -priority
        execution.change(limit)
        execution.wake(self._namespaces)
        self._moment += 1
        self._tell()

    def close_execution(self, namespace: str, execution_id: str) -> None:
        """Remove an execution that has no grants left; its requests are withdrawn. Idempotent."""
        execution = self._executions.pop((namespace, execution_id), None)
        if execution is not None:
            for limit in (execution, *execution.scopes.values()):
                self._withdraw_all(limit)
            execution.namespace.open -= 1

    def open_scope(self, namespace: str, execution_id: str, scope_path: str, limit: int) -> None:
        """Add the limit of a scope, after those of the scopes around it. Idempotent."""
        execution = self._executions[namespace, execution_id]
        if scope_path not in execution.scopes:
            outer = execution.limit_around(scope_path).chain
            execution.scopes[scope_path] = ScopeQueue(execution.namespace, outer, limit)

    def close_scope(self, namespace: str, execution_id: str, scope_path: str) -> None:
        """Remove the limit of a scope, after those of the scopes in it; its requests are withdrawn. Idempotent."""
        scope = self._executions[namespace, execution_id].scopes.pop(scope_path, None)
        if scope is not None:
            self._withdraw_all(scope)

    def attach_worker(
        self, namespace: str, worker_id: str, instance_id: str, slots: int, types: Mapping[str, int]
    ) -> None:
        """Add a worker; one that comes back keeps the slots that its attempts hold."""
        self._workers.attach(namespace, worker_id, instance_id, slots, types)
        self._tell()

    def set_worker_slots(self, namespace: str, instance_id: str, slots: int) -> None:
        """Change how many attempts a worker runs at once; at 0 it gets no new ones."""
        self._workers.set_slots(namespace, instance_id, slots)
        self._tell()

    def remove_worker(self, namespace: str, instance_id: str) -> None:
        """Remove a worker that is gone. Idempotent."""
        self._workers.remove(namespace, instance_id)

    def slots_in_use(self, namespace: str, instance_id: str) -> int:
        """Return how many slots of a worker are in use."""
        return self._workers.slots_in_use(namespace, instance_id)

    # Requests.

    def offer(self, request: PermitRequest) -> None:
        """Queue a request; `dispatch` grants it when it can."""
        execution = self._executions[request.namespace, request.execution_id]
        queue = execution.limit_of(request.limit_path)
        group = queue.groups.get((request.type, request.key))
        if group is None:
            group = self._groups.make(queue, request.type, request.key)
        self._arrivals += 1
        places = request.places
        urgency, distance, order = places[0]
        submission = execution.submitted_s, execution.number
        # Of a request that is not in a nested scope, there is nothing inside.
        inside = chain.from_iterable(places[1:])
        rank: Rank = (
            execution.urgency,
            urgency,
            distance,
            *submission,
            order,
            *inside,
            self._arrivals,
        )
        self._types.add(request)
        entry = Entry(rank, request, group)
        group.add(entry)
        queue.namespace.arrive(entry)
        self._requests[request.namespace, request.execution_id, request.node_path] = entry
        if group.entries[0][1] is entry:
            self._groups.put(group)

    def withdraw(self, namespace: str, execution_id: str, node_path: str) -> None:
        """Withdraw a request. Idempotent."""
        entry = self._requests.get((namespace, execution_id, node_path))
        if entry is not None:
            self._remove(entry)
            if self._namespaces.has_held:
                self.on_capacity()  # It may have reserved what another lacks.

    def take_back(
        self, request: PermitRequest, worker_id: str, instance_id: str, *, age_s: float = 0.0
    ) -> Grant:
        """Account for an attempt that already runs (after a restart) for `age_s`, whatever the limits are."""
        worker = self._workers.find_or_add(request.namespace, worker_id, instance_id)
        queue = self._executions[request.namespace, request.execution_id].limit_of(request.limit_path)
        engine = self._limits.of_grants(request.namespace, request.type) + queue.chain
        if request.key:
            engine = *engine, self._limits.of_key(request.namespace, request.key)
        self._grant_number += 1
        since_s = trio.current_time() - age_s
        grant = Grant(self, request, worker, engine, number=self._grant_number, since_s=since_s)
        queue.note_exhausted()
        return grant

    def reason(self, namespace: str, execution_id: str, node_path: str) -> str:
        """Return why a request waits (Q6): NO_WORKER or the first limit it lacks; empty if it does not wait."""
        entry = self._requests.get((namespace, execution_id, node_path))
        if entry is None:
            return ""
        group = entry.group
        kind = group.kind
        if not kind.pool.has_workers:
            return "NO_WORKER"
        limits: tuple[SharedLimit, ...] = group.queue.chain
        if group.line is not None:
            limits = *limits, group.line.limit
        for limit in (self._server, kind.namespace.limit, *limits, *kind.limits):
            if limit is not None and limit.free <= 0:
                return limit.name
        if kind.next_start_s > trio.current_time():
            return "RATE_LIMIT"
        if kind.pool.best() is None:
            return "WORKER_SLOTS"
        # All free permits are reserved for others.
        for each in limits:
            if not each.has_permit_for(group):
                return each.name
        self._moment += 1
        lacking = self._choose(kind, entry.rank)
        return lacking if isinstance(lacking, str) else ""

    def unserved_s(self, namespace: str, execution_id: str, node_path: str) -> float:
        """Return for how long no worker has served the type of a request: 0 if one does, or if it does not wait.

        Infinite if none has served it since the start, as far as is remembered.
        """
        entry = self._requests.get((namespace, execution_id, node_path))
        return self._workers.unserved_s(namespace, entry.request.type) if entry is not None else 0.0

    def unserved_types(self, namespace: str, execution_id: str) -> list[str]:
        """Return the types that requests of an execution wait for and no worker serves, sorted (Q6)."""
        types = self._types.of(namespace, execution_id)
        return sorted(each for each in types if self._workers.unserved_s(namespace, each))

    def dispatch(self) -> None:
        """Grant whatever can be granted now, in order."""
        if self.is_held:
            return
        self._moment += 1
        namespaces = self._namespaces
        namespaces.make_held_ready()
        next_start_s = self._paced.next_s
        for kind in self._paced.take_due(trio.current_time()):
            namespaces.make_ready(kind)
        while namespaces.has_ready and self._server.free > 0:
            namespace = namespaces.take_first()
            if namespace.limit is not None and namespace.limit.free <= 0:
                namespaces.set_aside(namespace)
            else:
                namespaces.put_back(namespace, was_granted=self._grant_first(namespace))
        if self._paced.next_s < next_start_s:
            self.on_capacity()

    # Used by grants.

    def give_back(self, engine: tuple[Limit, ...], borrower: object) -> None:
        """Return permits to the engine's limits, and make ready whatever may have lacked them."""
        for limit in engine:
            limit.give_back(borrower)
            limit.wake(self._namespaces)
            if isinstance(limit, KeyLimit):
                self._limits.forget_unused(limit)
        self._tell()

    def give_back_slot(self, worker: WorkerSlots, borrower: object) -> None:
        """Return a slot of a worker, and make ready whatever may have lacked it."""
        self._workers.change(worker, lambda: worker.give_back(borrower))
        self._tell()

    def statistics(self) -> AllocatorStatistics:
        """Return a snapshot of the counts."""
        server = self._server.limiter
        return AllocatorStatistics(
            waiting=len(self._requests),
            running=server.borrowed_tokens,
            server_limit=int(server.total_tokens),
            workers=len(self._workers),
            grants=self._grants,
        )

    # Inside: granting.

    def _grant_first(self, namespace: NamespaceQueue) -> bool:
        """Grant the first request of a namespace that can start; return False if none can, then nothing is ready."""
        while (ready := namespace.take_ready()) is not None:
            rank, item = ready
            if isinstance(item, ScopeQueue):
                self._let_go_on(item, rank)
                continue
            group = item.first()
            if group is None or item.pool.best() is None:
                continue
            if group.rank != rank:
                self._namespaces.make_ready(item)  # Its first group was withdrawn or is blocked.
                continue
            if item.limits and not self._may_start(item):
                continue
            worker = self._choose(item, rank)
            if isinstance(worker, str):
                namespace.hold(item)
                continue
            self._grant(group.holder(), worker)
            self._namespaces.make_ready(item)
            return True
        return False

    def _may_start(self, kind: TypeQueue) -> bool:
        """Whether the limits of a type allow another start; if only a rate does not, its queue waits for the time."""
        if any(limit.free <= 0 for limit in kind.limits):
            return False
        next_s = kind.next_start_s
        if next_s > trio.current_time():
            self._paced.add(kind, next_s)
            return False
        return True

    def _let_go_on(self, queue: ScopeQueue, rank: Rank) -> None:
        """Unblock the first group of a limit, if a permit is free for it."""
        group = queue.peek()
        if group is None or queue.free <= 0:
            return
        if group.rank == rank:
            if not queue.has_permit_for(group.holder()):
                queue.namespace.hold(queue)
                return
            self._moment += 1
            self._namespaces.make_ready(group.unblock())
        self._namespaces.make_ready(queue)

    def _choose(self, kind: TypeQueue, rank: Rank) -> WorkerSlots | str:
        """Choose a worker for the first request of a type, or return the reason why it must wait.

        The reason is the first limit whose free permits are all reserved for others. Requires a free permit of the
        server, the namespace and the type.
        """
        reservations = self._reservations(kind.namespace)
        if reservations is None:
            return kind.pool.best() or "WORKER_SLOTS"
        for limit in kind.engine:
            only = kind if limit in kind.limits else None
            if reservations.is_kept(limit.free, limit.exhausted_s, rank, only):
                return limit.name
        return reservations.slot_for(kind, rank) or "WORKER_SLOTS"

    def _reservations(self, namespace: NamespaceQueue) -> Reservations | None:
        """Compute the reservations; None if there can be none."""
        if not namespace.has_waited_long(trio.current_time()):
            return None
        known = namespace.reservations
        if known is not None and known[0] == self._moment:
            return known[1]
        reservations = Reservations(namespace.reservers())
        self._namespaces.resume(namespace.name)  # Lines of keys may have let groups go on.
        namespace.reservations = self._moment, reservations
        return reservations

    def _grant(self, group: Group, worker: WorkerSlots) -> None:
        entry = group.entries[0][1]
        request = entry.request
        now_s = trio.current_time()
        kind = group.kind
        engine = kind.engine + group.queue.chain
        if group.line is not None:
            engine = *engine, group.line.limit
        self._grants += 1
        self._grant_number += 1
        queue_s = max(0.0, now_s - request.ready_s)
        number = self._grant_number
        grant = Grant(self, request, worker, engine, number=number, since_s=now_s, queue_s=queue_s)
        if kind.limits:
            self._take_rates(kind, now_s)
        self._moment += 1
        self._remove(entry)
        group.queue.note_exhausted()
        request.on_grant(grant)

    def _take_rates(self, kind: TypeQueue, now_s: float) -> None:
        """Account for a start of a type at its rates."""
        for limit in kind.limits:
            if limit.rate is not None:
                limit.rate.take(now_s)
        if kind.next_start_s > now_s:
            # The next one of the type reserves nothing from now on, which may let others start.
            self._namespaces.make_held_ready()

    # Inside: requests that leave.

    def _withdraw_all(self, limit: ScopeQueue) -> None:
        waiting = [entry for group in limit.groups.values() for _, entry in group.entries if entry.is_waiting]
        # The last ones first: they leave the heaps from the end.
        for entry in reversed(waiting):
            self._remove(entry)
        if waiting and self._namespaces.has_held:
            self.on_capacity()  # They may have reserved what others lack.

    def _remove(self, entry: Entry) -> None:
        request, group = entry.request, entry.group
        del self._requests[request.namespace, request.execution_id, request.node_path]
        self._types.remove(request)
        entry.is_waiting = False
        # An entry may stay in a heap for long, and its callback refers to a whole execution.
        del entry.request
        group.leave()
        group.queue.namespace.leave()
        if group.entries[0][1] is entry:
            self._groups.put(group)
        else:
            group.trim()

    def _tell(self) -> None:
        if self._namespaces.has_ready or self._namespaces.has_held:
            self.on_capacity()
