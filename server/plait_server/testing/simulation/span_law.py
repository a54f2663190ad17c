"""The spans that an execution must have, by its events and by SEMANTICS (B1, B2, B2.1).

This shares no code with the making of spans: each expectation is written from the sentences. Joins and branches are the
slow model's. Only the ids are the server's, since they tell which span is compared with which.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple, TypeAlias

from opentelemetry.proto.trace.v1 import trace_pb2

from plait_server.core.definition.graph import (
    Condition,
    Delay,
    Graph,
    JoinMode,
    Node,
    Subgraph,
    Switch,
    Task,
    Transform,
)
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptStarted,
    Event,
    ExecutionEnded,
    ExecutionStarted,
    NodeEnded,
    NodeIdled,
    NodeWaiting,
    ScopeOpened,
)
from plait_server.core.run.failures import Failure
from plait_server.core.run.states import AttemptOutcome, EdgeState, ExecutionState, NodeState, Reason
from plait_server.core.run.trace import SpanIds
from plait_server.testing.simulation.callers import Caller
from plait_server.testing.simulation.span_nodes import SeenAttempt, SeenNode, after, to_ns
from plait_server.testing.simulation.store import NAMESPACE
from plait_server.testing.slow_model import SlowModel
from plait_server.testing.slow_model.nodes import ModelScope
from plait_server.testing.slow_model.paths import edges_into, join_of, levels

Pb = trace_pb2.Span
Value: TypeAlias = str | int | float

PATH_PARTS_MAX: Final = 8
_ERRORS: Final = ("FAILED", "TIMED_OUT", "LOST")
_CODES: Final = {AttemptOutcome.TIMED_OUT: "DEADLINE_EXCEEDED", AttemptOutcome.LOST: "WORKER_LOST"}
"""The codes of attempts that ended without a failure (S2.1)."""


class ExpectedSpan(NamedTuple):
    """A span as SEMANTICS demands it."""

    label: str
    """Names the span in a failure of the simulation."""
    sequence: int
    """The sequence of the event that completes it."""
    name: str
    kind: Pb.SpanKind.ValueType
    parent: bytes
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Value]
    """The attributes besides those that all spans have; empty ones are left out."""
    links: frozenset[bytes] | None = frozenset()
    """None if SEMANTICS does not determine them."""
    code: str = ""
    """The error's code; empty if the span is not an error."""
    failure: Failure | None = None
    retries: tuple[int, ...] = ()
    """Numbers of the attempts that were followed by a backoff."""


