"""A small synchronous shell around `Machine`, which checks after every decision what must always hold.

It stands where the runtime stands: it grants nodes, answers questions, keeps timers and workers, in virtual
time. Expressions are `true`, `false`, `broken` (cannot be evaluated), or a JSON literal.
"""

from __future__ import annotations

import heapq
import json
from typing import assert_never

from plait_server.core.definition.compiled import Definition
from plait_server.core.definition.graph import Graph, Task
from plait_server.core.definition.validation import ExpressionNames, validate
from plait_server.core.run.commands import (
    AcknowledgeResult,
    AttemptResult,
    Audit,
    Cancel,
    ChangeCapacity,
    Command,
    Continue,
    EdgesJudged,
    FindGraph,
    FindValue,
    Granted,
    Input,
    InputMade,
    JudgeEdges,
    LimitScope,
    MakeInput,
    MakeOutput,
    OfferNode,
    OutputMade,
    Pause,
    Receipt,
    RefuseGrant,
    Resume,
    SetTimer,
    Start,
    StartAttempt,
    StopAttempt,
    TimerDue,
    TimerKind,
    UnlimitScope,
    WithdrawNode,
)
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptStarted,
    Event,
    ExecutionSubmitted,
    NodeEnded,
    ScopeEnded,
    ScopeOpened,
)
from plait_server.core.run.execution import Execution
from plait_server.core.run.failures import Failure
from plait_server.core.run.machine import Decision, Machine
from plait_server.core.run.payload import NULL, Payload
from plait_server.core.run.scope import Scope
from plait_server.core.run.states import (
    AttemptOutcome,
    CancelStage,
    EdgeState,
    ExecutionState,
    NodeState,
    PauseMode,
    Treatment,
)
from tests.core.evaluator import analysis_of, find_graph, find_value, joined, sink_outputs, verdict
from tests.core.journal_rules import JournalRules

TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
Question = JudgeEdges | MakeInput | FindValue | MakeOutput | FindGraph


