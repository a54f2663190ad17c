"""One execution by sentences 4 to 9: what each input from outside leads to, in J5's order.

The model has no timers and no workers: that an attempt ended, a timeout fired or a backoff is over is said from
outside, and so is which node is given out next; `next_to_give_out` tells which should be.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final, assert_never

from plait_server.core.definition.graph import (
    DEFAULT_RETRY,
    Condition,
    Delay,
    Graph,
    JoinMode,
    OnFailure,
    Switch,
    Task,
    Transform,
)
from plait_server.core.json_text import JsonValue, dump_json
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import (
    AttemptOutcome,
    EdgeState,
    ExecutionState,
    NodeState,
    Reason,
    Treatment,
)
from plait_server.testing.slow_model.edges import edge_state, failure_row, failure_value, has_bad_when
from plait_server.testing.slow_model.expressions import Expressions, NoValue
from plait_server.testing.slow_model.joins import causes_of, collected, earliest_break, joined, verdict_of
from plait_server.testing.slow_model.nodes import Change, KeptFailure, ModelNode, Row, Verdict, new_scope
from plait_server.testing.slow_model.outcome import Outcome, finished_outcome, sink_output, stopped_outcome
from plait_server.testing.slow_model.paths import (
    edges_into,
    edges_out_of,
    join_of,
)
from plait_server.testing.slow_model.races import losers
from plait_server.testing.slow_model.starts import held_nodes, is_retried, nodes_to_give_out

_SIBLING_FAILED: Final = (NodeState.IDLE, Reason.SIBLING_FAILED)


class SlowModel:
    """One execution, and what each input from outside does to it.

    Every input returns the changes it leads to, in order. An input that comes too late (of an attempt that is not
    running, of a node that has ended) changes nothing (T6).

    Args:
        graph: A valid graph.
        expressions: Evaluates its expressions.
        execution_input: What nodes without incoming edges take.
        is_answered: Tells whether the expressions of a node that is about to begin are answered at once, by its id;
            where they are not, the others go on, and `answer` says when. The empty id is that of the output.
    """

    def __init__(
        self,
        graph: Graph,
        expressions: Expressions,
        execution_input: JsonValue = None,
        *,
        is_answered: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self.graph = graph
        self.scope = new_scope(graph, execution_input)
        self.state = ExecutionState.QUEUED
        self.outcome: Outcome | None = None
        """How the execution ended; None before."""
        self.change_count = 0
        """Changes so far, those of the input at hand included."""
        self._expressions = expressions
        self._is_answered = is_answered
        self._unresolved: list[str] = []
        """Ended nodes whose edges have not been resolved."""
        self._decisions: list[str] = []
        """Nodes whose join was decided, in the order of the decisions."""
        self._late: list[str] = []
        """Nodes whose turn to begin came, and whose expressions were not answered."""
        self._stopped_by_failure = False
        self._is_timed_out = False
        self._exits_awaited: list[str] = []
        """Nodes whose workers have not told, since the cancel, that they exited (C1)."""
        self._changes: list[Change] = []

    def __repr__(self) -> str:
        ended = sum(node.state.is_ended for node in self.scope.nodes.values())
        return f"<SlowModel {self.state.name}, {ended} of {len(self.scope.nodes)} nodes ended>"

    # Inputs.

    def start(self) -> list[Change]:
        """Start the execution; the nodes without incoming edges start together (R5)."""
        if self.state is ExecutionState.QUEUED:
            self.state = ExecutionState.RUNNING
            for node_id, node in self.scope.nodes.items():
                if not edges_into(self.graph, node_id):
                    node.verdict = Verdict(NodeState.QUEUED)
                    self._decisions.append(node_id)
        return self._settled()

    def give_out(self, node_id: str) -> list[Change]:
        """Start an attempt of a node that waits for one."""
        node = self.scope.nodes[node_id]
        if node.wants_worker and not self.is_closed:
            node.wants_worker = False
            self._change(node, NodeState.RUNNING)
        return self._settled()

    def end_attempt(
        self,
        node_id: str,
        outcome: AttemptOutcome,
        *,
        output: JsonValue = None,
        failure: Failure | None = None,
        retryable: bool | None = None,
    ) -> list[Change]:
        """Take what became of a running attempt: SUCCEEDED, FAILED, TIMED_OUT, LOST or RETURNED.

        Args:
            node_id: The attempt's node.
            outcome: How it ended.
            output: What it gave, if it SUCCEEDED.
            failure: What went wrong, if it FAILED or TIMED_OUT.
            retryable: The worker's own word, which wins over the policy (T1).
        """
        node = self.scope.nodes[node_id]
        if node.state is not NodeState.RUNNING:
            return self._settled()
        policy = node.node.retry or DEFAULT_RETRY
        match outcome:
            case AttemptOutcome.SUCCEEDED:
                node.attempts_used += 1
                self._succeed(node, output)
            case AttemptOutcome.FAILED | AttemptOutcome.TIMED_OUT:
                assert failure is not None
                node.attempts_used += 1
                if is_retried(node.node, node.attempts_used, failure.code, retryable=retryable):
                    self._go_on(node, NodeState.BACKING_OFF, failure.code)
                else:
                    self._fail(node, NodeState[outcome.name], failure)
            case AttemptOutcome.LOST:
                node.attempts_lost += 1
                if node.attempts_lost > policy.max_lost_attempts:  # T2: the next loss.
                    self._fail(node, NodeState.FAILED, failure or Failure(code="POISON", node_path=node_id))
                else:
                    self._go_on(node, NodeState.QUEUED)
            case AttemptOutcome.RETURNED:
                self._go_on(node, NodeState.QUEUED)
            case AttemptOutcome.CANCELLED | AttemptOutcome.ABORTED:
                raise ValueError(f"{outcome.name} is the engine's own")
            case _:
                assert_never(outcome)
        return self._settled()

    def end_backoff(self, node_id: str) -> list[Change]:
        """Let a node's backoff be over: it waits for its next attempt to be given out."""
        node = self.scope.nodes[node_id]
        if node.state is NodeState.BACKING_OFF:
            node.wants_worker = True
        return self._settled()

    def end_delay(self, node_id: str) -> list[Change]:
        """Let a delay's duration be over: it outputs its input (section 5)."""
        node = self.scope.nodes[node_id]
        if node.state is NodeState.WAITING:
            self._succeed(node, node.input)
        return self._settled()

    def time_out_node(self, node_id: str) -> list[Change]:
        """Let the timeout of a node fire: it counts RUNNING and BACKING_OFF (T4), and is never retried (T5)."""
        node = self.scope.nodes[node_id]
        if node.state in (NodeState.RUNNING, NodeState.BACKING_OFF):
            failure = Failure(code="DEADLINE_EXCEEDED", node_path=node_id)
            self._fail(node, NodeState.TIMED_OUT, failure)
        return self._settled()

    def time_out_execution(self) -> list[Change]:
        """Let the timeout of the execution fire: it is TIMED_OUT at once (T5)."""
        if self.state is ExecutionState.RUNNING:
            self._is_timed_out = True
            self._cancel_all(Reason.EXECUTION_TIMEOUT)
        return self._settled()

    def cancel(self) -> list[Change]:
        """Cancel the execution: every node not ended is CANCELLED at the decision (C1)."""
        if self.state in (ExecutionState.QUEUED, ExecutionState.RUNNING):
            self.state = ExecutionState.CANCELLING
            running = [i for i, node in self.scope.nodes.items() if node.state is NodeState.RUNNING]
            self._exits_awaited = running
            self._cancel_all("")
        return self._settled()

    def exit_attempt(self, node_id: str) -> list[Change]:
        """Take the last receipt of a cancelled attempt: EXITED or ABANDONED (C1)."""
        if node_id in self._exits_awaited:
            self._exits_awaited.remove(node_id)
        return self._settled()

    def answer(self, node_id: str) -> list[Change]:
        """Let a node begin whose expressions were not answered when it was its turn."""
        if node_id in self._late and not self.is_closed:
            self._late.remove(node_id)
            self._begin(self.scope.nodes[node_id])
        return self._settled()

    def pass_time(self, seconds: float) -> None:
        """Let time pass: a node's timeout counts RUNNING and BACKING_OFF, not its waits for a worker (T4)."""
        for node in self.scope.nodes.values():
            is_waiting = node.state is NodeState.BACKING_OFF and not node.wants_worker
            if node.state is NodeState.RUNNING or is_waiting:
                node.clock_s += seconds

    # Questions.

    @property
    def is_closed(self) -> bool:
        """Whether no join is decided and nothing starts any more (E4, C1, T5)."""
        return self._stopped_by_failure or self._is_timed_out or self.state is not ExecutionState.RUNNING

    def nodes_to_give_out(self) -> list[str]:
        """Return the nodes that wait for an attempt to be given out, in the order of R4."""
        return [] if self.is_closed else nodes_to_give_out(self.scope)

    def next_to_give_out(self) -> str | None:
        """Return the node to which the next permit of the execution goes; None if none is free or wanted (Q1)."""
        running = sum(node.state is NodeState.RUNNING for node in self.scope.nodes.values())
        waiting = self.nodes_to_give_out()
        return waiting[0] if waiting and running < self.graph.policy.execution_limit else None

    # J5.

    def _settled(self) -> list[Change]:
        """Work off what the last input leads to, and return the changes."""
        if not self.state.is_ended:
            while self._step():
                pass
            self._finish_if_over()
        changes, self._changes = self._changes, []
        return changes

    def _step(self) -> bool:
        """Carry out the first of these that has something to do; tell whether one had (J5)."""
        return (
            self._resolve_edges()
            or self._end_skipped()
            or self._end_losers()
            or self._sweep()
            or self._begin_one()
        )

    def _resolve_edges(self) -> bool:
        """Resolve an ended node's edges, one by one in graph order, each deciding its join at once."""
        if not self._unresolved:
            return False
        node = self.scope.nodes[self._unresolved.pop(0)]
        for position in edges_out_of(self.graph, node.node.id):
            self.scope.edges[position] = edge_state(node, self.graph.edges[position], self._expressions)
            if not self.is_closed:
                self._decide(self.graph.edges[position].target)
        return True

    def _decide(self, node_id: str) -> None:
        node = self.scope.nodes[node_id]
        if node.verdict is not None or node.state.is_ended:
            return
        incoming = edges_into(self.graph, node_id)
        edges = [self.graph.edges[position] for position in incoming]
        states = [self.scope.edges[position] for position in incoming]
        node.verdict = verdict_of(join_of(self.graph, node_id), edges, states)
        if node.verdict is not None:
            node.active = tuple(each for each in incoming if self.scope.edges[each] is EdgeState.ACTIVE)
            self._decisions.append(node_id)

    def _end_skipped(self) -> bool:
        """End a node whose join says SKIPPED."""
        for node in self._decided():
            if node.verdict is not None and node.verdict.state is NodeState.SKIPPED and not self.is_closed:
                if node.verdict.reason == Reason.UPSTREAM_FAILED:
                    node.broken_by = earliest_break(self.scope, node)
                    self._end(node, NodeState.SKIPPED, node.verdict.reason, Row.UPSTREAM_FAILED)
                else:
                    self._end(node, NodeState.SKIPPED, node.verdict.reason, Row.DROPPED)
                return True
        return False

    def _end_losers(self) -> bool:
        """End the losers, in graph order (J1)."""
        found = losers(self.scope)
        for node_id in found:
            self._end(self.scope.nodes[node_id], NodeState.CANCELLED, Reason.RACE_LOST, Row.DROPPED)
        return bool(found)

    def _sweep(self) -> bool:
        """Put back what is neither ended nor running, under FAIL_FAST what is running too (E4)."""
        if not self._stopped_by_failure:
            return False
        swept = [
            node
            for node in self.scope.nodes.values()
            if not node.state.is_ended
            and (node.state, node.reason) != _SIBLING_FAILED
            and (node.state is not NodeState.RUNNING or self._is_fail_fast)
        ]
        for node in swept:
            self._change(node, *_SIBLING_FAILED)
        return bool(swept)

    def _begin_one(self) -> bool:
        """Let one other node whose join was decided begin, or FAIL with its join, in the order of the decisions."""
        if self.is_closed:
            return False
        held = held_nodes(self.scope)
        for node in self._decided():
            node_id = node.node.id
            is_held = node_id in held and node.verdict is not None and node.verdict.is_run
            if node.has_begun or is_held or node_id in self._late:
                continue
            if self._is_answered(node_id):
                self._begin(node)
            else:
                self._late.append(node_id)
            return True
        return False

    def _decided(self) -> list[ModelNode]:
        """Return the nodes that have not ended and whose join was decided, in the order of the decisions."""
        decided = [self.scope.nodes[node_id] for node_id in self._decisions]
        return [node for node in decided if not node.state.is_ended]

    # Beginning.

    def _begin(self, node: ModelNode) -> None:
        node.has_begun = True
        assert node.verdict is not None
        if not node.verdict.is_run:
            self._fail_with_join(node, node.verdict)
            return
        if node.node.locked:  # C4: a lock replaces the run.
            locked_output = node.node.locked_output
            self._set_output(node, json.loads(locked_output) if locked_output is not None else None)
            self._end(node, NodeState.SKIPPED, Reason.LOCKED, Row.LOCKED)
            return
        try:
            node.input = joined(self.scope, node)
            if node.node.input is not None:
                node.input = self._expressions.input(node.node, node.input)
            match node.node.kind:
                case Task():
                    node.wants_worker = True
                case Delay():
                    self._change(node, NodeState.WAITING)
                case Transform():
                    self._succeed(node, node.input)
                case Condition():
                    value = self._expressions.value(node.node, node.input)
                    self._succeed_or_fail(node, value, is_right=isinstance(value, bool))
                case Switch():
                    value = self._expressions.value(node.node, node.input)
                    self._succeed_or_fail(node, value, is_right=isinstance(value, str))
                case None:
                    raise ValueError("a valid graph's nodes have kinds")
        except NoValue:
            self._fail(node, NodeState.FAILED, Failure(code="EXPRESSION", node_path=node.node.id))

    def _fail_with_join(self, node: ModelNode, verdict: Verdict) -> None:
        """Fail a node with its join; the failures behind its edges are the causes (J3, E1)."""
        is_collect = join_of(self.graph, node.node.id).mode is JoinMode.COLLECT
        failure = Failure(
            code=verdict.reason,
            details=Payload(dump_json(collected(self.scope, node))) if is_collect else None,
            causes=tuple(causes_of(self.scope, node)),
            node_path=node.node.id,
        )
        self._fail(node, NodeState.FAILED, failure)

    # Ending.

    def _succeed(self, node: ModelNode, output: JsonValue) -> None:
        """Let a node SUCCEED, unless a `when` of its edges has no boolean (F2)."""
        if has_bad_when(self.graph, node.node, output, self._expressions):
            self._fail(node, NodeState.FAILED, Failure(code="EXPRESSION", node_path=node.node.id))
            return
        self._set_output(node, output)
        self._end(node, NodeState.SUCCEEDED, "", Row.SUCCEEDED)

    def _succeed_or_fail(self, node: ModelNode, value: JsonValue, *, is_right: bool) -> None:
        if not is_right:
            raise NoValue
        self._succeed(node, value)

    def _fail(self, node: ModelNode, state: NodeState, failure: Failure) -> None:
        """End a node that FAILED or TIMED_OUT by the row that applies to it."""
        row, node.treatment = failure_row(self.graph, node.node, state, failure, self._expressions)
        if row in (Row.TIMED_OUT_CONTINUE, Row.IGNORED):
            self._set_output(node, None)
        if node.treatment is not Treatment.NONE:
            node.failure, node.broken_by = failure, len(self.scope.failures)
            self.scope.failures.append(KeptFailure(failure, node.treatment))
        if node.treatment is Treatment.UNHANDLED and self.graph.policy.on_failure is not OnFailure.CONTINUE:
            self._stopped_by_failure = True  # E4: from that failure on.
        self._end(node, state, failure.code, row)

    def _go_on(self, node: ModelNode, state: NodeState, reason: str = "") -> None:
        """Let a node go on after an attempt that did not end it; not in a stopped scope (E4)."""
        if self.is_closed:
            self._change(node, *_SIBLING_FAILED)
            return
        self._change(node, state, reason)
        node.wants_worker = state is NodeState.QUEUED

    def _end(self, node: ModelNode, state: NodeState, reason: str, row: Row) -> None:
        node.row = row
        self._change(node, state, reason)
        self._unresolved.append(node.node.id)

    def _change(self, node: ModelNode, state: NodeState, reason: str = "") -> None:
        node.state, node.reason = state, reason
        node.wants_worker = False
        self.change_count += 1
        self._changes.append(Change(node.node.id, state, reason, node.treatment))

    def _set_output(self, node: ModelNode, output: JsonValue) -> None:
        node.output, node.has_output = output, True

    # The end of the execution.

    @property
    def _is_fail_fast(self) -> bool:
        return self.graph.policy.on_failure is OnFailure.FAIL_FAST

    def _cancel_all(self, reason: str) -> None:
        for node in self.scope.nodes.values():
            if not node.state.is_ended:
                self._end(node, NodeState.CANCELLED, reason, Row.DROPPED)

    def _finish_if_over(self) -> None:
        states = [node.state for node in self.scope.nodes.values()]
        if self.state is ExecutionState.CANCELLING:
            if not self._exits_awaited:
                self._finish(Outcome(ExecutionState.CANCELLED))
        elif self._is_timed_out:
            self._finish(Outcome(ExecutionState.TIMED_OUT))
        elif self._stopped_by_failure:
            if self._is_fail_fast or NodeState.RUNNING not in states:
                self._finish(stopped_outcome(self.scope))
        elif all(state.is_ended for state in states) and self._is_answered(""):
            self._finish(self._with_output(finished_outcome(self.scope)))

    def _with_output(self, outcome: Outcome) -> Outcome:
        """Make the output of an execution that SUCCEEDED or PARTIALLY_SUCCEEDED (S2.3, E5)."""
        if outcome.state is ExecutionState.FAILED:
            return outcome
        try:
            output = self._expressions.output(self.graph) if self.graph.output else sink_output(self.scope)
        except NoValue:
            return Outcome(ExecutionState.FAILED, Failure(code="EXPRESSION"))
        if self.graph.policy.collect_errors:
            errors = [failure_value(kept.failure) for kept in self.scope.failures]
            output = {"output": output, "errors": errors}
        return outcome._replace(output=output)

    def _finish(self, outcome: Outcome) -> None:
        self.state, self.outcome = outcome.state, outcome
