"""How the scopes inside an execution open and end (L4, E6, E7, N1 to N7)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from plait_server.core.definition.compiled import Definition
from plait_server.core.limits import EXECUTION_NODES_MAX, SCOPES_DEEP_MAX
from plait_server.core.run.commands import (
    FindGraph,
    GraphFound,
    LimitScope,
    MakeOutput,
    OutputMade,
)
from plait_server.core.run.ending import Decider, Ending, Endings
from plait_server.core.run.events import ScopeEnded, ScopeOpened
from plait_server.core.run.failures import BUDGET_EXCEEDED, DEADLINE_EXCEEDED, EXPRESSION, Failure, caused_by
from plait_server.core.run.outcome import conclude
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import ExecutionState, NodeState, Reason, Treatment
from plait_server.core.run.stopping import cancel_open_nodes, put_back
from plait_server.core.run.timers import node_timers, scope_timers

if TYPE_CHECKING:
    from plait_server.core.run.scope import NodeRecord, Scope


class Scopes:
    """The scopes that are opening or ending. This state is not durable; a replay rebuilds it."""

    def __init__(self, machine: Decider, endings: Endings) -> None:
        self._machine = machine
        self._endings = endings
        self._inputs: dict[str, tuple[int, Payload]] = {}
        """Node path -> the ticket of its unanswered FindGraph, and the input of the scope."""
        self._outputs: dict[str, int] = {}
        """Scope path -> the ticket of its unanswered MakeOutput."""

    def __repr__(self) -> str:
        return f"<Scopes {len(self._inputs)} opening, {len(self._outputs)} ending>"

    # Opening.

    def begin(self, record: NodeRecord, given: Payload) -> None:
        """Open the scope of a sub-graph node whose input is ready, or ask for its graph first."""
        definition = record.scope.definition.inner.get(record.index)
        if definition is not None:
            self._open(record, given, definition)
            return
        ticket = self._machine.next_ticket()
        self._inputs[record.path] = ticket, given
        self._machine.ask(FindGraph(record.path, ticket))

    def on_graph_found(self, found: GraphFound) -> None:
        """Handle the answer to FindGraph."""
        ticket, given = self._inputs.get(found.node_path, (0, None))
        if given is None or ticket != found.ticket:
            return
        del self._inputs[found.node_path]
        record = self._machine.execution.record(found.node_path)
        if found.failure is not None:
            self._endings.begin_failure(record, found.failure, None)
        elif found.definition is not None:
            self._machine.execution.definitions[found.graph_digest] = found.definition
            self._open(record, given, found.definition, found.graph_digest, found.analysis_digest)

    def forget(self, record: NodeRecord) -> None:
        """Drop a node's pending question, because something else changes the node."""
        self._inputs.pop(record.path, None)
        scope = record.scope.children.get(record.index)
        if scope is not None:
            self._outputs.pop(scope.path, None)

    def _open(
        self,
        record: NodeRecord,
        given: Payload,
        definition: Definition,
        graph_digest: str = "",
        analysis_digest: str = "",
    ) -> None:
        machine = self._machine
        execution, outer = machine.execution, record.scope
        node_count = len(definition.graph.nodes)
        problem = ""
        if outer.depth >= SCOPES_DEEP_MAX:
            problem = f"graphs may be nested {SCOPES_DEEP_MAX} deep; nest them less"
        elif execution.totals.node_count + node_count > EXECUTION_NODES_MAX:
            problem = f"an execution may have {EXECUTION_NODES_MAX:,} nodes in all; split it"
        if problem:
            failure = Failure(code=BUDGET_EXCEEDED, message=problem, node_path=record.path)
            self._endings.begin_failure(record, failure, None)
            return
        before = outer.branches.opened_under(outer.branches.node_branch[record.index])
        detail = ScopeOpened(record.path, given, node_count, before, graph_digest, analysis_digest)
        machine.emit(detail, record, NodeState.RUNNING)
        scope = execution.scopes[record.path]
        if limit := scope.policy.max_concurrency:
            machine.ask(LimitScope(scope.path, limit))
        for timer in (
            *scope_timers(execution, scope, machine.now_s),
            *node_timers(execution, record, machine.now_s),
        ):
            machine.ask(timer)

    # Ending.

    def end_if_over(self, scope: Scope) -> None:
        """End a nested scope, and its node with it, if nothing more can happen in it (E5, E7, N4)."""
        record = scope.parent
        if record is None or record.state is not NodeState.RUNNING or self._endings.is_out(record):
            return
        if scope.ended_as is ExecutionState.TIMED_OUT:
            return  # `time_out` ends the scope's nodes and then the node that it is in.
        if scope.stopped_by is Treatment.UNHANDLED:
            if not scope.running_count:  # Under FAIL_FAST the sweep has put back what ran.
                self._fail(scope, record, conclude(scope).failure)
        elif not scope.open_count:
            outcome = conclude(scope)
            if outcome.state is ExecutionState.FAILED:
                self._fail(scope, record, outcome.failure)
            else:
                self.ask_output(scope)
        elif scope.is_stopped and not scope.running_count:
            put_back(self._machine, record)

    def ask_output(self, scope: Scope) -> None:
        """Ask for the output of a scope that succeeded, at least partially; once."""
        if scope.path not in self._outputs:
            ticket = self._outputs[scope.path] = self._machine.next_ticket()
            self._machine.ask(MakeOutput(scope.path, ticket))

    def is_answer(self, made: OutputMade) -> bool:
        """Remove the ticket that an answer to MakeOutput has; return whether the answer is still wanted."""
        if self._outputs.get(made.scope_path) != made.ticket:
            return False
        del self._outputs[made.scope_path]
        return True

    def on_output_made(self, made: OutputMade) -> None:
        """Handle the output of a nested scope."""
        scope = self._machine.execution.scopes[made.scope_path]
        record = scope.parent
        assert record is not None  # The machine handles the execution's own output.
        if made.payload is None:
            failure = Failure(code=EXPRESSION, message=made.problem, node_path=record.path)
            ended = ScopeEnded(scope.path, ExecutionState.FAILED, failure)
            self._endings.begin_failure(record, failure, None, ended)
            return
        outcome = conclude(scope)
        ending = Ending(state=NodeState.SUCCEEDED, output=made.payload)
        ending.scope_ended = ScopeEnded(scope.path, outcome.state, outcome.failure)
        self._endings.begin(record, ending)

    def time_out(self, scope: Scope) -> Iterator[None]:
        """End a scope that timed out, a node a step: its nodes first, then the node that it is in (N1, N4)."""
        record = scope.parent
        assert record is not None  # The machine handles the execution's own timeout.
        if scope.ended_as is None:
            self._machine.forget(record)
            self._machine.emit(ScopeEnded(scope.path, ExecutionState.TIMED_OUT), record, None)
        yield from cancel_open_nodes(self._machine, scope, Reason.EXECUTION_TIMEOUT)
        failure = Failure(
            code=DEADLINE_EXCEEDED,
            message="the graph inside took longer than its timeout; raise timeouts.node, or policy.timeout of the "
            "graph, or let it do less",
            node_path=record.path,
        )
        self._endings.begin_timeout(record, None, failure)

    def _fail(self, scope: Scope, record: NodeRecord, summary: Failure | None) -> None:
        """Fail a node with the failure named by its scope's summary (E6)."""
        assert summary is not None  # A scope that FAILED has a failure to name.
        message = f"the graph inside failed: {summary.code} of {summary.node_path or scope.path}"
        failure = Failure(code=summary.code, message=message, node_path=record.path)
        ended = ScopeEnded(scope.path, ExecutionState.FAILED, summary)
        self._endings.begin_failure(record, caused_by(failure, [summary]), None, ended)