class Driver:
    """Runs one execution by hand."""

    def __init__(
        self, graph: Graph, *, grants: bool = True, answers: bool = True, validates: bool = True
    ) -> None:
        """Submit a graph.

        Args:
            graph: The graph; refused if validation refuses it, for a test must not rest on what cannot be.
            grants: Whether every offered node is granted at once; else by `grant`.
            answers: Whether questions are answered at once; else by `answer`.
            validates: Whether the graph is validated first.
        """
        if validates:
            found = validate(graph, _names_nothing)
            assert found.is_valid, found.problems
        self.graph = graph
        self.analysis = analysis_of(graph)
        self.machine = Machine(Execution(graph, self.analysis))
        self.replica = Execution(graph, self.analysis)
        self.grants = grants
        self.answers = answers
        self.now_s = 0.0
        self.events: list[Event] = []
        self.commands: list[Command] = []
        """What the last call led to."""
        self.offered: dict[str, OfferNode] = {}
        self.limits: dict[str, int] = {}
        """Scope path -> how many attempts may run in it (N1)."""
        self.capacity: ChangeCapacity | None = None
        self.questions: list[Question] = []
        self.audits: list[Audit] = []
        self.told: list[AcknowledgeResult] = []
        self.stopped: list[StopAttempt] = []
        self.refused: list[str] = []
        self.inputs: dict[str, Payload] = {}
        """Node path -> what MakeInput was answered with last."""
        self.heard_s: dict[tuple[str, int], float] = {}
        """(node path, attempt) -> when its worker last reported something of it."""
        self.served_s: float | None = None
        """When a worker last served the types of waiting nodes; None if one does."""
        self._timers: list[tuple[float, int, SetTimer]] = []
        self._timer_count = 0
        self.rules = JournalRules(graph)
        self._definitions: dict[str, Definition] = {}
        """Digest -> a graph that an output was (N7)."""
        self._edge_states: dict[str, list[EdgeState]] = {}
        """Scope path -> the states of its edges."""
        submitted = ExecutionSubmitted("e1", graph.name, "", "", NULL, {}, 1, TRACEPARENT, len(graph.nodes))
        event = Event(1, 0.0, 1, "", 0, "0", None, ExecutionState.QUEUED, "", submitted)
        self.machine.apply(event)
        self.replica.apply(event)
        self._check_event(event)

    # What a test does.

    @property
    def execution(self) -> Execution:
        """The live state."""
        return self.machine.execution

    @property
    def scope(self) -> Scope:
        """The root scope."""
        return self.machine.execution.root

    @property
    def scopes(self) -> dict[str, Scope]:
        """Those that have not ended, by path."""
        return self.machine.execution.scopes

    def start(self) -> Driver:
        """Start the execution."""
        self.do(Start())
        return self

    def grant(self, path: str) -> None:
        """Grant permits and a worker to a node, offered or not."""
        self.grant_after(path, 0.0)

    def grant_after(self, path: str, queue_s: float) -> None:
        """Grant them after a wait of so many seconds, which must have passed."""
        self.offered.pop(path, None)
        self.do(Granted(path, 1, f"worker-{path}", "instance", queue_s))

    def succeed(self, *paths: str, output: str = "null") -> None:
        """Let the present attempts of nodes succeed, one after the other."""
        for path in paths:
            self.result(path, AttemptOutcome.SUCCEEDED, output=Payload(output))

    def fail(
        self,
        path: str,
        code: str = "INTERNAL",
        *,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        jitter: float = 0.5,
    ) -> None:
        """Let the present attempt of a node fail."""
        attempt = self.attempt(path)
        failure = Failure(code=code, message=f"{path} failed", node_path=path, attempt=attempt)
        self.result(
            path,
            AttemptOutcome.FAILED,
            failure=failure,
            retryable=retryable,
            retry_after_s=retry_after_s,
            jitter=jitter,
        )

    def time_out_attempt(self, path: str, *, jitter: float = 0.5) -> None:
        """Let the present attempt of a node time out (the clock is the runtime's)."""
        failure = Failure(code="DEADLINE_EXCEEDED", node_path=path, attempt=self.attempt(path))
        self.result(path, AttemptOutcome.TIMED_OUT, failure=failure, jitter=jitter)

    def lose(self, path: str) -> None:
        """Let the lease of the present attempt run out."""
        self.result(path, AttemptOutcome.LOST)

    def hand_back(self, path: str) -> None:
        """Let a draining worker hand the present attempt back."""
        self.result(path, AttemptOutcome.RETURNED)

    def result(
        self,
        path: str,
        outcome: AttemptOutcome,
        *,
        attempt: int | None = None,
        output: Payload | None = None,
        failure: Failure | None = None,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        jitter: float = 0.0,
    ) -> None:
        """Report how an attempt ended, the present one unless another is named."""
        number = self.attempt(path) if attempt is None else attempt
        worker = f"worker-{path}"
        self.do(
            AttemptResult(
                path,
                number,
                outcome,
                output,
                failure,
                retryable,
                retry_after_s,
                None,
                jitter,
                worker,
                from_worker=outcome in (AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED),
            ),
        )

    def heartbeat(self, path: str, details_json: str = "") -> None:
        """Report that a node's newest attempt is alive."""
        number = self.attempt(path)
        self.heard_s[path, number] = self.now_s
        if details_json:
            self.machine.note_heartbeat(path, number, Payload(details_json))

    def do(self, what: Input) -> None:
        """Give the machine an input, and carry out what it decides."""
        self.commands = []
        self._settle(self.machine.decide(what, self.now_s))

    def cancel(self, message: str = "enough") -> None:
        """Ask for a cancel."""
        self.do(Cancel(message))

    def pause(self, mode: PauseMode = PauseMode.WAIT, message: str = "") -> None:
        """Ask for a pause."""
        self.do(Pause(mode, message))

    def resume(self, data: str = "null") -> None:
        """Let it go on."""
        self.do(Resume(Payload(data), ""))

    def receipt(self, path: str, stage: CancelStage, attempt: int | None = None) -> None:
        """Tell how far the cancel of an attempt has come."""
        number = self.attempt(path) if attempt is None else attempt
        self.do(Receipt(path, number, stage, f"worker-{path}"))

    def advance(self, seconds: float) -> None:
        """Let time pass; timers fire in the order of their due times, equal ones as they were set."""
        until_s = self.now_s + seconds
        while self._timers and self._timers[0][0] <= until_s:
            self.fire_next()
        self.now_s = until_s

    def fire_next(self) -> bool:
        """Let time pass until the next timer and fire it; tell whether there was one."""
        if not self._timers:
            return False
        due_s, _, timer = heapq.heappop(self._timers)
        self.now_s = max(self.now_s, due_s)
        self.do(self._due(timer))
        return True

    def _due(self, timer: SetTimer) -> TimerDue:
        heard_s = self.heard_s.get((timer.node_path, timer.number), self.now_s)
        return TimerDue(
            timer.kind,
            timer.node_path,
            timer.number,
            timer.turn,
            quiet_s=self.now_s - heard_s,
            lacking="EXECUTION_LIMIT",
            unserved_s=self.now_s - self.served_s if self.served_s is not None else 0.0,
        )

    def fire(self, kind: TimerKind, path: str = "") -> None:
        """Fire the earliest timer of a kind and a node, whatever the time."""
        for position, (_, _, timer) in enumerate(sorted(self._timers)):
            if timer.kind is kind and timer.node_path == path:
                self._timers = sorted(self._timers)
                del self._timers[position]
                self.do(self._due(timer))
                return
        raise AssertionError(f"no timer {kind.name} {path!r}")

    def answer(self) -> bool:
        """Answer the oldest question that is out; tell whether there was one."""
        if not self.questions:
            return False
        question = self.questions.pop(0)
        if self._is_wanted(question):
            self.do(self._answer_to(question))
        return True

    def restart(self) -> None:
        """Throw the machine away, replay the journal, and resume."""
        execution = Execution(self.graph, self.analysis)
        machine = Machine(execution)
        for event in self.events:
            self._apply(execution, event)
        assert execution.digest() == self.machine.execution.digest(), "A1: a replay gives another state"
        self.machine = machine
        self.heard_s = dict.fromkeys(self.heard_s, self.now_s)
        self.offered.clear()
        # The driver knows them from the state.
        limits = {
            path: scope.graph.policy.max_concurrency for path, scope in execution.scopes.items() if path
        }
        self.limits = {path: limit for path, limit in limits.items() if limit}
        self.questions.clear()
        self._timers.clear()
        self._settle(machine.resume(self.now_s))

    def adopt(self, events: list[Event]) -> None:
        """Go on from a journal that another driver wrote; its first event is known already."""
        now_s = self.now_s
        for event in events[1:]:
            self.now_s = event.time_s
            self._check_event(event)
            self._apply(self.execution, event)
            self._apply(self.replica, event)
        for path, scope in self.scopes.items():
            self._edge_states[path] = list(scope.edge_states)
        self.now_s = now_s
        self.restart()

    def next_timer(self) -> SetTimer | None:
        """Return the timer that is due first."""
        return self._timers[0][2] if self._timers else None

    # What a test sees.

    def state(self, path: str) -> str:
        """Return a node's state and reason, such as `SKIPPED/DEAD_PATH`; QUEUED has no reason here (A1)."""
        state, reason = self.rules.states[path], self.rules.reasons[path]
        return f"{state.name}/{reason}" if reason else state.name

    def states(self) -> dict[str, str]:
        """Return the state and reason of all nodes, those of ended scopes too (N2)."""
        return {path: self.state(path) for path in self.rules.states}

    def story(self) -> list[str]:
        """What became of nodes and scopes, in order, such as `x/a RUNNING` and `x ends SUCCEEDED`."""
        lines: list[str] = []
        for event in self.events:
            if isinstance(event.detail, ScopeEnded):
                lines.append(f"{event.detail.scope_path} ends {event.detail.state.name}")
            elif event.node_state is not None:
                reason = f"/{event.reason}" if event.reason else ""
                lines.append(f"{event.node_path} {event.node_state.name}{reason}")
        return lines

    def edges(self) -> dict[str, str]:
        """Return the state of all edges, such as `{"a-error->b": "ACTIVE"}`."""
        return {
            f"{edge.source}-{edge.handle}->{edge.target}"
            if edge.handle
            else f"{edge.source}->{edge.target}": state.name
            for edge, state in zip(self.graph.edges, self.scope.edge_states, strict=True)
        }

    @property
    def ended(self) -> str:
        """State of the execution."""
        assert self.execution.state is not None
        return self.execution.state.name

    @property
    def named(self) -> tuple[str, str] | None:
        """Node and code of the failure that the execution names."""
        failure = self.execution.failure
        return None if failure is None else (failure.node_path, failure.code)

    @property
    def output(self) -> object:
        """The execution's output, parsed; None as well if it has none."""
        output = self.execution.output
        return None if output is None else json.loads(output.json)

    def attempt(self, path: str) -> int:
        """Number of a node's newest attempt; 0 before the first."""
        return self.starts(path)

    def running(self) -> list[str]:
        """Nodes with a running attempt, in graph order."""
        return [
            path for path in self.in_state(NodeState.RUNNING) if isinstance(self.rules.node(path).kind, Task)
        ]

    def in_state(self, *states: NodeState) -> list[str]:
        """Nodes in one of these states, in graph order."""
        return [path for path, state in self.rules.states.items() if state in states]

    def in_reason(self, reason: str) -> list[str]:
        """Nodes with a reason, in graph order."""
        return [path for path, its in self.rules.reasons.items() if its == reason]

    def starts(self, path: str) -> int:
        """How many attempts of a node the journal knows."""
        return self.rules.starts[path]

    def treatments(self) -> list[tuple[str, str]]:
        """Node and treatment of every failure of a node, in order, over all scopes."""
        ends = [e for e in self.events if isinstance(e.detail, AttemptEnded | NodeEnded)]
        return [
            (e.node_path, e.detail.treatment.name)
            for e in ends
            if isinstance(e.detail, AttemptEnded | NodeEnded) and e.detail.treatment is not Treatment.NONE
        ]

    # Carrying out.

    def _settle(self, decision: Decision) -> None:
        self._take(decision)
        while True:
            if self.answers and self.questions:
                what: Input = self._answer_to(self.questions.pop(0))
            elif not decision.is_settled:
                what = Continue()
            elif self.grants and self.offered:
                path = next(iter(self.offered))
                del self.offered[path]
                what = Granted(path, 1, f"worker-{path}", "instance", 0.0)
            else:
                break
            decision = self.machine.decide(what, self.now_s)
            self._take(decision)
        if self.answers:
            self._check_not_stuck()
            self._check_stops()

    def _take(self, decision: Decision) -> None:
        events, commands = decision.events, decision.commands
        for event in events:
            self._check_event(event)
            self._apply(self.replica, event)
        assert self.replica.digest() == self.execution.digest(), "A1: live and replayed state differ"
        for scope_path, scope in self.scopes.items():
            unresolved = [EdgeState.UNRESOLVED] * len(scope.edge_states)
            known = self._edge_states.setdefault(scope_path, unresolved)
            for position, state in enumerate(scope.edge_states):
                before = known[position]
                assert before is EdgeState.UNRESOLVED or state is before, f"edge {position} was taken back"
                known[position] = state
        self.commands.extend(commands)
        for command in commands:
            self._carry_out(command, events)
        for path in self.offered:
            now = self.rules.states[path]
            assert now in (NodeState.IDLE, NodeState.QUEUED, NodeState.BACKING_OFF), (
                f"{path} is offered as {now.name}"
            )
        records = [record for scope in self.scopes.values() for record in scope.records]
        for record in records:
            assert record.state is self.rules.states[record.path], f"{record!r}, and not as its events say"
        # C2: while it is paused nothing is dispatched.
        waiting = () if self.execution.is_paused else records
        offered = {record.path for record in waiting if self.machine.is_offered(record.path)}
        assert not decision.is_settled or offered == set(self.offered), (
            "the machine thinks that others are offered"
        )
        if self.execution.is_ended:
            assert not self.offered, "a node is offered after the end"

    def _carry_out(self, command: Command, events: list[Event]) -> None:
        match command:
            case JudgeEdges() | MakeInput() | FindValue() | MakeOutput() | FindGraph():
                self.questions.append(command)
            case OfferNode(node_path=path):
                assert path not in self.offered, f"{path} is offered twice"
                assert isinstance(self.rules.node(path).kind, Task), f"{path} is no task"
                self.offered[path] = command
            case WithdrawNode(node_path=path):
                assert path in self.offered, f"{path} is withdrawn, but not offered"
                del self.offered[path]
            case RefuseGrant(node_path=path):
                self.refused.append(path)
            case SetTimer(delay_s=delay_s):
                assert delay_s >= 0
                self._timer_count += 1
                heapq.heappush(self._timers, (self.now_s + delay_s, self._timer_count, command))
            case StartAttempt(node_path=path, attempt=attempt):
                assert any(
                    isinstance(e.detail, AttemptStarted) and (e.node_path, e.attempt) == (path, attempt)
                    for e in events
                ), f"attempt {attempt} of {path} is started, but not in the journal"
                self.heard_s[path, attempt] = self.now_s
                record = self.execution.record(path)
                self.inputs.setdefault(path, joined(record.scope, record))
            case StopAttempt(node_path=path, attempt=attempt):
                self.stopped.append(command)
            case AcknowledgeResult():
                self.told.append(command)
            case LimitScope(scope_path=path, limit=limit):
                assert path not in self.limits, f"{path} is limited twice"
                self.limits[path] = limit
            case UnlimitScope(scope_path=path):
                del self.limits[path]
            case ChangeCapacity():
                self.capacity = command
            case Audit():
                self.audits.append(command)
            case _:
                assert_never(command)

    def _apply(self, execution: Execution, event: Event) -> None:
        if isinstance(event.detail, ScopeOpened) and event.detail.graph_digest:
            digest = event.detail.graph_digest
            execution.definitions[digest] = self._definitions[digest]
        execution.apply(event)

    # Checking.

    def _check_event(self, event: Event) -> None:
        assert event.time_s == self.now_s
        self.rules.follow(event)
        self.events.append(event)

    def _check_stops(self) -> None:
        """No worker is told to stop an attempt before the journal says that the attempt ended (A2)."""
        for stop in self.stopped:
            is_ended = (stop.node_path, stop.attempt) in self.rules.ended_attempts
            assert is_ended, f"{stop.node_path} is stopped, but its attempt is current"

    def _check_not_stuck(self) -> None:
        state = self.execution.state
        assert not self.questions
        still = (None, ExecutionState.QUEUED, ExecutionState.CANCELLING, ExecutionState.PAUSED)
        if state in still or self.execution.is_ended:
            return
        moving = self.running() or self.in_state(NodeState.BACKING_OFF, NodeState.WAITING) or self.offered
        assert moving, f"nothing can move, and the execution is {self.ended}: {self.states()}"
        due = {
            timer.node_path
            for _, _, timer in self._timers
            if timer.kind in (TimerKind.BACKOFF, TimerKind.WAIT)
        }
        for path in self.in_state(NodeState.BACKING_OFF, NodeState.WAITING):
            assert path in due or path in self.offered, f"{path} waits for a timer that nobody set"

    # Answering, in place of CEL.

    def _is_wanted(self, question: Question) -> bool:
        """Tell whether what a question is about is still there: its scope may be over."""
        if isinstance(question, MakeOutput):
            return question.scope_path in self.scopes
        return self.execution.find(question.node_path) is not None

    def _answer_to(self, question: Question) -> Input:
        match question:
            case JudgeEdges(node_path=path, ticket=ticket, edges=edges):
                record = self.execution.record(path)
                outgoing = record.scope.outgoing(record.index)
                return EdgesJudged(path, ticket, tuple(verdict(outgoing[edge].when) for edge in edges))
            case MakeInput(node_path=path, ticket=ticket):
                record = self.execution.record(path)
                # A join that failed asks for its own object (section 6), whatever the node's input says.
                is_run = record.verdict is not None and not record.verdict.is_failure
                if is_run and record.node.input == '"broken"':
                    return InputMade(path, ticket, None, "no such key")
                given = is_run and record.node.input is not None
                made = Payload(record.node.input or "null") if given else joined(record.scope, record)
                self.inputs[path] = made
                return InputMade(path, ticket, made)
            case FindValue(node_path=path, ticket=ticket):
                return find_value(self.execution.record(path), ticket)
            case MakeOutput(scope_path=path, ticket=ticket):
                scope = self.execution.scopes[path]
                source = scope.graph.output
                if source == "broken":
                    return OutputMade(path, ticket, None, "no such key")
                return OutputMade(path, ticket, Payload(source) if source else sink_outputs(scope))
            case FindGraph(node_path=path, ticket=ticket):
                found = find_graph(self.execution.record(path), ticket)
                if found.definition is not None:
                    self._definitions[found.graph_digest] = found.definition
                    self.rules.read[path] = found.definition.graph
                return found
            case _:
                assert_never(question)


def _names_nothing(source: str, *, template: bool) -> ExpressionNames:
    return ExpressionNames()
