"""The administrator: changes how many executions of the namespace may run, while they do (Q2, Q3)."""

from __future__ import annotations

from typing import Final

import trio

from plait.v1 import namespace_service_pb2
from plait_server.errors import JournalFull
from plait_server.testing.simulation.host import Host
from plait_server.testing.simulation.network import ConnectionLost
from plait_server.testing.simulation.world import World

Pb = namespace_service_pb2

CHANGES_MAX: Final = 4


class Administrator:
    """Raises and lowers `running_max` now and then; each change is one request, tried until it is answered."""

    def __init__(self, world: World, host: Host) -> None:
        self._world = world
        self._host = host
        self._chance = world.chance("administrator")

    def __repr__(self) -> str:
        return "<Administrator>"

    async def run(self) -> None:
        """Make some changes."""
        for number in range(self._chance.randint(0, CHANGES_MAX)):
            await trio.sleep(self._chance.random() * 8)
            settings = Pb.NamespaceSettings(running_max=self._chance.choice((1, 2, 4)))
            request = Pb.UpdateNamespaceRequest(settings=settings, request_id=f"change-{number}")
            await self._change(request)

    async def _change(self, request: Pb.UpdateNamespaceRequest) -> None:
        while True:
            try:
                answer = await self._host.call(
                    lambda server: server.servicers.namespaces.update_namespace, request
                )
            except (ConnectionLost, JournalFull):
                await trio.sleep(0.1 + self._chance.random() * 2)
                continue
            self._world.count("the limit of a namespace was changed")
            if answer.namespace.settings.running_max != request.settings.running_max:
                self._world.fail("Q2", f"a changed limit is shown as {answer.namespace.settings.running_max}")
            return
