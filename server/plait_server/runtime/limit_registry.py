"""The limits that are in force, and where each comes from: set by a call, of the configuration, or the default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from plait_server.core.limit_values import SERVER, LimitKind, LimitName, LimitValue
from plait_server.core.namespace_settings import SettingSource
from plait_server.runtime.allocator import Allocator
from plait_server.runtime.key_limits import DEFAULT_KEY_LIMIT
from plait_server.runtime.limit_table import EACH_NAMESPACE


class LimitRegistry:
    """The limits by name. What a call has set wins as a whole over the configuration.

    Args:
        allocator: Has the limits of the configuration, and gets those that are set.
        server_limit: The limit of the server, if no other is set.
        configured: The limits of the configuration; the server's is among them if it is not the default.
    """

    def __init__(
        self, allocator: Allocator, server_limit: int, configured: Mapping[LimitName, LimitValue]
    ) -> None:
        self._allocator = allocator
        self._server = LimitValue(max_concurrency=server_limit)
        self._each_namespace = configured.get(LimitName(LimitKind.NAMESPACE, EACH_NAMESPACE, ""))
        self._configured = {
            name: value for name, value in configured.items() if name.namespace != EACH_NAMESPACE
        }
        self._set: dict[LimitName, LimitValue] = {}

    def __repr__(self) -> str:
        return f"<LimitRegistry, {len(self._set)} set>"

    def names(self) -> Iterator[LimitName]:
        """Return the names of the limits that are in force, in no order."""
        named = {SERVER: None, **self._configured, **self._set}
        yield from named
        yield from (name for name in self._allocator.limits_in_use() if name not in named)

    def is_set(self, name: LimitName) -> bool:
        """Whether a call has set a limit."""
        return name in self._set

    def find(self, name: LimitName) -> tuple[LimitValue, SettingSource] | None:
        """Return the value of a limit, and where it comes from; None if it does not bind."""
        if name in self._set:
            return self._set[name], SettingSource.SET
        if name in self._configured:
            return self._configured[name], SettingSource.CONFIGURATION
        match name.kind:
            case LimitKind.SERVER:
                return self._server, SettingSource.DEFAULT
            case LimitKind.NAMESPACE if self._each_namespace is not None:
                return self._each_namespace, SettingSource.CONFIGURATION
            case LimitKind.KEY:
                return LimitValue(max_concurrency=DEFAULT_KEY_LIMIT), SettingSource.DEFAULT
            case _:
                return None

    def set_all(self, limits: Mapping[LimitName, LimitValue]) -> None:
        """Take over all limits that calls have set, in place of those that were."""
        for name in {**self._set, **limits}:
            if self._set.get(name) != limits.get(name):
                self.set(name, limits.get(name))

    def set(self, name: LimitName, value: LimitValue | None) -> None:
        """Take over a limit that a call has set, or None if it was removed; it is durable, and takes effect at once."""
        if value is None:
            self._set.pop(name, None)
        else:
            self._set[name] = value
        found = self.find(name)
        self._allocator.set_limit(name, found[0] if found is not None else None)
