"""The supervisor: owns the executors of a server, one task each, and finds an execution wherever it is.

An execution is live (an executor runs), asleep (a row and a due time), ended or damaged. `state_of` shows any
of them; what needs an executor wakes it. Its nursery is the process's, opened in bootstrap and handed to
`run`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Final

import trio

from plait_server.core.run.commands import Cancel, Start, Taken
from plait_server.core.run.events import Event, ExecutionSubmitted
from plait_server.core.run.execution import ROOT_BRANCH, Execution
from plait_server.core.run.machine import SEMANTICS_VERSION
from plait_server.core.run.states import ExecutionState, NodeState
from plait_server.core.run.trace import SpanIds, TraceContext, own_trace_id
from plait_server.encoding.event_codec import encode_event
from plait_server.encoding.execution_codec import summarize
from plait_server.errors import (
    EventDamaged,
    ExecutionExists,
    ExecutionNotFound,
    JournalUnavailable,
    RequestIdReused,
    ShuttingDown,
    leaves_of,
)
from plait_server.ports.journal import (
    Appended,
    AppendItem,
    AppendResult,
    Claim,
    DamagedRow,
    ExecutionDamaged,
    ExecutionRow,
    NamespaceJournal,
    RequestConflict,
    RequestRecord,
    SequenceConflict,
)
from plait_server.ports.log_fields import execution_fields
from plait_server.ports.workers import AttemptKey, Report
from plait_server.runtime.building import build_execution
from plait_server.runtime.contents import Contents
from plait_server.runtime.context import Context
from plait_server.runtime.dispatching import keep_dispatching
from plait_server.runtime.executor import ExecutionDropped, Executor, Exit
from plait_server.runtime.late_reports import refuse_late
from plait_server.runtime.quarantine import Quarantine
from plait_server.runtime.reading_back import read_back
from plait_server.runtime.recovery import load_execution
from plait_server.runtime.resting import Resting
from plait_server.runtime.retelling import tell_again
from plait_server.runtime.slicing import in_slices
from plait_server.runtime.submission import Submission
from plait_server.runtime.view import View

logger = logging.getLogger(__name__)

CLAIMS: Final = 1_000
"""Rows claimed at a time."""
RELOAD_S: Final = 1.0
"""Wait before an execution whose append was refused is read again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorStatistics:
    """A snapshot of the supervisor."""

    live: int
    asleep: int
    unread: int
    """Open executions that have not been read back since the start."""
    damaged: int
    is_ready: bool
    """Whether all open executions are known."""


