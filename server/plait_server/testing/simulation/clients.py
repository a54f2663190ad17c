"""Clients: they submit, wait, watch, look and cancel, and check what they are told at the moment in which they hear it.

Every client goes on when its connection breaks, as a client of the real service does: with the same request
id, or after the last sequence that it received.
"""

from __future__ import annotations

import itertools
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar, assert_never

import trio
from google.protobuf import duration_pb2
from google.protobuf.message import Message
from opentelemetry.proto.trace.v1 import trace_pb2

from plait.v1 import execution_pb2, execution_service_pb2, insight_service_pb2, payload_pb2
from plait_server.core.definition.graph import Graph
from plait_server.core.run.states import ExecutionState, NodeState
from plait_server.encoding.graph_codec import graph_to_proto
from plait_server.errors import (
    ExecutionExists,
    ExecutionNotFound,
    JournalFull,
    PlaitError,
    QueueFull,
    RequestIdReused,
    SlowConsumer,
)
from plait_server.testing.simulation.bounds import check_event, check_frame
from plait_server.testing.simulation.callers import choose_caller
from plait_server.testing.simulation.deleters import Deleter
from plait_server.testing.simulation.graphs import EXECUTION_INPUT
from plait_server.testing.simulation.holders import Holder
from plait_server.testing.simulation.host import Host, seen
from plait_server.testing.simulation.network import ConnectionLost
from plait_server.testing.simulation.readable import difference_of
from plait_server.testing.simulation.store import Durable, Records
from plait_server.testing.simulation.world import World

Pb = execution_service_pb2
_Answer = TypeVar("_Answer")

_WAITING: Final = (NodeState.IDLE, NodeState.BACKING_OFF)
"""What QUEUED is shown for (A1)."""


