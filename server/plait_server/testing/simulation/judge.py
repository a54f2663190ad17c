"""Holds a journal against the slow model, which is told what came from outside and says what must follow.

A journal does not say what was evaluated when. So the judge looks ahead: values of expressions are those that the
journal tells of, and a node whose event does not come at its turn is one whose expressions were answered later.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final

from plait_server.core.definition.graph import DEFAULT_RETRY, DEFAULT_TIMEOUTS, Graph, Node, Task
from plait_server.core.json_text import JsonValue
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptStarted,
    CancelReceipt,
    CancelRequested,
    Event,
    ExecutionEnded,
    ExecutionStarted,
    ExecutionSubmitted,
    NodeEnded,
    NodeIdled,
    NodeWaiting,
)
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import AttemptOutcome, ExecutionState, NodeState, Reason, Treatment
from plait_server.testing.simulation.graphs import WHENS
from plait_server.testing.slow_model import Change, NoValue, SlowModel, without_words


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
        self._told = [event for event in events if event.node_path and event.node_state is not None]
        """The events about nodes: each must be one change of the model, in the same order."""
        first = events[0].detail
        assert isinstance(first, ExecutionSubmitted)
        self.model = SlowModel(graph, _Told(self), self.value_of(first.input), is_answered=self._is_answered)
        self._due: list[Change] = []
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
        for node in self.model.scope.nodes.values():
            if node.row is not None:
                rows[f"edges: {node.row.name}"] += 1
            if node.verdict is not None and any(e.target == node.node.id for e in self._graph.edges):
                mode = node.node.join.mode.name if node.node.join is not None else "ALL"
                rows[f"join: {mode} {node.verdict.reason or 'RUN'}"] += 1
        rows.update(f"failure: {kept.treatment.name}" for kept in self.model.scope.failures)
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
            case CancelReceipt() as detail:
                if detail.stage.is_final:
                    self.model.exit_attempt(event.node_path)
                return
            case ExecutionStarted():
                follow = self.model.start
            case CancelRequested():
                follow = self.model.cancel
            case ExecutionEnded() if event.execution_state is ExecutionState.TIMED_OUT:
                follow = self.model.time_out_execution
            case _:
                follow = list
        if self._due:
            raise LawBroken("J5", f"{_shown(self._due[0])} is due before {type(event.detail).__name__}")
        self._due = follow()
        if isinstance(event.detail, ExecutionEnded):
            self._check_end(event, event.detail)

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
        if state is NodeState.QUEUED:  # A1: its reason is the allocator's.
            got, wanted = got._replace(reason=""), wanted._replace(reason="")
        if got != wanted:
            raise LawBroken("J5", f"{_shown(got)}, and the law says {_shown(wanted)}")
        if state is NodeState.SUCCEEDED and isinstance(event.detail, AttemptEnded | NodeEnded):
            output = self.model.scope.nodes[event.node_path].output
            if without_words(self.value_of(event.detail.output)) != without_words(output):
                raise LawBroken("J2", f"the output of {event.node_path} is not {json.dumps(output)}")

    def _led_to_by(self, event: Event, state: NodeState) -> list[Change]:
        """Tell the model what came from outside, as an event shows it."""
        model, node_id = self.model, event.node_path
        node = model.scope.nodes[node_id]
        if (state, event.reason) == (NodeState.CANCELLED, Reason.EXECUTION_TIMEOUT):
            if not self._graph.policy.timeout_s:
                raise LawBroken("T5", "an execution without a timeout timed out")
            return model.time_out_execution()
        match event.detail:
            case AttemptStarted():
                return self._started(event)
            case AttemptEnded() as detail:
                return self._ended_attempt(event, detail, state)
            case NodeEnded() if state is NodeState.TIMED_OUT:
                return model.time_out_node(node_id)
            case NodeEnded() if node.state is NodeState.WAITING:
                return model.end_delay(node_id)
            case NodeEnded() | NodeWaiting():
                return model.answer(node_id)
            case _:
                return []

    def _count_attempts(self, event: Event) -> None:
        """R3, A4: attempts are numbered without gaps, one at a time, and each ends once."""
        node_id = event.node_path
        is_running = self.model.scope.nodes[node_id].state is NodeState.RUNNING
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

    def _started(self, event: Event) -> list[Change]:
        model, node_id = self.model, event.node_path
        if model.scope.nodes[node_id].state is NodeState.BACKING_OFF:
            model.end_backoff(node_id)  # When is not judged: the wall clock of a simulation jumps.
        if node_id not in model.nodes_to_give_out():
            raise LawBroken("R1, R2, E4", f"{node_id} starts, and does not wait for an attempt")
        if model.next_to_give_out() is None:
            raise LawBroken("Q1", f"{node_id} starts above max_concurrency")
        return model.give_out(node_id)

    def _ended_attempt(self, event: Event, detail: AttemptEnded, state: NodeState) -> list[Change]:
        model, node = self.model, self.model.scope.nodes[event.node_path].node
        if detail.outcome in (AttemptOutcome.CANCELLED, AttemptOutcome.ABORTED):
            return []  # Only the engine ends attempts so, and the model would have said it.
        if state is NodeState.TIMED_OUT and (node.timeouts or DEFAULT_TIMEOUTS).node_s:
            return model.time_out_node(node.id)
        output: JsonValue = None
        if detail.outcome is AttemptOutcome.SUCCEEDED:
            output = self.value_of(detail.output) if state is NodeState.SUCCEEDED else _UNKNOWN
        return model.end_attempt(
            node.id,
            detail.outcome,
            output=output,
            # A timeout that is no failure (T5) has a code all the same.
            failure=detail.failure or Failure(code=event.reason, node_path=node.id),
            retryable=self._worker_s_word(node, detail, state),
        )

    def _worker_s_word(self, node: Node, detail: AttemptEnded, state: NodeState) -> bool | None:
        """Tell what the worker said of a retry; a journal keeps only that it said yes (T1)."""
        if detail.outcome is not AttemptOutcome.FAILED or detail.failure is None:
            return None
        if detail.failure.retryable:
            return True
        used = self.model.scope.nodes[node.id].attempts_used + 1
        is_left = used < (node.retry or DEFAULT_RETRY).max_attempts
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

    def beginning_of(self, node_id: str) -> NodeEnded | NodeWaiting | None:
        """Return the first event of a node, if it tells that the node ended or waits without an attempt."""
        for event in self._told:
            if event.node_path == node_id:
                return event.detail if isinstance(event.detail, NodeEnded | NodeWaiting) else None
        return None

    def end(self) -> ExecutionEnded | None:
        """Return how the execution ended."""
        detail = self._events[-1].detail
        return detail if isinstance(detail, ExecutionEnded) else None

    def _is_answered(self, node_id: str) -> bool:
        """Tell whether the next event is the one of a node's beginning, or the execution's end for its output."""
        count = self.model.change_count
        if not node_id:
            last_state = self._events[-1].execution_state
            is_late = last_state in (ExecutionState.CANCELLED, ExecutionState.TIMED_OUT)
            return count == len(self._told) and not is_late
        if count < len(self._told) and self._told[count].node_path == node_id:
            return True
        node = self.model.scope.nodes[node_id]
        runs_at_worker = isinstance(node.node.kind, Task) and not node.node.locked
        if not runs_at_worker or node.verdict is None or not node.verdict.is_run:
            return False
        # A task that begins has no event, unless its input cannot be rendered.
        first = self.beginning_of(node_id)
        return not (isinstance(first, NodeEnded) and first.failure is not None)


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

    def value(self, node: Node, given: JsonValue) -> JsonValue:
        match self._judge.beginning_of(node.id):
            case NodeEnded(output=output) if output is not None:
                return self._judge.value_of(output)
            case _:
                raise NoValue

    def input(self, node: Node, given: JsonValue) -> JsonValue:
        match self._judge.beginning_of(node.id):
            case NodeWaiting(input=rendered):
                return self._judge.value_of(rendered)
            case NodeEnded(failure=failure) if failure is not None:
                raise NoValue
            case NodeEnded(output=output):
                return self._judge.value_of(output)
            case None:
                return None

    def output(self, graph: Graph) -> JsonValue:
        end = self._judge.end()
        if end is None or end.output is None:
            raise NoValue
        value = self._judge.value_of(end.output)
        return value["output"] if graph.policy.collect_errors and isinstance(value, dict) else value


def _shown(change: Change) -> str:
    treatment = f" {change.treatment.name}" if change.treatment is not Treatment.NONE else ""
    return f"{change.node_id} becomes {change.state.name}/{change.reason}{treatment}"
