"""An allocator with a few words around it: who asked, who was granted what, in which order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import trio

from plait_server.core.limit_values import LimitKind, LimitName, LimitValue
from plait_server.core.run.commands import Place
from plait_server.runtime.allocator import Allocator
from plait_server.runtime.grant import Grant
from plait_server.runtime.waiting import PermitRequest

NAMESPACE = "default"


def limits_of(types: Mapping[str, int], namespaces: Mapping[str, int]) -> dict[LimitName, LimitValue]:
    """Return limits of node types, which are 0 if there is none, and of namespaces."""
    limits = {LimitName(LimitKind.TYPE, "", name): limit for name, limit in types.items() if limit}
    limits.update({LimitName(LimitKind.NAMESPACE, name, ""): limit for name, limit in namespaces.items()})
    return {name: LimitValue(max_concurrency=limit) for name, limit in limits.items()}


class Desk:
    """An allocator whose grants are kept, by the node's path, in the order of the granting."""

    def __init__(
        self,
        *,
        server: int = 1_000,
        types: Mapping[str, int] | None = None,
        namespaces: Mapping[str, int] | None = None,
    ) -> None:
        self.allocator = Allocator(server_limit=server, limits=limits_of(types or {}, namespaces or {}))
        self.grants: dict[str, Grant] = {}
        self.order: list[str] = []
        self.on_grant: Callable[[str], None] = lambda _path: None
        self._count = 0

    def execution(
        self,
        name: str = "x",
        limit: int = 10_000,
        namespace: str = NAMESPACE,
        submitted_s: float = 0.0,
    ) -> None:
        self.allocator.open_execution(namespace, name, limit, submitted_s)

    def scope(self, path: str, limit: int, execution: str = "x") -> None:
        self.allocator.open_scope(NAMESPACE, execution, path, limit)

    def worker(
        self,
        name: str = "w",
        slots: int = 10_000,
        types: Mapping[str, int] | None = None,
        namespace: str = NAMESPACE,
    ) -> None:
        self.allocator.attach_worker(namespace, name, f"{name}.1", slots, types or {"t": 0})

    def ask(
        self,
        path: str,
        *,
        execution: str = "x",
        type_: str = "t",
        priority: int = 0,
        remaining: int = 0,
        namespace: str = NAMESPACE,
        within: tuple[Place, ...] = (),
        limit_path: str = "",
        key: str = "",
    ) -> None:
        """Queue a request; its order in the graph is that of the asking."""
        self._count += 1
        request = self.request(path, execution=execution, type_=type_, namespace=namespace)
        places = (*within, Place(-priority, -remaining, self._count))
        self.allocator.offer(request._replace(places=places, limit_path=limit_path, key=key))

    def request(
        self, path: str, *, execution: str = "x", type_: str = "t", namespace: str = NAMESPACE
    ) -> PermitRequest:
        def on_grant(grant: Grant) -> None:
            self.grants[path] = grant
            self.order.append(path)
            self.on_grant(path)

        return PermitRequest(
            namespace, execution, path, type_, (Place(0, 0, 0),), "", trio.current_time(), on_grant
        )

    def dispatch(self) -> list[str]:
        """Dispatch and return the paths that were granted, in order."""
        before = len(self.order)
        self.allocator.dispatch()
        return self.order[before:]

    def end(self, path: str) -> list[str]:
        """Release all permits of a node, and dispatch."""
        self.grants.pop(path).release()
        return self.dispatch()

    def reason(self, path: str, execution: str = "x", namespace: str = NAMESPACE) -> str:
        return self.allocator.reason(namespace, execution, path)
