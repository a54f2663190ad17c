"""The settings of all namespaces that are in force, and who is told when they change.

A namespace needs not be created: one that nobody configured has the defaults.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from plait_server.core.namespace_settings import EffectiveSettings, NamespaceSettings, complete

ALL: Final = "*"
"""The name under which the configuration has the settings of all namespaces."""
NONE_GIVEN: Final = NamespaceSettings()
NOTHING_CONFIGURED: Final[Mapping[str, NamespaceSettings]] = MappingProxyType({})


class NamespaceRegistry:
    """The settings of namespaces.

    Args:
        configured: The configuration of namespaces by name; that of all has the name `*`.
    """

    def __init__(self, configured: Mapping[str, NamespaceSettings] = NOTHING_CONFIGURED) -> None:
        self._configured = {name: each for name, each in configured.items() if name != ALL}
        self._default = configured.get(ALL, NONE_GIVEN)
        self._set: dict[str, NamespaceSettings] = {}
        self._common = complete(self._default)
        self._own: dict[str, EffectiveSettings] = {}
        """Namespaces that have settings of their own -> all of their settings."""
        self._listeners: list[Callable[[str], None]] = []
        for name in self._configured:
            self._work_out(name)

    def __repr__(self) -> str:
        return f"<NamespaceRegistry, {len(self._own)} with settings of their own>"

    def of(self, namespace: str) -> EffectiveSettings:
        """Return the settings that apply to a namespace."""
        return self._own.get(namespace, self._common)

    def set_by_call(self, namespace: str) -> NamespaceSettings:
        """Return the settings of a namespace that calls have set."""
        return self._set.get(namespace, NONE_GIVEN)

    def configured(self, namespace: str) -> NamespaceSettings:
        """Return the settings that the configuration has for a namespace, its defaults for all included."""
        return self._configured.get(namespace, NONE_GIVEN).over(self._default)

    def names(self) -> Iterable[str]:
        """Return the namespaces that have settings of their own, in no order."""
        return self._own.keys()

    def on_change(self, listener: Callable[[str], None]) -> None:
        """Call a function with each namespace whose settings have changed, and now with each that has its own."""
        self._listeners.append(listener)
        for name in list(self._own):
            listener(name)

    def set(self, namespace: str, settings: NamespaceSettings) -> None:
        """Take over settings that a call has set, which are durable already; they take effect at once."""
        if settings.is_empty:
            self._set.pop(namespace, None)
        else:
            self._set[namespace] = settings
        self._work_out(namespace)
        for listener in self._listeners:
            listener(namespace)

    def _work_out(self, namespace: str) -> None:
        if namespace in self._set or namespace in self._configured:
            self._own[namespace] = complete(self.set_by_call(namespace).over(self.configured(namespace)))
        else:
            self._own.pop(namespace, None)
