"""The limits of the engine that are not an execution's, by name."""

from __future__ import annotations

from collections.abc import Mapping

from plait_server.runtime.key_limits import DEFAULT_KEY_LIMIT, KeyLimit
from plait_server.runtime.limit import Limit, NamespaceLimit, TypeLimit


class LimitTable:
    """The limits of the server, of namespaces, of node types and of concurrency keys."""

    def __init__(
        self, *, server_limit: int, type_limits: Mapping[str, int], namespace_limits: Mapping[str, int]
    ) -> None:
        self.server = Limit("SERVER_LIMIT", server_limit)
        self._namespaces = {name: NamespaceLimit(name, limit) for name, limit in namespace_limits.items()}
        self._types = {name: TypeLimit(limit) for name, limit in type_limits.items()}
        self._keys: dict[tuple[str, str], KeyLimit] = {}
        """(namespace, key) -> the limit of each key that is in use."""

    def of_namespace(self, namespace: str) -> NamespaceLimit | None:
        """Return the limit of a namespace, if it has one."""
        return self._namespaces.get(namespace)

    def of_type(self, node_type: str) -> tuple[TypeLimit, ...]:
        """Return the limits of a node type."""
        limit = self._types.get(node_type)
        return () if limit is None else (limit,)

    def of_grants(self, namespace: str, node_type: str) -> tuple[Limit, ...]:
        """Return the limits of which each attempt of a node type takes a permit, except for those of its execution."""
        limit = self._namespaces.get(namespace)
        types = self.of_type(node_type)
        return (self.server, *types) if limit is None else (self.server, limit, *types)

    def of_key(self, namespace: str, key: str) -> KeyLimit:
        """Return the limit of a key; create it if the key is not in use."""
        limit = self._keys.get((namespace, key))
        if limit is None:
            limit = self._keys[namespace, key] = KeyLimit(namespace, key, DEFAULT_KEY_LIMIT)
        return limit

    def forget_unused(self, limit: KeyLimit) -> None:
        """Forget the limit of a key that is no longer in use. Idempotent."""
        if limit.is_unused:
            self._keys.pop((limit.namespace, limit.key), None)
