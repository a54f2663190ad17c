"""Holds the law of limits (Q1, Q2) against each grant, at the moment in which it is made.

It counts grants by itself, and fills buckets by itself, from nothing but the limits that are in force: no new grant
exceeds one of them. What ran before a limit was lowered may.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import trio

from plait_server.bootstrap import Server
from plait_server.core.limit_values import SERVER, LimitKind, LimitName, LimitValue
from plait_server.runtime.grant import Grant
from plait_server.runtime.limit_registry import LimitRegistry
from plait_server.runtime.waiting import PermitRequest
from plait_server.testing.simulation.world import World

_TOLERANCE = 1e-6
"""Starts; sums of intervals are not exact."""


class _Bucket:
    """The starts that a rate allows."""

    def __init__(self, value: LimitValue) -> None:
        self.value = value
        self.starts = float(value.burst_max)
        self._filled_s = trio.current_time()

    def fill(self) -> None:
        """Add what has come in since the last time."""
        now_s = trio.current_time()
        more = (now_s - self._filled_s) * (self.value.rate or 0.0)
        self.starts = min(self.value.burst_max, self.starts + more)
        self._filled_s = now_s

    def change(self, value: LimitValue) -> None:
        """Go on at another rate."""
        self.fill()
        self.value = value
        self.fill()


class LimitLaw:
    """The law for one start of the server."""

    def __init__(self, world: World, server: Server) -> None:
        self._world = world
        self._registry: LimitRegistry = server.servicers.limits.registry
        self._held: dict[Grant, PermitRequest] = {}
        self._buckets: dict[LimitName, _Bucket] = {}
        for name in self._registry.names():
            self._note_rate(name)
        allocator = server.allocator
        self._offer, self._take_back = allocator.offer, allocator.take_back
        self._set = self._registry.set
        allocator.offer = self.offer  # type: ignore[method-assign] # the law looks on
        allocator.take_back = self.take_back  # type: ignore[method-assign] # as above
        self._registry.set = self.set  # type: ignore[method-assign] # as above

    def __repr__(self) -> str:
        return f"<LimitLaw, {len(self._held)} grants>"

    def offer(self, request: PermitRequest) -> None:
        """Offer a request whose grant is looked at."""
        self._offer(request._replace(on_grant=partial(self._granted, request, request.on_grant)))

    def take_back(
        self, request: PermitRequest, worker_id: str, instance_id: str, *, age_s: float = 0.0
    ) -> Grant:
        """Take back an attempt, which counts whatever the limits are."""
        grant = self._take_back(request, worker_id, instance_id, age_s=age_s)
        self._held[grant] = request
        return grant

    def set(self, name: LimitName, value: LimitValue | None) -> None:
        """Change a limit."""
        self._set(name, value)
        self._note_rate(name)

    def _granted(self, request: PermitRequest, on_grant: Callable[[Grant], None], grant: Grant) -> None:
        self._held = {each: its for each, its in self._held.items() if each.holds_engine}
        self._held[grant] = request
        namespace, type_ = request.namespace, request.type
        names = [
            SERVER,
            LimitName(LimitKind.NAMESPACE, namespace, ""),
            LimitName(LimitKind.TYPE, "", type_),
            LimitName(LimitKind.TYPE, namespace, type_),
        ]
        if request.key:
            names.append(LimitName(LimitKind.KEY, namespace, request.key))
            self._world.count("an attempt started with a key")
        for name in names:
            self._check(name, request)
        on_grant(grant)

    def _check(self, name: LimitName, request: PermitRequest) -> None:
        found = self._registry.find(name)
        most = found[0].max_concurrency if found is not None else None
        held = sum(_binds(name, its) for its in self._held.values())
        if most is not None and held > most:
            self._world.fail("Q1", f"the limit {name} is {most}, and {held} run", request.execution_id)
        bucket = self._buckets.get(name)
        if bucket is not None:
            bucket.fill()
            bucket.starts -= 1
            self._world.count("an attempt started at a rate")
            if bucket.starts < -_TOLERANCE:
                text = f"the rate of {name} is {bucket.value}, and {-bucket.starts:g} starts are too many"
                self._world.fail("Q1", text, request.execution_id)

    def _note_rate(self, name: LimitName) -> None:
        found = self._registry.find(name)
        if found is None or found[0].rate is None:
            self._buckets.pop(name, None)
        elif name in self._buckets:
            self._buckets[name].change(found[0])
        else:
            self._buckets[name] = _Bucket(found[0])


def _binds(name: LimitName, request: PermitRequest) -> bool:
    """Whether a limit binds a request."""
    if name.namespace not in {"", request.namespace}:
        return False
    match name.kind:
        case LimitKind.SERVER | LimitKind.NAMESPACE:
            return True
        case LimitKind.TYPE:
            return name.name == request.type
        case LimitKind.KEY:
            return name.name == request.key
