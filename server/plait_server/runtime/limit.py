"""The limits of the engine that are not an execution's: of the server, of a namespace, of a node type."""

from __future__ import annotations

import math
import sys
from typing import TYPE_CHECKING, Final

import trio

from plait_server.runtime.rate import Rate

if TYPE_CHECKING:
    from plait_server.runtime.namespace_queues import Namespaces, TypeQueue

UNLIMITED: Final = sys.maxsize
"""The limit of what only has a rate, and of a limit that was removed while attempts hold permits of it."""


class Limit:
    """A limit of the engine, such as the server's."""

    __slots__ = ("_max", "exhausted_s", "limiter", "name")

    def __init__(self, name: str, limit: int) -> None:
        self.name = name
        """The reason shown: SERVER_LIMIT, NAMESPACE_LIMIT, EXECUTION_LIMIT (of its scopes too), NODE_TYPE_LIMIT or
        KEY_LIMIT.
        """
        self._max = limit
        self.limiter = trio.CapacityLimiter(math.inf if limit == UNLIMITED else limit)
        """Its borrowers are the grants that hold permits."""
        self.exhausted_s = float("-inf")
        """The last trio time at which no permit was free."""

    @property
    def free(self) -> int:
        """How many permits are free; negative if more are in use than the limit allows."""
        return self._max - self.limiter.borrowed_tokens

    def change(self, limit: int) -> None:
        """Change the limit; more may be in use than it allows from now on."""
        if self.free <= 0:
            self.exhausted_s = trio.current_time()
        self._max = limit
        self.limiter.total_tokens = math.inf if limit == UNLIMITED else limit

    def give_back(self, borrower: object) -> None:
        """Return a borrower's permit to the limit."""
        if self.free <= 0:
            self.exhausted_s = trio.current_time()
        self.limiter.release_on_behalf_of(borrower)

    def wake(self, namespaces: Namespaces) -> None:
        """Mark what may have lacked a permit to be examined: nothing, queues stay ready while the server has none."""


class NamespaceLimit(Limit):
    """The limit of a namespace."""

    __slots__ = ("_namespace",)

    def __init__(self, namespace: str, limit: int) -> None:
        super().__init__("NAMESPACE_LIMIT", limit)
        self._namespace = namespace

    def wake(self, namespaces: Namespaces) -> None:
        """Let the namespace take turns again."""
        namespaces.resume(self._namespace)


class TypeLimit(Limit):
    """The limit and the rate of a node type, in a namespace or in all of them."""

    __slots__ = ("kinds", "rate")

    def __init__(self, limit: int, rate: Rate | None = None) -> None:
        super().__init__("NODE_TYPE_LIMIT", limit)
        self.rate = rate
        self.kinds: dict[TypeQueue, None] = {}
        """The queues of this type with waiting requests."""

    def wake(self, namespaces: Namespaces) -> None:
        """Mark the queues of the type to be examined."""
        for kind in self.kinds:
            namespaces.make_ready(kind)
