"""The requests that wait for capacity, in R4's order, grouped by node type, by the limits of an execution, and by key.

Request -> Group (one limit of an execution, one node type, one concurrency key or none) -> TypeQueue (one namespace
and node type) -> NamespaceQueue, the latter two in `namespace_queues`. Each level is a heap by rank that holds the
level below; `allocator` explains what each is for.

The limits of an execution form a tree: its own, and those of the scopes inside that have one. So do its groups of
a node type: a group holds the requests that are directly under its limit, the groups of the limits inside, and one
group for each concurrency key that requests directly under its limit have. Outside the tree only the group of the
execution is visible, ranked by the first request in it; and groups whose key has no permit free (`key_limits`).

An entry of a heap is not removed when its item moves: it is dropped when it comes to the top.
Each heap is rebuilt when more than half of it is outdated, so none outgrows what waits.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count
from operator import attrgetter
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeAlias, TypeVar

import trio

from plait_server.core.run.commands import Place
from plait_server.runtime.limit import Limit

if TYPE_CHECKING:
    from plait_server.runtime.grant import Grant
    from plait_server.runtime.key_limits import KeyLine
    from plait_server.runtime.namespace_queues import Item, NamespaceQueue, Namespaces, TypeQueue

RESERVE_AFTER_S: Final = 10.0
"""Seconds of waiting after which a request reserves each permit that it lacks (R4)."""
SPARE_ENTRIES: Final = 16
"""Outdated entries that are always allowed, so that a small heap is not rebuilt all the time."""

Rank: TypeAlias = tuple[float, ...]
"""R4's order: the priority of the execution, that of the node, remaining path and submission (its time, then that of
opening), graph order, arrival.

The places of nodes in nested scopes come before the arrival. Ranks of different lengths differ before the shorter
one ends, because two nodes are compared in the innermost scope that has both (N3).
"""


class PermitRequest(NamedTuple):
    """A ready node that waits for capacity."""

    namespace: str
    execution_id: str
    node_path: str
    type: str
    places: tuple[Place, ...]
    """The places of the nodes that it is in, from the root's scope down to its own."""
    limit_path: str
    """The path of the innermost scope around it that has a limit; empty if only the execution has one."""
    ready_s: float
    """The trio time at which it became ready."""
    on_grant: Callable[[Grant], None]
    """Called with the grant during `dispatch`; it must not call the allocator."""
    key: str = ""
    """Its concurrency key; empty without one."""


class Entry:
    """A request in a heap; it has its `request` as long as that waits."""

    __slots__ = ("group", "is_waiting", "rank", "request")

    def __init__(self, rank: Rank, request: PermitRequest, group: Group) -> None:
        self.rank = rank
        self.request = request
        self.group = group
        self.is_waiting = True


