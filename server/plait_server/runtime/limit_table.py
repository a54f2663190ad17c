"""The limits of the engine that are not an execution's, by name; they can be changed while attempts run (Q2)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from typing import Final, NamedTuple, assert_never

import trio

from plait_server.core.limit_values import LimitKind, LimitName, LimitValue
from plait_server.runtime.grant import Grant
from plait_server.runtime.key_limits import DEFAULT_KEY_LIMIT, KeyLimit
from plait_server.runtime.limit import UNLIMITED, Limit, NamespaceLimit, TypeLimit
from plait_server.runtime.namespace_queues import Namespaces
from plait_server.runtime.rate import Rate


class LimitUse(NamedTuple):
    """Who uses a limit."""

    in_use: int
    """Permits in use."""
    waiting: int
    """Requests that need a permit, while none is free; 0 while one is."""
    holders: list[Grant]
    """Those that hold permits, the oldest first."""


EACH_NAMESPACE: Final = "*"
"""The name by which each namespace that has no limit of its own gets one, before anything runs."""


class LimitTable:
    """The limits of the server, of namespaces, of node types and of concurrency keys.

    A limit exists as long as it has a value, a key's also while the key is in use. One that gets a value counts what
    runs already.
    """

    def __init__(self, server_limit: int) -> None:
        self.server = Limit("SERVER_LIMIT", server_limit)
        self._namespaces: dict[str, NamespaceLimit] = {}
        self._each_namespace = UNLIMITED
        """The limit of each namespace that has none of its own."""
        self._types: dict[tuple[str, str], TypeLimit] = {}
        """(namespace or empty for all, type) -> its limit."""
        self._keys: dict[tuple[str, str], KeyLimit] = {}
        """(namespace, key) -> the limit of each key that is in use."""
        self._key_values: dict[tuple[str, str], int] = {}
        """(namespace, key) -> its limit, if it is not the default."""

    def __repr__(self) -> str:
        return f"<LimitTable {len(self._namespaces)} namespaces, {len(self._types)} types, {len(self._keys)} keys>"

    def of_namespace(self, namespace: str) -> NamespaceLimit | None:
        """Return the limit of a namespace, if it has one."""
        limit = self._namespaces.get(namespace)
        if limit is None and self._each_namespace != UNLIMITED:
            limit = self._namespaces[namespace] = NamespaceLimit(namespace, self._each_namespace)
        return limit

    def of_type(self, namespace: str, node_type: str) -> tuple[TypeLimit, ...]:
        """Return the limits of a node type that hold in a namespace."""
        if not self._types:
            return ()
        found = self._types.get(("", node_type)), self._types.get((namespace, node_type))
        return tuple(limit for limit in found if limit is not None)

    def of_grants(self, namespace: str, node_type: str) -> tuple[Limit, ...]:
        """Return the limits of which each attempt of a node type takes a permit, except for those of its execution."""
        limit = self.of_namespace(namespace)
        types = self.of_type(namespace, node_type)
        return (self.server, *types) if limit is None else (self.server, limit, *types)

    def of_key(self, namespace: str, key: str) -> KeyLimit:
        """Return the limit of a key; create it if the key is not in use."""
        limit = self._keys.get((namespace, key))
        if limit is None:
            value = self._key_values.get((namespace, key), DEFAULT_KEY_LIMIT)
            limit = self._keys[namespace, key] = KeyLimit(namespace, key, value)
        return limit

    def forget_unused(self, limit: KeyLimit) -> None:
        """Forget the limit of a key that is no longer in use. Idempotent."""
        if limit.is_unused:
            self._keys.pop((limit.namespace, limit.key), None)

    def find(self, name: LimitName) -> Limit | None:
        """Return a limit by its name; None if it has no value and, if it is a key's, is not in use."""
        match name.kind:
            case LimitKind.SERVER:
                return self.server
            case LimitKind.NAMESPACE:
                return self._namespaces.get(name.namespace)
            case LimitKind.TYPE:
                return self._types.get((name.namespace, name.name))
            case LimitKind.KEY:
                return self._keys.get((name.namespace, name.name))
            case _:
                assert_never(name.kind)

    def in_use(self) -> Iterator[LimitName]:
        """Return the limits that exist because something uses them, in no order: keys, and namespaces."""
        yield from (LimitName(LimitKind.KEY, namespace, key) for namespace, key in self._keys)
        yield from (LimitName(LimitKind.NAMESPACE, namespace, "") for namespace in self._namespaces)

    def use_of(self, name: LimitName, namespaces: Namespaces, *, namespace: str, most: int) -> LimitUse:
        """Return who uses a limit; of the holders the first `most` in a namespace, or in all if that is empty."""
        limit = self.find(name)
        if limit is None:
            return LimitUse(0, 0, [])
        is_exhausted = limit.free <= 0
        match limit:
            case KeyLimit():
                waiting = limit.waiting
            case TypeLimit():
                waiting = sum(kind.waiting for kind in limit.kinds)
                is_exhausted |= limit.rate is not None and limit.rate.next_s > trio.current_time()
            case _:
                waiting = namespaces.waiting_in(name.namespace)
        found = (grant for grant in _grants_of(limit) if namespace in {"", grant.namespace})
        holders = heapq.nsmallest(most, found, key=lambda grant: (grant.since_s, grant.number))
        return LimitUse(limit.limiter.borrowed_tokens, waiting if is_exhausted else 0, holders)

    def change(self, name: LimitName, value: LimitValue | None) -> Limit | None:
        """Give a limit a value, or none; return it if it exists afterwards.

        Args:
            name: The limit.
            value: Its value from now on. Without one a key has the default, and others do not bind; the server's
                limit always has one.
        """
        most = UNLIMITED if value is None or value.max_concurrency is None else value.max_concurrency
        match name.kind:
            case LimitKind.SERVER:
                self.server.change(most)
            case LimitKind.NAMESPACE:
                self._change_namespace(name, most)
            case LimitKind.TYPE:
                self._change_type(name, value, most)
            case LimitKind.KEY:
                self._change_key(name, value)
            case _:
                assert_never(name.kind)
        return self.find(name)

    # Inside.

    def _change_namespace(self, name: LimitName, most: int) -> None:
        if name.namespace == EACH_NAMESPACE:
            self._each_namespace = most
            return
        limit = self._namespaces.get(name.namespace)
        most = self._each_namespace if most == UNLIMITED else most
        if most == UNLIMITED:
            self._namespaces.pop(name.namespace, None)
        elif limit is None:
            limit = self._namespaces[name.namespace] = NamespaceLimit(name.namespace, most)
            self._count_running(limit, name)
        if limit is not None:
            limit.change(most)

    def _change_type(self, name: LimitName, value: LimitValue | None, most: int) -> None:
        key = name.namespace, name.name
        limit = self._types.get(key)
        if value is None:
            self._types.pop(key, None)
        elif limit is None:
            limit = self._types[key] = TypeLimit(most)
            self._count_running(limit, name)
        if limit is None:
            return
        limit.change(most)
        if value is None or value.rate is None:
            limit.rate = None
        elif limit.rate is None:
            limit.rate = Rate(value.rate, value.burst_max)
        else:
            limit.rate.change(value.rate, value.burst_max, trio.current_time())

    def _change_key(self, name: LimitName, value: LimitValue | None) -> None:
        key = name.namespace, name.name
        most = DEFAULT_KEY_LIMIT
        if value is None or value.max_concurrency is None:
            self._key_values.pop(key, None)
        else:
            most = self._key_values[key] = value.max_concurrency
        limit = self._keys.get(key)
        if limit is not None:
            limit.change(most)

    def _count_running(self, limit: Limit, name: LimitName) -> None:
        """Let a new limit count the attempts that run already."""
        for grant in _grants_of(self.server):
            is_inside = name.namespace in {"", grant.namespace}
            if is_inside and (name.kind is LimitKind.NAMESPACE or grant.type == name.name):
                grant.join(limit)


def _grants_of(limit: Limit) -> list[Grant]:
    """Return the grants that hold permits of a limit, in no order."""
    return [each for each in limit.limiter.statistics().borrowers if isinstance(each, Grant)]
