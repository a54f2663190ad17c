"""One execution by sentences 4 to 10: what each input from outside leads to, in J5's order.

The model has no timers and no workers: that an attempt ended, a timeout fired or a backoff is over is said from
outside, and so is which node is given out next; `next_to_give_out` tells which should be.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import assert_never

from plait_server.core.definition.graph import (
    DEFAULT_RETRY,
    Condition,
    Delay,
    Graph,
    Subgraph,
    Switch,
    Task,
    Transform,
)
from plait_server.core.json_text import JsonValue
from plait_server.core.run.failures import Failure
from plait_server.core.run.states import (
    AttemptOutcome,
    EdgeState,
    ExecutionState,
    NodeState,
    Reason,
)
from plait_server.testing.slow_model.changes import Changes
from plait_server.testing.slow_model.edges import edge_state
from plait_server.testing.slow_model.expressions import Expressions, NoValue
from plait_server.testing.slow_model.joins import earliest_break, failed_join, joined, verdict_of
from plait_server.testing.slow_model.nodes import (
    Change,
    ModelNode,
    ModelScope,
    Outcome,
    Row,
    ScopeEnd,
    Verdict,
    new_scope,
)
from plait_server.testing.slow_model.outcome import finished_outcome, stopped_outcome
from plait_server.testing.slow_model.paths import edges_into, edges_out_of, join_of
from plait_server.testing.slow_model.races import losers
from plait_server.testing.slow_model.scopes import (
    depth,
    inner_first,
    innermost_first,
    is_fail_fast,
    is_over,
    is_running,
    is_stopped,
    is_swept,
    is_within_budget,
    lineage,
    open_scopes,
)
from plait_server.testing.slow_model.starts import held_nodes, is_permitted, is_retried, nodes_to_give_out


class SlowModel:
    """One execution, and what each input from outside does to it.

    Every input returns the changes it leads to, in order. An input that comes too late (of an attempt that is not
    running, of a node that has ended) changes nothing (T6).

    Args:
        graph: A valid graph.
        expressions: Evaluates its expressions.
        execution_input: What nodes without incoming edges take.
        is_answered: Tells whether the expressions of a node that is about to begin are answered at once, by its path;
            where they are not, the others go on, and `answer` says when.
        is_output_made: Tells whether the output of a scope whose nodes have all ended is there, by the scope's path;
            while it is not, the scope does not end.
        is_next: Tells which of equally deep scopes that are over ends next, by path; else the first in graph order.
    """

    def __init__(
        self,
        graph: Graph,
        expressions: Expressions,
        execution_input: JsonValue = None,
        *,
        is_answered: Callable[[str], bool] = lambda _: True,
        is_output_made: Callable[[str], bool] = lambda _: True,
        is_next: Callable[[str], bool] = lambda _: False,
    ) -> None:
        self._branch_counts: dict[str, int] = {}
        """Branch -> how many were opened directly under it: ordinals are never reused (B1, N6)."""
        self.root = new_scope(graph, execution_input, self._branch_counts)
        self.scopes = {"": self.root}
        """All scopes there ever were, by path, in the order in which they opened."""
        self.state = ExecutionState.QUEUED
        self.outcome: Outcome | None = None
        """How the execution ended; None before."""
        self._expressions = expressions
        self._is_answered = is_answered
        self._is_output_made = is_output_made
        self._is_next = is_next
        self._decisions: list[ModelNode] = []
        """Nodes whose join was decided, in the order of the decisions, over all scopes (N4)."""
        self._late: list[ModelNode] = []
        """Nodes whose turn to begin came, and whose expressions were not answered."""
        self._is_timed_out = False
        self._exits_awaited: list[str] = []
        """Nodes whose workers have not exited (C1)."""
        self._changes = Changes(expressions)

    def __repr__(self) -> str:
        return f"<SlowModel {self.state.name}>"

    @property
    def change_count(self) -> int:
        """Changes so far, those of the input at hand included."""
        return self._changes.count

    def nodes(self) -> list[ModelNode]:
        """Return the nodes of all scopes there ever were (N2)."""
        return [node for scope in self.scopes.values() for node in scope.nodes.values()]

    def node(self, path: str) -> ModelNode:
        """Return the node with a path."""
        scope_path, _, node_id = path.rpartition("/")
        return self.scopes[scope_path].nodes[node_id]

    # Inputs.

    def start(self) -> list[Change | ScopeEnd]:
        """Start the execution; the nodes without incoming edges start together (R5)."""
        if self.state is ExecutionState.QUEUED:
            self.state = ExecutionState.RUNNING
            self._decide_sources(self.root)
        return self._settled()

    def give_out(self, path: str) -> list[Change | ScopeEnd]:
        """Start an attempt of a node that waits for one."""
        node = self.node(path)
        if node.wants_worker and not self.is_closed(node.scope):
            self._changes.change(node, NodeState.RUNNING)
        return self._settled()

    def end_attempt(
        self,
        path: str,
        outcome: AttemptOutcome,
        *,
        output: JsonValue = None,
        failure: Failure | None = None,
        retryable: bool | None = None,
    ) -> list[Change | ScopeEnd]:
        """Take what became of a running attempt: SUCCEEDED, FAILED, TIMED_OUT, LOST or RETURNED.

        Args:
            path: Of the attempt's node.
            outcome: How it ended.
            output: What it gave, if it SUCCEEDED.
            failure: What went wrong, if it FAILED or TIMED_OUT.
            retryable: The worker's own word, which wins over the policy (T1).
        """
        node = self.node(path)
        if node.state is not NodeState.RUNNING:
            return self._settled()
        policy = node.node.retry or DEFAULT_RETRY
        match outcome:
            case AttemptOutcome.SUCCEEDED:
                node.attempts_used += 1
                self._changes.succeed(node, output)
            case AttemptOutcome.FAILED | AttemptOutcome.TIMED_OUT:
                assert failure is not None
                node.attempts_used += 1
                if is_retried(node.node, node.attempts_used, failure.code, retryable=retryable):
                    self._go_on(node, NodeState.BACKING_OFF, failure.code)
                else:
                    self._changes.fail(node, NodeState[outcome.name], failure)
            case AttemptOutcome.LOST:
                node.attempts_lost += 1
                if node.attempts_lost > policy.max_lost_attempts:  # T2: the next loss.
                    self._changes.fail(
                        node, NodeState.FAILED, failure or Failure(code="POISON", node_path=path)
                    )
                else:
                    self._go_on(node, NodeState.QUEUED)
            case AttemptOutcome.RETURNED:
                self._go_on(node, NodeState.QUEUED)
            case AttemptOutcome.CANCELLED | AttemptOutcome.ABORTED:
                raise ValueError(f"{outcome.name} is the engine's own")
            case _:
                assert_never(outcome)
        return self._settled()

    def end_backoff(self, path: str) -> list[Change | ScopeEnd]:
        """Let a node's backoff be over: it waits for its next attempt to be given out."""
        node = self.node(path)
        if node.state is NodeState.BACKING_OFF:
            node.wants_worker = True
        return self._settled()

    def end_delay(self, path: str) -> list[Change | ScopeEnd]:
        """Let a delay's duration be over: it outputs its input (section 5)."""
        node = self.node(path)
        if node.state is NodeState.WAITING:
            self._changes.succeed(node, node.input)
        return self._settled()

    def time_out_node(self, path: str) -> list[Change | ScopeEnd]:
        """Let the timeout of a node fire: it counts RUNNING and BACKING_OFF (T4), and is never retried (T5).

        Of a sub-graph node: its own, or that of the graph in it (N1). Of a node that waits: that of its wait.
        """
        node = self.node(path)
        if node.wants_worker or node.state in (NodeState.RUNNING, NodeState.BACKING_OFF):
            if node.inner is not None:
                self._changes.end_scope(node.inner, Outcome(ExecutionState.TIMED_OUT))
                self._changes.cancel_all(node.inner, Reason.EXECUTION_TIMEOUT)
            self._changes.fail(node, NodeState.TIMED_OUT, Failure(code="DEADLINE_EXCEEDED", node_path=path))
        return self._settled()

    def time_out_execution(self) -> list[Change | ScopeEnd]:
        """Let the timeout of the execution (T5), or of its wait to begin (Q3), fire: it is TIMED_OUT at once."""
        if self.state in (ExecutionState.QUEUED, ExecutionState.RUNNING):
            self._is_timed_out = True
            self._changes.time_out(self.root, self.state)
        return self._settled()

    def cancel(self) -> list[Change | ScopeEnd]:
        """Cancel the execution: every node not ended is CANCELLED at the decision (C1)."""
        if self.state in (ExecutionState.QUEUED, ExecutionState.RUNNING):
            self.state = ExecutionState.CANCELLING
            running = [node for node in self.nodes() if node.state is NodeState.RUNNING]
            self._exits_awaited = [node.path for node in running if isinstance(node.node.kind, Task)]
            self._changes.cancel_all(self.root, "")
        return self._settled()

    def exit_attempt(self, path: str) -> list[Change | ScopeEnd]:
        """Take the last receipt of a cancelled attempt: EXITED or ABANDONED (C1)."""
        if path in self._exits_awaited:
            self._exits_awaited.remove(path)
        return self._settled()

    def answer(self, path: str) -> list[Change | ScopeEnd]:
        """Let a node begin whose expressions were not answered at its turn."""
        node = self.node(path)
        if node in self._late and not self.is_closed(node.scope):
            self._late.remove(node)
            self._begin(node)
        return self._settled()

    def go_on(self) -> list[Change | ScopeEnd]:
        """End scopes whose outputs have been made meanwhile."""
        return self._settled()

    def pass_time(self, seconds: float) -> None:
        """Let time pass: a node's timeout counts RUNNING and BACKING_OFF, not its waits for a worker (T4)."""
        for node in self.nodes():
            node.waited_s = node.waited_s + seconds if node.wants_worker else 0.0
            if node.state in (NodeState.RUNNING, NodeState.BACKING_OFF) and not node.wants_worker:
                node.clock_s += seconds

    # Questions.

    def is_closed(self, scope: ModelScope) -> bool:
        """Return whether in a scope no join is decided and nothing starts any more (E4, E7, C1, T5)."""
        is_over = self._is_timed_out or any(each.is_over for each in lineage(scope))
        return is_over or is_stopped(scope) or self.state is not ExecutionState.RUNNING

    def nodes_to_give_out(self) -> list[str]:
        """Return the nodes that wait for an attempt to be given out, in the order of R4."""
        return [] if self.is_closed(self.root) else [node.path for node in nodes_to_give_out(self.root)]

    def next_to_give_out(self) -> str | None:
        """Return the node to which the next permit goes; None if none is free or wanted (Q1)."""
        return next((path for path in self.nodes_to_give_out() if self.is_permitted(path)), None)

    def is_permitted(self, path: str) -> bool:
        """Return whether each scope on the way to a node has a permit left for an attempt (N1, Q1)."""
        return is_permitted(self.root, self.node(path))

    # J5.

    def _settled(self) -> list[Change | ScopeEnd]:
        """Work off what the last input leads to, and return the changes."""
        if not self.state.is_ended:
            while self._step():
                pass
            self._finish_if_over()
        return self._changes.take()

    def _step(self) -> bool:
        """Carry out the first of these that has something to do; tell whether one had (J5)."""
        return (
            self._resolve_edges()
            or self._end_skipped()
            or self._end_losers()
            or self._sweep()
            or self._end_scope_that_is_over()
            or self._begin_one()
        )

    def _resolve_edges(self) -> bool:
        """Resolve an ended node's edges, one by one in graph order, each deciding its join at once."""
        if not self._changes.unresolved:
            return False
        node = self._changes.unresolved.pop(0)
        scope, graph = node.scope, node.scope.graph
        for position in edges_out_of(graph, node.node.id):
            edge = graph.edges[position]
            scope.edges[position] = edge_state(node, edge, self._expressions)
            if not self.is_closed(scope):
                self._decide(scope.nodes[edge.target])
        return True

    def _decide(self, node: ModelNode) -> None:
        if node.verdict is not None or node.state.is_ended:
            return
        scope, incoming = node.scope, edges_into(node.scope.graph, node.node.id)
        edges = [scope.graph.edges[position] for position in incoming]
        states = [scope.edges[position] for position in incoming]
        node.verdict = verdict_of(join_of(scope.graph, node.node.id), edges, states)
        if node.verdict is not None:
            node.active = tuple(each for each in incoming if scope.edges[each] is EdgeState.ACTIVE)
            self._decisions.append(node)

    def _decide_sources(self, scope: ModelScope) -> None:
        """Decide the joins of the nodes without incoming edges, at the end of the order of decisions (R5, N4)."""
        for node_id, node in scope.nodes.items():
            if not edges_into(scope.graph, node_id):
                node.verdict = Verdict(NodeState.QUEUED)
                self._decisions.append(node)

    def _end_skipped(self) -> bool:
        """End a node whose join says SKIPPED."""
        for node in self._decided():
            if node.verdict is not None and node.verdict.state is NodeState.SKIPPED:
                if node.verdict.reason == Reason.UPSTREAM_FAILED:
                    node.broken_by = earliest_break(node.scope, node)
                    self._changes.end(node, NodeState.SKIPPED, node.verdict.reason, Row.UPSTREAM_FAILED)
                else:
                    self._changes.end(node, NodeState.SKIPPED, node.verdict.reason, Row.DROPPED)
                return True
        return False

    def _end_losers(self) -> bool:
        """End the losers, in graph order, with the nodes in them (J1, N4)."""
        for scope in open_scopes(self.root):
            found = losers(scope)
            for node_id in found:
                self._changes.end_from_outside(scope.nodes[node_id], Reason.RACE_LOST)
            if found:
                return True
        return False

    def _sweep(self) -> bool:
        """Put back what is neither ended nor running, what runs too where it is aborted; inner nodes first (E4, E7)."""
        swept = [node for node in inner_first(self.root) if is_swept(node)]
        for node in swept:
            self._changes.put_back(node)
        return bool(swept)

    def _end_scope_that_is_over(self) -> bool:
        """End a scope below the execution, the innermost first, and its node with it (N4, E4, E5, E7)."""
        over = [scope for scope in innermost_first(self.root) if is_over(scope, self._is_output_made)]
        if not over:
            return False
        # N4 does not say which of equally deep ones is first.
        deepest = [scope for scope in over if depth(scope) == depth(over[0])]
        scope = next((each for each in deepest if self._is_next(each.path)), deepest[0])
        assert scope.parent is not None
        if scope.is_stopped:
            self._end_with_node(scope, scope.parent, stopped_outcome(scope))
        elif all(node.state.is_ended for node in scope.nodes.values()):
            outcome = self._changes.with_output(scope, finished_outcome(scope))
            self._end_with_node(scope, scope.parent, outcome)
        else:
            self._changes.put_back(scope.parent)
        return True

    def _begin_one(self) -> bool:
        """Let one other node whose join was decided begin, or FAIL with its join, in the order of the decisions."""
        for node in self._decided():
            is_run = node.verdict is not None and node.verdict.is_run
            is_held = is_run and node.node.id in held_nodes(node.scope)
            if node.has_begun or is_held or node in self._late:
                continue
            if self._is_answered(node.path):
                self._begin(node)
            else:
                self._late.append(node)
            return True
        return False

    def _decided(self) -> list[ModelNode]:
        """Return the nodes not ended whose join was decided, in that order, but for those in closed scopes."""
        return [node for node in self._decisions if not (node.state.is_ended or self.is_closed(node.scope))]

    # Beginning.

    def _begin(self, node: ModelNode) -> None:
        node.has_begun = True
        assert node.verdict is not None
        if not node.verdict.is_run:
            failure = failed_join(node.scope, node, node.verdict.reason)
            self._changes.fail(node, NodeState.FAILED, failure)
            return
        if node.node.locked and not node.has_started:  # C4: a lock replaces the run.
            locked_output = node.node.locked_output
            self._changes.set_output(node, json.loads(locked_output) if locked_output is not None else None)
            self._changes.end(node, NodeState.SKIPPED, Reason.LOCKED, Row.LOCKED)
            return
        try:
            node.input = joined(node.scope, node)
            if node.node.input is not None:
                node.input = self._expressions.input(node.path, node.node, node.input)
            match node.node.kind:
                case Task():
                    node.wants_worker = True
                case Delay():
                    self._changes.change(node, NodeState.WAITING)
                case Transform():
                    self._changes.succeed(node, node.input)
                case Condition():
                    self._changes.succeed(node, self._value(node, bool))
                case Switch():
                    self._changes.succeed(node, self._value(node, str))
                case Subgraph(graph=Graph() as graph):
                    self._open(node, graph)
                case Subgraph(output_of=source):
                    self._open_output(node, node.scope.nodes[source])
                case None:
                    raise ValueError("a valid graph's nodes have kinds")
        except NoValue:
            self._changes.fail(node, NodeState.FAILED, Failure(code="EXPRESSION", node_path=node.path))

    def _value(self, node: ModelNode, right: type) -> JsonValue:
        value = self._expressions.value(node.path, node.node, node.input)
        if not isinstance(value, right):
            raise NoValue
        return value

    def _open_output(self, node: ModelNode, source: ModelNode) -> None:
        """Open a scope for the graph that a node's output is (N7)."""
        if not source.has_output:
            raise NoValue  # F3: it is absent.
        try:
            graph = self._expressions.graph(node.path, source.output)
        except NoValue:
            self._changes.fail(node, NodeState.FAILED, Failure(code="INVALID_ARGUMENT", node_path=node.path))
        else:
            self._open(node, graph)

    def _open(self, node: ModelNode, graph: Graph) -> None:
        """Open the scope of a sub-graph node, unless the execution would be too large or too deep (L4, N7)."""
        if not is_within_budget(self.root, node.scope, graph):
            self._changes.fail(node, NodeState.FAILED, Failure(code="BUDGET_EXCEEDED", node_path=node.path))
            return
        node.inner = new_scope(graph, node.input, self._branch_counts, node)
        self.scopes[node.path] = node.inner
        self._changes.change(node, NodeState.RUNNING)
        self._decide_sources(node.inner)

    def _go_on(self, node: ModelNode, state: NodeState, reason: str = "") -> None:
        """Let a node go on after an attempt that did not end it; not in a stopped scope (E4)."""
        if self.is_closed(node.scope):
            self._changes.put_back(node)
        else:
            self._changes.change(node, state, reason)
            node.wants_worker = state is NodeState.QUEUED

    # The end of scopes.

    def _end_with_node(self, scope: ModelScope, node: ModelNode, outcome: Outcome) -> None:
        """End a scope below the execution, and its node, which sees one failure if the scope FAILED (E6)."""
        self._changes.end_scope(scope, outcome)
        if outcome.state is not ExecutionState.FAILED:
            self._changes.succeed(node, outcome.output)
            return
        assert outcome.failure is not None  # E1: what FAILED names one.
        failure = Failure(code=outcome.failure.code, causes=(outcome.failure,), node_path=node.path)
        is_own = outcome.failure.node_path == node.path  # N7: its output cannot be made.
        self._changes.fail(node, NodeState.FAILED, outcome.failure if is_own else failure)

    def _finish_if_over(self) -> None:
        root = self.root
        if self.state is ExecutionState.CANCELLING:
            if not self._exits_awaited:
                self._finish(Outcome(ExecutionState.CANCELLED))
        elif self._is_timed_out:
            self._finish(Outcome(ExecutionState.TIMED_OUT))
        elif root.is_stopped:
            if is_fail_fast(root) or not is_running(root):
                self._finish(stopped_outcome(root))
        elif all(node.state.is_ended for node in root.nodes.values()) and self._is_output_made(""):
            self._finish(self._changes.with_output(root, finished_outcome(root)))

    def _finish(self, outcome: Outcome) -> None:
        self.root.outcome, self.root.is_over = outcome, True
        self.state, self.outcome = outcome.state, outcome
