"""Workers that dial in: every Attach stream, and who holds which attempt.

Rules
1. A worker is its process instance. It outlives its stream: a cut stream alone loses nothing; when nothing
   was heard for the lease, what it holds is LOST. A new instance of the same worker id means that one which
   was attached here and is not any more is gone (T2); after a restart of the server nobody has been here yet.
2. Liveness is judged on the stream itself: the server pings, the worker answers on the same stream. One that
   has not answered for two intervals gets nothing new; for the lease, its stream is dropped.
3. When an instance attaches again, what it names in `hello` goes on; what it lacks is assigned again under
   the same attempt; what is being cancelled is cancelled again; what nobody waits for is looked up, and
   cancelled as STALE if it does not count.
4. One task writes and one reads a stream; they share the session, which is synchronous. The nursery of `run`
   owns the leases, that of `attach` the stream.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import trio

from plait_server.adapters.workers.holding import Held, Worker
from plait_server.adapters.workers.session import (
    Accepted,
    CancelStep,
    Ended,
    Hello,
    Ponged,
    Returned,
    Said,
    ServerSession,
    SessionEvent,
    SlotsChanged,
    Used,
)
from plait_server.adapters.workers.tokens import Tokens, idempotency_key
from plait_server.core.commands import Taken
from plait_server.core.failures import WORKER_LOST, Failure
from plait_server.core.states import AttemptOutcome, CancelStage
from plait_server.core.usage import add_amount
from plait_server.encoding.worker_failure import worker_code
from plait_server.errors import FieldViolation, InvalidRequest
from plait_server.ports.capacity import Capacity
from plait_server.ports.observer import Observer
from plait_server.ports.seams import Seams
from plait_server.ports.workers import (
    Assignment,
    AttemptKey,
    ReceiveFrame,
    Report,
    SendFrame,
    WorkerSnapshot,
)

logger = logging.getLogger(__name__)

Deliver: TypeAlias = Callable[[AttemptKey, Report, str], None]
IsCurrent: TypeAlias = Callable[[AttemptKey], Awaitable[bool]]

PING_S: Final = 5.0
LEASE_INTERVALS: Final = 3
"""A lease is three ping intervals: one lost answer is an accident, three are a death."""
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
        self._observer = observer
        self._version = server_version
        self._instance_id = server_instance_id
        self._ping_s = ping_s
        self._lease_s = ping_s * LEASE_INTERVALS
        self._grace_s = grace_s
        self._workers: dict[str, Worker] = {}
        self._awaiting: dict[AttemptKey, tuple[str, Worker]] = {}
        """Results whose workers wait for `recorded`; at most one an attempt that a worker has."""
        self._nursery: trio.Nursery | None = None
        self._graces: dict[trio.CancelScope, None] = {}
        """The waits for cancelled handlers to end."""
        self.deliver: Deliver = _drop
        """Takes reports that nobody waits for; set by bootstrap before any stream begins."""
        self.is_current: IsCurrent = _nothing_is_current
        """Says whether an attempt still counts; set by bootstrap before any stream begins."""

    def __repr__(self) -> str:
        return f"<AttachedWorkers {len(self._workers)}>"

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

    async def execute(
        self,
        assignment: Assignment,
        on_receipt: Callable[[CancelStage], None],
        stop_reason: Callable[[], str],
    ) -> Report:
        """Have an attempt carried out; see `ports.workers.Workers`."""
        worker = self._worker_for(assignment)
        held = Held(self._tokens.make(assignment.key), assignment, on_receipt)
        worker.held[held.token] = held
        if worker.session is not None and held.token not in worker.at_worker:
            self._assign(worker, worker.session, held)
        try:
            await held.done.wait()
        except trio.Cancelled:
            reason = stop_reason()
            if reason:
                with trio.CancelScope(shield=True):
                    await self._cancel(worker, held, reason)
            raise
        finally:
            if worker.held.get(held.token) is held:
                del worker.held[held.token]
        assert held.report is not None  # set together with `done`
        return held.report

    def tell(self, key: AttemptKey, taken: Taken) -> None:
        """Say `recorded` to the worker that delivered a result."""
        token, worker = self._awaiting.pop(key, ("", None))
        if worker is not None and worker.session is not None:
            worker.session.recorded(token, taken)
            worker.queue()

    # The stream's side.

    async def attach(self, receive: ReceiveFrame, send: SendFrame) -> None:
        """Serve one stream to its end. Returns when the worker closes it.

        Raises:
            InvalidRequest, ProtocolVersionUnsupported, ProtocolViolation: the worker is refused.
        """
        session = ServerSession()
        frame = await receive()
        if frame is None:
            return
        events = session.receive(frame)
        hello = session.hello
        if hello is None:
            return
        with trio.CancelScope() as stream:
            worker = self._admit(hello, session, stream)
            try:
                async with trio.open_nursery() as nursery:
                    self._reconcile(worker, session, hello, nursery)
                    nursery.start_soon(self._write, worker, session, send)
                    nursery.start_soon(self._ping, worker, session, stream)
                    self._take(worker, session, events)
                    while (frame := await receive()) is not None:
                        self._heard(worker)
                        self._take(worker, session, session.receive(frame))
                    nursery.cancel_scope.cancel()
            finally:
                self._detach(worker, session)

    def _admit(self, hello: Hello, session: ServerSession, stream: trio.CancelScope) -> Worker:
        worker = self._workers.get(hello.instance_id)
        is_new = worker is None
        if worker is None:
            worker = Worker(hello.namespace, hello.worker_id, hello.instance_id, trio.current_time())
            self._workers[hello.instance_id] = worker
        elif (worker.namespace, worker.worker_id) != (hello.namespace, hello.worker_id):
            text = "names an instance of another worker; make a new id at each start"
            raise InvalidRequest([FieldViolation(field="hello.instance_id", message=text)])
        elif worker.stream is not None:
            worker.stream.cancel()  # Its old stream is half dead; the worker knows better.
        for other in list(self._workers.values()) if is_new else ():
            is_same = other.worker_id == hello.worker_id and other.namespace == hello.namespace
            # One that was not here since the server's start may be on its way.
            if is_same and other is not worker and other.session is None and other.hello is not None:
                self._lose(other)
        worker.hello, worker.session, worker.stream = hello, session, stream
        worker.slots, worker.is_draining, worker.is_paused = hello.slots, False, False
        worker.attached_s = trio.current_time()
        self._heard(worker)
        worker.at_worker = dict.fromkeys([*hello.running, *hello.finished])
        session.welcome(
            server_version=self._version,
            server_instance_id=self._instance_id,
            ping_s=self._ping_s,
            lease_s=self._lease_s,
        )
        self._capacity.attach_worker(
            hello.namespace, hello.worker_id, hello.instance_id, hello.slots, hello.types
        )
        logger.info("worker %s attached: %d slots, %s", hello.worker_id, hello.slots, ", ".join(hello.types))
        return worker

    def _reconcile(self, worker: Worker, session: ServerSession, hello: Hello, nursery: trio.Nursery) -> None:
        """Bring what the server and the worker think it holds together (rule 3)."""
        for held in list(worker.held.values()):
            if held.token in worker.at_worker:
                if held.reason:
                    session.cancel(held.token, held.reason, self._grace_s)
            elif held.reason:
                held.exited.set()
            else:
                self._assign(worker, session, held)
        for token in hello.running:
            if token not in worker.held:
                nursery.start_soon(self._look_up, worker, session, token)
        worker.queue()

    async def _look_up(self, worker: Worker, session: ServerSession, token: str) -> None:
        key = self._tokens.read(token)
        if key is not None and key.namespace == worker.namespace and await self.is_current(key):
            return  # Its execution is being read back, and will ask for it.
        session.cancel(token, "STALE", self._grace_s)
        worker.queue()

    async def _write(self, worker: Worker, session: ServerSession, send: SendFrame) -> None:
        while True:
            frame = session.take_frame()
            if frame is None:
                worker.wake = trio.Event()
                await worker.wake.wait()
                continue
            await send(frame)
            for message in frame.messages:
                if message.HasField("cancel"):
                    held = worker.held.get(message.cancel.token)
                    if held is not None and held.reason:
                        held.note_delivered()

    async def _ping(self, worker: Worker, session: ServerSession, stream: trio.CancelScope) -> None:
        number = 0
        ping_due_s = trio.current_time() + self._ping_s
        while True:
            quiet_due_s, lease_due_s = worker.heard_s + 2 * self._ping_s, worker.heard_s + self._lease_s
            is_quiet = self._is_quiet(worker)
            await trio.sleep_until(min(ping_due_s, lease_due_s if is_quiet else quiet_due_s))
            # The same sum as slept for: a difference may be rounded to less, and this would spin.
            if trio.current_time() >= worker.heard_s + self._lease_s:
                text = "worker %s has not answered for %g s; its stream is dropped"
                logger.warning(text, worker.worker_id, self._lease_s)
                stream.cancel()
                return
            if self._is_quiet(worker):
                self._offer_slots(worker)
            if trio.current_time() >= ping_due_s:
                ping_due_s += self._ping_s
                number += 1
                session.ping(number)
                worker.queue()

    def _heard(self, worker: Worker) -> None:
        was_quiet = self._is_quiet(worker)
        worker.heard_s = trio.current_time()
        if was_quiet:
            self._offer_slots(worker)

    def _is_quiet(self, worker: Worker) -> bool:
        return trio.current_time() >= worker.heard_s + 2 * self._ping_s

    def _offer_slots(self, worker: Worker) -> None:
        closed = worker.is_draining or worker.is_paused or worker.session is None or self._is_quiet(worker)
        self._capacity.set_worker_slots(worker.instance_id, 0 if closed else worker.slots)

    def _take(self, worker: Worker, session: ServerSession, events: list[SessionEvent]) -> None:
        for event in events:
            match event:
                case Ended():
                    self._on_ended(worker, session, event.token, event.report)
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
                        self._observer.worker_said(held.assignment.key, event.kind, event.text)
                case Used():
                    held = worker.held.get(event.token)
                    if held is not None:
                        held.usage[event.unit] = add_amount(held.usage.get(event.unit), event.amount)
                case Hello() | Accepted() | Ponged():
                    pass  # Heard of; nothing else follows.

    def _on_ended(self, worker: Worker, session: ServerSession, token: str, report: Report) -> None:
        worker.at_worker.pop(token, None)
        held = worker.held.get(token)
        key = held.assignment.key if held is not None else self._tokens.read(token)
        if key is None or key.namespace != worker.namespace:
            session.recorded(token, Taken.STALE)
            worker.queue()
            return
        if report.failure is not None:
            failure = dataclasses.replace(report.failure, node_path=key.node_path, attempt=key.attempt)
            report = report._replace(failure=failure)
        if report.from_worker:
            self._awaiting[key] = token, worker
        if held is None or held.reason or held.done.is_set():
            if held is not None:
                held.exited.set()
            self.deliver(key, report, worker.worker_id)
            return
        held.report = report
        held.done.set()

    def _on_returned(self, worker: Worker, returned: Returned) -> None:
        code, details = worker_code(returned.code or "RETURNED", None)
        failure = Failure(code=code, message=returned.message, details=details)
        report = Report(AttemptOutcome.RETURNED, failure=failure)
        worker.at_worker.pop(returned.token, None)
        held = worker.held.get(returned.token)
        if held is not None and not held.reason and not held.done.is_set():
            held.report = report
            held.done.set()
        elif held is not None:
            held.exited.set()
        else:
            key = self._tokens.read(returned.token)
            if key is not None and key.namespace == worker.namespace:
                self.deliver(key, report, worker.worker_id)
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
                held.exited.set()
        elif held is not None and held.reason:
            held.on_receipt(step.stage)

    # Attempts.

    def _worker_for(self, assignment: Assignment) -> Worker:
        worker = self._workers.get(assignment.worker_instance_id)
        if worker is None:
            # The server restarted: its lease is granted anew in full.
            worker = Worker(
                assignment.key.namespace,
                assignment.worker_id,
                assignment.worker_instance_id,
                trio.current_time(),
            )
            self._workers[worker.instance_id] = worker
            self._expire_later(worker)
        return worker

    def _assign(self, worker: Worker, session: ServerSession, held: Held) -> None:
        session.assign(held.token, held.assignment, idempotency_key(held.assignment.key))
        worker.at_worker[held.token] = None
        worker.queue()

    async def _cancel(self, worker: Worker, held: Held, reason: str) -> None:
        """Tell the worker to cancel, and wait for the handler's end within the grace time."""
        held.reason = reason
        if held.done.is_set():
            # Its result came in the same moment; the handler has ended, and the result is late.
            held.exited.set()
            if held.report is not None:
                self.deliver(held.assignment.key, held.report, worker.worker_id)
        elif worker.session is not None and worker.session.withdraw(held.token):
            # It was never sent: nobody is to be told, and a cancel would overtake it.
            worker.at_worker.pop(held.token, None)
            held.exited.set()
        elif worker.session is not None:
            worker.session.cancel(held.token, reason, self._grace_s)
            worker.queue()
        with trio.move_on_after(self._grace_s) as grace:
            self._graces[grace] = None
            await held.exited.wait()
        del self._graces[grace]
        if self._nursery is None:
            return  # The server stops; whoever reads the execution again tells the worker again.
        held.on_receipt(CancelStage.EXITED if held.exited.is_set() else CancelStage.ABANDONED)

    # Leases.

    def _detach(self, worker: Worker, session: ServerSession) -> None:
        if worker.session is not session:
            return
        worker.session = worker.stream = None
        self._offer_slots(worker)
        logger.info("worker %s detached, holding %d attempts", worker.worker_id, len(worker.held))
        if worker.held:
            self._expire_later(worker)
        else:
            self._forget(worker)

    def _expire_later(self, worker: Worker) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(self._expire, worker)

    async def _expire(self, worker: Worker) -> None:
        await trio.sleep_until(worker.heard_s + self._lease_s)
        is_gone = worker.session is None and self._workers.get(worker.instance_id) is worker
        if is_gone and trio.current_time() >= worker.heard_s + self._lease_s:
            self._lose(worker)

    def _lose(self, worker: Worker) -> None:
        """Give up a worker that is gone: what it held is LOST (T2)."""
        for held in list(worker.held.values()):
            if held.reason or held.done.is_set():
                continue
            logger.warning(
                "attempt %s is lost with worker %s", held.assignment.key.node_path, worker.worker_id
            )
            failure = Failure(
                code=WORKER_LOST,
                message=f"the worker {worker.worker_id} was lost: nothing was heard of it for {self._lease_s:g} s, "
                "or it came back without the attempt",
                node_path=held.assignment.key.node_path,
                attempt=held.assignment.key.attempt,
            )
            usage = {unit: format(amount, "f") for unit, amount in held.usage.items()}
            held.report = Report(AttemptOutcome.LOST, failure=failure, usage=usage)
            held.done.set()
        self._forget(worker)

    def _forget(self, worker: Worker) -> None:
        if self._workers.get(worker.instance_id) is worker:
            del self._workers[worker.instance_id]
        self._capacity.remove_worker(worker.instance_id)


def _drop(key: AttemptKey, report: Report, worker_id: str) -> None:
    logger.warning(
        "a report of %s (%s) by %s came before the server was put together", key, report, worker_id
    )


async def _nothing_is_current(key: AttemptKey) -> bool:
    del key
    await trio.lowlevel.checkpoint()
    return False
