"""The supervisor: owns the executors of a server, one task each, and finds executions.

`locations` has the location of each execution. `view` shows an execution at any location; operations that need an
executor wake it.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import partial
from typing import Final, assert_never

import trio

from plait_server.core.run.commands import AttemptResult, Disposition, Input, QueueTimeout, Start
from plait_server.core.run.execution import Execution
from plait_server.core.run.payload import Payload
from plait_server.errors import (
    EventDamaged,
    ExecutionExists,
    ExecutionNotFound,
    JournalUnavailable,
    ShuttingDown,
    leaves_of,
)
from plait_server.ports.audit import ActionRecord
from plait_server.ports.journal import (
    Appended,
    AppendItem,
    AppendResult,
    ExecutionDamaged,
    RequestConflict,
    RequestRecord,
    SequenceConflict,
)
from plait_server.ports.log_fields import execution_fields
from plait_server.ports.workers import AttemptKey
from plait_server.runtime.admission import Place, Queued
from plait_server.runtime.dispatching import keep_dispatching
from plait_server.runtime.environment import Environment
from plait_server.runtime.executor import Executor
from plait_server.runtime.exits import ExecutionDropped, Exit
from plait_server.runtime.intake import Submission, check_fingerprint, find_request, prepare
from plait_server.runtime.keeping import Keeping
from plait_server.runtime.late_reports import is_current_attempt, refuse_late
from plait_server.runtime.locations import Asleep, Damaged, Key, Live, Loading, Locations, Unread
from plait_server.runtime.making import Making, NotMade
from plait_server.runtime.pending_call import InputMaker
from plait_server.runtime.quarantine import Quarantine
from plait_server.runtime.reading_back import read_back
from plait_server.runtime.recovery import read_execution
from plait_server.runtime.resting import Resting
from plait_server.runtime.retelling import tell_again
from plait_server.runtime.supervisor_statistics import SupervisorStatistics
from plait_server.runtime.taking_over import take_over
from plait_server.runtime.view import View

logger = logging.getLogger(__name__)

RELOAD_S: Final = 1.0
"""Seconds to wait before an execution whose append was refused is read again."""
ADMITTED_AT_ONCE: Final = 8
"""Executions of queues read back and started in one round of the scheduler, in 2 ms; they share an append."""


class Supervisor:
    """Runs the executions of a server."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        self.admission: Final = environment.admission
        self._nursery: trio.Nursery | None = None
        self._locations = Locations()
        self.quarantine: Final = Quarantine(self._locations)
        self._resting = Resting()
        self.keeping: Final = Keeping(environment, self._locations, self._resting)
        self._ready = trio.Event()
        self._whole = trio.Event()
        self._slept = trio.Event()

    def __repr__(self) -> str:
        return f"<Supervisor of {self._locations!r}>"

    def statistics(self) -> SupervisorStatistics:
        """Return a snapshot of the counts."""
        return SupervisorStatistics.of(self._locations, is_ready=self._ready.is_set())

    async def run(self) -> None:
        """Claim the open executions, then run executions until cancelled.

        It is ready when the rows of all open executions are known. Nothing is granted until all of them are read
        back, because attempts running at workers must hold their permits before new grants are made (Q1).

        Raises:
            JournalUnavailable: The store failed for good; the server must stop.
        """
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                nursery.start_soon(keep_dispatching, self._environment.allocator)
                nursery.start_soon(self._wake_sleepers)
                nursery.start_soon(self._resting.run)
                nursery.start_soon(self.keeping.run)
                nursery.start_soon(self._environment.snapshots.run)
                self._environment.allocator.is_held = True
                found_open = await take_over(self._environment, self._locations, self.quarantine)
                self._slept.set()
                self._ready.set()
                await read_back(self._locations, self._read_unread)
                self._environment.allocator.is_held = False
                self._environment.allocator.on_capacity()
                self._whole.set()
                nursery.start_soon(self._admit)
                nursery.start_soon(self.quarantine.verify_rows, self._environment.journal)
                if self._environment.retelling is not None:
                    await tell_again(self._environment.journal, self._environment.retelling, found_open)
                await trio.sleep_forever()
            finally:
                # Workers' streams may outlive the executors by some steps, but start nothing.
                self._nursery = None

    async def wait_ready(self) -> None:
        """Wait until all open executions are known."""
        await self._ready.wait()

    async def wait_whole(self) -> None:
        """Wait until all executions that were open at the start have been read back."""
        await self._whole.wait()

    async def wait_moved(self, namespace: str, execution_id: str) -> None:
        """Wait until an execution that is not live goes on; its watchers then look again."""
        await self._locations.wait_moved((namespace, execution_id))

    async def submit(self, submission: Submission) -> Execution:
        """Accept an execution; when this returns it is durable, and it is started, or queued (Q3).

        Raises:
            RequestIdReused: The request id was used with other content.
            QueueFull: No running slot is free, and the queue of the namespace is full.
            ExecutionExists: The execution id is taken.
            JournalFull: Nothing was accepted.
            JournalUnavailable: It is unknown whether it was accepted; retry with the same request id.
        """
        namespace = submission.namespace
        journal = self._environment.journal.namespace(namespace)
        if submission.request is not None:
            known = await find_request(journal, submission.request)
            if known is not None:
                return (await self.view(namespace, known.execution_id)).execution
        self.admission.check_room(namespace)
        execution, item = await prepare(self._environment, submission)
        place = self.admission.reserve(namespace)
        result: AppendResult | None
        if place.has_slot and not submission.execution_id:
            result = await self._make(namespace, execution, item, place)
        else:
            result = await self._make_first(namespace, execution, item, place)
        if isinstance(result, Appended):
            return execution
        if isinstance(result, RequestConflict):
            check_fingerprint(result.record, submission.request)
            return (await self.view(namespace, result.record.execution_id)).execution
        if isinstance(result, (SequenceConflict, ExecutionDamaged)):
            raise ExecutionExists(execution_id=item.execution_id)
        message = f"a new execution was refused: {result!r}"
        raise JournalUnavailable(message)

    async def view(self, namespace: str, execution_id: str) -> View:
        """Return a view of an execution's durable state (A2).

        Raises:
            ExecutionNotFound: No execution has this id in this namespace.
            EventDamaged: The execution is quarantined.
            JournalUnavailable: the store does not answer.
        """
        key = namespace, execution_id
        while True:
            location = self._locations.get(key)
            match location:
                case Live(executor=executor):
                    await executor.wait_durable()
                    if self._locations.executor(key) is executor:
                        return View(executor.execution, executor.feed, executor)
                case Loading(moved=moved):
                    await moved.wait()
                case Unread():
                    self._revive_soon(key, location)
                case Damaged():
                    self.quarantine.require_whole(key)
                case Asleep() | Queued() | None:
                    execution = await self._read_resting(key, location)
                    if execution is not None:
                        is_queued = isinstance(location, Queued)
                        text = self.admission.reason(namespace) if is_queued else ""
                        return View(execution, None, None, text)
                case _:
                    assert_never(location)

    async def control(
        self,
        namespace: str,
        execution_id: str,
        make: InputMaker,
        request: RequestRecord | None,
        action: ActionRecord | None = None,
    ) -> None:
        """Carry out what a caller asks of an execution (`controls`); when this returns the decision is durable.

        Raises:
            CallerError: The state of the execution does not allow it.
            ExecutionNotFound: No execution has this id in this namespace.
            RequestIdReused: The request id was used with other content.
            EventDamaged: The execution is quarantined.
            JournalUnavailable: it is unknown whether the request was accepted.
        """
        while True:
            if request is not None:
                # Retry after each refusal, which may be due to the same request sent twice at once.
                known = await find_request(self._environment.journal.namespace(namespace), request)
                if known is not None:
                    return
            view = await self.view(namespace, execution_id)
            if view.execution.is_ended:
                make(view.execution, Payload)
                return
            executor = await self._wake((namespace, execution_id))
            if executor is None:
                # It has just ended; or the server stops, which a loop without a pause would prevent.
                await trio.sleep(RELOAD_S)
                continue
            try:
                await executor.call(make, request, action)
            except ExecutionDropped:
                await trio.sleep(RELOAD_S)
                continue
            return

    def deliver(self, key: AttemptKey, result: AttemptResult) -> None:
        """Handle a result that no attempt's task waits for; the worker gets an answer."""
        if self._nursery is not None:
            self._nursery.start_soon(self._deliver, key, result)

    async def is_current(self, key: AttemptKey) -> bool:
        """Whether an attempt that a worker holds is still wanted."""
        try:
            view = await self.view(key.namespace, key.execution_id)
        except (ExecutionNotFound, EventDamaged):
            return False
        return is_current_attempt(view.execution, key)

    # Inside.

    async def _make(
        self, namespace: str, execution: Execution, item: AppendItem, place: Place
    ) -> AppendResult:
        """Start an execution whose first step makes it durable."""
        if self._nursery is None:
            raise ShuttingDown
        key = namespace, execution.execution_id

        def on_durable() -> None:
            self.admission.hold(key)
            place.close()
            self._locations.put(key, Live(executor, 1))

        making = Making(self._environment.committer, item, on_durable)
        executor = Executor(self._environment, namespace, execution, 1, making)
        executor.post(Start())
        self._nursery.start_soon(self._run_made, key, executor, making, place)
        return await making.wait()

    async def _run_made(self, key: Key, executor: Executor, making: Making, place: Place) -> None:
        with place:
            try:
                await self._run(key, executor, 1)
            finally:
                making.give_up()

    async def _make_first(
        self, namespace: str, execution: Execution, item: AppendItem, place: Place
    ) -> AppendResult | None:
        """Make an execution durable, then start it, or put it into the queue of its namespace.

        Of a chosen id it must be known first whether an execution that holds permits under it has it already.
        """
        key = namespace, execution.execution_id
        if not place.has_slot and item.row is not None:
            due_time_s = self.admission.due_time_s(namespace, execution.created_s)
            item = replace(item, row=replace(item.row, due_time_s=due_time_s))
        result: AppendResult | None = None
        # Once it is in the journal it must be started or queued, even if the caller is gone.
        with trio.CancelScope(shield=True), place:
            result = await self._environment.committer.append(item)
            if isinstance(result, Appended) and place.has_slot:
                self.admission.hold(key)
                self._begin(namespace, execution, 1)
            elif isinstance(result, Appended):
                self._enqueue(key, execution, 1)
        return result

    def _enqueue(self, key: Key, execution: Execution, epoch: int) -> None:
        """Put an execution that has not begun into the queue of its namespace."""
        due_time_s = self.admission.due_time_s(key[0], execution.created_s)
        queued = Queued.of(key, execution, epoch, due_time_s)
        # Whoever submitted it looks at it next.
        self._resting.put(key, execution)
        self._locations.put(key, queued)
        self.admission.push(queued)
        if due_time_s is not None:
            self._slept.set()

    def _begin(self, namespace: str, execution: Execution, epoch: int, first: Input | None = None) -> None:
        if self._nursery is None:
            raise ShuttingDown
        key = namespace, execution.execution_id
        self._resting.drop(key)
        executor = Executor(self._environment, namespace, execution, epoch, None)
        if first is None and self.admission.has_slot(key):
            first = Start()
        if first is not None:
            executor.post(first)
        self._locations.put(key, Live(executor, epoch))
        self._nursery.start_soon(self._run, key, executor, epoch)

    async def _run(self, key: Key, executor: Executor, epoch: int) -> None:
        """Run an executor; after each refused append, read the execution again."""
        exit_: Exit | None = None
        damage: EventDamaged | None = None
        is_made = True
        try:
            exit_ = await executor.run()
        except* NotMade:
            is_made = False  # Its caller has got the error.
        except* ExecutionDropped as group:
            fields = execution_fields(key[0], executor.execution)
            logger.warning("the execution is read again: %s", group.exceptions[0], extra=fields)
        except* EventDamaged as group:
            # A damaged content, found only now because contents are read when they are needed.
            damage = next(each for each in leaves_of(group) if isinstance(each, EventDamaged))
        finally:
            # There is no checkpoint from here to its next location, so no task sees it without one.
            self._locations.remove(key)
            executor.let_go()
            if exit_ is not None or damage is not None or not is_made:
                self.admission.release(key)
        if not is_made:
            return
        if damage is not None:
            self.quarantine.add(key, damage)
            return
        match exit_:
            case None:
                # Calls for it wait until then.
                loading = Loading(epoch, trio.Event())
                self._locations.put(key, loading)
                await trio.sleep(RELOAD_S)
                await self._revive(key, loading)
            case Exit.ENDED:
                self._resting.put(key, executor.execution)
            case Exit.QUEUED:
                self._enqueue(key, executor.execution, epoch)
            case Exit.ASLEEP:
                assert executor.due_time_s is not None  # it appended the row with it
                sequence = executor.execution.sequence
                self._locations.put(key, Asleep(epoch, sequence, executor.due_time_s))
                self._slept.set()
            case _:
                assert_never(exit_)

    async def _read_resting(self, key: Key, location: Asleep | Queued | None) -> Execution | None:
        """Return an execution that is not live; None if it has moved, or another call read it in the meantime."""
        execution = self._resting.get(key)
        if execution is not None:
            return execution
        try:
            execution = await self._resting.read(key, partial(self._load, key))
        except EventDamaged as error:
            if self._locations.get(key) is location:
                self.quarantine.add(key, error)
            raise
        if execution is None or self._locations.get(key) is not location:
            return None
        is_asleep = location is not None and location.last_sequence == execution.sequence
        if execution.is_ended or is_asleep:
            self._resting.put(key, execution)
        return execution

    async def _load(self, key: Key) -> Execution:
        return await read_execution(self._environment.journal, key, self._environment.definitions)

    def _revive_soon(
        self, key: Key, location: Unread | Asleep | Queued, first: Input | None = None
    ) -> Loading:
        """Read an execution back in a task of the supervisor, because the caller may be cancelled in the meantime."""
        if self._nursery is None:
            raise ShuttingDown
        loading = Loading(location.owner_epoch, trio.Event())
        self._locations.put(key, loading)
        self._nursery.start_soon(self._revive, key, loading, first)
        return loading

    async def _read_unread(self, key: Key) -> None:
        location = self._locations.get(key)
        assert isinstance(location, Unread)  # `read_back` takes no checkpoint before it
        loading = Loading(location.owner_epoch, trio.Event())
        self._locations.put(key, loading)
        await self._revive(key, loading)

    async def _revive(self, key: Key, loading: Loading, first: Input | None = None) -> None:
        """Read an execution back and resume it, with an input if one is given."""
        try:
            execution = await self._load(key)
            if not execution.is_ended:
                self._begin(key[0], execution, loading.owner_epoch, first)
                return
            self._resting.put(key, execution)
        except EventDamaged as error:
            self.quarantine.add(key, error)  # The others continue.
        except ShuttingDown:
            pass  # It was read while the server stopped; the next start continues with it.
        finally:
            if self._locations.get(key) is loading:
                self._locations.remove(key)
            if not isinstance(self._locations.get(key), Live):
                self.admission.release(key)

    async def _wake(self, key: Key, first: Input | None = None) -> Executor | None:
        """Return the executor of an open execution, waking it if it sleeps; None if it has ended or is damaged."""
        location = self._locations.get(key)
        if isinstance(location, (Unread, Asleep, Queued)):
            location = self._revive_soon(key, location, first)
        if isinstance(location, Loading):
            await location.moved.wait()
        return self._locations.executor(key)

    async def _deliver(self, key: AttemptKey, result: AttemptResult) -> None:
        try:
            view = await self.view(key.namespace, key.execution_id)
        except (ExecutionNotFound, EventDamaged):
            self._environment.workers.acknowledge(key, Disposition.STALE, result.worker_id)
            return
        executor = view.executor
        if executor is None and not view.execution.is_ended:
            executor = await self._wake((key.namespace, key.execution_id))
        if executor is not None:
            executor.post_result(result)
            return
        if not view.execution.is_ended:
            view = await self.view(key.namespace, key.execution_id)
        if not view.execution.is_ended:
            return  # The server stops. The worker keeps the result, and sends it again after the next start.
        await refuse_late(self._environment, view.execution, key, result)

    # Background.

    async def _admit(self) -> None:
        """Start executions that wait for a running slot, as slots come free (Q3)."""
        while True:
            await self.admission.wait_startable()
            for _ in range(ADMITTED_AT_ONCE):
                queued = self.admission.start_first()
                if queued is None:
                    break
                loading = Loading(queued.owner_epoch, trio.Event())
                self._locations.put(queued.key, loading)
                is_late = queued.is_due(self._environment.seams.now_s())
                await self._revive(queued.key, loading, QueueTimeout() if is_late else None)
            await trio.lowlevel.checkpoint()

    async def _wake_sleepers(self) -> None:
        """Wake executions whose due time has come."""
        while True:
            self._slept = trio.Event()
            now_s = self._environment.seams.now_s()
            while (first := self._locations.first_due()) is not None and first[1] <= now_s:
                if self._nursery is None:
                    return  # The server stops, and this task is about to be cancelled.
                is_queued = isinstance(self._locations.get(first[0]), Queued)
                await self._wake(first[0], QueueTimeout() if is_queued else None)
            # The wall clock may jump, so check it at least every minute.
            wait_s = 60.0
            if first is not None:
                wait_s = min(wait_s, max(0.0, first[1] - self._environment.seams.now_s()))
            with trio.move_on_after(wait_s):
                await self._slept.wait()