class Group:
    """Requests of one node type under one limit of an execution, and of one key: they need the same permits.

    So only the first is examined. Permits of limits inside, and of keys, are the concern of `children`.
    """

    __slots__ = (
        "child_count",
        "children",
        "entries",
        "gate",
        "is_blocked",
        "kind",
        "line",
        "own_rank",
        "parent",
        "queue",
        "rank",
        "waiting",
    )

    def __init__(
        self, queue: ScopeQueue, kind: TypeQueue, parent: Group | None, line: KeyLine | None
    ) -> None:
        self.queue = queue
        self.kind = kind
        self.parent = parent
        """The group of the enclosing limit, of a key's group that of the same limit; None for the execution's."""
        self.line = line
        """The line of its key; None without a key."""
        self.gate: ScopeQueue | KeyLine = queue if line is None else line
        """What keeps it while there is no permit for it, of its key or else of its limit."""
        self.entries: list[tuple[Rank, Entry]] = []
        self.waiting = 0
        """How many of the entries still wait."""
        self.own_rank: Rank | None = None
        """The rank of the first entry; None without one."""
        self.children: RankHeap[Group] | None = None
        """The groups of the limits inside, and of keys, that are not blocked; None until there is one."""
        self.child_count = 0
        """How many there are, blocked ones included."""
        self.rank: Rank | None = None
        """The rank of the first request in it or in its children; None if all that is left is blocked."""
        self.is_blocked = line is not None
        """Whether it is with its gate, and not in its usual place."""

    @property
    def name(self) -> tuple[str, str]:
        """Its name under its limit: the node type and the key, which is empty without one."""
        return self.kind.name, "" if self.line is None else self.line.limit.key

    @property
    def open_rank(self) -> Rank | None:
        """The rank of the first request in it or in its children; None if it is blocked, too."""
        return None if self.is_blocked else self.rank

    @property
    def first(self) -> PermitRequest:
        """The first of its own requests; it must have one."""
        return self.entries[0][1].request

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits in it or inside it."""
        return not self.entries and not self.child_count

    def add(self, entry: Entry) -> None:
        """Add a request."""
        heapq.heappush(self.entries, (entry.rank, entry))
        self.waiting += 1
        self.kind.waiting += 1
        if self.line is not None:
            self.line.limit.waiting += 1

    def leave(self) -> None:
        """Account for a request that no longer waits."""
        self.waiting -= 1
        self.kind.waiting -= 1
        if self.line is not None:
            self.line.limit.waiting -= 1

    def add_child(self, child: Group) -> None:
        """Add the group of a limit inside, which is not blocked."""
        if self.children is None:
            self.children = RankHeap(attrgetter("open_rank"))
        self.children.push(child, self.child_count)

    def trim(self) -> None:
        """Drop requests that no longer wait from the top, and all of them once they are the majority."""
        entries = self.entries
        while entries and not entries[0][1].is_waiting:
            heapq.heappop(entries)
        if len(entries) > 2 * self.waiting + SPARE_ENTRIES:
            self.entries = [each for each in entries if each[1].is_waiting]
            heapq.heapify(self.entries)

    def holder(self) -> Group:
        """Return the group that has the first request: itself, or one inside it."""
        group = self
        while group.children is not None and (child := group._first_child()) is not None:
            group = child
        return group

    def lacking(self) -> Group | None:
        """Return the outermost group around the first request whose gate has no permit for it, or None."""
        holder = group = self
        if self.children is not None:
            holder = self.holder()
        while group.gate.has_permit_for(holder):
            if group is holder:
                return None
            child = group._first_child()
            assert child is not None  # the holder is inside
            group = child
        return group

    def move(self) -> Item:
        """Reorder it and the groups around it after its first request has changed; return the item to examine."""
        group = self
        while True:
            rank = group.own_rank if group.children is None else group._first_rank()
            if rank == group.rank:
                break
            group.rank = rank
            if group.is_blocked:
                group.gate.keep_blocked(group)
                return group.gate
            if group.parent is None:
                group.kind.add(group)
                break
            group.parent.add_child(group)
            group = group.parent
        return group.kind

    def block(self) -> None:
        """Move it to its gate until that has a permit for its first request."""
        self.is_blocked = True
        self.gate.keep_blocked(self)
        if self.parent is not None:
            self.parent.move()

    def unblock(self) -> Item:
        """Let it compete again; return the item to examine."""
        self.is_blocked = False
        if self.parent is None:
            self.kind.add(self)
            return self.kind
        self.parent.add_child(self)
        return self.parent.move()

    def keeps(self, exhausted_s: float) -> bool:
        """Return whether its first own request reserves a permit of a limit that was exhausted until then.

        It does if it lacked the permit after having waited long enough. A request that no worker serves reserves
        nothing, because it does not wait for permits, nor does one that the rate of its type holds back.
        """
        if self.first.ready_s + RESERVE_AFTER_S > exhausted_s or not self.kind.pool.has_workers:
            return False
        return self.kind.next_start_s <= trio.current_time()

    def _first_child(self) -> Group | None:
        """Return the child in which the first request is; None if it is one of its own."""
        child = self.children.first() if self.children is not None else None
        if child is None or child.rank is None or (self.own_rank is not None and self.own_rank < child.rank):
            return None
        return child

    def _first_rank(self) -> Rank | None:
        child = self._first_child()
        return self.own_rank if child is None else child.rank


def _own_rank(group: Group) -> Rank | None:
    return group.own_rank


def blocked_rank(group: Group) -> Rank | None:
    """Return the rank of a group among those that are blocked."""
    return group.rank if group.is_blocked else None


RankedT = TypeVar("RankedT")


class RankHeap(Generic[RankedT]):
    """Items by the rank that a function returns for them; entries whose rank has changed since are outdated."""

    __slots__ = ("_count", "_entries", "_rank_of")

    def __init__(self, rank_of: Callable[[RankedT], Rank | None]) -> None:
        self._rank_of = rank_of
        self._entries: list[tuple[Rank, int, RankedT]] = []
        self._count = count()

    def push(self, item: RankedT, items: int) -> None:
        """Add an item under its current rank, if it has one; `items` is an upper bound on how many there are."""
        rank = self._rank_of(item)
        if rank is None:
            return
        heapq.heappush(self._entries, (rank, next(self._count), item))
        if len(self._entries) > 2 * items + SPARE_ENTRIES:
            valid = {each[2]: each for each in self._entries if self._rank_of(each[2]) == each[0]}
            self._entries = list(valid.values())
            heapq.heapify(self._entries)

    def first(self) -> RankedT | None:
        """Return the first item; None if there is none."""
        entries = self._entries
        while entries:
            rank, _, item = entries[0]
            if self._rank_of(item) == rank:
                return item
            heapq.heappop(entries)
        return None


class SharedLimit(Limit):
    """A limit under which groups wait; a permit of it may be reserved for the first request of them all."""

    __slots__ = ("_all", "count")

    def __init__(self, name: str, limit: int) -> None:
        super().__init__(name, limit)
        self._all: RankHeap[Group] = RankHeap(_own_rank)
        """The groups, by their first own request."""
        self.count = 0
        """How many groups there are, including those of the limits inside."""

    def note(self, group: Group) -> None:
        """Record the first request of a group of this limit or of one inside."""
        self._all.push(group, self.count)

    def has_permit_for(self, group: Group) -> bool:
        """Return whether a permit is free for a group's first own request and not reserved for an earlier one."""
        free = self.free
        if free <= 0:
            return False
        earliest = self._all.first()
        if earliest is not None and earliest is not group and earliest.keeps(self.exhausted_s):
            free -= 1
        return free > 0

    def earliest(self) -> Group | None:
        """Return the group that has the first request of all, blocked or not."""
        return self._all.first()


