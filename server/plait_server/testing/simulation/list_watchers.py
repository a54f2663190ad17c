"""Those who look at the whole namespace: they watch it, over any number of streams, and list it by pages (A3).

A watcher that has seen all frames must know the last state of every execution, whatever was cut in between.
"""

from __future__ import annotations

from typing import Final

import trio
from google.protobuf.message import Message

from plait.v1 import execution_pb2, execution_service_pb2
from plait_server.core.run.states import ExecutionState
from plait_server.errors import PlaitError, SlowConsumer
from plait_server.testing.simulation.bounds import check_frame
from plait_server.testing.simulation.host import Host
from plait_server.testing.simulation.network import ConnectionLost
from plait_server.testing.simulation.store import Records
from plait_server.testing.simulation.world import World

Pb = execution_service_pb2

SETTLED_S: Final = 10.0
"""Within this time after the last change and the last fault a watcher has seen everything."""
_OPEN: Final = "state = QUEUED OR state = RUNNING OR state = PAUSING OR state = PAUSED OR state = CANCELLING"
_ORDERS: Final = ("", "create_time", "end_time desc", "end_time")


class ListWatcher:
    """Watches the namespace, and lists it now and then.

    Args:
        world: The seed.
        host: Where the server is.
        records: What is durable.
        number: Tells it from the others.
    """

    def __init__(self, world: World, host: Host, records: Records, number: int) -> None:
        self._world = world
        self._host = host
        self._records = records
        self._chance = world.chance("list watcher", number)
        self._filter = self._chance.choice(("", "", _OPEN))
        self._token = ""
        self._is_slow = self._chance.random() < 0.1
        self._known: dict[str, ExecutionState] = {}
        """The executions that the watcher knows to match, with their last states."""

    def __repr__(self) -> str:
        return f"<ListWatcher of {self._filter!r}, {len(self._known)} known>"

    async def run(self) -> None:
        """Watch and list until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._list)

    def problem(self) -> str:
        """Return what the watcher does not know although everything has settled; empty if it knows all."""
        expected = {
            durable.execution_id: durable.replayed.state
            for durable in self._records.executions.values()
            if not durable.is_deleted and not (self._filter and durable.is_ended)
        }
        return "" if self._known == expected else f"a watcher knows {self._known}, and there is {expected}"

    async def _watch(self) -> None:
        while True:
            request = Pb.WatchExecutionsRequest(
                filter=self._filter, watch_token=self._token, include_initial=not self._token
            )
            try:
                with trio.CancelScope() as scope:
                    if not self._world.healed.is_set() and self._chance.random() < 0.5:
                        scope.deadline = trio.current_time() + self._chance.random() * 10
                    await self._host.stream(
                        lambda server: server.servicers.executions.watch_executions, request, self._receive
                    )
                    self._world.fail("A3", "a watch of the namespace ended by itself", "")
                if scope.cancelled_caught:
                    self._world.count("a watcher of the namespace was cut")
            except (ConnectionLost, SlowConsumer):
                self._world.count("a watcher of the namespace was cut")
            await trio.sleep(0.1 + self._chance.random())

    async def _receive(self, message: Message | bytes) -> None:
        check_frame(self._world, "WatchExecutions", message)
        assert isinstance(message, Pb.WatchExecutionsResponse)
        # The client keeps the token with what it did: both or neither survive its own end.
        self._token = message.watch_token
        ids = [change.execution_id for change in message.changes]
        if len(set(ids)) != len(ids):
            self._world.fail("A3", f"a frame has an execution twice: {ids}", "")
        for change in message.changes:
            match change.type:
                case Pb.EXECUTION_CHANGE_TYPE_UPDATED:
                    self._check_shown(change.execution)
                    self._known[change.execution_id] = ExecutionState(change.execution.state)
                case Pb.EXECUTION_CHANGE_TYPE_LEFT | Pb.EXECUTION_CHANGE_TYPE_DELETED:
                    self._known.pop(change.execution_id, None)
                case _:
                    self._world.fail("A3", f"a change is of kind {change.type}", change.execution_id)
        if self._is_slow and not self._world.healed.is_set():
            with trio.move_on_after(self._chance.choice((0.5, 5.0, 70.0))):
                await self._world.healed.wait()
        else:
            await trio.lowlevel.checkpoint()

    def _check_shown(self, shown: execution_pb2.Execution) -> None:
        """Check a row against the journal, up to the sequence that it names (A2)."""
        durable = self._records.executions.get(shown.execution_id)
        if durable is None or shown.last_sequence > len(durable.events):
            self._world.fail(
                "A2", f"a row shows {shown.last_sequence}, which is not durable", shown.execution_id
            )
            return
        states = [event.execution_state for event in durable.events[: shown.last_sequence]]
        state = next((each for each in reversed(states) if each is not None), None)
        if state is None or int(state) != shown.state:
            self._world.fail("A2", f"state {shown.state} is shown, {state!r} is durable", shown.execution_id)

    async def _list(self) -> None:
        while True:
            await trio.sleep(self._chance.random() * 20)
            order = self._chance.choice(_ORDERS)
            before = {durable.execution_id: durable.is_ended for durable in self._records.executions.values()}
            try:
                listed = await self._pages(order)
            except (ConnectionLost, PlaitError):
                continue
            self._world.count("the namespace was listed")
            if len(set(listed)) != len(listed):
                # By end, one that ends meanwhile may move on to where it is listed again.
                twice = {each for each in listed if listed.count(each) > 1}
                if "end" not in order or any(before.get(each) for each in twice):
                    self._world.fail("A3", f"a list has an execution twice: {listed}", "")
            for execution_id, had_ended in before.items():
                durable = self._records.executions[execution_id]
                is_fixed = had_ended or "end" not in order
                if is_fixed and not durable.is_deleted and execution_id not in listed:
                    self._world.fail("A3", f"a list by {order!r} lacks it", execution_id)

    async def _pages(self, order: str) -> list[str]:
        listed: list[str] = []
        request = Pb.ListExecutionsRequest(order_by=order, page_size=self._chance.choice((1, 3, 1_000)))
        while True:
            page = await self._host.call(lambda server: server.servicers.executions.list_executions, request)
            listed += [execution.execution_id for execution in page.executions]
            if not page.next_page_token:
                return listed
            request.page_token = page.next_page_token
