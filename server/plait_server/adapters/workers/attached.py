"""Workers that dial in: who is attached, and who holds which attempt.

Rules
1. A worker is its process instance. It outlives its stream: a cut stream alone loses nothing; when nothing was
   heard for the lease, what it holds is LOST (T2).
2. A worker id belongs to one instance at a time. A newcomer with the id of an instance that has a stream has that
   one asked at once: if it answers, the newcomer is refused; if not, it is lost and the newcomer takes its place.
   A detached instance is lost at once; one that has not been here since the server's start is left its lease.
3. Liveness is judged on the stream itself: the server pings, the worker answers on the same stream. One that
   has not answered for two intervals gets nothing new; for the lease, its stream is dropped.
4. When an instance attaches again, what it names in `hello` goes on; what it lacks is assigned again under
   the same attempt; what is being cancelled is cancelled again; what nobody waits for is looked up, and
   cancelled as STALE if it does not count.
5. The nursery of `run` owns the leases, that of `attach` the stream.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, TypeAlias

import trio

from plait.v1 import worker_hub_service_pb2
from plait_server.adapters.workers.holding import LEASE_INTERVALS, Held, Worker
from plait_server.adapters.workers.said import Sayings
from plait_server.adapters.workers.session_events import (
    Accepted,
    CancelStep,
    Ended,
    Hello,
    Ponged,
    Returned,
    Said,
    SessionEvent,
    SlotsChanged,
    Used,
)
from plait_server.adapters.workers.streams import Stream
from plait_server.adapters.workers.tokens import Tokens, idempotency_key
from plait_server.core.limits import WORKERS_MAX
from plait_server.core.run.commands import AttemptResult, Taken
from plait_server.core.run.states import AttemptOutcome, CancelStage
from plait_server.errors import FieldViolation, InvalidRequest, Overloaded, SlowConsumer, WorkerIdInUse
from plait_server.ports.capacity import Capacity
from plait_server.ports.log_fields import assignment_fields, attempt_fields
from plait_server.ports.observer import Observer
from plait_server.ports.seams import Seams
from plait_server.ports.workers import (
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
"""How long a cancelled handler may take to end (C1)."""
REJECT_PAUSE_S: Final = 1.0
"""A worker that refused an attempt for its own reasons gets nothing for so long; otherwise the two would spin."""


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
        self._capacity = capacity
        self._tokens = tokens
        self._seams = seams
        self._version = server_version
        self._instance_id = server_instance_id
        self._ping_s = ping_s
        self._lease_s = ping_s * LEASE_INTERVALS
        self._grace_s = grace_s
        self._sayings = Sayings(observer)
        self._workers: dict[str, Worker] = {}
        """Instance id -> worker, attached or not."""
        self._attached: dict[tuple[str, str], Worker] = {}
        """(namespace, worker id) -> its instance that has a stream."""
        self._streams = 0
        self._nursery: trio.Nursery | None = None
        self._graces: dict[trio.CancelScope, None] = {}
        """The waits for cancelled handlers to end."""
        self.deliver: Deliver = _drop
        """Takes results that nobody waits for; set by bootstrap before any stream begins."""
        self.is_current: IsCurrent = _nothing_is_current
        """Says whether an attempt still counts; set by bootstrap before any stream begins."""

    def __repr__(self) -> str:
        return f"<AttachedWorkers {len(self._attached)} of {len(self._workers)}, {len(self._graces)} graces>"

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep the leases until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            task_status.started()
            try:
                await trio.sleep_forever()
            finally:
                # Streams may outlive it by some steps, and start nothing any more; nobody waits out a grace time.
                self._nursery = None
                for scope in self._graces:
                    scope.cancel()

    def list_workers(self, namespace: str) -> list[WorkerSnapshot]:
        """List the workers of a namespace, by worker id and instance."""
        offset_s = self._seams.now_s() - trio.current_time()
        return [
            worker.snapshot(self._capacity.slots_in_use(worker.instance_id), offset_s)
            for worker in sorted(self._workers.values(), key=lambda each: (each.worker_id, each.instance_id))
            if worker.namespace == namespace
        ]

    # The runtime's side (ports.workers.Workers).

    async def execute(self, assignment: Assignment, listener: AttemptListener) -> AttemptResult:
        """Have an attempt carried out; see `ports.workers.Workers`."""
        worker = self._worker_for(assignment)
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
            if worker.held.get(held.token) is held:
                del worker.held[held.token]
        assert held.result is not None  # set together with `done`
        return held.result

    def tell(self, key: AttemptKey, taken: Taken, worker_id: str) -> None:
        """Say `recorded` to the worker that delivered a result."""
        worker = self._attached.get((key.namespace, worker_id))
        if worker is not None and worker.stream is not None:
            worker.stream.answer(key, taken)

    # The stream's side.

    async def attach(self, receive: ReceiveFrame, send: SendFrame) -> None:
        """Serve one stream to its end. Returns when the worker closes it.

        Raises:
            InvalidRequest, ProtocolVersionUnsupported, ProtocolViolation, WorkerIdInUse: the worker is refused.
            SlowConsumer: the worker does not read.
            Overloaded: too many workers are attached.
        """
        if self._streams >= WORKERS_MAX:
            raise Overloaded(f"{WORKERS_MAX} workers are attached, the most there may be; try again later")
        self._streams += 1
        stream = Stream(receive, send)
        try:
            with stream.scope:
                await self._serve(stream)
        finally:
            self._streams -= 1
            stream.close()
        if stream.error is not None:
            raise stream.error

    async def _serve(self, stream: Stream) -> None:
        opening = await stream.receive_hello()
        if opening is None:
            return
        hello, events = opening
        await self._claim_id(hello)
        worker = self._admit(hello, stream)
        try:
            async with trio.open_nursery() as nursery:
                self._reconcile(worker, stream, hello, nursery)
                nursery.start_soon(stream.write, self._lease_s, partial(self._on_sent, worker))
                nursery.start_soon(worker.watch, stream, self._offer_slots)
                self._take(worker, stream, events)
                while (heard := await stream.receive()) is not None:
                    self._heard(worker)
                    self._take(worker, stream, heard)
                nursery.cancel_scope.cancel()
        finally:
            self._detach(worker, stream)

    async def _claim_id(self, hello: Hello) -> None:
        """Make sure that no other instance of the worker is there (rule 2).

        Raises:
            WorkerIdInUse: one is, and answers.
        """
        # Again after each wait: another newcomer may have been quicker.
        while (other := self._attached.get((hello.namespace, hello.worker_id))) is not None:
            stream = other.stream
            if other.instance_id == hello.instance_id or stream is None:
                return
            if await stream.is_answering(self._ping_s):
                text = (
                    f"the worker id {hello.worker_id} is in use: its instance {other.instance_id} is attached and "
                    "answers; stop that process, or give this one a worker id of its own"
                )
                raise WorkerIdInUse(text, worker_id=hello.worker_id, instance_id=other.instance_id)
            if other.stream is stream:
                text = "worker %s: instance %s does not answer, and gives way to %s"
                logger.warning(text, other.worker_id, other.instance_id, hello.instance_id)
                self._lose(other)

    def _admit(self, hello: Hello, stream: Stream) -> Worker:
        worker = self._workers.get(hello.instance_id)
        is_new = worker is None
        if worker is None:
            worker = Worker(hello.namespace, hello.worker_id, hello.instance_id, self._ping_s)
            self._workers[hello.instance_id] = worker
        elif (worker.namespace, worker.worker_id) != (hello.namespace, hello.worker_id):
            text = "names an instance of another worker; make a new id at each start"
            raise InvalidRequest([FieldViolation(field="hello.instance_id", message=text)])
        elif worker.stream is not None:
            worker.stream.end()  # Its old stream is half dead; the worker knows better.
        for other in list(self._workers.values()) if is_new else ():
            is_same = other.worker_id == hello.worker_id and other.namespace == hello.namespace
            # One that was not here since the server's start may be on its way.
            if is_same and other is not worker and other.hello is not None:
                self._lose(other)
        worker.hello, worker.stream = hello, stream
        worker.slots, worker.is_draining, worker.is_paused = hello.slots, False, False
        worker.attached_s = trio.current_time()
        self._attached[worker.namespace, worker.worker_id] = worker
        self._heard(worker)
        worker.at_worker = dict.fromkeys([*hello.running, *hello.finished])
        stream.session.welcome(
            server_version=self._version,
            server_instance_id=self._instance_id,
            ping_s=self._ping_s,
            lease_s=self._lease_s,
        )
        self._capacity.attach_worker(
            hello.namespace, hello.worker_id, hello.instance_id, hello.slots, hello.types
        )
        logger.info("worker %s attached: %d slots, %d types", hello.worker_id, hello.slots, len(hello.types))
        return worker

    def _reconcile(self, worker: Worker, stream: Stream, hello: Hello, nursery: trio.Nursery) -> None:
        """Bring what the server and the worker think it holds together (rule 4)."""
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

    async def _look_up(self, worker: Worker, stream: Stream, tokens: Sequence[str]) -> None:
        """Cancel what nobody wants; one after the other, for a worker may name thousands."""
        for token in tokens:
            await trio.lowlevel.checkpoint()
            key = self._key_of(worker, token)
            if key is not None and await self.is_current(key):
                continue  # Its execution is being read back, and will ask for it.
            if token not in worker.held:
                stream.session.cancel(token, "STALE", self._grace_s)
                stream.queue()

    def _on_sent(self, worker: Worker, frame: worker_hub_service_pb2.AttachResponse) -> None:
        for message in frame.messages:
            if message.HasField("cancel"):
                held = worker.held.get(message.cancel.token)
                if held is not None and held.reason:
                    held.note_delivered()

    def _heard(self, worker: Worker) -> None:
        was_quiet = worker.is_quiet
        worker.heard_s = trio.current_time()
        if was_quiet:
            self._offer_slots(worker)

    def _offer_slots(self, worker: Worker) -> None:
        self._capacity.set_worker_slots(worker.instance_id, worker.open_slots)

    def _take(self, worker: Worker, stream: Stream, events: list[SessionEvent]) -> None:
        for event in events:
            match event:
                case Ended():
                    self._on_ended(worker, stream, event)
                case Returned():
                    self._on_returned(worker, event)
                case CancelStep():
                    self._on_cancel_step(worker, event)
                case SlotsChanged():
                    # Credit ends no drain: only another stream begins anew (T3).
                    worker.slots, worker.is_draining = event.slots, worker.is_draining or event.is_draining
                    self._offer_slots(worker)
                    if event.is_draining:
                        logger.info("worker %s drains", worker.worker_id)
                case Said():
                    held = worker.held.get(event.token)
                    if held is not None:
                        self._sayings.say(worker.quota, held.assignment, event.kind, event.text)
                case Used():
                    held = worker.held.get(event.token)
                    if held is not None:
                        held.take_usage(event)
                case Hello() | Accepted() | Ponged():
                    pass  # Heard of; nothing else follows.

    def _on_ended(self, worker: Worker, stream: Stream, ended: Ended) -> None:
        token = ended.token
        worker.at_worker.pop(token, None)
        held = worker.held.get(token)
        key = held.assignment.key if held is not None else self._key_of(worker, token)
        if key is None:
            stream.session.recorded(token, Taken.STALE)
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
            if is_first:  # Else it is being looked up, and what comes of that is said once.
                self.deliver(key, result)
            return
        held.end(result)

    def _on_returned(self, worker: Worker, returned: Returned) -> None:
        worker.at_worker.pop(returned.token, None)
        held = worker.held.get(returned.token)
        if held is not None and not held.reason and not held.done.is_set():
            held.end(_of_attempt(returned.result, held.assignment.key, worker))
        elif held is not None:
            held.exited.set()
        elif (key := self._key_of(worker, returned.token)) is not None:
            self.deliver(key, _of_attempt(returned.result, key, worker))
        if not worker.is_draining and self._nursery is not None and not worker.is_paused:
            worker.is_paused = True
            self._offer_slots(worker)
            self._nursery.start_soon(self._resume_later, worker)

    async def _resume_later(self, worker: Worker) -> None:
        await trio.sleep(REJECT_PAUSE_S)
        worker.is_paused = False
        if self._workers.get(worker.instance_id) is worker:  # Else it is gone, or has come anew meanwhile.
            self._offer_slots(worker)

    def _on_cancel_step(self, worker: Worker, step: CancelStep) -> None:
        held = worker.held.get(step.token)
        if held is not None and held.reason:
            held.note_delivered()  # The answer may overtake the end of the write.
        if step.stage is CancelStage.EXITED:
            worker.at_worker.pop(step.token, None)
            if held is not None:
                held.exit_usage = step.usage
                held.exited.set()
            elif step.usage is not None and (key := self._key_of(worker, step.token)) is not None:
                # Nobody waits for it any more: it was lost, or its grace time is over.
                result = AttemptResult("", 0, AttemptOutcome.CANCELLED, usage=step.usage)
                self.deliver(key, _of_attempt(result, key, worker))
        elif held is not None and held.reason:
            held.listener.on_receipt(step.stage)

    def _key_of(self, worker: Worker, token: str) -> AttemptKey | None:
        key = self._tokens.read(token)
        return key if key is not None and key.namespace == worker.namespace else None

    # Attempts.

    def _worker_for(self, assignment: Assignment) -> Worker:
        worker = self._workers.get(assignment.worker_instance_id)
        if worker is None:
            # The server restarted: its lease is granted anew in full.
            worker = Worker(
                assignment.key.namespace, assignment.worker_id, assignment.worker_instance_id, self._ping_s
            )
            self._workers[worker.instance_id] = worker
            self._expire_later(worker)
        return worker

    def _assign(self, worker: Worker, stream: Stream, held: Held) -> None:
        stream.session.assign(held.token, held.assignment, idempotency_key(held.assignment.key))
        worker.at_worker[held.token] = None
        stream.queue()

    async def _cancel(self, worker: Worker, held: Held, reason: str) -> None:
        """Tell the worker to cancel, and wait for the handler's end within the grace time."""
        held.reason = reason
        if held.done.is_set():
            # Its result came in the same moment; the handler has ended, and the result is late.
            held.exited.set()
            if held.result is not None:
                self.deliver(held.assignment.key, held.result)
        elif worker.stream is not None and worker.stream.session.withdraw(held.token):
            # It was never sent: nobody is to be told, and a cancel would overtake it.
            worker.at_worker.pop(held.token, None)
            held.exited.set()
        elif worker.stream is not None:
            worker.stream.session.cancel(held.token, reason, self._grace_s)
            worker.stream.queue()
        with trio.move_on_after(self._grace_s) as grace:
            self._graces[grace] = None
            await held.exited.wait()
        del self._graces[grace]
        if self._nursery is None:
            return  # The server stops; whoever reads the execution again tells the worker again.
        stage = CancelStage.EXITED if held.exited.is_set() else CancelStage.ABANDONED
        held.listener.on_receipt(stage, held.exit_usage)

    # Leases.

    def _detach(self, worker: Worker, stream: Stream) -> None:
        if worker.stream is not stream:
            return
        self._unlink(worker)
        self._offer_slots(worker)
        logger.info("worker %s detached, holding %d attempts", worker.worker_id, len(worker.held))
        if worker.held:
            self._expire_later(worker)
        else:
            self._forget(worker)

    def _unlink(self, worker: Worker) -> None:
        worker.stream = None
        if self._attached.get((worker.namespace, worker.worker_id)) is worker:
            del self._attached[worker.namespace, worker.worker_id]

    def _expire_later(self, worker: Worker) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._expire, worker)

    async def _expire(self, worker: Worker) -> None:
        await trio.sleep_until(worker.lease_end_s)
        is_gone = worker.stream is None and self._workers.get(worker.instance_id) is worker
        if is_gone and trio.current_time() >= worker.lease_end_s:
            self._lose(worker)

    def _lose(self, worker: Worker) -> None:
        """Give up a worker that is gone: what it held is LOST (T2)."""
        if worker.stream is not None:
            worker.stream.end(
                SlowConsumer("no ping was answered, and another instance has the worker id now")
            )
            self._unlink(worker)
        for held in list(worker.held.values()):
            if not held.reason and not held.done.is_set():
                fields = assignment_fields(held.assignment)
                logger.warning("an attempt is lost with worker %s", worker.worker_id, extra=fields)
                held.lose(worker.worker_id, self._lease_s)
        self._forget(worker)

    def _forget(self, worker: Worker) -> None:
        if self._workers.get(worker.instance_id) is worker:
            del self._workers[worker.instance_id]
            self._capacity.remove_worker(worker.instance_id)


def _of_attempt(result: AttemptResult, key: AttemptKey, worker: Worker) -> AttemptResult:
    """Fill in which attempt a result is for, and who sent it."""
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
