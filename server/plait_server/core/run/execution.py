"""The durable state of an execution: a fold over its events. `Execution.apply` is the only thing that changes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import assert_never

from plait_server.core.definition.branches import MAIN
from plait_server.core.definition.compiled import Definition, compile_graph
from plait_server.core.definition.graph import Analysis, Graph
from plait_server.core.run.agenda import Agenda
from plait_server.core.run.attempt_record import AttemptRecord
from plait_server.core.run.closed_scope import ClosedScope, NodeAttempt, stopped_attempts
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptExtended,
    AttemptStarted,
    CancelReceipt,
    CancelRequested,
    Event,
    ExecutionDetail,
    ExecutionEnded,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionStarted,
    ExecutionSubmitted,
    ExecutionUpdated,
    NodeEnded,
    NodeIdled,
    NodeLock,
    NodeWaiting,
    PauseRequested,
    ScopeEnded,
    ScopeOpened,
    UsageReported,
)
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import NULL, Payload
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.scope_branches import ScopeBranches
from plait_server.core.run.scope_index import ScopeIndex
from plait_server.core.run.state_digest import digest_of
from plait_server.core.run.states import (
    AttemptOutcome,
    CancelStage,
    ExecutionState,
    NodeState,
    PauseMode,
    Treatment,
    check_execution_transition,
)
from plait_server.core.run.times import scope_times_in_slices
from plait_server.core.run.totals import Totals
from plait_server.core.run.usage import add_usage, take_usage
from plait_server.core.slices import Slices, finish
from plait_server.errors import InvariantViolated

ROOT_BRANCH = "0"


class Execution:
    """The state of one execution: the root scope, the scopes below it, and the facts about the whole."""

    def __init__(self, graph: Graph, analysis: Analysis, *, definition: Definition | None = None) -> None:
        """Create an execution without events.

        Args:
            graph: A valid graph.
            analysis: Its analysis.
            definition: The compiled graph, if there is one already; `execution_in_slices` then adds the nodes.
        """
        self.agenda = Agenda()
        self.totals = Totals()
        compiled = definition or compile_graph(graph, analysis)
        branches = ScopeBranches(compiled.branches)
        self.locks: dict[str, NodeLock] = {}
        """Node path -> the lock that an update set or removed; the path may lie in a scope not opened yet (N10)."""
        self.root = Scope(
            compiled, agenda=self.agenda, totals=self.totals, branches=branches, locks=self.locks
        )
        if definition is None:
            finish(self.root.fill_in_slices())
        self.scopes: dict[str, Scope] = {"": self.root}
        """The open scopes by path, and stopped ones with the scopes around them; the root's path is empty."""
        self.closed: dict[str, ClosedScope] = {}
        """The scopes whose node has ended, by scope path."""
        self.just_closed: dict[str, Scope] = {}
        """The scopes closed since `forget_closed`, with their nodes: for observers of the events that closed them."""
        self.stopped: dict[tuple[str, int], NodeAttempt] = {}
        """(node path, attempt) -> attempts in closed scopes whose handlers may still report something."""
        self.definitions: dict[str, Definition] = {}
        """Digest -> a graph taken from an output, added by the shell before the event that opens its scope (N7)."""
        self.state: ExecutionState | None = None
        """None before the first event."""
        self.reason = ""
        self.run = 1
        self.sequence = 0
        self.execution_id = ""
        self.graph_digest = ""
        self.labels: Mapping[str, str] = {}
        self.input: Payload = NULL
        self.output: Payload | None = None
        self.failure: Failure | None = None
        self.failure_count = 0
        self.traceparent = ""
        self.parent_span_id = ""
        self.tracestate = ""
        self.created_s = self.started_s = self.ended_s = 0.0
        self.is_started = False
        self.is_paused = False
        """Whether its state is PAUSING or PAUSED; asked for each step."""
        self.priority = 0
        self.settings_sequence = 0
        """The sequence of the newest update (C10); 0 without one."""
        self.pause_mode = PauseMode.WAIT
        """The mode of the newest pause."""
        self.resume_data: Payload = NULL
        """The data of the newest resume, the variable `resume`."""
        self._paused_from_s: float | None = None
        """When the present pause was requested; None if nothing is paused."""
        self._paused_s = 0.0
        """How long former pauses took together."""
        self.attempts_running = 0
        self.receipts: dict[tuple[str, int], CancelStage] = {}
        """(node path, attempt) -> the stage that its cancel has reached (C1)."""
        self.open_receipts = 0
        """Cancels that expect a further receipt."""
        self.usage: dict[str, Decimal] = {}
        self.scope_index = ScopeIndex()

    def __repr__(self) -> str:
        state = self.state.name if self.state is not None else "NEW"
        total = self.totals.node_count
        ended = sum(count for state, count in self.totals.state_counts.items() if state.is_ended)
        running = self.totals.state_counts[NodeState.RUNNING]
        return f"<Execution {self.execution_id} {state} {ended}/{total} nodes, {running} in flight>"

    @property
    def is_ended(self) -> bool:
        """Whether the run is over."""
        return self.state is not None and self.state.is_ended

    @property
    def is_cancelling(self) -> bool:
        """Whether a cancel still expects receipts."""
        return self.state is ExecutionState.CANCELLING

    @property
    def is_under_way(self) -> bool:
        """Whether it has started, and is neither cancelled nor ended; it may be paused."""
        return self.is_started and not self.is_cancelling and not self.is_ended

    def paused_total_s(self, now_s: float) -> float:
        """Return how long it has been paused in all, the present pause included."""
        present_s = now_s - self._paused_from_s if self._paused_from_s is not None else 0.0
        return self._paused_s + max(0.0, present_s)

    @property
    def has_timed_out(self) -> bool:
        """Whether its nodes are being ended by its own timeout (T5)."""
        return self.root.is_closed and self.root.stopped_by is Treatment.NONE and not self.is_cancelling

    def find(self, node_path: str) -> NodeRecord | None:
        """Find a node by its path; None if there is none, or its scope is closed."""
        scope_path, _, node_id = node_path.rpartition("/")
        scope = self.scopes.get(scope_path)
        return scope.find(node_id) if scope is not None else None

    def find_told(self, node_path: str) -> NodeRecord | None:
        """Find a node of an open scope, or of one that has just been closed."""
        scope_path, _, node_id = node_path.rpartition("/")
        scope = self.scopes.get(scope_path) or self.just_closed.get(scope_path)
        return scope.find(node_id) if scope is not None else None

    def forget_closed(self) -> None:
        """Drop the closed scopes, once all observers have seen the events that closed them."""
        if self.just_closed:
            self.just_closed = {}

    def record(self, node_path: str) -> NodeRecord:
        """Return the node of a path that an event or command names.

        Raises:
            InvariantViolated: There is none; a bug.
        """
        record = self.find(node_path)
        if record is None:
            message = f"no node has the path {node_path!r}; please report this"
            raise InvariantViolated(message)
        return record

    def closed_outcome(self, node_path: str, attempt: int) -> AttemptOutcome | None:
        """Return how an attempt in a closed scope ended; None if there was none."""
        scope_path, _, node_id = node_path.rpartition("/")
        closed = self.closed.get(scope_path)
        return closed.outcome(node_id, attempt) if closed is not None else None

    def input_of(self, scope: Scope) -> Payload:
        """Return the input of a scope, which its nodes without incoming edges receive (J2)."""
        return self.input if scope.parent is None else scope.input

    def apply(self, event: Event) -> None:
        """Fold one event into the state.

        Raises:
            InvariantViolated: The event does not follow the newest one, or the table of transitions does not allow it.
        """
        if event.sequence != self.sequence + 1:
            message = f"event {event.sequence} follows {self.sequence}; please report this"
            raise InvariantViolated(message)
        self.sequence = event.sequence
        self.scope_index.apply(event)
        self.agenda.time_s, self.agenda.paused_s = event.time_s, self.paused_total_s(event.time_s)
        if event.node_path:
            self._apply_to_node(event)
        else:
            self._apply_to_execution(event)

    def digest(self) -> str:
        """Return a hash of the whole durable state; equal for live and replayed state after every event (A1)."""
        return digest_of(self, paused_from_s=self._paused_from_s, paused_s=self._paused_s)

    def _apply_to_node(self, event: Event) -> None:
        detail = event.detail
        if isinstance(detail, CancelReceipt | UsageReported):
            self._apply_late(event, detail)
            return
        record = self.record(event.node_path)
        scope = record.scope
        record.sequence = record.changed = scope.sequence = event.sequence
        match detail:
            case AttemptStarted():
                self.attempts_running += 1
                scope.apply_started(record, event.time_s, event.run, detail)
            case AttemptExtended():
                record.attempts[-1].apply_extended(detail)
            case AttemptEnded():
                self.attempts_running -= 1
                state = _node_state(event)
                scope.apply_attempt_ended(record, state, event.reason, event.time_s, detail)
                add_usage(self.usage, detail.usage)
            case NodeEnded():
                scope.apply_ended(record, _node_state(event), event.reason, event.time_s, detail)
                if record.index in scope.children:
                    self._close(scope.children.pop(record.index), event.sequence)
            case NodeWaiting():
                scope.apply_waiting(record, event.time_s, detail)
            case NodeIdled():
                scope.apply_idled(record, event.reason, event.time_s)
            case ScopeOpened():
                self._open(record, event, detail)
            case ScopeEnded():
                ended = self.scopes[detail.scope_path]
                ended.sequence = event.sequence
                ended.apply_scope_ended(detail)
            case _:
                other: ExecutionDetail = detail  # All others have a case.
                message = f"event {event.sequence}, {other!r}, cannot be about a node; please report this"
                raise InvariantViolated(message)

    def _apply_late(self, event: Event, detail: CancelReceipt | UsageReported) -> None:
        """Apply an event about an attempt that has ended; its scope may be closed."""
        record = self.find(event.node_path)
        if record is not None:
            record.sequence = record.changed = record.scope.sequence = event.sequence
        if isinstance(detail, CancelReceipt):
            key = event.node_path, event.attempt
            self.open_receipts += (key not in self.receipts) - detail.stage.is_final
            self.receipts[key] = detail.stage
            return
        attempt = self.attempt(event.node_path, event.attempt)
        if attempt is None:
            message = f"event {event.sequence} is about an attempt that never existed; please report this"
            raise InvariantViolated(message)
        take_usage(self.usage, attempt.usage)
        add_usage(self.usage, detail.usage)
        attempt.usage = detail.usage

    def attempt(self, node_path: str, number: int) -> AttemptRecord | None:
        """Return an attempt of an open scope, or one of a closed scope whose handler may still report something."""
        found = self.node_attempt(node_path, number)
        return found.attempt if found is not None else None

    def node_attempt(self, node_path: str, number: int) -> NodeAttempt | None:
        """Return an attempt, as `attempt` does, with the facts needed about its node."""
        record = self.find(node_path)
        if record is None:
            return self.stopped.get((node_path, number))
        if not 0 < number <= len(record.attempts):
            return None
        branch = record.scope.branch(record.index)
        return NodeAttempt(node_path, record.node, branch, record.attempts[number - 1])

    def _open(self, record: NodeRecord, event: Event, detail: ScopeOpened) -> None:
        outer = record.scope
        definition = (
            self.definitions.pop(detail.graph_digest)
            if detail.graph_digest
            else outer.definition.inner[record.index]
        )
        scope = open_inside(self, record, definition, detail, event.branch)
        finish(scope.fill_in_slices())
        scope.first_sequence = scope.sequence = event.sequence
        scope.started_s = event.time_s
        outer.apply_scope_opened(record, event.time_s, detail.input)
        outer.children[record.index] = self.scopes[detail.scope_path] = scope
        outer_branch = outer.branches.node_branch[record.index]
        outer.branches.take_numbers(outer_branch, definition.branches.opened_under(MAIN))
        while outer.parent is not None:  # Which may have taken numbers of a scope further out.
            outer = outer.parent.scope
            outer.sequence = event.sequence
        scope.open_sources()

    def _close(self, scope: Scope, sequence: int) -> None:
        """Drop a scope whose node has ended, and the scopes inside it that were stopped with it."""
        closing = (scope, *scope.inside())
        for each in reversed(closing):
            if each.parent is not None:
                each.parent.inside = finish(scope_times_in_slices(each, self.run)).packed()
        for each in closing:
            closed = ClosedScope(each, sequence)
            del self.scopes[each.path]
            self.closed[each.path] = closed
            for stopped in stopped_attempts(each):
                self.stopped[stopped.node_path, stopped.attempt.number] = stopped
            each.is_dropped = True
            self.just_closed[each.path] = each

    def _apply_to_execution(self, event: Event) -> None:
        detail = event.detail
        if not isinstance(detail, ExecutionDetail):
            message = f"event {event.sequence} must name a node; please report this"
            raise InvariantViolated(message)
        after = event.execution_state
        if after is not None:
            if self.state is not None:
                check_execution_transition(self.state, after)
            self.state = after
            self.is_paused = after.is_paused
            self.reason = event.reason
        match detail:
            case ExecutionSubmitted():
                self._apply_submitted(event.time_s, detail)
            case ExecutionStarted():
                self.started_s, self.is_started = event.time_s, True
                self.root.sequence = event.sequence
                self.root.open_sources()
            case CancelRequested():
                self._end_pause(event.time_s)
                self.root.close()
                self.agenda.clear()
            case PauseRequested(mode=mode):
                self.pause_mode = mode
                if self._paused_from_s is None:
                    self._paused_from_s = event.time_s
            case ExecutionPaused():
                pass
            case ExecutionResumed(data=data):
                self.resume_data = data
                self._end_pause(event.time_s)
            case ExecutionUpdated():
                self._apply_updated(event.sequence, detail)
            case ExecutionEnded():
                self._end_pause(event.time_s)
                self.ended_s = event.time_s
                self.output = detail.output
                self.failure = detail.failure
                self.failure_count = detail.failure_count
                self.root.close()
                self.agenda.clear()
            case _:
                assert_never(detail)

    def _apply_submitted(self, time_s: float, detail: ExecutionSubmitted) -> None:
        self.execution_id = detail.execution_id
        self.graph_digest = detail.graph_digest
        self.labels = detail.labels
        self.input = detail.input
        self.traceparent = detail.traceparent
        self.parent_span_id = detail.parent_span_id
        self.tracestate = detail.tracestate
        self.priority = detail.priority
        self.created_s = time_s

    def _apply_updated(self, sequence: int, detail: ExecutionUpdated) -> None:
        self.settings_sequence = sequence
        if detail.priority is not None:
            self.priority = detail.priority
        if detail.policy is not None:
            root, policy = self.root, detail.policy
            if root.stopped_by is Treatment.UNHANDLED:
                # A scope that a failure has stopped ends as it was stopped.
                policy = replace(policy, on_failure=root.policy.on_failure)
            root.policy = policy
        for lock in detail.locks:
            self.locks[lock.node_path] = lock

    def _end_pause(self, time_s: float) -> None:
        if self._paused_from_s is not None:
            self._paused_s += max(0.0, time_s - self._paused_from_s)
            self._paused_from_s = None


def execution_in_slices(definition: Definition) -> Slices[Execution]:
    """Create an execution without events, in slices."""
    execution = Execution(definition.graph, definition.analysis, definition=definition)
    yield from execution.root.fill_in_slices()
    return execution


def open_inside(
    execution: Execution, record: NodeRecord, definition: Definition, detail: ScopeOpened, branch: str
) -> Scope:
    """Create the scope of a node; `fill_in_slices` adds its nodes."""
    outer = record.scope
    branches = ScopeBranches(
        definition.branches,
        branch,
        detail.branches_before,
        outer.branches,
        outer.branches.node_branch[record.index],
    )
    scope = Scope(
        definition,
        agenda=execution.agenda,
        totals=execution.totals,
        branches=branches,
        path=detail.scope_path,
        parent=record,
        locks=execution.locks,
    )
    scope.input, scope.opened = detail.input, detail
    return scope


def _node_state(event: Event) -> NodeState:
    if event.node_state is None:
        message = f"event {event.sequence} names no node state; please report this"
        raise InvariantViolated(message)
    return event.node_state
