"""Callers that pause, resume and update an execution while it runs (C2, C10)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

import trio
from google.protobuf import field_mask_pb2

from plait.v1 import event_pb2, execution_pb2, execution_service_pb2, graph_pb2, payload_pb2
from plait_server.core.run.states import ExecutionState
from plait_server.errors import EtagMismatch, ExecutionNotPaused, ExecutionOver

if TYPE_CHECKING:
    from plait_server.testing.simulation.clients import Client

Pb = execution_service_pb2
_Answer = TypeVar("_Answer")


class Holder:
    """Holds and changes the execution of a client, until it has ended."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._chance = client.world.chance("holder", client.name)
        self._count = 0
        self._etag = ""

    async def run(self) -> None:
        """Pause and resume it a few times; update it now and then. It is never left paused."""
        for _ in range(self._chance.choice((1, 1, 2, 3))):
            await self._wait()
            if self._chance.random() < 0.5:
                await self._update()
                continue
            await self._pause()
            if self._chance.random() < 0.5:
                await self._pause()
            if self._chance.random() < 0.2:
                await self._cancel()
            if self._chance.random() < 0.3:
                await self._update()
            await trio.sleep(self._chance.choice((0.0, 1.0, 5.0, 90.0)) * self._chance.random())
            await self._resume()

    async def _wait(self) -> None:
        """Wait for some time, or until a result is about to reach the server."""
        with trio.move_on_after(self._chance.random() * 8):
            if self._chance.random() < 0.5:
                await self._client.host.wait_result(self._client.execution_id)
            else:
                await self._client.is_done.wait()

    async def _pause(self) -> None:
        modes = event_pb2.PAUSE_MODE_WAIT, event_pb2.PAUSE_MODE_WAIT, event_pb2.PAUSE_MODE_ABORT
        mode = self._chance.choice(modes)
        request = Pb.PauseExecutionRequest(
            execution_id=self._client.execution_id, mode=mode, request_id=self._request_id()
        )
        answer = await self._call(
            lambda: self._client.host.call(
                lambda server: server.servicers.controls.pause_execution, request, lose_answer=self._loses()
            )
        )
        if answer is not None:
            self._check(answer.execution, "PAUSING", "PAUSED", "CANCELLING")

    async def _cancel(self) -> None:
        request = Pb.CancelExecutionRequest(
            execution_id=self._client.execution_id, request_id=self._request_id()
        )
        answer = await self._call(
            lambda: self._client.host.call(
                lambda server: server.servicers.controls.cancel_execution, request, lose_answer=self._loses()
            )
        )
        if answer is not None:
            self._check(answer.execution, "CANCELLING")

    async def _resume(self) -> None:
        data = payload_pb2.Payload(json=self._chance.choice(("null", '{"approved":true}', "[1,2.50]")))
        request = Pb.ResumeExecutionRequest(
            execution_id=self._client.execution_id, data=data, request_id=self._request_id()
        )
        answer = await self._call(
            lambda: self._client.host.call(
                lambda server: server.servicers.controls.resume_execution, request, lose_answer=self._loses()
            )
        )
        if answer is not None:
            self._check(answer.execution, "RUNNING", "QUEUED", "CANCELLING")

    async def _update(self) -> None:
        settings = Pb.ExecutionSettings(priority=self._chance.randint(-3, 3))
        settings.policy.max_concurrency = self._chance.choice((0, 1, 2, 5))
        settings.policy.on_failure = self._chance.choice(
            (
                graph_pb2.ON_FAILURE_FAIL_FAST,
                graph_pb2.ON_FAILURE_STOP_DISPATCH,
                graph_pb2.ON_FAILURE_CONTINUE,
            )
        )
        node = self._chance.choice(self._client.graph.nodes)
        lock = settings.locks.add(node_path=node.id, locked=self._chance.random() < 0.7)
        if lock.locked and self._chance.random() < 0.5:
            lock.locked_output.json = self._chance.choice(("7", '{"locked":true}'))
        paths = [
            path
            for path in ("priority", "policy.max_concurrency", "policy.on_failure", "locks")
            if self._chance.random() < 0.5
        ]
        if self._chance.random() < 0.2:
            settings.policy.timeout.FromMilliseconds(self._chance.choice((500, 5_000, 20_000)))
            paths.append("policy.timeout")
        request = Pb.UpdateExecutionRequest(
            execution_id=self._client.execution_id,
            settings=settings,
            update_mask=field_mask_pb2.FieldMask(paths=paths or ["priority"]),
            etag=self._etag,
            request_id=self._request_id(),
        )
        answer = await self._call(
            lambda: self._client.host.call(
                lambda server: server.servicers.controls.update_execution, request, lose_answer=self._loses()
            )
        )
        if answer is not None:
            self._client.check_shown(answer.execution)
            self._etag = answer.execution.etag if self._chance.random() < 0.5 else ""

    async def _call(self, call: Callable[[], Awaitable[_Answer]]) -> _Answer | None:
        """Make a call until it is answered; None if the state of the execution did not allow it."""
        try:
            return await self._client.again(call)
        except ExecutionOver:
            self._client.world.count("an execution was over before it could be held")
        except ExecutionNotPaused:
            self._client.world.count("an execution was not paused when it was resumed")
        except EtagMismatch:
            # Nobody else updates it: the first try took effect, and its answer was lost.
            self._client.fail("C10", "an etag was refused although nobody has changed the settings")
        return None

    def _check(self, shown: execution_pb2.Execution, *states: str) -> None:
        self._client.check_shown(shown)
        state = ExecutionState(shown.state)
        if state.name not in states and not state.is_ended:
            self._client.fail("C2", f"the answer shows {state.name}")

    def _request_id(self) -> str:
        self._count += 1
        return f"hold-{self._client.name}-{self._count}"

    def _loses(self) -> bool:
        return self._chance.random() < 0.1
