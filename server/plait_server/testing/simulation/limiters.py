"""Changes limits while executions run, and looks whether what was acknowledged is in force (Q2)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

import trio

from plait.v1 import limit_service_pb2, namespace_service_pb2
from plait_server.errors import JournalFull, LimitNotFound
from plait_server.testing.simulation.graphs import KEYS, TYPES
from plait_server.testing.simulation.host import Host
from plait_server.testing.simulation.network import ConnectionLost
from plait_server.testing.simulation.store import NAMESPACE
from plait_server.testing.simulation.world import World

_Answer = TypeVar("_Answer")

SHARE: Final = 0.4
"""The share of seeds in which limits change."""
RETRY_S: Final = 1.0

Pb = limit_service_pb2
_Name = tuple[Pb.LimitKind, str, str]


class Limiter:
    """One operator, who changes limits until all is healed and then removes them."""

    def __init__(self, world: World, host: Host) -> None:
        self._world = world
        self._host = host
        self._chance = world.chance("limits")
        self._is_idle = self._chance.random() >= SHARE
        self._set: dict[_Name, Pb.SetLimitRequest] = {}
        """What is in force by a call."""
        self._requests = 0

    def __repr__(self) -> str:
        return f"<Limiter, {len(self._set)} set>"

    async def run(self) -> None:
        """Change limits until all is healed, then remove those that are left."""
        if self._is_idle:
            return
        chance = self._chance
        while not self._world.healed.is_set():
            with trio.move_on_after(chance.random() * chance.choice((1, 5, 20))):
                await self._world.healed.wait()
            name = chance.choice(self._names())
            if name in self._set and chance.random() < 0.4:
                await self._remove(name)
            else:
                await self._change(name)
            await self._check()
        for name in list(self._set):
            await self._remove(name)
        await self._check()

    def _names(self) -> list[_Name]:
        types = [(Pb.LIMIT_KIND_TYPE, space, type_) for type_ in TYPES for space in ("", NAMESPACE)]
        keys = [(Pb.LIMIT_KIND_KEY, NAMESPACE, key) for key in KEYS]
        return [(Pb.LIMIT_KIND_SERVER, "", ""), (Pb.LIMIT_KIND_NAMESPACE, NAMESPACE, ""), *types, *keys]

    async def _change(self, name: _Name) -> None:
        chance, (kind, namespace, type_) = self._chance, name
        has_rate = kind == Pb.LIMIT_KIND_TYPE and chance.random() < 0.5
        has_most = not has_rate or chance.random() < 0.5
        request = Pb.SetLimitRequest(
            kind=kind,
            namespace=namespace,
            name=type_,
            max_concurrency=chance.choice((1, 2, 3, 10)) if has_most else None,
            rate=chance.choice((0.2, 1.0, 3.0)) if has_rate else None,
            burst=chance.choice((0, 1, 3)) if has_rate else 0,
            request_id=self._request_id(),
        )
        await self._again(
            lambda lose: self._host.call(lambda s: s.servicers.limits.set_limit, request, lose_answer=lose)
        )
        self._set[name] = request
        self._world.count("a limit was set")

    async def _remove(self, name: _Name) -> None:
        kind, namespace, type_ = name
        request = Pb.RemoveLimitRequest(
            kind=kind, namespace=namespace, name=type_, request_id=self._request_id()
        )
        try:
            await self._again(
                lambda lose: self._host.call(
                    lambda s: s.servicers.limits.remove_limit, request, lose_answer=lose
                )
            )
        except LimitNotFound:
            self._world.fail("Q2", f"a limit that was set is not there: {name}")
        del self._set[name]
        self._world.count("a limit was removed")

    async def _check(self) -> None:
        """Look whether the limits in force are those that were acknowledged last, also after a restart."""
        request = Pb.ListLimitsRequest(page_size=1_000)
        answer = await self._again(
            lambda lose: self._host.call(lambda s: s.servicers.limits.list_limits, request, lose_answer=lose)
        )
        found = {
            (limit.kind, limit.namespace, limit.name): limit
            for limit in answer.limits
            if limit.source == namespace_service_pb2.SETTING_SOURCE_SET
        }
        if found.keys() != self._set.keys():
            self._world.fail("Q2", f"set are {sorted(self._set)}, and listed {sorted(found)}")
            return
        for name, its in self._set.items():
            shown, rate = found[name], its.rate if its.HasField("rate") else None
            given = its.max_concurrency if its.HasField("max_concurrency") else None
            most = shown.max_concurrency if shown.HasField("max_concurrency") else None
            if given != most or rate != (shown.rate if shown.HasField("rate") else None):
                self._world.fail("Q2", f"set is {its}, and listed {shown}")

    def _request_id(self) -> str:
        self._requests += 1
        return f"limit-{self._requests}"

    async def _again(self, call: Callable[[bool], Awaitable[_Answer]]) -> _Answer:
        """Make a call until it is answered."""
        while True:
            try:
                return await call(self._chance.random() < 0.1 and not self._world.healed.is_set())
            except (ConnectionLost, JournalFull):
                await trio.sleep(RETRY_S)
