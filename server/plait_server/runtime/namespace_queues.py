"""The queues of the namespaces: by node type within each, and in turn between them."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Final, TypeAlias

from plait_server.runtime.key_limits import KeyLine
from plait_server.runtime.limit import Limit, NamespaceLimit, TypeLimit
from plait_server.runtime.waiting import (
    RESERVE_AFTER_S,
    SPARE_ENTRIES,
    Entry,
    ExecutionQueue,
    Group,
    Rank,
    RankHeap,
    ScopeQueue,
)
from plait_server.runtime.worker_slots import WorkerPool

if TYPE_CHECKING:
    from plait_server.runtime.reservations import Reservations

_NAMESPACES_MIN: Final = 64
"""Up to this many namespaces are always remembered; with more, those without executions are forgotten regularly."""


_STRIDE: Final = 1_000_000
"""From one turn of a namespace to its next, with a weight of 1 (stride scheduling, Waldspurger and Weihl 1995)."""


class TypeQueue:
    """The groups of one namespace and node type."""

    __slots__ = (
        "_groups",
        "count",
        "engine",
        "limits",
        "name",
        "namespace",
        "paced_until_s",
        "pool",
        "ready_rank",
        "waiting",
    )

    def __init__(self, namespace: NamespaceQueue, name: str, pool: WorkerPool) -> None:
        self.namespace = namespace
        self.name = name
        self.limits: tuple[TypeLimit, ...] = ()
        """The limits of the type, in its namespace and in all of them, if there are such."""
        self.engine: tuple[Limit, ...] = ()
        """The limits of which each grant takes a permit: of the server, the namespace and the type."""
        self.pool = pool
        self.count = 0
        """How many groups there are, blocked ones and those inside others included."""
        self.waiting = 0
        """How many requests wait in them."""
        self.paced_until_s: float | None = None
        """The trio time until which it waits for a rate; None if it does not."""
        self._groups: RankHeap[Group | KeyLine] = RankHeap(attrgetter("open_rank"))
        """The groups of executions that are not blocked, and the lines of keys with a free permit."""
        self.ready_rank: Rank | None = None

    @property
    def next_start_s(self) -> float:
        """The trio time from which the rates of the type allow the next attempt to start."""
        if not self.limits:
            return float("-inf")
        return max((limit.rate.next_s for limit in self.limits if limit.rate), default=float("-inf"))

    def add(self, item: Group | KeyLine) -> None:
        """Add the group of an execution, or the line of a key, under the rank with which it competes."""
        self._groups.push(item, self.count)

    def first(self) -> Group | None:
        """Return the first group for whose first request each limit of its execution, and its key, has a permit.

        Blocked groups before it are moved to the limit that lacks a permit.
        """
        while (first := self._groups.first()) is not None:
            if isinstance(first, KeyLine):
                first.let_go_on()
                continue
            lacking = first.lacking()
            if lacking is None:
                return first
            lacking.block()
            gate = lacking.gate
            if isinstance(gate, KeyLine):
                if gate.limit.free > 0:
                    gate.hold()
            elif gate.free > 0:
                self.namespace.hold(gate)
        return None

    def peek(self) -> Group | KeyLine | None:
        """Return the first item that is not blocked, whatever it lacks."""
        return self._groups.first()


ReadyItem: TypeAlias = "TypeQueue | ScopeQueue"
"""An item in the order of examination."""
Item: TypeAlias = "TypeQueue | ScopeQueue | KeyLine"
"""An item to examine: a type's queue may start its first request, a limit or a line may unblock a group."""


