"""grpc.health.v1: watchers hear each change, and the server can wait until they have."""

from __future__ import annotations

import trio
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2
from trio.testing import wait_all_tasks_blocked

from plait_server.api.call import Call, Principal
from plait_server.api.health import HealthServicer

CALL = Call(method="", peer="", metadata={}, principal=Principal(name="", is_verified=False))


class Watcher:
    """Who watches, and may be slow to take what is sent."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.may_take = trio.Event()
        self.may_take.set()
        self.scope = trio.CancelScope()

    async def run(self, health: HealthServicer) -> None:
        with self.scope:
            await health.watch(health_pb2.HealthCheckRequest(), CALL, self.send)

    async def send(self, message: Message | bytes) -> None:
        assert isinstance(message, health_pb2.HealthCheckResponse)
        await self.may_take.wait()
        self.heard.append(health_pb2.HealthCheckResponse.ServingStatus.Name(message.status))


async def test_all_who_watch_are_told_before_the_wait_ends() -> None:
    health = HealthServicer()
    health.set_serving(is_serving=True)
    quick, slow, leaving = watchers = Watcher(), Watcher(), Watcher()
    is_told = trio.Event()

    async def wait_told() -> None:
        await health.wait_told()
        is_told.set()

    async with trio.open_nursery() as nursery:
        for watcher in watchers:
            nursery.start_soon(watcher.run, health)
        await wait_all_tasks_blocked()
        slow.may_take = trio.Event()
        leaving.may_take = trio.Event()
        health.set_serving(is_serving=False)
        nursery.start_soon(wait_told)
        await wait_all_tasks_blocked()
        assert quick.heard == ["SERVING", "NOT_SERVING"]
        leaving.scope.cancel()
        await wait_all_tasks_blocked()
        assert not is_told.is_set()
        slow.may_take.set()
        await wait_all_tasks_blocked()
        assert slow.heard == ["SERVING", "NOT_SERVING"]
        assert is_told.is_set()
        nursery.cancel_scope.cancel()


async def test_nobody_who_watches_is_nobody_to_wait_for() -> None:
    health = HealthServicer()
    health.set_serving(is_serving=False)
    await health.wait_told()