class Supervisor:
    """Runs the executions of a server."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._nursery: trio.Nursery | None = None
        self._live: dict[tuple[str, str], Executor] = {}
        self._asleep: dict[tuple[str, str], Claim] = {}
        self._unread: dict[tuple[str, str], Claim] = {}
        self._loading: dict[tuple[str, str], trio.Event] = {}
        self.quarantine: Final = Quarantine()
        self._resting = Resting()
        self._epochs: dict[tuple[str, str], int] = {}
        self._ready = trio.Event()
        self._whole = trio.Event()
        self._slept = trio.Event()
        self._begun = trio.Event()
        self._found_open: list[Claim] = []
        """The executions that were open at the start, if their events are to be told again."""

    def __repr__(self) -> str:
        return f"<Supervisor {len(self._live)} live, {len(self._asleep)} asleep>"

    def statistics(self) -> SupervisorStatistics:
        """Take a snapshot."""
        return SupervisorStatistics(
            live=len(self._live),
            asleep=len(self._asleep),
            unread=len(self._unread),
            damaged=len(self.quarantine),
            is_ready=self._ready.is_set(),
        )

    async def run(self) -> None:
        """Take over what is open, then run executions until cancelled.

        It is ready when the rows of what is open are known. Nothing is granted until all of it is read back:
        what runs at workers must hold its permits before others are given any (Q1).

        Raises:
            JournalUnavailable: the store failed for good; the server must stop.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(keep_dispatching, self._context.allocator)
                nursery.start_soon(self._wake_sleepers)
                nursery.start_soon(self._resting.run)
                self._context.allocator.is_held = True
                await self._take_over()
                self._ready.set()
                await read_back(self._unread, self._loading, self._revive)
                self._context.allocator.is_held = False
                self._context.allocator.on_capacity()
                self._whole.set()
                nursery.start_soon(
                    self.quarantine.verify_rows, self._context.journal, self._live.__contains__
                )
                if self._context.retelling is not None:
                    claims, self._found_open = self._found_open, []
                    await tell_again(self._context.journal, self._context.retelling, claims)
                await trio.sleep_forever()
            finally:
                # Streams of workers may outlive it by some steps, and start nothing any more.
                self._nursery = None

    async def wait_ready(self) -> None:
        """Wait until all open executions are known."""
        await self._ready.wait()

    async def wait_whole(self) -> None:
        """Wait until all that was open is read back."""
        await self._whole.wait()

    async def wait_begun(self) -> None:
        """Wait until any executor begins: for those who watch an execution that sleeps."""
        await self._begun.wait()

    async def submit(self, submission: Submission) -> Execution:
        """Accept an execution; when this returns it is durable, and it is started.

        Raises:
            RequestIdReused: the request id stands for other content.
            ExecutionExists: the execution id is taken.
            JournalFull: nothing was accepted.
            JournalUnavailable: it is unknown whether it was accepted; try again with the same request id.
        """
        namespace = submission.namespace
        journal = self._context.journal.namespace(namespace)
        if submission.request is not None:
            known = await self._find_request(journal, submission.request)
            if known is not None:
                return (await self.view(namespace, known.execution_id)).execution
        execution_id = submission.execution_id or self._context.seams.new_id()
        execution, item = await self._prepare(submission, execution_id)
        result: AppendResult | None = None
        # Once it is in the journal it must be started, even if the caller is gone.
        with trio.CancelScope(shield=True):
            result = await self._context.committer.append(item)
            if isinstance(result, Appended):
                self._begin(namespace, execution, 1)
                return execution
        if isinstance(result, RequestConflict):
            self._check_fingerprint(result.record, submission.request)
            return (await self.view(namespace, result.record.execution_id)).execution
        if isinstance(result, (SequenceConflict, ExecutionDamaged)):
            raise ExecutionExists(execution_id=execution_id)
        message = f"a new execution was refused: {result!r}"
        raise JournalUnavailable(message)

    async def view(self, namespace: str, execution_id: str) -> View:
        """Show an execution; what it shows is durable (A2).

        Raises:
            ExecutionNotFound: there is none of this id in this namespace.
            EventDamaged: it is quarantined.
            JournalUnavailable: the store does not answer.
        """
        key = namespace, execution_id
        while True:
            executor = self._live.get(key)
            if executor is not None:
                await executor.wait_durable()
                if self._live.get(key) is executor:
                    return View(executor.execution, executor.feed, executor)
                continue
            self.quarantine.require_whole(key)
            if key in self._unread:
                self._revive_soon(key, self._unread.pop(key))
            if key in self._loading:
                await self._loading[key].wait()
                continue
            execution = self._resting.get(key)
            if execution is None:
                execution = await self._resting.read(key, partial(self._load, key))
                if execution is None or key in self._live or key in self._loading:
                    continue
                claim = self._asleep.get(key)
                is_asleep = claim is not None and claim.last_sequence == execution.sequence
                if execution.is_ended or is_asleep:
                    self._resting.put(key, execution)
            return View(execution, None, None)

    async def cancel(
        self, namespace: str, execution_id: str, message: str, request: RequestRecord | None
    ) -> None:
        """Cancel an execution; when this returns the decision is durable (C1). Idempotent.

        Raises:
            ExecutionNotFound: there is none of this id in this namespace.
            RequestIdReused: the request id stands for other content.
            EventDamaged: it is quarantined.
            JournalUnavailable: it is unknown whether the cancel was accepted.
        """
        while True:
            if request is not None:
                # Again after each refusal: it may have been that of the same request, asked twice at once.
                known = await self._find_request(self._context.journal.namespace(namespace), request)
                if known is not None:
                    return
            view = await self.view(namespace, execution_id)
            if view.execution.is_ended:
                return
            executor = await self._wake((namespace, execution_id))
            if executor is None:
                # It has just ended; or the server stops, and a loop without a pause would keep it from that.
                await trio.sleep(RELOAD_S)
                continue
            try:
                await executor.call(Cancel(message), request)
            except ExecutionDropped:
                await trio.sleep(RELOAD_S)
                continue
            return

    def deliver(self, key: AttemptKey, report: Report, worker_id: str) -> None:
        """Take a report that no attempt's task waits for; the worker is told what became of it."""
        if self._nursery is not None:
            self._nursery.start_soon(self._deliver, key, report, worker_id)

    async def is_current(self, key: AttemptKey) -> bool:
        """Whether an attempt that a worker holds is still wanted."""
        try:
            view = await self.view(key.namespace, key.execution_id)
        except (ExecutionNotFound, EventDamaged):
            return False
        record = view.execution.find(key.node_path)
        if record is None or record.state is not NodeState.RUNNING:
            return False
        return len(record.attempts) == key.attempt and record.attempts[-1].run == key.run

    # Inside.

    async def _find_request(self, journal: NamespaceJournal, request: RequestRecord) -> RequestRecord | None:
        known = await journal.find_request(request.method, request.request_id)
        if known is not None:
            self._check_fingerprint(known, request)
        return known

    def _check_fingerprint(self, known: RequestRecord, request: RequestRecord | None) -> None:
        if request is None or known.fingerprint != request.fingerprint:
            raise RequestIdReused(request_id=known.request_id)

    async def _prepare(self, submission: Submission, execution_id: str) -> tuple[Execution, AppendItem]:
        checked = submission.graph
        building = build_execution(checked.content, checked.analysis_content, checked.values)
        execution = await in_slices(building)
        graph = execution.root.graph
        contents = Contents(self._context.journal.namespace(submission.namespace))
        trace = self._begin_trace(submission, execution_id, graph.name)
        detail = ExecutionSubmitted(
            execution_id,
            graph.name,
            checked.digest,
            checked.analysis_digest,
            contents.keep(submission.input_json),
            submission.labels,
            SEMANTICS_VERSION,
            trace.traceparent,
            len(graph.nodes),
            submission.caller.span_id if submission.caller is not None else "",
            trace.tracestate,
        )
        now_s = round(self._context.seams.now_s(), 6)
        event = Event(1, now_s, 1, "", 0, ROOT_BRANCH, None, ExecutionState.QUEUED, "", detail)
        execution.apply(event)
        request = submission.request
        item = AppendItem(
            namespace=submission.namespace,
            execution_id=execution_id,
            expected_sequence=0,
            owner_epoch=1,
            events=[encode_event(event)],
            row=ExecutionRow(
                summary=summarize(submission.namespace, execution).SerializeToString(), is_open=True
            ),
            contents={
                detail.graph_digest: checked.content,
                detail.analysis_digest: checked.analysis_content,
                **contents.unsaved,
            },
            request=request
            and RequestRecord(
                method=request.method,
                request_id=request.request_id,
                fingerprint=request.fingerprint,
                execution_id=execution_id,
            ),
        )
        return execution, item

    def _begin_trace(self, submission: Submission, execution_id: str, graph_name: str) -> TraceContext:
        """Return the trace context of a new execution's span, in the caller's trace if there is one (B2)."""
        namespace, caller = submission.namespace, submission.caller
        trace = caller or TraceContext(own_trace_id(namespace, execution_id), "", 0)
        attributes = {"plait.namespace": namespace, "plait.graph.name": graph_name}
        sampling = self._context.sampler.sample(trace.trace_id, caller, attributes)
        span_id = SpanIds(namespace, execution_id, 1).execution().hex()
        return trace.child(span_id, is_sampled=sampling.is_sampled, tracestate=sampling.tracestate)

    def _begin(self, namespace: str, execution: Execution, epoch: int) -> Executor:
        if self._nursery is None:
            raise ShuttingDown
        key = namespace, execution.execution_id
        self._epochs[key] = epoch
        self._resting.drop(key)
        executor = Executor(self._context, namespace, execution, epoch)
        executor.post(Start())
        self._live[key] = executor
        begun, self._begun = self._begun, trio.Event()
        begun.set()
        self._nursery.start_soon(self._run, key, executor)
        return executor

    async def _run(self, key: tuple[str, str], executor: Executor) -> None:
        """Run an executor, reading its execution again as often as its appends are refused."""
        exit_: Exit | None = None
        try:
            exit_ = await executor.run()
        except* ExecutionDropped as group:
            fields = execution_fields(key[0], executor.execution)
            logger.warning("the execution is read again: %s", group.exceptions[0], extra=fields)
            # Who looks for it meanwhile waits until it is there again.
            self._loading[key] = trio.Event()
        except* EventDamaged as group:
            # A content that it needs: found only now, for contents are read when they are needed.
            self.quarantine.add(
                key, next(each for each in leaves_of(group) if isinstance(each, EventDamaged))
            )
        finally:
            del self._live[key]
            executor.let_go()
        if key in self.quarantine:
            self._epochs.pop(key, None)
            self._loading.pop(key, trio.Event()).set()
        elif exit_ is None:
            await trio.sleep(RELOAD_S)
            await self._revive(key, self._epochs[key])
        elif exit_ is Exit.ENDED:
            self._epochs.pop(key, None)
            self._resting.put(key, executor.execution)
        elif executor.due_time_s is not None:
            row = ExecutionRow(summary=b"", is_open=True, due_time_s=executor.due_time_s)
            self._asleep[key] = Claim(
                namespace=key[0],
                execution_id=key[1],
                owner_epoch=self._epochs[key],
                last_sequence=executor.execution.sequence,
                row=row,
            )
            self._slept.set()

    async def _load(self, key: tuple[str, str]) -> Execution:
        try:
            return await load_execution(self._context.journal.namespace(key[0]), key[1])
        except EventDamaged as error:
            self.quarantine.add(key, error)
            raise

    async def _take_over(self) -> None:
        """Claim what is open: rows and due times, which is quick."""
        while claims := await self._context.journal.claim(limit=CLAIMS):
            now_s = self._context.seams.now_s()
            for claim in claims:
                if isinstance(claim, DamagedRow):
                    self.quarantine.add_row(claim)
                    continue
                key = claim.namespace, claim.execution_id
                self._epochs[key] = claim.owner_epoch
                if self._context.retelling is not None:
                    self._found_open.append(claim)
                is_due = claim.row.due_time_s is None or claim.row.due_time_s <= now_s
                (self._unread if is_due else self._asleep)[key] = claim
            await trio.lowlevel.checkpoint()
        self._slept.set()
        if self._unread or self._asleep:
            logger.info("taken over: %d executions to go on, %d asleep", len(self._unread), len(self._asleep))

    def _revive_soon(self, key: tuple[str, str], claim: Claim) -> None:
        """Read an execution back in a task of the supervisor's: whoever needs it may be cancelled meanwhile."""
        if self._nursery is None:
            raise ShuttingDown
        self._loading[key] = trio.Event()
        self._nursery.start_soon(self._revive, key, claim.owner_epoch)

    async def _revive(self, key: tuple[str, str], epoch: int) -> None:
        """Read an execution back and go on with it."""
        loading = self._loading.setdefault(key, trio.Event())
        try:
            execution = await self._load(key)
            if execution.is_ended:
                self._resting.put(key, execution)
            else:
                self._begin(key[0], execution, epoch)
        except EventDamaged:
            pass  # Quarantined by `_load`, and shown; the others go on.
        finally:
            self._loading.pop(key, None)
            loading.set()

    async def _wake(self, key: tuple[str, str]) -> Executor | None:
        """Return the executor of an open execution, waking it if it sleeps; None if it ended meanwhile."""
        claim = self._unread.pop(key, None) or self._asleep.pop(key, None)
        if claim is not None:
            self._revive_soon(key, claim)
        if key in self._loading:
            await self._loading[key].wait()
        return self._live.get(key)

    async def _deliver(self, key: AttemptKey, report: Report, worker_id: str) -> None:
        try:
            view = await self.view(key.namespace, key.execution_id)
        except (ExecutionNotFound, EventDamaged):
            self._context.workers.tell(key, Taken.STALE, worker_id)
            return
        executor = view.executor
        if executor is None and not view.execution.is_ended:
            executor = await self._wake((key.namespace, key.execution_id))
        if executor is not None:
            executor.post_report(key, report, worker_id)
            return
        if not view.execution.is_ended:
            view = await self.view(key.namespace, key.execution_id)
        if not view.execution.is_ended:
            return  # The server stops. The worker keeps the result, and offers it to the next one.
        await refuse_late(self._context, view.execution, key, report, worker_id)

    # Background.

    async def _wake_sleepers(self) -> None:
        """Wake executions whose due time has come."""
        while True:
            self._slept = trio.Event()
            now_s = self._context.seams.now_s()
            due = [key for key, claim in self._asleep.items() if (claim.row.due_time_s or 0.0) <= now_s]
            for key in due:
                await self._wake(key)
            next_s = min(((claim.row.due_time_s or 0.0) for claim in self._asleep.values()), default=None)
            # The wall clock may jump: look at it at least every minute.
            wait_s = 60.0 if next_s is None else min(60.0, max(0.0, next_s - self._context.seams.now_s()))
            with trio.move_on_after(wait_s):
                await self._slept.wait()
