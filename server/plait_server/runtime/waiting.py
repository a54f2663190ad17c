"""What waits for capacity, in R4's order: queues of requests, by namespace, node type and execution.

Request -> Group (one execution and node type) -> TypeQueue (one namespace and node type) -> NamespaceQueue.
Each level is a heap by rank that holds the level below; `allocator` says what each is for.

An entry of a heap is not removed when what it stands for moves on: it is dropped when it comes to the top.
Each heap is rebuilt when more than half of it is outdated, so none outgrows what waits.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import trio

from plait_server.runtime.worker_slots import WorkerPool

if TYPE_CHECKING:
    from plait_server.runtime.grant import Grant
    from plait_server.runtime.reservations import Reservations

RESERVE_AFTER_S: Final = 10.0
"""Waiting longer than this, a request is kept each permit it lacks (R4)."""
_SPARE_ENTRIES: Final = 16
"""Outdated entries that are always allowed, so that a small heap is not rebuilt all the time."""

Rank: TypeAlias = tuple[int, int, float, int, int, int]
"""R4's order: priority, remaining path, submission (its time, then that of opening), graph order, arrival."""


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


class Entry:
    """A request in its place; it has its `request` for as long as it waits."""

    __slots__ = ("group", "is_waiting", "rank", "request")

    def __init__(self, rank: Rank, request: Request, group: Group) -> None:
        self.rank = rank
        self.request = request
        self.group = group
        self.is_waiting = True


class Limit:
    """A limit of the engine: of the server, of a node type or of an execution."""

    __slots__ = ("exhausted_s", "limiter", "name")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        """The reason shown: SERVER_LIMIT, EXECUTION_LIMIT or NODE_TYPE_LIMIT."""
        self.limiter = trio.CapacityLimiter(limit)
        self.exhausted_s = float("-inf")
        """trio time up to which no permit was free, the last time that this was so."""

    @property
    def free(self) -> int:
        """How many permits are free; negative if more are out than the limit allows."""
        return int(self.limiter.available_tokens)

    def give_back(self, borrower: object) -> None:
        """Return a permit back."""
        if self.limiter.available_tokens <= 0:
            self.exhausted_s = trio.current_time()
        self.limiter.release_on_behalf_of(borrower)


class TypeLimit(Limit):
    """The limit of a node type, which all namespaces share."""

    __slots__ = ("kinds",)

    def __init__(self, limit: int) -> None:
        super().__init__("NODE_TYPE_LIMIT", limit)
        self.kinds: dict[TypeQueue, None] = {}
        """The queues of this type in which something waits."""


class Group:
    """Requests of one execution and node type: they need the same permits, so only the first is looked at."""

    __slots__ = ("entries", "execution", "is_blocked", "kind", "rank", "waiting")

    def __init__(self, execution: ExecutionQueue, kind: TypeQueue) -> None:
        self.execution = execution
        self.kind = kind
        self.entries: list[tuple[Rank, Entry]] = []
        self.waiting = 0
        """How many of the entries wait."""
        self.rank: Rank | None = None
        """The first request's; None if the group is empty."""
        self.is_blocked = False
        """Whether it is in its execution's heap of blocked groups, not in its type's queue."""

    @property
    def first(self) -> Request:
        """The first request; there is one."""
        return self.entries[0][1].request

    def add(self, entry: Entry) -> None:
        """Take a request in."""
        heapq.heappush(self.entries, (entry.rank, entry))
        self.waiting += 1

    def trim(self) -> None:
        """Drop requests that do not wait any more from the top, and all of them if they are the most."""
        entries = self.entries
        while entries and not entries[0][1].is_waiting:
            heapq.heappop(entries)
        if len(entries) > 2 * self.waiting + _SPARE_ENTRIES:
            self.entries = [each for each in entries if each[1].is_waiting]
            heapq.heapify(self.entries)

    def keeps(self, exhausted_s: float) -> bool:
        """Whether its first request is kept a permit of what was exhausted until then.

        It lacked the permit after it had waited long enough. One that no worker serves is kept nothing: it does
        not wait for permits.
        """
        return self.first.ready_s + RESERVE_AFTER_S <= exhausted_s and self.kind.pool.has_workers


class GroupHeap:
    """Groups by rank; those that `is_in` denies any more, or whose rank has changed, are outdated."""

    __slots__ = ("_count", "_entries", "_is_in")

    def __init__(self, is_in: Callable[[Group], bool]) -> None:
        self._is_in = is_in
        self._entries: list[tuple[Rank, int, Group]] = []
        self._count = count()

    def push(self, group: Group, groups: int) -> None:
        """Take a group in under its present rank; `groups` is a bound on how many there are."""
        assert group.rank is not None  # an empty group is in no heap
        heapq.heappush(self._entries, (group.rank, next(self._count), group))
        if len(self._entries) > 2 * groups + _SPARE_ENTRIES:
            self._entries = [each for each in self._entries if self._is_current(each[0], each[2])]
            heapq.heapify(self._entries)

    def first(self) -> Group | None:
        """Return the first group; None if there is none."""
        entries = self._entries
        while entries:
            rank, _, group = entries[0]
            if self._is_current(rank, group):
                return group
            heapq.heappop(entries)
        return None

    def _is_current(self, rank: Rank, group: Group) -> bool:
        return group.rank == rank and self._is_in(group)