class SpanLaw:
    """Follows the journal of one execution, and derives the spans that it must have."""

    def __init__(self, graph: Graph, execution_id: str, caller: Caller) -> None:
        self._graph = graph
        self._execution_id = execution_id
        self._caller = caller
        self._ids = SpanIds(NAMESPACE, execution_id, 1)
        self._nodes: dict[str, SeenNode] = {}
        """By path, those of all scopes."""
        self._scopes: dict[str, ModelScope] = {}
        self._submitted_s = self._started_s = 0.0
        self._end: Event | None = None
        self.rows: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<SpanLaw of {self._execution_id}>"

    # Following.

    def follow(self, event: Event, model: SlowModel) -> None:
        """Take the next event, and the model as it is after that."""
        if event.sequence == 1:
            self._submitted_s = event.time_s
        elif isinstance(event.detail, ExecutionStarted):
            self._started_s = event.time_s
        elif isinstance(event.detail, ExecutionEnded):
            self._end = event
        for scope in model.scopes.values():
            if scope.path not in self._scopes:
                self._see_scope(scope)
        if event.node_path:
            self._follow_node(self._nodes[event.node_path], event)
        for node in self._nodes.values():
            if not node.is_decided:
                self._see_join(node, event.time_s)

    def _see_scope(self, scope: ModelScope) -> None:
        self._scopes[scope.path] = scope
        for known in scope.nodes.values():
            node = self._nodes[known.path] = SeenNode(known)
            if scope.parent is not None:
                self._nodes[scope.parent.path].inside.append(node)

    def _follow_node(self, node: SeenNode, event: Event) -> None:
        match event.detail:
            case AttemptStarted() as detail:
                node.attempts.append(SeenAttempt(event.attempt, event.time_s, detail))
            case AttemptEnded() as detail:
                attempt = node.attempts[event.attempt - 1]
                attempt.ended_s, attempt.end, attempt.sequence = event.time_s, detail, event.sequence
            case NodeWaiting():
                node.waited_since_s = event.time_s
            case ScopeOpened():
                node.opened_s = event.time_s
            case NodeEnded() | NodeIdled():
                pass
            case _:
                return
        assert event.node_state is not None  # each of these says what became of the node
        node.state, node.reason, node.sequence = event.node_state, event.reason, event.sequence
        node.left_s = event.time_s
        if node.state.is_ended and isinstance(event.detail, AttemptEnded | NodeEnded):
            node.failure = event.detail.failure

    def _see_join(self, node: SeenNode, time_s: float) -> None:
        known, graph = node.known, node.known.scope.graph
        mode = join_of(graph, node.node.id).mode
        takes_all = mode in (JoinMode.ALL, JoinMode.COLLECT)
        deciding = edges_into(graph, node.node.id) if takes_all else known.active
        # The model may be ahead of the events of one instant, which need not become durable together.
        parent = known.scope.parent
        is_opened = parent is None or self._nodes[parent.path].opened_s is not None
        is_told = is_opened and all(self._source(node, edge).state.is_ended for edge in deciding)
        if known.verdict is None or (known.verdict.is_run and not is_told):
            return
        node.is_decided = True
        if known.verdict.is_run:
            node.feeding = known.active
            node.ready_s = time_s
            if mode is JoinMode.QUORUM:
                # One by rate may be decided by a DEAD edge, and the journal does not say by which.
                node.ready_s = max(self._source(node, edge).left_s for edge in known.active)
        incoming = edges_into(graph, node.node.id)
        if len(incoming) > 1 and known.verdict.state is not NodeState.SKIPPED:
            node.links = known.active
            if mode is JoinMode.COLLECT:
                unlinked = (EdgeState.DEAD, EdgeState.UNRESOLVED)
                node.links = tuple(edge for edge in incoming if known.scope.edges[edge] not in unlinked)

    def _source(self, node: SeenNode, edge: int) -> SeenNode:
        scope = node.known.scope
        return self._nodes[scope.nodes[scope.graph.edges[edge].source].path]

    # The spans.

    def spans(self) -> dict[bytes, ExpectedSpan]:
        """Return id -> span, of the whole execution, which has ended."""
        spans: dict[bytes, ExpectedSpan] = {}
        for path, node in self._nodes.items():
            if node.has_span:
                spans.update(self._attempts(path, node))
                spans[self._ids.node(path)] = self._node(path, node)
        for scope in self._scopes.values():
            spans.update(self._branch_spans(scope))
        self._count(spans.values())
        return spans

    @property
    def _last(self) -> int:
        assert self._end is not None  # it was checked that it has ended
        return self._end.sequence

    def _closed_at(self, scope: ModelScope) -> int:
        """Return the event after which nothing more is known of a scope: the end of its node, or of one around that."""
        while scope.parent is not None:
            node = self._nodes[scope.parent.path]
            if node.state.is_ended:
                return node.sequence
            scope = node.known.scope
        return self._last

    def _branch_id(self, scope: ModelScope, branch: str) -> bytes:
        """Return the id of a branch's span; the branch that a scope goes on in is shown by its node (B2.1)."""
        number = scope.tree.opened.index(branch)
        if number or scope.parent is None:
            return self._ids.branch(scope.path, number)
        return self._ids.node(scope.path)

    def _attempts(self, path: str, node: SeenNode) -> Iterator[tuple[bytes, ExpectedSpan]]:
        node_type = _type_of(node.node)
        for attempt in node.attempts:
            assert attempt.end is not None  # it was checked that the execution has ended
            outcome, failure = attempt.end.outcome, attempt.end.failure
            label, start = f"{path} attempt {attempt.number}", attempt.bounds()[0]
            shared: dict[str, Value] = {
                "plait.node.path": path,
                "plait.node.type": node_type,
                "plait.branch.id": shown(node.branch),
                "plait.attempt.number": attempt.number,
            }
            if to_ns(attempt.start.queue_s) >= 1_000_000:
                yield (
                    self._ids.queue(path, attempt.number),
                    ExpectedSpan(
                        label=f"the wait of {label}",
                        sequence=attempt.sequence,
                        name=f"queue {node_type}",
                        kind=Pb.SPAN_KIND_INTERNAL,
                        parent=self._ids.node(path),
                        start_ns=attempt.queue_start(),
                        end_ns=start,
                        attributes=shared,
                    ),
                )
            is_error = outcome.name in _ERRORS
            code = failure.code if failure is not None else _CODES.get(outcome, "")
            yield (
                self._ids.attempt(path, attempt.number),
                ExpectedSpan(
                    label=label,
                    sequence=attempt.sequence,
                    name=f"attempt {node_type}",
                    kind=Pb.SPAN_KIND_CLIENT,
                    parent=self._ids.node(path),
                    start_ns=start,
                    end_ns=attempt.bounds()[1],
                    attributes={
                        **shared,
                        "plait.attempt.outcome": outcome.name,
                        "plait.worker.id": attempt.start.worker_id,
                        "plait.worker.instance_id": attempt.start.worker_instance_id,
                        "plait.queue_s": attempt.start.queue_s,
                        "error.type": code if is_error else "",
                    },
                    code=code if is_error else "",
                    failure=failure if is_error else None,
                ),
            )

    def _node(self, path: str, node: SeenNode) -> ExpectedSpan:
        node_type, branch, scope = _type_of(node.node), node.branch, node.known.scope
        start, end = node.bounds()
        is_error = node.state.name in _ERRORS
        code = node.failure.code if node.failure is not None else node.reason
        return ExpectedSpan(
            label=path,
            sequence=node.sequence if node.state.is_ended else self._closed_at(scope),
            name=f"node {node_type}",
            kind=Pb.SPAN_KIND_INTERNAL,
            parent=self._branch_id(scope, branch),
            start_ns=start,
            end_ns=end,
            attributes={
                "plait.node.id": node.node.id,
                "plait.node.path": path,
                "plait.node.kind": _KINDS[type(node.node.kind)],
                "plait.node.type": node_type,
                "plait.node.level": levels(scope.graph)[node.node.id],
                "plait.branch.id": shown(branch),
                "plait.branch.name": scope.tree.names.get(branch, ""),
                "plait.node.state": node.state.name,
                "plait.reason": node.reason,
                "plait.attempt.count": len(node.attempts),
                "error.type": code if is_error else "",
            },
            links=self._links(node),
            code=code if is_error else "",
            failure=node.failure if is_error else None,
            retries=tuple(attempt.number for attempt in node.attempts if attempt.is_retried),
        )

    def _links(self, node: SeenNode) -> frozenset[bytes] | None:
        if node.state is NodeState.CANCELLED and not node.is_decided:
            return None  # Its join may have been decided in the instant in which it was cancelled.
        return frozenset(self._ids.node(self._source(node, edge).known.path) for edge in node.links)

    def _branch_spans(self, scope: ModelScope) -> Iterator[tuple[bytes, ExpectedSpan]]:
        """Yield the spans of a scope's branches that have nodes with spans, or such branches below.

        The branch that it goes on in is the execution's span, or its node's.
        """
        assert self._end is not None  # it was checked that it has ended
        main = scope.tree.opened[0]
        bounds: dict[str, tuple[int, int]] = {}
        if scope.parent is None:
            start = to_ns(self._submitted_s)
            bounds[main] = (start, after(start, to_ns(self._end.time_s)))
        for known in scope.nodes.values():
            node = self._nodes[known.path]
            if node.has_span:
                branch = node.branch
                while len(branch) >= len(main):
                    start, end = node.bounds()
                    before = bounds.get(branch, (start, end))
                    bounds[branch] = min(start, before[0]), max(end, before[1])
                    branch = branch.rpartition("-")[0]
        for branch, (start, end) in bounds.items():
            if branch == main:
                if scope.parent is None:
                    yield self._ids.execution(), self._execution(start, end, self._end)
                continue
            yield (
                self._branch_id(scope, branch),
                ExpectedSpan(
                    label=f"branch {branch} of {scope.path or 'the execution'}",
                    sequence=self._closed_at(scope),
                    name="branch",
                    kind=Pb.SPAN_KIND_INTERNAL,
                    parent=self._branch_id(scope, branch.rpartition("-")[0]),
                    start_ns=start,
                    end_ns=end,
                    attributes={
                        "plait.branch.id": shown(branch),
                        "plait.branch.name": scope.tree.names.get(branch, ""),
                    },
                ),
            )

    def _execution(self, start_ns: int, end_ns: int, end: Event) -> ExpectedSpan:
        state, detail = end.execution_state, end.detail
        assert state is not None
        assert isinstance(detail, ExecutionEnded)
        is_error = state in (ExecutionState.FAILED, ExecutionState.TIMED_OUT)
        code = detail.failure.code if detail.failure is not None else end.reason
        work_s = math.fsum(node.work_s() for node in self._nodes.values())
        elapsed_s = end.time_s - self._started_s
        return ExpectedSpan(
            label="the execution",
            sequence=end.sequence,
            name="execution",
            kind=Pb.SPAN_KIND_CONSUMER,
            parent=bytes.fromhex(self._caller.span_id),
            start_ns=start_ns,
            end_ns=end_ns,
            attributes={
                "plait.graph.name": self._graph.name,
                "plait.execution.state": state.name,
                "plait.reason": end.reason,
                "plait.node.count": len(self._graph.nodes),
                "plait.limit": self._graph.policy.execution_limit,
                "plait.branch.id": "0",
                "plait.critical_path_s": self._critical_path_s(self._scopes[""]),
                "plait.node_time_s": work_s,
                "plait.speedup": work_s / elapsed_s if elapsed_s > 0 else "",
                "error.type": code if is_error else "",
            },
            code=code if is_error else "",
            failure=detail.failure if is_error else None,
        )

    def _critical_path_s(self, scope: ModelScope) -> float:
        """Return the work on the longest chain of nodes that fed each other; a sub-graph's is that in its scope."""
        ends: dict[str, float] = {}
        level = levels(scope.graph)
        for node_id in sorted(scope.nodes, key=lambda node_id: level[node_id]):
            known = scope.nodes[node_id]
            node = self._nodes[known.path]
            sources = [ends[scope.graph.edges[edge].source] for edge in node.feeding]
            work_s = node.work_s() if known.inner is None else self._critical_path_s(known.inner)
            ends[node_id] = work_s + max(sources, default=0.0)
        return max(ends.values())

    def _count(self, spans: Iterable[ExpectedSpan]) -> None:
        for span in spans:
            self.rows["span: a join that links"] += bool(span.links)
            self.rows["span: a wait for capacity"] += span.name.startswith("queue ")
            self.rows["span: a retry"] += bool(span.retries)
            self.rows["span: a branch"] += span.name == "branch"
            self.rows["span: a branch with a name"] += span.name == "branch" and bool(
                span.attributes["plait.branch.name"]
            )
            self.rows["span: an error"] += bool(span.code)
        for node in self._nodes.values():
            self.rows["span: a loser"] += node.reason == Reason.RACE_LOST
            self.rows["span: a skipped node"] += node.state is NodeState.SKIPPED
            self.rows["span: a node that was put back"] += node.has_span and node.state is NodeState.IDLE
            self.rows["span: a node without a span"] += not node.has_span
        self.rows["span: a caller's trace"] += bool(self._caller.trace_id)
        self.rows["span: an execution that is not sampled"] += not self._caller.is_sampled


def shown(branch: str) -> str:
    """Return the path of a branch for display: past 8 parts the first 4, an ellipsis and the last 3 (B1)."""
    parts = branch.split("-")
    return branch if len(parts) <= PATH_PARTS_MAX else "-".join((*parts[:4], "…", *parts[-3:]))


_KINDS: Final[Mapping[type, str]] = {
    Task: "task",
    Condition: "condition",
    Switch: "switch",
    Transform: "transform",
    Delay: "delay",
    Subgraph: "subgraph",
}


def _type_of(node: Node) -> str:
    return node.kind.type if isinstance(node.kind, Task) else _KINDS[type(node.kind)]
