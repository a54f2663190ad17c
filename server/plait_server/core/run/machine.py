"""The state machine of an execution: inputs in, events and commands out; no I/O, clock, randomness or evaluation.

Rules
1. Only `Execution.apply` changes durable state, live and on replay alike; `decide` applies each event as it
   decides it.
2. What is not durable (offers, unanswered questions, nodes held by their level) follows from durable state:
   `resume` rebuilds it after a replay.
3. A question (`JudgeEdges`, `MakeInput`, ...) carries a ticket. An answer whose ticket is gone, because the
   node was cancelled in the meantime, is dropped. Verdicts and rendered inputs stand in events, so replay asks
   nothing (A1).
4. After each input the machine settles, step by step in J5's order over all scopes (N4). Each step takes the first of
   these that there is: a skip, the losers of a race, a failure's sweep, a scope that is over, a node whose join was
   decided. When nothing is left, tasks are offered, and the machine checks whether the run is over.
5. A node that begins may ask a question, and so may one that ends (`when`). The answer belongs to the same step,
   so settling stops until the next input: the answer, or `Continue` if the answer comes later.
6. Work is linear in nodes and edges over the whole execution; no step searches the graph or visits
   idle scopes. A decision settles at most `STEPS_MAX` steps and leaves the rest to `Continue`, because the shell
   serves other executions too.

The driver's obligations (after etcd/raft's Ready)
a. The events of a decision are durable before any of its acts is carried out or they are visible outside.
b. Questions are answered through `decide`. A decision that is not settled is followed, before any other input, by
   the answer to its question, or by `Continue`; an answer that comes later is an input like any other.
c. If the events cannot be made durable, the machine is discarded and rebuilt by a replay from the journal.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final, NamedTuple, assert_never

from plait_server.core.definition.graph import OnFailure, Scheduling
from plait_server.core.run.attempts import Attempts
from plait_server.core.run.beginning import Beginnings
from plait_server.core.run.commands import (
    AcknowledgeResult,
    AttemptResult,
    Audit,
    Cancel,
    Command,
    Continue,
    Disposition,
    EdgesJudged,
    ExtendAttempt,
    FindGraph,
    Granted,
    GraphFound,
    Input,
    InputMade,
    OutputMade,
    Pause,
    Question,
    QueueTimeout,
    Receipt,
    RefuseGrant,
    Resume,
    Start,
    StartAttempt,
    StopAttempt,
    TimerDue,
    UnlimitScope,
    Update,
    ValueFound,
)
from plait_server.core.run.controls import Controls
from plait_server.core.run.ending import Endings, NodeDetail
from plait_server.core.run.events import (
    AttemptEnded,
    CancelReceipt,
    Event,
    ExecutionDetail,
    ExecutionEnded,
    ExecutionStarted,
    UsageReported,
)
from plait_server.core.run.execution import ROOT_BRANCH, Execution
from plait_server.core.run.failures import EXPRESSION, Failure
from plait_server.core.run.outcome import conclude
from plait_server.core.run.payload import Payload
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.scopes import Scopes
from plait_server.core.run.states import (
    AttemptOutcome,
    ExecutionState,
    NodeState,
    Reason,
    Treatment,
)
from plait_server.core.run.stopping import cancel_losers, cancel_open_nodes, sweep
from plait_server.core.run.timeouts import Timers
from plait_server.core.run.timers import node_timers, resumed_timers, scope_timers
from plait_server.errors import InvariantViolated

SEMANTICS_VERSION = 1
"""The version of SEMANTICS for new executions; an execution keeps the one in its first event (V9)."""

_DONE: Final = object()

STEPS_MAX: Final = 256
"""Steps of one decision, about 3 ms; so a graph of 100,000 nodes is cancelled in 400 parts."""

_STOPPED = (AttemptOutcome.TIMED_OUT, AttemptOutcome.CANCELLED, AttemptOutcome.ABORTED)
"""The outcomes of attempts ended from outside, whose worker has to be told."""


class Decision(NamedTuple):
    """The outcome of an input. See the driver's obligations above."""

    events: list[Event]  # applied already; in order
    commands: list[Command]
    is_settled: bool = True
    """Whether settling is complete; if not, see obligation b."""