class NamespaceQueue:
    """All waiting requests of one namespace."""

    __slots__ = (
        "_arrivals",
        "_count",
        "_held",
        "_holding",
        "_ready",
        "_ready_count",
        "exhausted",
        "is_queued",
        "kinds",
        "limit",
        "name",
        "number",
        "open",
        "reservations",
        "turn",
        "waiting",
    )

    def __init__(self, name: str, number: int, holding: dict[NamespaceQueue, None]) -> None:
        self.name = name
        self.number = number
        self.limit: NamespaceLimit | None = None
        self.turn = 0
        self.is_queued = False
        """Whether it is in the allocator's queue."""
        self.open = 0
        """Executions that are open."""
        self.waiting = 0
        """Requests that wait."""
        self.reservations: tuple[int, Reservations] | None = None
        """The reservations, and when they were computed."""
        self.kinds: dict[str, TypeQueue] = {}
        """The queues in which something waits."""
        self.exhausted: dict[ExecutionQueue, None] = {}
        """Executions in which something waits that lacks a permit of the execution or of a scope in it."""
        self._held: dict[Item, None] = {}
        self._holding = holding
        self._arrivals: deque[Entry] = deque()
        self._ready: list[tuple[Rank, int, ReadyItem]] = []
        self._ready_count = 0
        self._count = count()

    def arrive(self, entry: Entry) -> None:
        """Record a new request."""
        self.waiting += 1
        self._arrivals.append(entry)
        self._trim_arrivals()

    def leave(self) -> None:
        """Record that a request no longer waits."""
        self.waiting -= 1
        self._trim_arrivals()

    def _trim_arrivals(self) -> None:
        if len(self._arrivals) > 2 * self.waiting + SPARE_ENTRIES:
            self._arrivals = deque(each for each in self._arrivals if each.is_waiting)

    def hold(self, item: Item) -> None:
        """Examine an item again at the next dispatch, because permits reserved for others stopped it now."""
        self._held[item] = None
        self._holding[self] = None

    def take_held(self) -> list[Item]:
        """Remove and return the held items."""
        held, self._held = self._held, {}
        return list(held)

    @property
    def has_ready(self) -> bool:
        """Whether any item must be examined."""
        return bool(self._ready)

    def make_ready(self, item: Item) -> None:
        """Mark an item to be examined."""
        if isinstance(item, KeyLine):
            item = item.reopen()
        group = item.peek()
        if group is None or group.rank is None:
            return
        if item.ready_rank is None:
            self._ready_count += 1
        elif item.ready_rank <= group.rank:
            return
        item.ready_rank = group.rank
        heapq.heappush(self._ready, (group.rank, next(self._count), item))
        if len(self._ready) > 2 * self._ready_count + SPARE_ENTRIES:
            self._ready = [each for each in self._ready if each[2].ready_rank == each[0]]
            heapq.heapify(self._ready)

    def take_ready(self) -> tuple[Rank, ReadyItem] | None:
        """Remove and return the first item to examine; None if there is none."""
        while self._ready:
            rank, _, item = heapq.heappop(self._ready)
            if item.ready_rank == rank:
                item.ready_rank = None
                self._ready_count -= 1
                return rank, item
        return None

    def has_waited_long(self, now_s: float) -> bool:
        """Whether any request has waited long enough to reserve permits."""
        arrivals = self._arrivals
        while arrivals and not arrivals[0].is_waiting:
            arrivals.popleft()
        return bool(arrivals) and arrivals[0].request.ready_s + RESERVE_AFTER_S <= now_s

    def reservers(self) -> list[Group | None]:
        """Return the groups whose first own requests may reserve permits, in no order.

        Of those that need the same permits only the first: the first of each execution, if it lacks a permit of
        that or of a scope in it, and of those that lack neither, the first of each type.
        """
        firsts = [each.earliest() for each in self.exhausted if each.has_first_that_lacks()]
        starting = [kind.first() for kind in self.kinds.values() if kind.pool.has_workers]
        return firsts + [group and group.holder() for group in starting]


