"""Holds a journal against the slow model, which is told what came from outside and says what must follow.

A journal does not say what was evaluated when. So the judge looks ahead: values of expressions are those that the
journal tells of, and a node whose event does not come at its turn is one whose expressions were answered later.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

from plait_server.core.definition.graph import DEFAULT_RETRY, DEFAULT_TIMEOUTS, Graph, Node, Subgraph, Task
from plait_server.core.json_text import JsonValue
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptStarted,
    CancelReceipt,
    CancelRequested,
    Event,
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
)
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import (
    AttemptOutcome,
    ExecutionState,
    NodeState,
    PauseMode,
    Reason,
    Treatment,
)
from plait_server.testing.simulation.graphs import WHENS, read_graph
from plait_server.testing.simulation.scope_rows import scope_rows
from plait_server.testing.slow_model import Change, NoValue, ScopeEnd, without_words
from plait_server.testing.slow_model.holding import HeldModel, Lock
from plait_server.testing.slow_model.nodes import ModelNode


class LawBroken(Exception):
    """An event is not what the law wants; the first argument is the sentence, the second what was wrong."""


class Judge:
    """Follows the journal of one execution, event by event.

    Args:
        graph: The execution's.
        events: The whole journal.
        read: Returns the text of a payload.
    """

    def __init__(self, graph: Graph, events: Sequence[Event], read: Callable[[Payload], str]) -> None:
        self._graph = graph
        self._events = events
        self._read = read
        self._told = [event for event in events if _is_told(event)]
        """The events about nodes and scopes: each must be one change of the model, in the same order."""
        first = events[0].detail
        assert isinstance(first, ExecutionSubmitted)
        self.model = HeldModel(
            graph,
            _Told(self),
            self.value_of(first.input),
            is_answered=self._is_answered,
            is_output_made=self._is_output_made,
            is_next=self._is_next,
        )
        self._due: list[Change | ScopeEnd] = []
        """What the last input leads to, and the journal has not told yet."""
        self._attempts: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Judge of {self.model!r}>"

    @property
    def is_caught_up(self) -> bool:
        """Whether the journal has told all that the last input leads to."""
        return not self._due

    def rows(self) -> Counter[str]:
        """Count the rows of the tables that the execution met."""
        rows: Counter[str] = Counter()
        for node in self.model.nodes():
            if node.row is not None:
                rows[f"edges: {node.row.name}"] += 1
            if node.verdict is not None and any(e.target == node.node.id for e in node.scope.graph.edges):
                mode = node.node.join.mode.name if node.node.join is not None else "ALL"
                rows[f"join: {mode} {node.verdict.reason or 'RUN'}"] += 1
        for scope in self.model.scopes.values():
            rows.update(f"failure: {kept.treatment.name}" for kept in scope.failures)
        rows.update(scope_rows(self.model))
        return rows

    def follow(self, event: Event) -> None:
        """Take the next event.

        Raises:
            LawBroken: the law wants another.
        """
        if event.node_path and event.node_state is not None:
            self._follow_node(event, event.node_state)
            return
        match event.detail:
            case ScopeEnded() as detail:
                self._follow_end_of_scope(event, detail)
                return
            case CancelReceipt() as detail:
                if detail.stage.is_final:
                    self.model.exit_attempt(event.node_path)
                return
            case ExecutionStarted():
                follow = self.model.start
            case CancelRequested():
                follow = self.model.cancel
            case PauseRequested(mode=mode):
                follow = partial(self.model.pause, aborts=mode is PauseMode.ABORT)
            case ExecutionPaused():
                self._check_paused()
                follow = list
            case ExecutionResumed():
                follow = self.model.resume
            case ExecutionUpdated(policy=policy, locks=locks):
                follow = partial(self.model.update, policy, [self._lock_of(lock) for lock in locks])
            case ExecutionEnded() if event.execution_state is ExecutionState.TIMED_OUT:
                follow = self.model.time_out_execution
            case _:
                follow = list
        if self._due:
            raise LawBroken("J5", f"{_shown(self._due[0])} is due before {type(event.detail).__name__}")
        self._due = follow()
        if isinstance(event.detail, ExecutionEnded):
            self._check_end(event, event.detail)

    def _check_paused(self) -> None:
        """C2: running nodes finish, or are aborted, before the execution is PAUSED."""
        running = [
            node.path
            for node in self.model.nodes()
            if node.state is NodeState.RUNNING and isinstance(node.node.kind, Task)
        ]
        if running or not self.model.is_held:
            raise LawBroken("C2", f"it is PAUSED, and {running} run")

    def _lock_of(self, lock: NodeLock) -> Lock:
        return Lock(
            lock.node_path, lock.is_locked, self._read(lock.output) if lock.output is not None else None
        )

    # Nodes.

    def _follow_node(self, event: Event, state: NodeState) -> None:
        treatment = Treatment.NONE
        if isinstance(event.detail, AttemptEnded | NodeEnded):
            treatment = event.detail.treatment
        got = Change(event.node_path, state, event.reason, treatment)
        self._count_attempts(event)
        if not self._due:
            self._due = self._led_to_by(event, state)
        if not self._due:
            raise LawBroken("S2.2", f"{_shown(got)}, and nothing says why")
        wanted = self._due.pop(0)
        if isinstance(wanted, ScopeEnd):
            raise LawBroken("J5, N4", f"{_shown(got)}, and the law says {_shown(wanted)}")
        if state is NodeState.QUEUED:  # A1: its reason is the allocator's.
            got, wanted = got._replace(reason=""), wanted._replace(reason="")
        if got != wanted:
            raise LawBroken("J5", f"{_shown(got)}, and the law says {_shown(wanted)}")
        if state is NodeState.SUCCEEDED and isinstance(event.detail, AttemptEnded | NodeEnded):
            output = self.model.node(event.node_path).output
            if without_words(self.value_of(event.detail.output)) != without_words(output):
                raise LawBroken("J2", f"the output of {event.node_path} is not {json.dumps(output)}")

    def _follow_end_of_scope(self, event: Event, detail: ScopeEnded) -> None:
        model, path = self.model, detail.scope_path
        if not self._due and detail.state is ExecutionState.TIMED_OUT:
            node = self._known(event)
            timeouts = node.node.timeouts or DEFAULT_TIMEOUTS
            if node.inner is None or not (node.inner.graph.policy.timeout_s or timeouts.node_s):
                raise LawBroken("T5", f"the scope {path} has no timeout, and timed out")
            self._due = model.time_out_node(path)
        elif not self._due:
            self._due = model.go_on()  # Its output was made late.
        wanted = self._due.pop(0) if self._due else None
        if not isinstance(wanted, ScopeEnd):
            raise LawBroken(
                "N4", f"the scope {path} ends, and the law says {_shown(wanted) if wanted else 'nothing'}"
            )
        failure = wanted.outcome.failure
        right = wanted.scope_path, wanted.outcome.state, failure and (failure.node_path, failure.code)
        named = detail.failure and (detail.failure.node_path, detail.failure.code)
        if (path, detail.state, named) != right:
            raise LawBroken(
                "E5, E6", f"the scope {path} ends {detail.state.name} naming {named}, not {right}"
            )

    def _known(self, event: Event) -> ModelNode:
        """Return what the model knows of the node that an event is about."""
        try:
            return self.model.node(event.node_path)
        except KeyError:
            raise LawBroken("N2", f"{event.node_path} is of no scope that there is") from None

    def _led_to_by(self, event: Event, state: NodeState) -> list[Change | ScopeEnd]:
        """Pass to the model what came from outside, as an event shows it."""
        model, path = self.model, event.node_path
        node = self._known(event)
        if (state, event.reason) == (NodeState.CANCELLED, Reason.QUEUE_TIMEOUT):
            return model.time_out_execution()
        if (state, event.reason) == (NodeState.CANCELLED, Reason.EXECUTION_TIMEOUT):
            if not model.root.graph.policy.timeout_s:
                raise LawBroken("T5", "an execution without a timeout timed out")
            return model.time_out_execution()
        match event.detail:
            case AttemptStarted():
                return self._started(event)
            case AttemptEnded() as detail:
                return self._ended_attempt(event, detail, state)
            case NodeEnded() if state is NodeState.TIMED_OUT:
                _check_timeout(event, node)
                return model.time_out_node(path)
            case NodeEnded() if node.state is NodeState.WAITING:
                return model.end_delay(path)
            case NodeEnded() | NodeWaiting() | ScopeOpened():
                return model.answer(path)
            case _:
                return []

    def _count_attempts(self, event: Event) -> None:
        """R3, A4: attempts are numbered without gaps, one at a time, and each ends once."""
        node_id, node = event.node_path, self._known(event)
        is_running = node.state is NodeState.RUNNING and isinstance(node.node.kind, Task)
        match event.detail:
            case AttemptStarted():
                self._attempts[node_id] += 1
                if event.attempt != self._attempts[node_id]:
                    raise LawBroken("R3", f"attempt {event.attempt} of {node_id} is not the next one")
            case AttemptEnded():
                if event.attempt != self._attempts[node_id]:
                    raise LawBroken("A4", f"attempt {event.attempt} of {node_id} is not the current one")
            case NodeEnded() | NodeWaiting() | NodeIdled():
                if is_running and not self._due:
                    raise LawBroken("A4", f"{node_id} leaves RUNNING, and its attempt does not end")
            case _:
                pass

    def _started(self, event: Event) -> list[Change | ScopeEnd]:
        model, path = self.model, event.node_path
        if self._known(event).state is NodeState.BACKING_OFF:
            model.end_backoff(path)  # When is not judged: the wall clock of a simulation jumps.
        if path not in model.nodes_to_give_out():
            raise LawBroken("R1, R2, E4, E7", f"{path} starts, and does not wait for an attempt")
        if not model.is_permitted(path):
            raise LawBroken("Q1, N1", f"{path} starts above max_concurrency")
        return model.give_out(path)

    def _ended_attempt(self, event: Event, detail: AttemptEnded, state: NodeState) -> list[Change | ScopeEnd]:
        model, path = self.model, event.node_path
        node = self._known(event).node
        if detail.outcome in (AttemptOutcome.CANCELLED, AttemptOutcome.ABORTED):
            return []  # Only the engine ends attempts so, and the model would have said it.
        if state is NodeState.TIMED_OUT and (node.timeouts or DEFAULT_TIMEOUTS).node_s:
            return model.time_out_node(path)
        output: JsonValue = None
        if detail.outcome is AttemptOutcome.SUCCEEDED:
            output = self.value_of(detail.output) if state is NodeState.SUCCEEDED else _UNKNOWN
        return model.end_attempt(
            path,
            detail.outcome,
            output=output,
            # A timeout that is no failure (T5) has a code all the same.
            failure=detail.failure or Failure(code=event.reason, node_path=path),
            retryable=self._worker_s_word(self._known(event), detail, state),
        )

    def _worker_s_word(self, node: ModelNode, detail: AttemptEnded, state: NodeState) -> bool | None:
        """Return the worker's advice on a retry; a journal keeps only a yes (T1)."""
        if detail.outcome is not AttemptOutcome.FAILED or detail.failure is None:
            return None
        if detail.failure.retryable:
            return True
        is_left = node.attempts_used + 1 < (node.node.retry or DEFAULT_RETRY).max_attempts
        return False if state.is_ended and is_left else None

    # The end.

    def _check_end(self, event: Event, detail: ExecutionEnded) -> None:
        outcome = self.model.outcome
        state = event.execution_state
        if outcome is None or state is None:
            raise LawBroken("E5", f"it ended, and the law says {self.model!r}")
        if state is not outcome.state:
            raise LawBroken("E5", f"it ended {state.name}, and the law says {outcome.state.name}")
        got = detail.failure and (detail.failure.node_path, detail.failure.code)
        wanted = outcome.failure and (outcome.failure.node_path, outcome.failure.code)
        if got != wanted:
            raise LawBroken("E1", f"its failure is {got}, and the law says {wanted}")
        has_output = state in (ExecutionState.SUCCEEDED, ExecutionState.PARTIALLY_SUCCEEDED)
        if has_output != (detail.output is not None):
            raise LawBroken("S2.3", f"it ended {state.name} with the output {detail.output!r}")
        if without_words(self.value_of(detail.output)) != without_words(outcome.output):
            raise LawBroken("S2.3", f"its output is not {json.dumps(outcome.output)}")

    # Looking ahead.

    def value_of(self, payload: Payload | None) -> JsonValue:
        """Return the value of a payload; null if there is none."""
        value: JsonValue = json.loads(self._read(payload)) if payload is not None else None
        return value

    def beginning_of(self, path: str) -> NodeEnded | NodeWaiting | ScopeOpened | None:
        """Return the first event of a node, if it tells that the node ended, waits or opened a scope."""
        for event in self._told:
            if event.node_path == path:
                detail, waited = (
                    event.detail,
                    event.node_state is NodeState.TIMED_OUT,
                )  # It had begun to wait before.
                return (
                    detail
                    if isinstance(detail, NodeEnded | NodeWaiting | ScopeOpened) and not waited
                    else None
                )
        return None

    def end_of_scope(self, path: str) -> ScopeEnded | None:
        """Return how a scope below the execution ended."""
        for event in self._told:
            if isinstance(event.detail, ScopeEnded) and event.detail.scope_path == path:
                return event.detail
        return None

    def end_of_node(self, path: str) -> NodeEnded | None:
        """Return how a node of the engine's own ended."""
        for event in self._told:
            if event.node_path == path and isinstance(event.detail, NodeEnded):
                return event.detail
        return None

    def end(self) -> ExecutionEnded | None:
        """Return how the execution ended."""
        detail = self._events[-1].detail
        return detail if isinstance(detail, ExecutionEnded) else None

    @property
    def _next(self) -> Event | None:
        """The event that tells the next change."""
        count = self.model.change_count
        return self._told[count] if count < len(self._told) else None

    def _is_answered(self, path: str) -> bool:
        """Return whether the next event is the one of a node's beginning."""
        due = self._next
        if (
            due is not None
            and due.node_path == path
            and isinstance(due.detail, NodeEnded | NodeWaiting | ScopeOpened)
        ):
            return due.node_state is not NodeState.CANCELLED
        node = self.model.node(path)
        runs_at_worker = isinstance(node.node.kind, Task) and (node.has_started or not node.node.locked)
        if not runs_at_worker or node.verdict is None or not node.verdict.is_run:
            return False
        # A task that begins has no event, unless its input cannot be rendered.
        first = self.beginning_of(path)
        return not (isinstance(first, NodeEnded) and first.failure is not None)

    def _is_next(self, path: str) -> bool:
        """Return whether the next event is of a node."""
        return self._next is not None and self._next.node_path == path

    def _is_output_made(self, scope_path: str) -> bool:
        """Return whether the next event is the end of a scope: its output is there."""
        due = self._next
        if scope_path:
            detail = due.detail if due is not None and due.node_path == scope_path else None
            return isinstance(detail, ScopeEnded) and detail.state is not ExecutionState.TIMED_OUT
        last_state = self._events[-1].execution_state
        return due is None and last_state not in (ExecutionState.CANCELLED, ExecutionState.TIMED_OUT)


