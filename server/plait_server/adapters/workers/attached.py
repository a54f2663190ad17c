"""Workers that dial in: their streams, and the attempts that they run.

Rules
1. Only `leases` knows which workers are attached, and how long a worker keeps its attempts.
2. Liveness is judged on the stream itself: the server pings, the worker answers on the same stream. One that
   has not answered for two intervals gets no new attempts; after a whole lease, its stream is dropped.
3. When an instance attaches again, the attempts named in its `hello` continue; those that it lacks are assigned
   again under the same token; those being cancelled are cancelled again; those that no task waits for are looked
   up, and cancelled as STALE if they do not count.
4. The nursery of `run` owns the leases, that of `attach` the stream.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeAlias, assert_never

import trio

from plait.v1 import worker_hub_service_pb2
from plait_server.adapters.workers.attempt_reports import AttemptReports
from plait_server.adapters.workers.holding import Held, WorkerInstance
from plait_server.adapters.workers.leases import REJECT_PAUSE_S, Leases
from plait_server.adapters.workers.session_events import (
    Accepted,
    CancelStep,
    Ended,
    Extended,
    Hello,
    Ponged,
    Reported,
    Returned,
    SessionEvent,
    SlotsChanged,
    Used,
)
from plait_server.adapters.workers.streams import Stream
from plait_server.adapters.workers.tokens import Tokens, idempotency_key
from plait_server.core.limits import WORKERS_MAX
from plait_server.core.run.commands import AttemptResult, Disposition
from plait_server.core.run.states import AttemptOutcome, CancelStage
from plait_server.errors import Overloaded
from plait_server.ports.capacity import Capacity
from plait_server.ports.log_fields import attempt_fields
from plait_server.ports.observer import Observer
from plait_server.ports.seams import Seams
from plait_server.ports.workers import (
    Admit,
    Assignment,
    AttemptKey,
    AttemptListener,
    ReceiveFrame,
    SendFrame,
    WorkerSnapshot,
)

logger = logging.getLogger(__name__)

Deliver: TypeAlias = Callable[[AttemptKey, AttemptResult], None]
IsCurrent: TypeAlias = Callable[[AttemptKey], Awaitable[bool]]

PING_S: Final = 5.0
GRACE_S: Final = 10.0
"""Seconds that a cancelled handler may take to end (C1)."""


class AttachedWorkers:
    """All attached workers. `run` is started once, by the server's nursery."""

    def __init__(
        self,
        *,
        capacity: Capacity,
        tokens: Tokens,
        seams: Seams,
        observer: Observer,
        server_version: str,
        server_instance_id: str,
        ping_s: float = PING_S,
        grace_s: float = GRACE_S,
    ) -> None:
        self._tokens = tokens
        self._seams = seams
        self._version = server_version
        self._instance_id = server_instance_id
        self._ping_s = ping_s
        self._leases = Leases(capacity, ping_s)
        self._grace_s = grace_s
        self._attempt_reports = AttemptReports(observer)
        self._streams = 0
        self._graces: dict[trio.CancelScope, None] = {}
        """The waits for the ends of cancelled handlers."""
        self.deliver: Deliver = _drop
        """Receives results that no task waits for; set by bootstrap before any stream begins."""
        self.is_current: IsCurrent = _nothing_is_current
        """Returns whether an attempt still counts; set by bootstrap before any stream begins."""

    def __repr__(self) -> str:
        return f"<AttachedWorkers {self._leases!r}, {len(self._graces)} graces>"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Manage the leases until cancelled."""
        try:
            await self._leases.run(task_status)
        finally:
            for scope in self._graces:  # Grace times are not waited for.
                scope.cancel()

    def list_workers(self, namespace: str) -> Sequence[WorkerSnapshot]:
        """List the workers of a namespace, by worker id and instance."""
        offset_s = self._seams.now_s() - trio.current_time()
        return self._leases.snapshots(namespace, offset_s)

    # The runtime's side (ports.workers.Workers).

    async def execute(self, assignment: Assignment, listener: AttemptListener) -> AttemptResult:
        """Run an attempt; see `ports.workers.Workers`."""
        worker = self._leases.of_assignment(assignment)
        held = Held(self._tokens.make(assignment.key), assignment, listener)
        worker.held[held.token] = held
        if worker.stream is not None and held.token not in worker.at_worker:
            self._assign(worker, worker.stream, held)
        try:
            await held.done.wait()
        except trio.Cancelled:
            reason = listener.stop_reason()
            if reason:
                with trio.CancelScope(shield=True):
                    await self._cancel(worker, held, reason)
            raise
        finally:
            worker.drop(held)
        assert held.result is not None  # set together with `done`
        return held.result

    def acknowledge(self, key: AttemptKey, disposition: Disposition, worker_id: str) -> None:
        """Send `recorded` to the worker that delivered a result."""
        worker = self._leases.attached(key.namespace, worker_id)
        if worker is not None and worker.stream is not None:
            worker.stream.answer(key, disposition)

    # The stream's side.

    async def attach(self, receive: ReceiveFrame, send: SendFrame, admit: Admit) -> None:
        """Serve one stream to its end; see `ports.workers.AttachStreams`."""
        if self._streams >= WORKERS_MAX:
            raise Overloaded(f"{WORKERS_MAX} workers are attached, which is the limit; try again later")
        self._streams += 1
        stream = Stream(receive, send)
        try:
            with stream.scope:
                await self._serve(stream, admit)
        finally:
            self._streams -= 1
            stream.close()
        if stream.error is not None:
            raise stream.error

    async def _serve(self, stream: Stream, admit: Admit) -> None:
        hello, events = await stream.receive_hello()
        admit(hello.namespace)
        await self._leases.claim_id(hello)
        worker = self._leases.admit(hello, stream)
        stream.session.welcome(
            server_version=self._version,
            server_instance_id=self._instance_id,
            ping_s=self._ping_s,
            lease_s=self._leases.lease_s,
            reject_pause_s=REJECT_PAUSE_S,
        )
        try:
            async with trio.open_nursery() as nursery:
                self._reconcile(worker, stream, hello, nursery)
                nursery.start_soon(stream.write, self._leases.lease_s, partial(self._on_sent, worker))
                nursery.start_soon(worker.watch, stream, self._leases.offer_slots)
                self._take(worker, stream, events)
                while (heard := await stream.receive()) is not None:
                    self._leases.heard(worker)
                    self._take(worker, stream, heard)
                nursery.cancel_scope.cancel()
        finally:
            self._leases.detach(worker, stream)

    def _reconcile(self, worker: WorkerInstance, stream: Stream, hello: Hello, nursery: trio.Nursery) -> None:
        """Reconcile the attempts that the server and the worker believe it holds (rule 3)."""
        for held in list(worker.held.values()):
            if held.token in worker.at_worker:
                if held.reason:
                    stream.session.cancel(held.token, held.reason, self._grace_s)
            elif held.reason:
                held.exited.set()
            else:
                self._assign(worker, stream, held)
        unknown = [token for token in hello.running if token not in worker.held]
        if unknown:
            nursery.start_soon(self._look_up, worker, stream, unknown)
        stream.queue()

    async def _look_up(self, worker: WorkerInstance, stream: Stream, tokens: Sequence[str]) -> None:
        """Cancel attempts that no longer count, one at a time, because a worker may name thousands."""
        for token in tokens:
            await trio.lowlevel.checkpoint()
            key = self._key_of(worker, token)
            if key is not None and await self.is_current(key):
                continue  # Its execution is being read back, and will wait for it.
            if token not in worker.held:
                stream.session.cancel(token, "STALE", self._grace_s)
                stream.queue()

    def _on_sent(self, worker: WorkerInstance, frame: worker_hub_service_pb2.AttachResponse) -> None:
        for message in frame.messages:
            if message.HasField("cancel"):
                held = worker.held.get(message.cancel.token)
                if held is not None and held.reason:
                    held.note_delivered()

    def _take(self, worker: WorkerInstance, stream: Stream, events: list[SessionEvent]) -> None:
        for event in events:
            match event:
                case Ended():
                    self._on_ended(worker, stream, event)
                case Returned():
                    self._on_returned(worker, event)
                case CancelStep():
                    self._on_cancel_step(worker, event)
                case SlotsChanged():
                    self._leases.change_slots(worker, event)
                case Reported():
                    held = worker.held.get(event.token)
                    if held is not None:
                        worker.take_report(held, event.details_json)
                        self._attempt_reports.pass_on(worker.quota, held.assignment, event.kind, event.text)
                case Extended():
                    held = worker.held.get(event.token)
                    if held is not None:
                        held.listener.on_heard()
                        held.listener.on_extend(event.duration_s)
                case Used():
                    held = worker.held.get(event.token)
                    if held is not None:
                        held.take_usage(event)
                case Hello() | Accepted() | Ponged():
                    pass  # The lease was renewed; there is nothing else to do.
                case _:
                    assert_never(event)

    def _on_ended(self, worker: WorkerInstance, stream: Stream, ended: Ended) -> None:
        token = ended.token
        worker.at_worker.pop(token, None)
        held = worker.held.get(token)
        key = held.assignment.key if held is not None else self._key_of(worker, token)
        if key is None:
            stream.session.recorded(token, Disposition.STALE)
            stream.queue()
            return
        result = _of_attempt(ended.result, key, worker)
        is_first = stream.await_answer(
            key, token, len(result.output.json) if result.output is not None else 0
        )
        if held is not None:
            result = held.with_usage_problem(result)
        if held is None or held.reason or held.done.is_set():
            if held is not None:
                held.exited.set()
            if is_first:  # Otherwise it is being looked up, and will be answered once.
                self.deliver(key, result)
            return
        held.end(result)

    def _on_returned(self, worker: WorkerInstance, returned: Returned) -> None:
        worker.at_worker.pop(returned.token, None)
        held = worker.held.get(returned.token)
        if held is not None and not held.reason and not held.done.is_set():
            held.end(_of_attempt(returned.result, held.assignment.key, worker))
        elif held is not None:
            held.exited.set()
        elif (key := self._key_of(worker, returned.token)) is not None:
            self.deliver(key, _of_attempt(returned.result, key, worker))
        self._leases.pause(worker)

    def _on_cancel_step(self, worker: WorkerInstance, step: CancelStep) -> None:
        held = worker.held.get(step.token)
        if held is not None and held.reason:
            held.note_delivered()  # The answer may arrive before the write returns.
        if step.stage is CancelStage.EXITED:
            worker.at_worker.pop(step.token, None)
            if held is not None:
                held.exit_usage = step.usage
                held.exited.set()
            elif step.usage is not None and (key := self._key_of(worker, step.token)) is not None:
                # No task waits for it any more: it was lost, or its grace time is over.
                result = AttemptResult("", 0, AttemptOutcome.CANCELLED, usage=step.usage)
                self.deliver(key, _of_attempt(result, key, worker))
        elif held is not None and held.reason:
            held.listener.on_receipt(step.stage)

    def _key_of(self, worker: WorkerInstance, token: str) -> AttemptKey | None:
        key = self._tokens.read(token)
        return key if key is not None and key.namespace == worker.namespace else None

    # Attempts.

    def _assign(self, worker: WorkerInstance, stream: Stream, held: Held) -> None:
        stream.session.assign(held.token, held.assignment, idempotency_key(held.assignment.key))
        worker.at_worker[held.token] = None
        stream.queue()

    async def _cancel(self, worker: WorkerInstance, held: Held, reason: str) -> None:
        """Tell the worker to cancel, and wait for the handler's end within the grace time."""
        held.reason = reason
        if held.done.is_set():
            # Its result arrived at the same moment; the handler has ended, and the result is late.
            held.exited.set()
            if held.result is not None:
                self.deliver(held.assignment.key, held.result)
        elif worker.stream is not None and worker.stream.session.withdraw(held.token):
            # It was never sent, so the worker need not be told, and a cancel would overtake it.
            worker.at_worker.pop(held.token, None)
            held.exited.set()
        elif worker.stream is not None:
            worker.stream.session.cancel(held.token, reason, self._grace_s)
            worker.stream.queue()
        with trio.move_on_after(self._grace_s) as grace:
            self._graces[grace] = None
            await held.exited.wait()
        del self._graces[grace]
        if not self._leases.is_running:
            return  # The server stops; the next start cancels the attempt again.
        stage = CancelStage.EXITED if held.exited.is_set() else CancelStage.ABANDONED
        held.listener.on_receipt(stage, held.exit_usage)


def _of_attempt(result: AttemptResult, key: AttemptKey, worker: WorkerInstance) -> AttemptResult:
    """Add to a result which attempt it is for, and which worker sent it."""
    node_path, attempt, failure = key.node_path, key.attempt, result.failure
    if failure is not None:
        failure = dataclasses.replace(failure, node_path=node_path, attempt=attempt)
    return result._replace(node_path=node_path, attempt=attempt, failure=failure, worker_id=worker.worker_id)


def _drop(key: AttemptKey, result: AttemptResult) -> None:
    text = "a result (%s) by worker %s is dropped: it came before the server was ready"
    logger.warning(text, result.outcome.name, result.worker_id, extra=attempt_fields(key))


async def _nothing_is_current(key: AttemptKey) -> bool:
    del key
    await trio.lowlevel.checkpoint()
    return False
