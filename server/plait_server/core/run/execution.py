"""The durable state of an execution: a fold over its events. `Execution.apply` is the only thing that changes it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from decimal import Decimal

from plait_server.core.definition.graph import Analysis, Graph
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
    UsageReported,
)
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import NULL, Payload
from plait_server.core.run.scope import NodeRecord, Scope, open_scope_in_slices
from plait_server.core.run.scope_index import ScopeIndex
from plait_server.core.run.states import (
    CancelStage,
    ExecutionState,
    NodeState,
    Treatment,
    check_execution_transition,
)
from plait_server.core.run.usage import add_usage, take_usage
from plait_server.core.slices import finish
from plait_server.errors import InvariantViolated

ROOT_BRANCH = "0"


class Execution:
    """The state of one execution: the root scope, those below it, and what is said of the whole."""

    def __init__(
        self,
        graph: Graph,
        analysis: Analysis,
        root: Scope | None = None,
        records: dict[str, NodeRecord] | None = None,
    ) -> None:
        """Make an execution to which nothing has happened.

        Args:
            graph: A valid graph.
            analysis: Its analysis.
            root: Its scope, if it was opened already.
            records: The scope's records by path, if they were put together already; it is kept.
        """
        self.root = root or finish(open_scope_in_slices(graph, analysis))
        self.scopes: dict[str, Scope] = {"": self.root}
        """By scope path; the root's is empty. Loops and sub-graphs add theirs."""
        self._records = records or {record.path: record for record in self.root.records}
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
        self.receipts: dict[tuple[str, int], CancelStage] = {}
        """(node path, attempt) -> how far its cancel has come (C1)."""
        self.open_receipts = 0
        """Cancels of which a further receipt follows."""
        self.usage: dict[str, Decimal] = {}
        self.scope_index = ScopeIndex()

    def __repr__(self) -> str:
        state = self.state.name if self.state is not None else "NEW"
        total = len(self._records)
        ended = total - sum(scope.open_count for scope in self.scopes.values())
        running = sum(scope.running_count for scope in self.scopes.values())
        return f"<Execution {self.execution_id} {state} {ended}/{total} nodes, {running} in flight>"

    @property
    def is_ended(self) -> bool:
        """Whether the run is over."""
        return self.state is not None and self.state.is_ended

    @property
    def is_cancelling(self) -> bool:
        """Whether a cancel waits for its receipts."""
        return self.state is ExecutionState.CANCELLING

    @property
    def has_timed_out(self) -> bool:
        """Whether the end of its nodes by its own timeout has begun (T5)."""
        return self.root.is_closed and self.root.stopped_by is Treatment.NONE and not self.is_cancelling

    def find(self, node_path: str) -> NodeRecord | None:
        """Find a node by its path; None if there is none."""
        return self._records.get(node_path)

    def record(self, node_path: str) -> NodeRecord:
        """Return the node of a path that an event or command names.

        Raises:
            InvariantViolated: there is none; a bug.
        """
        record = self._records.get(node_path)
        if record is None:
            message = f"no node has the path {node_path!r}; please report this"
            raise InvariantViolated(message)
        return record

    def scope_of(self, node_path: str) -> Scope:
        """Return the scope that a node belongs to."""
        return self.scopes[node_path.rpartition("/")[0]]

    def apply(self, event: Event) -> None:
        """Fold one event into the state.

        Raises:
            InvariantViolated: it does not follow the newest one, or the table of transitions lacks it.
        """
        if event.sequence != self.sequence + 1:
            message = f"event {event.sequence} follows {self.sequence}; please report this"
            raise InvariantViolated(message)
        self.sequence = event.sequence
        self.scope_index.apply(event)
        if event.node_path:
            self._apply_to_node(event)
        else:
            self._apply_to_execution(event)

    def digest(self) -> str:
        """Return a hash of the whole durable state; equal for live and replayed state after every event (A1)."""
        whole = hashlib.sha256()
        for part in (
            self.state,
            self.reason,
            self.run,
            self.sequence,
            self.input,
            self.output,
            self.failure,
            self.failure_count,
            self.created_s,
            self.started_s,
            self.ended_s,
            sorted(self.receipts.items()),
            sorted(self.usage.items()),
        ):
            whole.update(repr(part).encode())
        for scope in self.scopes.values():
            whole.update(repr((scope.path, scope.edge_states, scope.failures, scope.treatments)).encode())
            for record in scope.records:
                whole.update(_fingerprint(record).encode())
        return whole.hexdigest()

    def _apply_to_node(self, event: Event) -> None:
        record = self.record(event.node_path)
        record.sequence = event.sequence
        scope = self.scope_of(event.node_path)
        detail = event.detail
        match detail:
            case AttemptStarted():
                scope.apply_started(record, event.time_s, event.run, detail)
            case AttemptEnded():
                state = _node_state(event)
                scope.apply_attempt_ended(record, state, event.reason, event.time_s, detail)
                add_usage(self.usage, detail.usage)
            case NodeEnded():
                scope.apply_ended(record, _node_state(event), event.reason, event.time_s, detail)
            case NodeWaiting():
                scope.apply_waiting(record, event.time_s, detail)
            case NodeIdled():
                scope.apply_idled(record, event.reason, event.time_s)
            case UsageReported():
                attempt = record.attempts[event.attempt - 1]
                take_usage(self.usage, attempt.usage)
                add_usage(self.usage, detail.usage)
                attempt.usage = detail.usage
            case CancelReceipt():
                key = event.node_path, event.attempt
                self.open_receipts += (key not in self.receipts) - detail.stage.is_final
                self.receipts[key] = detail.stage
            case _:
                message = f"event {event.sequence} cannot be about a node; please report this"
                raise InvariantViolated(message)

    def _apply_to_execution(self, event: Event) -> None:
        after = event.execution_state
        if after is None:
            message = f"event {event.sequence} is about nothing; please report this"
            raise InvariantViolated(message)
        if self.state is not None:
            check_execution_transition(self.state, after)
        self.state = after
        self.reason = event.reason
        match event.detail:
            case ExecutionSubmitted() as detail:
                self.execution_id = detail.execution_id
                self.graph_digest = detail.graph_digest
                self.labels = detail.labels
                self.input = detail.input
                self.traceparent = detail.traceparent
                self.parent_span_id = detail.parent_span_id
                self.tracestate = detail.tracestate
                self.created_s = event.time_s
            case ExecutionStarted():
                self.started_s = event.time_s
                self.root.open_sources()
            case CancelRequested():
                for scope in self.scopes.values():
                    scope.close()
            case ExecutionEnded() as detail:
                self.ended_s = event.time_s
                self.output = detail.output
                self.failure = detail.failure
                self.failure_count = detail.failure_count
                for scope in self.scopes.values():
                    scope.close()
            case _:
                message = f"event {event.sequence} must name a node; please report this"
                raise InvariantViolated(message)


def _node_state(event: Event) -> NodeState:
    if event.node_state is None:
        message = f"event {event.sequence} names no node state; please report this"
        raise InvariantViolated(message)
    return event.node_state


def _fingerprint(record: NodeRecord) -> str:
    attempts = [
        (
            attempt.number,
            attempt.run,
            attempt.worker_id,
            attempt.worker_instance_id,
            attempt.outcome,
            attempt.started_s,
            attempt.ended_s,
            attempt.queue_s,
            attempt.retry_time_s,
            attempt.failure,
            sorted(attempt.usage.items()),
        )
        for attempt in record.attempts
    ]
    return repr(
        (
            record.path,
            record.state,
            record.reason,
            record.verdict,
            record.active,
            record.active_error,
            record.dead,
            record.broken,
            record.wanted,
            record.active_edges,
            record.used,
            record.lost,
            record.input,
            record.output,
            record.failure,
            record.treatment,
            record.origin,
            record.started_s,
            record.ended_s,
            record.idled_s,
            record.due_s,
            attempts,
        ),
    )
