"""Concurrency keys: how many requests with the same key run at once in a namespace, and where they wait (Q1).

A key is shared by executions, so it is not part of an execution's tree of limits. Requests with the same key, node
type and limit are a `Group` inside that limit's group of the type, but stand at first in the `KeyLine` of their key
and type. A line whose key has a permit free competes in the queue of its type with the rank of its first group, and
lets that go on when it is the first of its type. So a permit that comes free moves one group for each type, however
many executions wait for the key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from plait_server.runtime.waiting import Group, Rank, RankHeap, SharedLimit, blocked_rank

if TYPE_CHECKING:
    from plait_server.runtime.namespace_queues import Namespaces, TypeQueue

DEFAULT_KEY_LIMIT: Final = 1
"""Attempts with the same key at once, unless a limit is set for the key."""


class KeyLimit(SharedLimit):
    """The limit of a concurrency key in a namespace. It exists as long as requests or attempts have the key."""

    __slots__ = ("key", "lines", "namespace", "waiting")

    def __init__(self, namespace: str, key: str, limit: int) -> None:
        super().__init__("KEY_LIMIT", limit)
        self.namespace = namespace
        self.key = key
        self.lines: dict[TypeQueue, KeyLine] = {}
        """The lines of the types with waiting requests that have this key."""
        self.waiting = 0
        """How many requests with this key wait."""

    @property
    def is_unused(self) -> bool:
        """Whether nothing waits for a permit or holds one."""
        return not self.lines and not self.limiter.borrowed_tokens

    def wake(self, namespaces: Namespaces) -> None:
        """Mark the lines to be examined."""
        for line in self.lines.values():
            namespaces.make_ready(line)


class KeyLine:
    """The waiting groups of one key and node type for which there is no permit, or whose turn has not come."""

    __slots__ = ("_blocked", "count", "is_held", "kind", "limit", "namespace")

    def __init__(self, limit: KeyLimit, kind: TypeQueue) -> None:
        self.limit = limit
        self.kind = kind
        self.namespace = kind.namespace
        self.count = 0
        """How many groups of this key and type there are, blocked or not."""
        self.is_held = False
        """Whether it waits for the next dispatch, because the key's free permits are reserved for others."""
        self._blocked: RankHeap[Group] = RankHeap(blocked_rank)

    @property
    def rank(self) -> Rank | None:
        """The rank of its first blocked group."""
        group = self._blocked.first()
        return None if group is None else group.rank

    @property
    def open_rank(self) -> Rank | None:
        """The rank with which it competes in the queue of its type; None if it does not."""
        return None if self.is_held or self.limit.free <= 0 else self.rank

    def has_permit_for(self, group: Group) -> bool:
        """Return whether the key has a permit for a group's first request that is not reserved for an earlier one."""
        return self.limit.has_permit_for(group)

    def keep_blocked(self, group: Group) -> None:
        """Keep a group under its current rank until its turn."""
        self._blocked.push(group, self.count)
        if self._blocked.first() is group:
            self.kind.add(self)

    def let_go_on(self) -> None:
        """Let the first blocked group compete, if there is a permit for it; there must be a group."""
        group = self._blocked.first()
        assert group is not None
        if not self.limit.has_permit_for(group):
            self.hold()
            return
        item = group.unblock()
        if item is not self.kind:  # That is being examined.
            self.namespace.make_ready(item)
        self.kind.add(self)

    def hold(self) -> None:
        """Let it compete again from the next dispatch."""
        self.is_held = True
        self.namespace.hold(self)

    def reopen(self) -> TypeQueue:
        """Let it compete again; return the queue in which it does."""
        self.is_held = False
        self.kind.add(self)
        return self.kind