class Namespaces:
    """All namespaces. Those with ready items take turns: the one with the fewest grants for its weight is first."""

    def __init__(self, limit_of: Callable[[str], NamespaceLimit | None]) -> None:
        self._limit_of = limit_of
        self._namespaces: dict[str, NamespaceQueue] = {}
        self._made = 0
        self._most = _NAMESPACES_MIN
        """The number of namespaces at which those without executions are forgotten."""
        self._queue: list[tuple[int, int, NamespaceQueue]] = []
        """A heap of the namespaces with ready items, by turn."""
        self._holding: dict[NamespaceQueue, None] = {}
        """The namespaces with items held because permits are reserved for others."""
        self._turn = 0
        """The turn of the newest grant; no namespace in the queue has a lower one."""
        self.weight_of: Callable[[str], int] = lambda _: 1
        """Returns the weight of a namespace: one of twice the weight has its next turn after half as long."""

    @property
    def has_ready(self) -> bool:
        """Whether any item must be examined."""
        return bool(self._queue)

    @property
    def has_held(self) -> bool:
        """Whether any item is held because permits are reserved for others."""
        return bool(self._holding)

    def find(self, name: str) -> NamespaceQueue | None:
        """Return a namespace if it is known."""
        return self._namespaces.get(name)

    def waiting_in(self, namespace: str) -> int:
        """Return how many requests wait in a namespace, or in all if that is empty."""
        if not namespace:
            return sum(queue.waiting for queue in self._namespaces.values())
        queue = self._namespaces.get(namespace)
        return queue.waiting if queue is not None else 0

    def kinds_of(self, namespace: str, node_type: str) -> list[TypeQueue]:
        """Return the queues of a node type, or of all types if that is empty; of all namespaces if that is empty."""
        return [
            kind
            for queue in self._namespaces.values()
            if namespace in {"", queue.name}
            for kind in queue.kinds.values()
            if node_type in {"", kind.name}
        ]

    def get(self, name: str) -> NamespaceQueue:
        """Return a namespace; create it if it is unknown."""
        namespace = self._namespaces.get(name)
        if namespace is None:
            if len(self._namespaces) >= self._most:
                self._forget_some()
            self._made += 1
            namespace = NamespaceQueue(name, self._made, self._holding)
            namespace.limit = self._limit_of(name)
            self._namespaces[name] = namespace
        return namespace

    def make_ready(self, item: Item) -> None:
        """Mark an item to be examined at its namespace's turn."""
        namespace = item.namespace
        namespace.make_ready(item)
        if not namespace.is_queued:
            self._enqueue_if_ready(namespace)

    def resume(self, name: str) -> None:
        """Let a namespace take turns again that was set aside, as long as it has ready items."""
        namespace = self._namespaces.get(name)
        if namespace is not None:
            self._enqueue_if_ready(namespace)

    def make_held_ready(self) -> None:
        """Mark all held items to be examined."""
        if self._holding:
            holding = list(self._holding)
            self._holding.clear()
            for namespace in holding:
                for item in namespace.take_held():
                    self.make_ready(item)

    def take_first(self) -> NamespaceQueue:
        """Remove and return the namespace whose turn it is; the caller then calls `put_back` or `set_aside`."""
        return heapq.heappop(self._queue)[2]

    def set_aside(self, namespace: NamespaceQueue) -> None:
        """Let a namespace take no turns until `resume` or until more of it is ready."""
        namespace.is_queued = False

    def put_back(self, namespace: NamespaceQueue, *, was_granted: bool) -> None:
        """Put a namespace back with a later turn if it got a grant, as long as it has ready items."""
        if was_granted:
            self._turn = namespace.turn
            namespace.turn += _STRIDE // self.weight_of(namespace.name)
        namespace.is_queued = False
        self._enqueue_if_ready(namespace)

    def _enqueue_if_ready(self, namespace: NamespaceQueue) -> None:
        if namespace.is_queued or not namespace.has_ready:
            return
        namespace.is_queued = True
        namespace.turn = max(namespace.turn, self._turn)
        heapq.heappush(self._queue, (namespace.turn, namespace.number, namespace))

    def _forget_some(self) -> None:
        # A namespace with a more recent turn than the others would gain one by being forgotten.
        self._namespaces = {
            name: each for name, each in self._namespaces.items() if each.open or each.turn > self._turn
        }
        self._most = max(_NAMESPACES_MIN, 2 * len(self._namespaces))
