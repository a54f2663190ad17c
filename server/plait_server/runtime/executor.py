"""The executor: makes a machine's events durable and carries out its commands; one nursery an execution.

Rules
1. One step, one commit: take the inputs that are due (at most 128 or 2 ms, so that pings and small executions
   never wait behind a large one; the rest of a large decision comes first in the next step), decide, answer
   questions, offer, grant, decide again until nothing is left; append all events of the step at once; when they
   are durable publish, answer, start and stop attempts. Nothing is visible outside before that.
2. The deciding part (`_decide_due`) does not await, so the state does not change during it. Others may read between
   steps.
3. Each attempt is a task with its own cancel scope, through which every kind of cancel goes. Its timeout is a timer
   of the machine: a worker is told to stop only when the journal says so (A2). Nodes that wait for capacity
   are requests at the allocator, not tasks.
4. If an append is refused, the grants are returned and `ExecutionDropped` is raised: the state in
   memory is ahead of the journal, and the execution must be read again.
5. An execution in which nothing runs or waits for capacity, and no timer is near, sleeps: `run` returns.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import Final, assert_never

import trio

from plait_server.core.run.commands import (
    AcknowledgeResult,
    Act,
    AttemptResult,
    Audit,
    ChangeCapacity,
    Command,
    Continue,
    FindGraph,
    FindValue,
    Input,
    InputMade,
    JudgeEdges,
    LimitScope,
    MakeInput,
    MakeOutput,
    OfferNode,
    Question,
    RefuseGrant,
    SetTimer,
    StartAttempt,
    StopAttempt,
    UnlimitScope,
    WithdrawNode,
)
from plait_server.core.run.events import Event
from plait_server.core.run.execution import Execution
from plait_server.core.run.machine import Decision, Machine
from plait_server.core.run.scope import NodeRecord
from plait_server.core.run.states import ExecutionState
from plait_server.encoding.event_codec import encode_event
from plait_server.errors import CallerError
from plait_server.ports.audit import ActionRecord, AuditRecord
from plait_server.ports.journal import (
    Appended,
    AppendItem,
    RequestConflict,
    RequestRecord,
)
from plait_server.runtime.answers import Answers, HelperNeeded
from plait_server.runtime.attempt_tasks import AttemptTasks
from plait_server.runtime.content_store import ContentMissing, ContentStore
from plait_server.runtime.environment import Environment
from plait_server.runtime.exits import ExecutionDropped, Exit
from plait_server.runtime.feed import Feed
from plait_server.runtime.graph_finding import GraphFinder
from plait_server.runtime.making import Making
from plait_server.runtime.pending_call import InputMaker, PendingCall
from plait_server.runtime.permits import Permits
from plait_server.runtime.questions import Questions
from plait_server.runtime.rows import row_of
from plait_server.runtime.running_slot import RunningSlot
from plait_server.runtime.timer_queue import TimerQueue

logger = logging.getLogger(__name__)

INPUTS_MAX: Final = 128
"""Inputs of one step: about 2 ms of deciding at 15 us each."""
DECIDING_S_MAX: Final = 0.002
"""Seconds of deciding in one step, for inputs that lead to many events."""
SLEEP_AFTER_S: Final = 60.0
"""An execution whose next timer is farther than this away is put to sleep; reading it again costs milliseconds."""
LINGER_S: Final = 1.0
"""Seconds for which an execution that was woken in its queue stays live, because what woke it comes at once."""


SLEEP_S_MAX: Final = 365 * 86_400.0
"""A paused execution without a timer is looked at once a year."""


class Executor:
    """Runs one execution. `run` is started once, by the supervisor's nursery."""

    def __init__(
        self,
        environment: Environment,
        namespace: str,
        execution: Execution,
        owner_epoch: int,
        making: Making | None,
    ) -> None:
        self.namespace = namespace
        self.execution = execution
        self.machine = Machine(execution)
        self.feed = Feed(0 if making is not None else execution.sequence, is_ended=execution.is_ended)
        self.due_time_s: float | None = None
        """The wall time at which a sleeping execution has to continue."""
        self._environment = environment
        self._epoch = owner_epoch
        self._making = making  # None once it is durable.
        self._journal = environment.journal.namespace(namespace)
        self._contents = ContentStore(self._journal)
        self._answers = Answers(execution, environment.evaluator, self._contents)
        self._inbox: deque[Input | PendingCall] = deque()
        self._internal: deque[Input] = deque()
        self._wake = trio.Event()
        self._timers = TimerQueue()
        self._permits = Permits(environment.allocator, namespace, execution.execution_id, self.post)
        self._attempts = AttemptTasks(
            environment,
            namespace,
            self.machine,
            self._permits,
            self._contents,
            self._answers,
            self.post,
            self._look_again,
        )
        self._questions = Questions(
            (namespace, execution.execution_id),
            environment.offload,
            self._contents,
            self._answers,
            self._on_answer,
        )
        self._graphs = GraphFinder(
            environment.graph_requests,
            environment.definitions,
            namespace,
            execution,
            self._contents,
            self._on_answer,
        )
        self._slot = RunningSlot(environment.admission, (namespace, execution.execution_id))
        self._events: list[Event] = []
        self._acts: list[Act] = []
        self._audit: list[AuditRecord] = []
        self._calls: list[PendingCall] = []
        """Calls whose inputs were decided in this step."""
        self._settling: list[PendingCall] = []
        """Calls whose inputs are durable, but whose effects are not all decided yet."""
        self._is_committing = False
        self._committed = trio.Event()
        self._is_gone = False
        self._nursery: trio.Nursery | None = None

    def __repr__(self) -> str:
        return f"<Executor {self.execution!r}, {len(self._inbox)} inputs>"

    # Called by others.

    def post(self, what: Input) -> None:
        """Queue an input for the execution."""
        self._inbox.append(what)
        self._wake.set()

    def post_result(self, result: AttemptResult) -> None:
        """Handle a result that no attempt's task waits for."""
        self._attempts.post_result(result)

    async def call(
        self, make: InputMaker, request: RequestRecord | None, action: ActionRecord | None = None
    ) -> None:
        """Queue an input, made when its turn comes, and wait until its effects are durable.

        Raises:
            CallerError: It was refused.
            ExecutionDropped: The execution must be read again; the input may not have taken effect.
            JournalUnavailable: The same.
        """
        call = PendingCall(make, request, action)
        self._inbox.append(call)
        self._wake.set()
        await call.wait()

    async def wait_durable(self) -> None:
        """Wait until the state in memory is durable, so that it may be shown (A2), or this executor has stopped.

        After a failed append the state is ahead of the journal for good; the owner drops it when `run` ends.
        """
        while self._is_committing and not self._is_gone:
            await self._committed.wait()

    def is_queued(self, record: NodeRecord) -> bool:
        """Whether a node is ready and waits for capacity or for its level (A1)."""
        return self.machine.is_offered(record.path) or self.machine.is_withheld(record)

    def queue_reason(self, record: NodeRecord) -> str:
        """Return why a queued node waits (Q6)."""
        if self.execution.is_paused:
            return "PAUSED"
        return self._permits.reason(record.path) or ("LEVEL" if self.machine.is_held(record) else "")

    def unserved_types(self) -> list[str]:
        """Return the types that queued nodes wait for and no worker serves, sorted (Q6)."""
        return self._permits.unserved_types()

    # The loop.

    async def run(self) -> Exit:
        """Run the execution until it ends or goes to sleep.

        If cancelled (the server shuts down), attempts are left running at their workers, which are not told. The
        next executor of the execution continues with them.

        Raises:
            ExecutionDropped: An append was refused; the caller reads the execution again.
            JournalUnavailable: The store failed.
        """
        self._permits.open(self.execution)
        try:
            exit_: Exit | None = None
            # Inputs posted while the nursery closes, such as late results, are handled too.
            while exit_ is None or self._inbox:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    if exit_ is None:
                        # Attempts run at their workers, and the machine knows everything else.
                        self._attempts.take_up(nursery)
                        self._take(self.machine.resume(self._environment.seams.now_s()))
                    exit_ = await self._loop()
                    self._questions.drop()
                    self._graphs.drop()
            return exit_
        finally:
            self._is_gone = True
            self._committed.set()
            self._permits.close()
            self._drop_calls()
            self.feed.close()

    def let_go(self) -> None:
        """Drop all but the execution, once `run` has returned, because cycles would wait for the garbage collector."""
        self.machine.let_go()
        self._attempts.let_go()
        del self.machine, self._attempts, self._permits, self._answers, self._questions, self._graphs

    async def _loop(self) -> Exit:
        while True:
            await self._environment.committer.gathering.wait(len(self._inbox))
            await self._step()
            if self._is_over():
                return Exit.ENDED
            self._slot.note(self.execution, is_busy=self._is_busy)
            if self._may_sleep():
                await self._fall_asleep()
                if not self._inbox:
                    return Exit.ASLEEP
            await self._wait_due()
            if self.execution.state is ExecutionState.QUEUED and not self._is_busy:
                return Exit.QUEUED

    async def _wait_due(self) -> None:
        """Wait for an input or a timer; there is always one to come, because attempts and questions report."""
        # Audit records may be left when a request id was refused.
        if self._inbox or self._internal or self._audit:
            await trio.lowlevel.checkpoint()
            return
        self._wake = trio.Event()
        due_s = self._timers.next_s
        if self.execution.state is ExecutionState.QUEUED:
            due_s = trio.current_time() + LINGER_S
        with trio.CancelScope(deadline=due_s):
            await self._wake.wait()

    async def _step(self) -> None:
        self._decide_due()
        if self._making or self._events or self._audit or self._contents.unsaved or self._calls:
            await self._commit()
        if not self._internal:
            for call in self._settling:
                call.done.set()
            self._settling.clear()
        acts, self._acts = self._acts, []
        for act in acts:
            self._act(act)

    def _decide_due(self) -> None:
        """Pass due inputs to the machine until nothing is left to decide; synchronous."""
        now_s = self._environment.seams.now_s()
        begun_s = trio.current_time()
        for timer in self._timers.take_due(begun_s):
            self._inbox.append(self._attempts.timer_due(timer))
        for _ in range(INPUTS_MAX):
            if self._internal:
                what = self._internal.popleft()
            elif self._inbox:
                entry = self._inbox.popleft()
                if isinstance(entry, PendingCall):
                    if entry.has_record and (self._events or self._acts or self._audit or self._calls):
                        # Its append may be refused, which must not discard what was decided before.
                        self._inbox.appendleft(entry)
                        break
                    try:
                        what = entry.make(self.execution, self._contents.keep)
                    except CallerError as error:
                        entry.fail(error)
                        continue
                    self._calls.append(entry)
                else:
                    what = entry
            else:
                self._permits.dispatch()
                if not self._inbox:
                    break
                continue
            self._take(self.machine.decide(what, now_s))
            if self._calls and self._calls[-1].has_record:
                break  # An append carries the records of one call.
            if trio.current_time() - begun_s > DECIDING_S_MAX:
                break
        self._permits.dispatch()

    def _take(self, decision: Decision) -> None:
        for event in decision.events:
            self._events.append(event)
            self._attempts.decided(event)
        for command in decision.commands:
            self._carry_out(command)
        if not decision.is_settled and not self._internal:
            # A question is answered later, or one decision was not enough.
            self._internal.append(Continue())

    def _carry_out(self, command: Command) -> None:
        """Carry out what needs no durability; keep the rest for after the append."""
        match command:
            case JudgeEdges() | MakeInput() | FindValue() | MakeOutput():
                self._answer(command)
            case FindGraph():
                assert self._nursery is not None  # `run` opened it before anything was decided
                self._graphs.ask(command, self._nursery)
            case (
                LimitScope()
                | UnlimitScope()
                | ChangeCapacity()
                | OfferNode()
                | WithdrawNode()
                | RefuseGrant()
            ):
                self._permits.carry_out(command)
            case SetTimer():
                self._timers.set(command)
            case StartAttempt():
                self._permits.hold(command.grant, (command.node_path, command.attempt))
                self._acts.append(command)
            case StopAttempt() | AcknowledgeResult():
                self._acts.append(command)
            case Audit():
                now_s = self._environment.seams.now_s()
                self._audit.append(
                    AuditRecord(
                        time_s=now_s,
                        kind=command.kind,
                        node_path=command.node_path,
                        attempt=command.attempt,
                        worker_id=command.worker_id,
                        detail=command.detail,
                    )
                )
            case _:
                assert_never(command)

    async def _commit(self) -> None:
        events, self._events = self._events, []
        audit, self._audit = self._audit, []
        calls, self._calls = self._calls, []
        encoded = [encode_event(event) for event in events]
        item = AppendItem(
            namespace=self.namespace,
            execution_id=self.execution.execution_id,
            expected_sequence=self.feed.last_sequence,
            owner_epoch=self._epoch,
            events=encoded,
            row=row_of(self.namespace, self.execution, self._slot.queue_due_s(self.execution))
            if not all(event.node_path for event in events)
            else None,
            contents=self._contents.unsaved,
            request=next((call.request for call in calls if call.request is not None), None),
            action=next((call.action for call in calls if call.action is not None), None),
            audit=audit,
            scope_entries=self.execution.scope_index.take(),
        )
        self._contents.saving, self._contents.unsaved = self._contents.unsaved, {}
        self._is_committing, self._committed = True, trio.Event()
        try:
            append = self._environment.committer.append_when_there_is_room
            if self._making is not None:
                append, encoded = self._making.append, [*self._making.item.events, *encoded]
                self._making = None
            result = await append(item)
            if isinstance(result, RequestConflict) and not events:
                # Nothing was decided, so nothing is ahead of the journal: the caller looks up the request again.
                self._audit[:0] = audit
                self._contents.unsaved = {**item.contents, **self._contents.unsaved}
                for call in calls:
                    if call.request is not None:
                        call.note_error(ExecutionDropped(repr(result)))
            elif not isinstance(result, Appended):
                raise ExecutionDropped(repr(result))
        except BaseException as error:
            for call in (*self._settling, *calls):
                call.fail(error if isinstance(error, Exception) else ExecutionDropped("shutting down"))
            raise
        self._contents.saving = {}
        self._is_committing = False
        self._committed.set()
        if encoded:
            self.feed.publish(encoded, is_ended=self.execution.is_ended)
            self._environment.observer.events_durable(self.namespace, self.execution, events)
            self._environment.snapshots.note(self)
            self.execution.forget_closed()
        self._settling += calls

    # Commands.

    def _answer(self, question: Question) -> None:
        try:
            answer = self._answers.answer(question)
        except (ContentMissing, HelperNeeded) as lacking:
            assert self._nursery is not None  # `run` opened it before anything was decided
            needs_helper = isinstance(lacking, HelperNeeded)
            self._questions.ask(question, self._nursery, needs_helper=needs_helper)
            return
        if isinstance(answer, InputMade):
            self._attempts.note_input(answer)
        self._internal.append(answer)

    def _on_answer(self, answer: Input) -> None:
        if isinstance(answer, InputMade):
            self._attempts.note_input(answer)
        self.post(answer)

    def _act(self, act: Act) -> None:
        """Carry out what had to wait until the events were durable."""
        assert self._nursery is not None  # `run` opened it before anything was decided
        match act:
            case StartAttempt():
                self._attempts.start(self._nursery, act.node_path, act.attempt, recovered=False)
            case StopAttempt():
                self._attempts.stop(self._nursery, act.node_path, act.attempt, act.reason)
            case AcknowledgeResult():
                key = self._attempts.key(act.node_path, act.attempt)
                self._environment.workers.acknowledge(key, act.disposition, act.worker_id)
            case _:
                assert_never(act)

    def _look_again(self) -> None:
        self._wake.set()

    # The end, and sleep.

    def _is_over(self) -> bool:
        has_inputs = self._inbox or self._internal or self._audit
        return self.execution.is_ended and not self._attempts.running_count and not has_inputs

    @property
    def _is_busy(self) -> bool:
        """Whether anything runs, waits for capacity or is to be decided."""
        is_deciding = self._inbox or self._internal or self._questions or self._graphs
        return bool(is_deciding) or not self._attempts.is_idle or self.machine.has_offers

    def _may_sleep(self) -> bool:
        has_time = self.execution.is_paused or self._timers.is_set
        if self._is_busy or self.execution.is_ended or not has_time:
            return False
        return self._timers.next_s - trio.current_time() > SLEEP_AFTER_S

    async def _fall_asleep(self) -> None:
        left_s = min(self._timers.next_s - trio.current_time(), SLEEP_S_MAX)
        self.due_time_s = self._environment.seams.now_s() + left_s
        item = AppendItem(
            namespace=self.namespace,
            execution_id=self.execution.execution_id,
            expected_sequence=self.feed.last_sequence,
            owner_epoch=self._epoch,
            row=row_of(self.namespace, self.execution, self.due_time_s),
        )
        result = await self._environment.committer.append_when_there_is_room(item)
        if not isinstance(result, Appended):
            raise ExecutionDropped(repr(result))

    def _drop_calls(self) -> None:
        calls = [entry for entry in self._inbox if isinstance(entry, PendingCall)]
        for call in (*self._settling, *calls):
            call.fail(ExecutionDropped("the execution is read again"))