class Client:
    """One user of one execution.

    Args:
        world: The seed.
        host: Where the server is.
        records: What is durable.
        name: Tells this user from others, and names its request ids.
        graph: What it submits.
    """

    def __init__(self, world: World, host: Host, records: Records, name: str, graph: Graph) -> None:
        self.world = world
        self.host = host
        self._records = records
        self._chance = world.chance("client", name)
        self.name: Final = name
        self.graph: Final = graph
        self.caller: Final = choose_caller(world.chance("caller", name))
        self.exported: Final[dict[bytes, bytes]] = {}
        """Id -> encoded span, as ExportTrace returned it after the end."""
        self.has_exported = False
        """Whether that was possible before it was deleted."""
        self._deleter = Deleter(self)
        self.execution_id = ""
        """Empty until the submission was acknowledged."""
        self.is_done = trio.Event()
        """Set when the end of the execution was seen."""
        self.is_finished = trio.Event()
        """Set when there is nothing left to do."""

    def __repr__(self) -> str:
        return f"<Client {self.name} of {self.execution_id or 'nothing yet'}>"

    async def run(self) -> None:
        """Submit, follow to the end, and look on the way."""
        await trio.sleep(self._chance.random() * 3)
        own_id = f"chosen-{self.name}" if self._chance.random() < 0.2 else ""
        request = Pb.SubmitGraphRequest(
            graph=graph_to_proto(self.graph),
            input=payload_pb2.Payload(json=EXECUTION_INPUT),
            request_id=self.name,
            execution_id=own_id,
            labels={"client": self.name},
            priority=self._chance.randint(-1, 1),
        )
        await self._submit(request)
        try:
            await self._follow(request)
            await self._deleter.run()
        except* ExecutionNotFound:
            if not self.is_deleted():
                self.fail("A4", "an acknowledged execution is not found")
        if self.is_deleted():
            self.is_done.set()
            await self._deleter.check_gone(request)
        self.is_finished.set()

    async def _follow(self, request: Pb.SubmitGraphRequest) -> None:
        async with trio.open_nursery() as nursery:
            if self._chance.random() < 0.3:
                nursery.start_soon(self._submit, request)
            if self._chance.random() < 0.2:
                nursery.start_soon(self._submit_other, request)
            for number in range(self._chance.choice((0, 1, 1, 2))):
                nursery.start_soon(Watcher(self, number).run)
            if self._chance.random() < 0.3:
                nursery.start_soon(self._cancel)
            if self._chance.random() < 0.5:
                nursery.start_soon(Holder(self).run)
            nursery.start_soon(self._inspect)
            if self._deleter.is_early:
                nursery.start_soon(self._deleter.run)
            await self._wait()
            self.is_done.set()
        await self.again(self._export)
        self.has_exported = True

    # Calls.

    async def again(self, call: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Make a call until it is answered."""
        while True:
            try:
                return await call()
            except ConnectionLost:
                self.world.count("a call was cut")
            except JournalFull:
                self.world.count("a call was refused for want of room")
            except QueueFull:
                self.world.count("a submission was refused by a full queue")
            await trio.sleep(0.1 + self._chance.random() * 2)

    def durable(self) -> Durable | None:
        """Return what is durable of the execution, or fail the simulation."""
        durable = self._records.executions.get(self.execution_id)
        if durable is None:
            self.fail("A2", "an answer spoke of an execution that is not durable")
        return durable

    def is_deleted(self) -> bool:
        """Return whether the execution was deleted."""
        durable = self._records.executions.get(self.execution_id)
        return durable is not None and durable.is_deleted

    def fail(self, check: str, message: str) -> None:
        """Let the simulation fail."""
        self.world.fail(check, message, self.execution_id)

    def _loses(self) -> bool:
        loses = not self.world.healed.is_set() and self._chance.random() < 0.04
        if loses:
            self.world.count("an answer was lost")
        return loses

    async def _submit(self, request: Pb.SubmitGraphRequest) -> None:
        try:
            answer = await self.again(
                lambda: self.host.call(
                    lambda server: server.servicers.executions.submit_graph,
                    request,
                    lose_answer=self._loses(),
                    metadata=dict(self.caller.headers),
                )
            )
        except PlaitError as error:
            record = self._records.requests.get(("SubmitGraph", self.name))
            if record is not None and not self.execution_id:
                self.execution_id = record.execution_id  # The answer was lost, and it was deleted since.
            if not (isinstance(error, ExecutionNotFound) and self.is_deleted()):
                self.fail("A4", f"a submission was refused: {error!r}")
            return
        execution_id = answer.execution.execution_id
        if self.execution_id not in ("", execution_id):
            self.fail("K3", f"request {self.name} was answered with {self.execution_id} and {execution_id}")
        self.execution_id = execution_id
        self.check_shown(answer.execution)

    async def _submit_other(self, request: Pb.SubmitGraphRequest) -> None:
        """Use the request id, or the execution's id, for something else."""
        other = Pb.SubmitGraphRequest()
        other.CopyFrom(request)
        other.input.json = "[]"
        wanted: type[PlaitError] = RequestIdReused
        # The id of one that was deleted is free.
        if self._chance.random() < 0.5 and not self.world.may_delete:
            other.request_id = ""
            other.execution_id = self.execution_id
            wanted = ExecutionExists
        try:
            await self.again(
                lambda: self.host.call(lambda server: server.servicers.executions.submit_graph, other)
            )
        except PlaitError as error:
            if not isinstance(error, wanted):
                self.fail("K3", f"{error!r}, not {wanted.__name__}")
        else:
            self.fail("K3", f"other content was accepted, instead of {wanted.__name__}")

    async def _wait_once(self) -> Pb.WaitExecutionResponse:
        wait = duration_pb2.Duration()
        wait.FromMilliseconds(self._chance.choice((0, 700, 5_000, 60_000)))
        request = Pb.WaitExecutionRequest(execution_id=self.execution_id, wait=wait)
        return await self.again(
            lambda: self.host.call(
                lambda server: server.servicers.executions.wait_execution, request, lose_answer=self._loses()
            )
        )

    async def _wait(self) -> None:
        while True:
            answer = await self._wait_once()
            self.check_shown(answer.execution)
            if ExecutionState(answer.execution.state).is_ended:
                return
            await trio.sleep(0.05 + self._chance.random())

    async def _cancel(self) -> None:
        with trio.move_on_after(self._chance.random() * self._chance.choice((1, 6, 20))) as waited:
            if self._chance.random() < 0.5:
                # In the instant of a result, or some rounds of the scheduler beside it.
                await self.host.wait_result(self.execution_id)
            else:
                await trio.sleep_forever()
        is_aimed = not waited.cancelled_caught
        if is_aimed:
            self.world.count("a cancel meets a result")
        request = Pb.CancelExecutionRequest(
            execution_id=self.execution_id,
            reason="scripted",
            request_id=f"cancel-{self.name}" if self._chance.random() < 0.7 else "",
        )
        async with trio.open_nursery() as nursery:
            for _ in range(self._chance.choice((1, 1, 2))):
                nursery.start_soon(self._cancel_once, request, is_aimed)
                if self._chance.random() < 0.5:
                    await trio.sleep(self._chance.random() * 3)

    async def _cancel_once(self, request: Pb.CancelExecutionRequest, is_aimed: bool) -> None:  # noqa: FBT001 # for start_soon
        answer = await self.again(
            lambda: self.host.call(
                lambda server: server.servicers.controls.cancel_execution,
                request,
                at_once=is_aimed,
                lose_answer=self._loses(),
            )
        )
        state = ExecutionState(answer.execution.state)
        if state is not ExecutionState.CANCELLING and not state.is_ended:
            self.fail("C1", f"a cancel was answered with {state.name}")
        self.check_shown(answer.execution)

    # Looking.

    async def _export(self) -> None:
        """Export the trace (B2)."""
        self.exported.clear()

        async def receive(message: Message | bytes) -> None:
            check_frame(self.world, "ExportTrace", message)
            assert isinstance(message, insight_service_pb2.ExportTraceResponse)
            for resource in trace_pb2.TracesData.FromString(message.traces_data).resource_spans:
                for span in itertools.chain.from_iterable(scope.spans for scope in resource.scope_spans):
                    if span.span_id in self.exported:
                        self.fail("B2", f"the span {span.span_id.hex()} was exported twice")
                    self.exported[span.span_id] = span.SerializeToString()
            await trio.lowlevel.checkpoint()

        request = insight_service_pb2.ExportTraceRequest(execution_id=self.execution_id)
        await self.host.stream(lambda server: server.servicers.insight.export_trace, request, receive)

    async def _inspect(self) -> None:
        """Look at the execution now and then."""
        while not self.is_done.is_set():
            with trio.move_on_after(self._chance.random() * 6):
                await self.is_done.wait()
            match self._chance.randint(0, 3):
                case 0:
                    await self._get()
                case 1:
                    await self._list_nodes()
                case 2:
                    await self._list_events()
                case _:
                    await self._compare_states()

    async def _get(self) -> None:
        request = Pb.GetExecutionRequest(execution_id=self.execution_id)
        answer = await self.again(
            lambda: self.host.call(lambda server: server.servicers.executions.get_execution, request)
        )
        self.check_shown(answer.execution)

    async def _list_nodes(self) -> None:
        """List nodes: each is shown as it was at some time of the call, for ended scopes are read meanwhile."""
        before = self.durable()
        begun = len(before.events) if before is not None else 0
        known = dict(before.states) if before is not None else {}
        shown: list[tuple[list[execution_pb2.ExecutionNode], int]] = []

        def take(answer: Pb.ListNodesResponse) -> None:
            durable = self.durable()
            if durable is not None:
                shown.append((list(answer.nodes), len(durable.events)))

        request = Pb.ListNodesRequest(execution_id=self.execution_id)
        await self.again(
            lambda: self.host.call(lambda s: seen(s.servicers.executions.list_nodes, take), request)
        )
        durable = self.durable()
        for nodes, ended in shown if durable is not None else ():
            for node in nodes:
                states = {known.get(node.path, NodeState.IDLE)}
                for event in durable.events[begun:ended] if durable is not None else ():
                    if event.node_path == node.path and event.node_state is not None:
                        states.add(event.node_state)
                state = NodeState(node.state)
                waits = state is NodeState.QUEUED and not states.isdisjoint((*_WAITING, NodeState.QUEUED))
                if not waits and state not in states:
                    names = sorted(each.name for each in states)
                    self.fail("A2", f"{node.path} was shown {state.name}, and its durable states are {names}")

    async def _list_events(self) -> None:
        durable = self.durable()
        after = self._chance.randint(0, len(durable.contents)) if durable is not None else 0
        wait = duration_pb2.Duration()
        wait.FromMilliseconds(self._chance.choice((0, 2_000)))
        request = Pb.ListEventsRequest(execution_id=self.execution_id, after_sequence=after, wait=wait)
        content = await self.again(
            lambda: self.host.call(lambda server: server.servicers.executions.list_events, request)
        )
        answer = Pb.ListEventsResponse.FromString(content)
        self.check_events([event.SerializeToString(deterministic=True) for event in answer.events], after)

    async def _compare_states(self) -> None:
        """Compare the live state with the replayed one (A1)."""
        generation = self.host.generation
        if generation is None or generation.server is None:
            return
        try:
            view = await generation.server.supervisor.view("default", self.execution_id)
        except PlaitError as error:
            if isinstance(error, ExecutionNotFound) and not self.is_deleted():
                self.fail("A4", "an acknowledged execution is not found")
            return
        if generation.is_dead:
            return
        durable = self.durable()
        if durable is not None and view.execution.digest() != durable.replayed.digest():
            self.fail(
                "A1",
                f"the live state at {view.execution.sequence} is not the replayed one at {durable.replayed.sequence}: "
                + difference_of(view.execution, durable.replayed),
            )

    # Checks.

    def check_shown(self, shown: execution_pb2.Execution) -> None:
        """Check an answer's execution against the journal, up to the sequence that it names."""
        durable = self.durable()
        if durable is None:
            return
        if shown.last_sequence > len(durable.events):
            self.fail("A2", f"sequence {shown.last_sequence} was shown, {len(durable.events)} is durable")
            return
        state = None
        for event in durable.events[: shown.last_sequence]:
            state = event.execution_state or state
        if state is None or int(state) != shown.state:
            self.fail(
                "A2", f"state {shown.state} was shown at {shown.last_sequence}, and {state!r} is durable"
            )

    def check_events(self, contents: list[bytes], after: int) -> None:
        """Check events that were received after a sequence."""
        durable = self.durable()
        if durable is None:
            return
        for sequence, content in enumerate(contents, after + 1):
            check_event(self.world, content)
            if sequence > len(durable.contents):
                self.fail("A2", f"event {sequence} was received before it was durable")
                return
            if content != durable.contents[sequence - 1]:
                self.fail("A3", f"event {sequence} was received in other bytes, or in another place")
                return


class Watcher:
    """Follows an execution to its final frame, over any number of streams.

    Args:
        client: Whose execution it is.
        number: Tells it from the client's other watchers.
    """

    def __init__(self, client: Client, number: int) -> None:
        self._client = client
        self.world = client.world
        self.host = client.host
        self._chance = self.world.chance("watcher", client.name, number)
        self._after = 0
        self._snapshot = False
        self._has_end = False
        self._is_slow = self._chance.random() < 0.1

    def __repr__(self) -> str:
        return f"<Watcher of {self._client.execution_id} after {self._after}>"

    async def run(self) -> None:
        """Watch until the final frame."""
        await trio.sleep(self._chance.random() * 3)
        self._snapshot = self._chance.random() < 0.3
        while not self._has_end:
            request = Pb.WatchExecutionRequest(
                execution_id=self._client.execution_id,
                after_sequence=self._after,
                include_snapshot=self._snapshot and self._after == 0,
            )
            try:
                with trio.CancelScope() as scope:
                    if not self.world.healed.is_set() and self._chance.random() < 0.3:
                        scope.deadline = trio.current_time() + self._chance.random() * 5
                    await self.host.stream(
                        lambda server: server.servicers.executions.watch_execution, request, self._receive
                    )
                    if not self._has_end:
                        self._client.fail("A3", "a watch ended without its final frame, and was not cut")
                if scope.cancelled_caught:
                    self.world.count("a watcher was cut")
            except ConnectionLost:
                self.world.count("a watcher was cut")
            except SlowConsumer:
                self.world.count("a slow watcher was sent away")
            await trio.sleep(0.1 + self._chance.random())

    async def _receive(self, message: Message | bytes) -> None:
        content = message if isinstance(message, bytes) else message.SerializeToString()
        check_frame(self.world, "WatchExecution", content)
        frame = Pb.WatchExecutionResponse.FromString(content)
        if self._has_end:
            self._client.fail("A3", "a frame came after the final one")
        events = frame.events.events
        if events:
            first = events[0].sequence
            if first != self._after + 1:
                self._client.fail("A3", f"event {first} was received after {self._after}")
            contents = [event.SerializeToString(deterministic=True) for event in events]
            self._client.check_events(contents, self._after)
            self._after += len(events)
        for sequence in self._sequences(frame):
            if sequence != self._after:
                self._client.fail("A3", f"a frame names sequence {sequence} after event {self._after}")
        if frame.HasField("end"):
            self._has_end = True
            durable = self._client.durable()
            if durable is not None and not (durable.is_ended and len(durable.events) == self._after):
                self._client.fail("A3", f"the final frame came after event {self._after}")
        if self._is_slow and not self.world.healed.is_set():
            await trio.sleep(self._chance.choice((0.5, 5.0, 70.0)))
        else:
            await trio.lowlevel.checkpoint()

    def _sequences(self, frame: Pb.WatchExecutionResponse) -> list[int]:
        match frame.WhichOneof("frame"):
            case "snapshot":
                if frame.snapshot.HasField("execution"):
                    self._client.check_shown(frame.snapshot.execution)
                # What the snapshot shows counts as received when it is whole.
                self._after = frame.snapshot.sequence if frame.snapshot.last else self._after
                return []
            case "caught_up":
                return [frame.caught_up.sequence]
            case "heartbeat":
                return [frame.heartbeat.sequence]
            case "end":
                return [frame.end.sequence]
            case "events":
                return []
            case None:
                self._client.fail("A3", "a frame says nothing")
                return []
            case unknown:
                assert_never(unknown)