class ExecutionQueue(Limit):
    """The limit of one execution, and the groups of it that wait."""

    __slots__ = (
        "_all",
        "_blocked",
        "execution_id",
        "groups",
        "namespace",
        "number",
        "ready_rank",
        "submitted_s",
    )

    def __init__(
        self, namespace: NamespaceQueue, execution_id: str, limit: int, submitted_s: float, number: int
    ) -> None:
        super().__init__("EXECUTION_LIMIT", limit)
        self.namespace = namespace
        self.execution_id = execution_id
        self.submitted_s = submitted_s
        self.number = number
        self.groups: dict[str, Group] = {}
        """Node type -> the requests of that type; none is empty."""
        self._all = GroupHeap(lambda _: True)
        self._blocked = GroupHeap(lambda group: group.is_blocked)
        self.ready_rank: Rank | None = None

    def note(self, group: Group) -> None:
        """Take note of a group's rank."""
        self._all.push(group, len(self.groups))
        if group.is_blocked:
            self._blocked.push(group, len(self.groups))

    def block(self, group: Group) -> None:
        """Keep a group here until the execution has a permit for it."""
        group.is_blocked = True
        self._blocked.push(group, len(self.groups))

    def peek(self) -> Group | None:
        """Return the first blocked group."""
        return self._blocked.first()

    def has_permit_for(self, group: Group) -> bool:
        """Whether a permit is free that is not kept for an earlier group."""
        free = self.free
        if free <= 0:
            return False
        earliest = self._all.first()
        if earliest is not None and earliest is not group and earliest.keeps(self.exhausted_s):
            free -= 1
        return free > 0

    def earliest(self) -> Group | None:
        """Return the first group of all."""
        return self._all.first()


class TypeQueue:
    """The groups of one namespace and node type."""

    __slots__ = ("_groups", "count", "limit", "name", "namespace", "pool", "ready_rank")

    def __init__(
        self, namespace: NamespaceQueue, name: str, limit: TypeLimit | None, pool: WorkerPool
    ) -> None:
        self.namespace = namespace
        self.name = name
        self.limit = limit
        self.pool = pool
        self.count = 0
        """How many groups there are, blocked ones included."""
        self._groups = GroupHeap(lambda group: not group.is_blocked)
        self.ready_rank: Rank | None = None

    def add(self, group: Group) -> None:
        """Take in a group that its execution's limit does not block."""
        group.is_blocked = False
        self._groups.push(group, self.count)

    def first(self) -> Group | None:
        """Return the first group that its execution has a permit for, handing over to executions those it has not."""
        while (group := self._groups.first()) is not None and not group.execution.has_permit_for(group):
            group.execution.block(group)
            if group.execution.free > 0:
                self.namespace.hold(group.execution)
        return group

    def peek(self) -> Group | None:
        """Return the first group, whatever its execution's limit is."""
        return self._groups.first()


Item: TypeAlias = "TypeQueue | ExecutionQueue"
"""What is looked at: a type's queue may start its first group, an execution may let a blocked group go on."""


class NamespaceQueue:
    """All that waits in one namespace."""

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
        self.turn = 0
        self.is_queued = False
        """Whether it is in the allocator's queue."""
        self.open = 0
        """Executions that are open."""
        self.waiting = 0
        """Requests that wait."""
        self.reservations: tuple[int, Reservations] | None = None
        """What is kept for whom, and when that was worked out."""
        self.kinds: dict[str, TypeQueue] = {}
        """The queues in which something waits."""
        self.exhausted: dict[ExecutionQueue, None] = {}
        """Executions in which something waits and no permit is free."""
        self._held: dict[Item, None] = {}
        self._holding = holding
        self._arrivals: deque[Entry] = deque()
        self._ready: list[tuple[Rank, int, Item]] = []
        self._ready_count = 0
        self._count = count()

    def arrive(self, entry: Entry) -> None:
        """Take note of a new request."""
        self.waiting += 1
        self._arrivals.append(entry)
        self._trim_arrivals()

    def leave(self) -> None:
        """Take note that a request waits no more."""
        self.waiting -= 1
        self._trim_arrivals()

    def _trim_arrivals(self) -> None:
        if len(self._arrivals) > 2 * self.waiting + _SPARE_ENTRIES:
            self._arrivals = deque(each for each in self._arrivals if each.is_waiting)

    def hold(self, item: Item) -> None:
        """Have something looked at again at the next dispatch: it could not go on for permits kept for others."""
        self._held[item] = None
        self._holding[self] = None

    def take_held(self) -> list[Item]:
        """Take what is held."""
        held, self._held = self._held, {}
        return list(held)

    @property
    def has_ready(self) -> bool:
        """Whether anything is to be looked at."""
        return bool(self._ready)

    def make_ready(self, item: Item) -> None:
        """Have something looked at."""
        group = item.peek()
        if group is None or group.rank is None:
            return
        if item.ready_rank is None:
            self._ready_count += 1
        elif item.ready_rank <= group.rank:
            return
        item.ready_rank = group.rank
        heapq.heappush(self._ready, (group.rank, next(self._count), item))
        if len(self._ready) > 2 * self._ready_count + _SPARE_ENTRIES:
            self._ready = [each for each in self._ready if each[2].ready_rank == each[0]]
            heapq.heapify(self._ready)

    def take_ready(self) -> tuple[Rank, Item] | None:
        """Take what is to be looked at first; None if nothing is."""
        while self._ready:
            rank, _, item = heapq.heappop(self._ready)
            if item.ready_rank == rank:
                item.ready_rank = None
                self._ready_count -= 1
                return rank, item
        return None

    def reservers(self, now_s: float) -> list[Group | None]:
        """List the groups whose first requests may be kept permits, in no order.

        Of those that need the same permits only the first: the first of each type, and of each execution that has
        no permit free.
        """
        arrivals = self._arrivals
        while arrivals and not arrivals[0].is_waiting:
            arrivals.popleft()
        if not arrivals or arrivals[0].request.ready_s + RESERVE_AFTER_S > now_s:
            return []
        firsts = [execution.earliest() for execution in self.exhausted]
        return firsts + [kind.first() for kind in self.kinds.values() if kind.pool.has_workers]