class ScopeQueue(SharedLimit):
    """The limit of an execution or of a scope in it, and the waiting groups under it."""

    __slots__ = (
        "_blocked",
        "chain",
        "exhausted",
        "groups",
        "namespace",
        "outer",
        "ready_rank",
    )

    def __init__(self, namespace: NamespaceQueue, outer: tuple[ScopeQueue, ...], limit: int) -> None:
        super().__init__("EXECUTION_LIMIT", limit)
        self.namespace = namespace
        self.outer = outer
        """The enclosing limits, the execution's first; empty for the execution's own."""
        self.chain: tuple[ScopeQueue, ...] = (*outer, self)
        """The enclosing limits and this one, the execution's first."""
        self.groups: dict[tuple[str, str], Group] = {}
        """Node type and key, empty without one -> the requests of that type and key; none is empty."""
        self._blocked: RankHeap[Group] = RankHeap(blocked_rank)
        self.exhausted: dict[ScopeQueue, None] = outer[0].exhausted if outer else {}
        """The limits of nested scopes that have waiting requests and no free permit."""
        self.ready_rank: Rank | None = None

    def wake(self, namespaces: Namespaces) -> None:
        """Mark what may have lacked a permit to be examined."""
        self.note_exhausted()
        namespaces.make_ready(self)

    def note_exhausted(self) -> None:
        """Record whether a waiting request lacks a permit of this limit, and of the limits around it."""
        if self.count and self.free <= 0:
            self.exhausted[self] = None
        else:
            self.exhausted.pop(self, None)
        self.outer[-1].note_exhausted()

    def keep_blocked(self, group: Group) -> None:
        """Keep a group of this limit under its current rank until there is a permit for it."""
        self._blocked.push(group, len(self.groups))

    def peek(self) -> Group | None:
        """Return the first blocked group."""
        return self._blocked.first()


class ExecutionQueue(ScopeQueue):
    """The limit of an execution, its waiting requests, and the limits of its scopes."""

    __slots__ = ("number", "scopes", "submitted_s", "urgency")

    def __init__(
        self, namespace: NamespaceQueue, limit: int, priority: int, submitted_s: float, number: int
    ) -> None:
        super().__init__(namespace, (), limit)
        self.urgency = -priority
        self.submitted_s = submitted_s
        self.number = number
        self.scopes: dict[str, ScopeQueue] = {}
        """Path of an open scope that has a limit -> that limit."""

    def note_exhausted(self) -> None:
        """Record whether a waiting request lacks a permit of the execution or of a scope in it."""
        if self.count and (self.exhausted or self.free <= 0):
            self.namespace.exhausted[self] = None
        else:
            self.namespace.exhausted.pop(self, None)

    def has_first_that_lacks(self) -> bool:
        """Whether its first request of all lacks a permit of the execution or of a scope."""
        if self.free <= 0:
            return True
        earliest = self._all.first()
        return earliest is not None and any(limit.free <= 0 for limit in earliest.queue.chain)

    def limit_of(self, limit_path: str) -> ScopeQueue:
        """Return the limit of a scope that has one; for the empty path the execution's own."""
        return self.scopes[limit_path] if limit_path else self

    def limit_around(self, scope_path: str) -> ScopeQueue:
        """Return the innermost limit around a scope, without the scope's own."""
        while scope_path:
            scope_path = scope_path.rpartition("/")[0]
            if scope_path in self.scopes:
                break
        return self.limit_of(scope_path)