class Machine:
    """Decides what one execution does."""

    def __init__(self, execution: Execution) -> None:
        self.execution = execution
        self._now_s = 0.0
        self._events: list[Event] = []
        self._commands: list[Command] = []
        self._tickets = 0
        self._endings = Endings(self)
        self._scopes = Scopes(self, self._endings)
        self._beginnings = Beginnings(self, self._endings, self._scopes)
        self._attempts = Attempts(self, self._endings)
        self._timers = Timers(self, self._beginnings, self._endings, self._attempts)
        self._controls = Controls(self, self._beginnings, self._attempts)
        self._awaits_answer = False
        """Whether the current step has asked a question."""
        self._ending: Iterator[None] | None = None
        """The rest of a race, a sweep, a cancel, a pause or a timeout; yields once a node."""

    def __repr__(self) -> str:
        return f"<Machine {self.execution!r}, {self._beginnings!r}>"

    # The driver's side.

    def let_go(self) -> None:
        """Break the reference cycles with its parts; the machine cannot decide anything afterwards."""
        del self._endings, self._scopes, self._beginnings, self._attempts, self._timers, self._controls

    def apply(self, event: Event) -> None:
        """Fold an event of the journal into the state (replay). After the last, call `resume`."""
        self.execution.apply(event)

    def decide(self, what: Input, now_s: float) -> Decision:
        """Decide what an input leads to, at the given wall time."""
        self._begin(now_s)
        match what:
            case Start() | QueueTimeout():
                self._on_start(what)
            case Continue():
                pass
            case Granted():
                self._on_granted(what)
            case AttemptResult():
                self._attempts.on_result(what)
            case ExtendAttempt():
                self._attempts.on_extend(what)
            case EdgesJudged():
                self._endings.on_judged(what)
            case InputMade():
                self._beginnings.on_input_made(what)
            case ValueFound():
                self._beginnings.on_value_found(what)
            case OutputMade():
                self._on_output_made(what)
            case GraphFound():
                self._scopes.on_graph_found(what)
            case TimerDue():
                self._on_timer(what)
            case Cancel():
                self._ending = self._controls.on_cancel(what) or self._ending
            case Pause():
                self._ending = self._controls.on_pause(what) or self._ending
            case Resume():
                self._controls.on_resume(what)
            case Update():
                self._ending = self._controls.on_update(what) or self._ending
            case Receipt():
                self._controls.on_receipt(what)
            case _:
                assert_never(what)
        return self._settled()

    def resume(self, now_s: float) -> Decision:
        """Continue after a replay: set the timers, send pending cancels to workers again, decide what is due.

        Running attempts and limits of scopes are the driver's to restore, from the state.
        """
        self._begin(now_s)
        execution = self.execution
        if execution.is_under_way:
            self._commands += scope_timers(execution, execution.root, self._now_s)
        timed_out: list[Scope] = []
        for scope in execution.scopes.values():
            if scope.parent is not None:
                self._commands += scope_timers(execution, scope, self._now_s)
                execution.agenda.look_at(scope)
                if scope.ended_as is ExecutionState.TIMED_OUT:
                    timed_out.append(scope)
            for record in scope.in_flight():
                self._commands += resumed_timers(execution, record, self._now_s)
        for (path, attempt), stage in execution.receipts.items():
            if execution.is_cancelling and not stage.is_final:
                self._commands.append(StopAttempt(path, attempt, "CANCELLED"))
        if execution.is_cancelling:
            self._ending = cancel_open_nodes(self, execution.root, "", receipts=True)
        elif not execution.is_ended and execution.has_timed_out:
            self._ending = self._time_out()
        elif execution.is_under_way and timed_out:
            self._ending = chain.from_iterable(self._scopes.time_out(scope) for scope in timed_out)
        if execution.state is ExecutionState.PAUSING:
            self._ending = chain(self._ending or (), self._controls.continue_pause())
        return self._settled()

    def note_usage(self, node_path: str, attempt: int, unit: str, amount: str) -> None:
        """Add usage that an attempt has reported since its last report; its next event has the sum (U1)."""
        self._attempts.note_usage(node_path, attempt, unit, amount)

    def note_heartbeat(self, node_path: str, attempt: int, details: Payload) -> None:
        """Keep the details of an attempt's latest heartbeat; the event that ends the attempt has them."""
        self._attempts.note_heartbeat(node_path, attempt, details)

    @property
    def has_offers(self) -> bool:
        """Whether any node waits for capacity; while the execution is paused none does."""
        return self._beginnings.has_offers and not self.execution.is_paused

    def queued_counts(self) -> Mapping[NodeState, int]:
        """Count the nodes that wait for capacity or for their level (A1), by their recorded states."""
        return self._beginnings.queued_counts()

    def is_offered(self, node_path: str) -> bool:
        """Whether a node waits for capacity."""
        return self._beginnings.is_offered(node_path)

    def is_withheld(self, record: NodeRecord) -> bool:
        """Whether a node would begin, or wait for capacity, if the execution were not paused (C2)."""
        return self._beginnings.is_withheld(record)

    def is_held(self, record: NodeRecord) -> bool:
        """Whether a node whose join was decided in its favor waits for lower levels (R2)."""
        scope = record.scope
        return (
            scope.graph.scheduling is Scheduling.LEVELS and scope.analysis.levels[record.index] > scope.level
        )

    # Used by endings and questions.

    @property
    def now_s(self) -> float:
        """Wall time of the current input."""
        return self._now_s

    def ask(self, command: Command) -> None:
        """Append a command to those already decided."""
        self._commands.append(command)
        if isinstance(command, Question | FindGraph):
            self._awaits_answer = True

    def next_ticket(self) -> int:
        """Return a ticket that no question has had."""
        self._tickets += 1
        return self._tickets

    def emit(
        self,
        detail: NodeDetail,
        record: NodeRecord,
        state: NodeState | None,
        reason: str = "",
        attempt: int = 0,
    ) -> None:
        """Decide an event about a node."""
        scope = record.scope
        detail = self._attempts.with_heartbeat(detail, record.path, attempt)
        inner = scope.children.get(record.index)
        limited = (
            [each.path for each in (inner, *inner.inside()) if each.policy.max_concurrency]
            if inner is not None and state is not None and state.is_ended
            else ()
        )
        self._emit(detail, record.path, scope.branch(record.index), state, reason, attempt)
        self._commands += [UnlimitScope(path) for path in limited]
        if isinstance(detail, AttemptEnded) and detail.outcome in _STOPPED:
            timed_out = detail.outcome is AttemptOutcome.TIMED_OUT
            paused = "PAUSED" if detail.outcome is AttemptOutcome.ABORTED else "CANCELLED"
            why = "TIMED_OUT" if timed_out else reason or paused
            self._commands.append(StopAttempt(record.path, attempt, why))

    def emit_late(self, detail: CancelReceipt | UsageReported, node_path: str, attempt: int) -> None:
        """Decide an event about an attempt that has ended; its scope may be closed."""
        found = self.execution.node_attempt(node_path, attempt)
        if found is None:
            message = f"attempt {attempt} of {node_path!r} never existed; please report this"
            raise InvariantViolated(message)
        self._emit(detail, node_path, found.branch, None, "", attempt)

    def _emit(
        self,
        detail: NodeDetail,
        node_path: str,
        branch: str,
        state: NodeState | None,
        reason: str,
        attempt: int,
    ) -> None:
        execution = self.execution
        number, run = execution.sequence + 1, execution.run
        event = Event(number, self._now_s, run, node_path, attempt, branch, state, None, reason, detail)
        execution.apply(event)
        self._events.append(event)

    def forget(self, record: NodeRecord) -> None:
        """Drop a node's pending questions and offers, because the node is about to change for another reason."""
        self._beginnings.forget(record)
        self._endings.forget(record)
        self._scopes.forget(record)

    # Inputs.

    def _begin(self, now_s: float) -> None:
        # Events keep microseconds; live and replayed state must not differ by less.
        self._now_s = round(now_s, 6)
        self._events = []
        self._commands = []
        self._awaits_answer = False

    def emit_execution(self, detail: ExecutionDetail, state: ExecutionState | None, reason: str = "") -> None:
        """Decide an event about the execution; without a state, its state stays."""
        execution = self.execution
        event = Event(
            execution.sequence + 1,
            self._now_s,
            execution.run,
            "",
            0,
            ROOT_BRANCH,
            None,
            state,
            reason,
            detail,
        )
        execution.apply(event)
        self._events.append(event)

    def _on_start(self, what: Start | QueueTimeout) -> None:
        execution = self.execution
        if execution.is_started or execution.is_ended or execution.is_cancelling or self._ending is not None:
            return
        if isinstance(what, QueueTimeout):
            self._ending = self._time_out()
        elif not execution.is_paused:
            self.emit_execution(ExecutionStarted(), ExecutionState.RUNNING)
            self._commands += scope_timers(self.execution, self.execution.root, self._now_s)

    def _on_granted(self, granted: Granted) -> None:
        if self.execution.is_paused or not self._beginnings.is_offered(granted.node_path):
            self._commands.append(RefuseGrant(granted.node_path, granted.grant))
            return
        record = self.execution.record(granted.node_path)
        number = len(record.attempts) + 1
        self.emit(self._beginnings.take(record, granted), record, NodeState.RUNNING, "", number)
        self._commands += node_timers(self.execution, record, self._now_s)
        self._commands.append(StartAttempt(record.path, number, granted.grant))

    def used(self, record: NodeRecord, number: int, final: Mapping[str, str] | None) -> Mapping[str, str]:
        """Return an attempt's total usage."""
        return self._attempts.used(record, number, final)

    def acknowledge(self, result: AttemptResult, disposition: Disposition) -> None:
        """Acknowledge a worker's result, if it waits for that."""
        if result.from_worker:
            self._commands.append(
                AcknowledgeResult(result.node_path, result.attempt, disposition, result.worker_id)
            )

    def refuse(self, result: AttemptResult, disposition: Disposition) -> None:
        """Refuse a result that changes nothing; a stale one goes to the audit."""
        self.acknowledge(result, disposition)
        if disposition is Disposition.STALE:
            detail = f'{{"outcome":"{result.outcome.name}"}}'
            audit = Audit("STALE_RESULT", result.node_path, result.attempt, result.worker_id, detail)
            self._commands.append(audit)

    def _on_output_made(self, made: OutputMade) -> None:
        if not self._scopes.is_answer(made) or not self.execution.is_under_way:
            return
        if made.scope_path:
            self._scopes.on_output_made(made)
        elif made.payload is None:
            self._end(ExecutionState.FAILED, failure=Failure(code=EXPRESSION, message=made.problem))
        else:
            outcome = conclude(self.execution.root)
            self._end(outcome.state, output=made.payload, failure=outcome.failure)

    def _on_timer(self, timer: TimerDue) -> None:
        scope = self._timers.on_timer(timer)
        if scope is None or self._ending is not None or not self.execution.is_under_way:
            return
        self._ending = self._time_out() if scope.parent is None else self._scopes.time_out(scope)

    # Settling.

    def _settled(self) -> Decision:
        steps = 0
        while not self._awaits_answer and self._settle_step():
            steps += 1
            if steps == STEPS_MAX:
                return Decision(self._events, self._commands, is_settled=False)
        if self._awaits_answer or (not self.execution.is_paused and self._beginnings.send_offers(STEPS_MAX)):
            return Decision(self._events, self._commands, is_settled=False)
        self._end_if_over()
        if self.execution.is_paused:
            self._controls.end_pausing()
        return Decision(self._events, self._commands)

    def _settle_step(self) -> bool:
        """Take the next step of J5; return False if there is none."""
        if self._ending is not None:
            if next(self._ending, _DONE) is _DONE:
                self._ending = None
            return True
        agenda = self.execution.agenda
        if (record := agenda.next_skip()) is not None:
            self._beginnings.skip(record)
        elif (scope := agenda.take_race()) is not None:
            self._ending = cancel_losers(self, scope)
        elif (scope := agenda.take_sweep()) is not None:
            fail_fast = scope.policy.on_failure is OnFailure.FAIL_FAST
            self._ending = sweep(self, scope, fail_fast=fail_fast)
        elif (scope := agenda.take_over()) is not None:
            self._scopes.end_if_over(scope)
        elif not self.execution.is_paused and (record := self._beginnings.take_next()) is not None:
            self._beginnings.begin(record)
        else:
            return False
        return True

    def _time_out(self) -> Iterator[None]:
        """End the execution and every node that has not ended (T5, Q3)."""
        is_queued = self.execution.state is ExecutionState.QUEUED
        reason = Reason.QUEUE_TIMEOUT if is_queued else Reason.EXECUTION_TIMEOUT
        yield from cancel_open_nodes(self, self.execution.root, reason)
        self._end(ExecutionState.TIMED_OUT, reason=reason)

    # The end.

    def _end_if_over(self) -> None:
        execution = self.execution
        root = execution.root
        if execution.state is ExecutionState.CANCELLING:
            if not execution.open_receipts:
                self._end(ExecutionState.CANCELLED, reason=execution.reason)
        elif execution.state is ExecutionState.RUNNING or execution.is_under_way:
            if root.stopped_by is Treatment.UNHANDLED:
                fail_fast = root.policy.on_failure is OnFailure.FAIL_FAST
                if fail_fast or root.running_count == 0:
                    self._end(ExecutionState.FAILED, failure=conclude(root).failure)
            elif root.open_count == 0:
                outcome = conclude(root)
                if outcome.state is ExecutionState.FAILED:
                    self._end(outcome.state, failure=outcome.failure)
                else:
                    self._scopes.ask_output(root)

    def _end(
        self,
        state: ExecutionState,
        *,
        output: Payload | None = None,
        failure: Failure | None = None,
        reason: str = "",
    ) -> None:
        count = len(self.execution.totals.failures)
        reason = reason or (failure.code if failure is not None else "")
        self.emit_execution(ExecutionEnded(output, failure, count), state, reason)
