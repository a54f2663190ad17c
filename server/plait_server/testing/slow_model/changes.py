"""What becomes of nodes and scopes: each change as an event would tell it, with what it means for failures and rows."""

from __future__ import annotations

from plait_server.core.definition.graph import OnFailure
from plait_server.core.json_text import JsonValue
from plait_server.core.run.failures import Failure
from plait_server.core.run.states import ExecutionState, NodeState, Reason, Treatment
from plait_server.testing.slow_model.edges import failure_row, failure_value, has_bad_when
from plait_server.testing.slow_model.expressions import Expressions, NoValue
from plait_server.testing.slow_model.nodes import (
    Change,
    KeptFailure,
    ModelNode,
    ModelScope,
    Outcome,
    Row,
    ScopeEnd,
)
from plait_server.testing.slow_model.outcome import sink_output
from plait_server.testing.slow_model.scopes import is_stopped, is_within


class Changes:
    """Carries out what was decided of nodes and scopes, and keeps what an event would tell of it."""

    def __init__(self, expressions: Expressions) -> None:
        self._expressions = expressions
        self._new: list[Change | ScopeEnd] = []
        self.count = 0
        """Changes so far."""
        self.unresolved: list[ModelNode] = []
        """Ended nodes whose edges have not been resolved."""
        self.failures: list[tuple[ModelScope, Failure]] = []
        """The failures of all scopes, in order (E6)."""

    def __repr__(self) -> str:
        return f"<Changes: {self.count}>"

    def take(self) -> list[Change | ScopeEnd]:
        """Return the changes since the last call, in order."""
        new, self._new = self._new, []
        return new

    def succeed(self, node: ModelNode, output: JsonValue) -> None:
        """Let a node SUCCEED, unless a `when` of its edges has no boolean (F2)."""
        if has_bad_when(node.scope.graph, node.node, output, self._expressions):
            self.fail(node, NodeState.FAILED, Failure(code="EXPRESSION", node_path=node.path))
            return
        self.set_output(node, output)
        self.end(node, NodeState.SUCCEEDED, "", Row.SUCCEEDED)

    def fail(self, node: ModelNode, state: NodeState, failure: Failure) -> None:
        """End a node that FAILED or TIMED_OUT by the row that applies to it."""
        scope = node.scope
        row, node.treatment = failure_row(scope.graph, node.node, state, failure, self._expressions)
        if row in (Row.TIMED_OUT_CONTINUE, Row.IGNORED):
            self.set_output(node, None)
        if node.treatment is not Treatment.NONE:
            node.failure, node.broken_by = failure, len(scope.failures)
            scope.failures.append(KeptFailure(failure, node.treatment))
            self.failures.append((scope, failure))
        if node.treatment is Treatment.UNHANDLED and scope.graph.policy.on_failure is not OnFailure.CONTINUE:
            scope.is_stopped = True  # E4: from that failure on.
        self.end(node, state, failure.code, row)

    def end(self, node: ModelNode, state: NodeState, reason: str, row: Row) -> None:
        """End a node, in a row of section 5."""
        node.row = row
        self.change(node, state, reason)
        self.unresolved.append(node)

    def end_from_outside(self, node: ModelNode, reason: str) -> None:
        """Let a node be CANCELLED, the nodes in it that have not ended first (N4)."""
        if node.inner is not None:
            self.cancel_all(node.inner, reason)
        self.end(node, NodeState.CANCELLED, reason, Row.DROPPED)

    def cancel_all(self, scope: ModelScope, reason: str) -> None:
        """Cancel what has not ended in a scope, which is over then."""
        for node in scope.nodes.values():
            if not node.state.is_ended:
                self.end_from_outside(node, reason)
        scope.is_over = True

    def time_out(self, root: ModelScope, state: ExecutionState) -> None:
        """Cancel what has not ended in an execution that timed out: in its queue (Q3), or after it began (T5)."""
        is_queued = state is ExecutionState.QUEUED
        self.cancel_all(root, Reason.QUEUE_TIMEOUT if is_queued else Reason.EXECUTION_TIMEOUT)

    def put_back(self, node: ModelNode) -> None:
        """Put a node back to IDLE; a scope of it is over, and does not end (E4, E7)."""
        if node.inner is not None:
            node.inner.is_over = True
        self.change(node, NodeState.IDLE, Reason.SIBLING_FAILED)

    def change(self, node: ModelNode, state: NodeState, reason: str = "") -> None:
        """Let a node be in another state."""
        node.state, node.reason = state, reason
        node.wants_worker, node.waited_s = False, 0.0
        self.count += 1
        self._new.append(Change(node.path, state, reason, node.treatment))

    def set_output(self, node: ModelNode, output: JsonValue) -> None:
        """Give a node an output (F3)."""
        node.output, node.has_output = output, True

    def end_scope(self, scope: ModelScope, outcome: Outcome) -> None:
        """End a scope below the execution; its node is ended apart."""
        scope.outcome, scope.is_over = outcome, True
        scope.ended_within_stop = scope.parent is not None and is_stopped(scope.parent.scope)
        self.count += 1
        self._new.append(ScopeEnd(scope.path, outcome))

    def with_output(self, scope: ModelScope, outcome: Outcome) -> Outcome:
        """Make the output of a scope that SUCCEEDED or PARTIALLY_SUCCEEDED (S2.3, E5, E6)."""
        if outcome.state is ExecutionState.FAILED:
            return outcome
        graph = scope.graph
        try:
            output = self._expressions.output(scope.path, graph) if graph.output else sink_output(scope)
        except NoValue:
            return Outcome(ExecutionState.FAILED, Failure(code="EXPRESSION", node_path=scope.path))
        if graph.policy.collect_errors:
            errors = [failure_value(failure) for where, failure in self.failures if is_within(where, scope)]
            output = {"output": output, "errors": errors}
        return outcome._replace(output=output)