_UNKNOWN: Final[JsonValue] = {"unknown": "the output of a node that failed by a `when` is not kept"}


class _Told:
    """The values of expressions, as far as the journal tells them."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge

    def when(self, source: str, carried: JsonValue) -> JsonValue:
        if carried is _UNKNOWN:
            raise NoValue
        value = WHENS[source](carried)
        if value is None:
            raise NoValue
        return value

    def value(self, path: str, node: Node, given: JsonValue) -> JsonValue:
        match self._judge.beginning_of(path):
            case NodeEnded(output=output) if output is not None:
                return self._judge.value_of(output)
            case _:
                raise NoValue

    def input(self, path: str, node: Node, given: JsonValue) -> JsonValue:
        match self._judge.beginning_of(path):
            case NodeWaiting(input=rendered) | ScopeOpened(input=rendered):
                return self._judge.value_of(rendered)
            case NodeEnded(failure=failure) if failure is not None:
                if isinstance(node.kind, Subgraph) and failure.code != "EXPRESSION":
                    return None  # It failed later, by its graph.
                raise NoValue
            case NodeEnded(output=output):
                return self._judge.value_of(output)
            case None:
                return None

    def output(self, scope_path: str, graph: Graph) -> JsonValue:
        judge = self._judge
        if scope_path:
            ended, node = judge.end_of_scope(scope_path), judge.end_of_node(scope_path)
            if ended is None or ended.state is ExecutionState.FAILED:
                raise NoValue
            payload = node.output if node is not None and node.failure is None else None
            if payload is None:
                return _UNKNOWN
        else:
            end = judge.end()
            if end is None or end.output is None:
                raise NoValue
            payload = end.output
        value = judge.value_of(payload)
        return value["output"] if graph.policy.collect_errors and isinstance(value, dict) else value

    def graph(self, path: str, output: JsonValue) -> Graph:
        graph = read_graph(output)
        if graph is None:
            raise NoValue
        return graph


def _check_timeout(event: Event, node: ModelNode) -> None:
    """T4: what no attempt runs of times out in its backoff by its own timeout, else by that of a wait."""
    timeouts = node.node.timeouts or DEFAULT_TIMEOUTS
    bounds_s = (
        timeouts.queue_s,
        timeouts.worker_s,
        timeouts.node_s if node.state is not NodeState.IDLE else 0.0,
    )
    if not any(bounds_s) and node.inner is None:
        raise LawBroken(
            "T4", f"{event.node_path} was {node.state.name}, has no timeout for that, and timed out"
        )


def _is_told(event: Event) -> bool:
    return bool(event.node_path) and (event.node_state is not None or isinstance(event.detail, ScopeEnded))


def _shown(change: Change | ScopeEnd) -> str:
    if isinstance(change, ScopeEnd):
        return f"the scope {change.scope_path} ends {change.outcome.state.name}"
    treatment = f" {change.treatment.name}" if change.treatment is not Treatment.NONE else ""
    return f"{change.node_path} becomes {change.state.name}/{change.reason}{treatment}"
