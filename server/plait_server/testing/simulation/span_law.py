"""The spans that an execution must have, by its events and by SEMANTICS (B1, B2, B2.1).

This shares no code with the making of spans: each expectation is written from the sentences. Joins and branches are the
slow model's. Only the ids are the server's, since they tell which span is compared with which.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

from opentelemetry.proto.trace.v1 import trace_pb2

from plait_server.core.definition.graph import (
    Condition,
    Delay,
    Graph,
    JoinMode,
    Node,
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
)
from plait_server.core.run.failures import Failure
from plait_server.core.run.states import AttemptOutcome, EdgeState, ExecutionState, NodeState, Reason
from plait_server.core.run.trace import SpanIds
from plait_server.testing.simulation.callers import Caller
from plait_server.testing.simulation.store import NAMESPACE
from plait_server.testing.slow_model import SlowModel
from plait_server.testing.slow_model.paths import branches, edges_into, join_of, levels

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


@dataclass
class _Attempt:
    number: int
    started_s: float
    start: AttemptStarted
    ended_s: float = 0.0
    end: AttemptEnded | None = None
    sequence: int = 0

    @property
    def is_retried(self) -> bool:
        return self.end is not None and self.end.retry_time_s > 0

    def bounds(self) -> tuple[int, int]:
        """Return its start and end."""
        start = to_ns(self.started_s)
        return start, _after(start, to_ns(self.ended_s))

    def queue_start(self) -> int:
        return to_ns(self.started_s) - to_ns(self.start.queue_s)


@dataclass
class _Node:
    node: Node
    attempts: list[_Attempt] = field(default_factory=list[_Attempt])
    waited_since_s: float | None = None
    """When a delay began to wait."""
    ready_s: float | None = None
    """When its join was decided in its favor."""
    feeding: tuple[int, ...] = ()
    """The edges that fed its join; for ANY the winner's."""
    links: tuple[int, ...] = ()
    """The edges to whose sources it links."""
    is_decided: bool = False
    state: NodeState = NodeState.IDLE
    reason: str = ""
    failure: Failure | None = None
    left_s: float = 0.0
    """When it ended, or was put back to idle."""
    sequence: int = 0

    @property
    def has_span(self) -> bool:
        """Whether it began or ended (B2.1)."""
        return self.state.is_ended or bool(self.attempts) or self.waited_since_s is not None

    def bounds(self) -> tuple[int, int]:
        """Return its start and end: it encloses its attempts and its waits for capacity."""
        end = to_ns(self.left_s)
        if self.attempts:
            ends = [attempt.bounds()[1] for attempt in self.attempts]
            return min(attempt.queue_start() for attempt in self.attempts), max(end, *ends)
        begun_s = self.waited_since_s
        if isinstance(self.node.kind, Task) and self.reason != Reason.LOCKED:
            begun_s = self.ready_s  # It waited for capacity until then.
        start = min(end, to_ns(begun_s)) if begun_s is not None else end
        return start, _after(start, end)

    def work_s(self) -> float:
        """Return how long it worked: attempts and the backoffs between them, or the delay."""
        if self.waited_since_s is not None:
            return max(0.0, self.left_s - self.waited_since_s)
        total_s = math.fsum(max(0.0, attempt.ended_s - attempt.started_s) for attempt in self.attempts)
        for before, after in itertools.pairwise(self.attempts):
            if before.end is not None and before.is_retried:
                total_s += max(0.0, min(before.end.retry_time_s, after.started_s) - before.ended_s)
        return total_s


class SpanLaw:
    """Follows the journal of one execution, and derives the spans that it must have."""

    def __init__(self, graph: Graph, execution_id: str, caller: Caller) -> None:
        self._graph = graph
        self._execution_id = execution_id
        self._caller = caller
        self._ids = SpanIds(NAMESPACE, execution_id, 1)
        self._nodes = {node.id: _Node(node) for node in graph.nodes}
        self._levels = levels(graph)
        self._branches = branches(graph)
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
        if event.node_path:
            self._follow_node(self._nodes[event.node_path], event)
        for node_id, node in self._nodes.items():
            if not node.is_decided:
                self._see_join(node, model, node_id, event.time_s)

    def _follow_node(self, node: _Node, event: Event) -> None:
        match event.detail:
            case AttemptStarted() as detail:
                node.attempts.append(_Attempt(event.attempt, event.time_s, detail))
            case AttemptEnded() as detail:
                attempt = node.attempts[event.attempt - 1]
                attempt.ended_s, attempt.end, attempt.sequence = event.time_s, detail, event.sequence
            case NodeWaiting():
                node.waited_since_s = event.time_s
            case NodeEnded() | NodeIdled():
                pass
            case _:
                return
        assert event.node_state is not None  # each of these says what became of the node
        node.state, node.reason, node.sequence = event.node_state, event.reason, event.sequence
        node.left_s = event.time_s
        if node.state.is_ended and isinstance(event.detail, AttemptEnded | NodeEnded):
            node.failure = event.detail.failure

    def _see_join(self, node: _Node, model: SlowModel, node_id: str, time_s: float) -> None:
        known = model.scope.nodes[node_id]
        if known.verdict is None:
            return
        node.is_decided = True
        mode = join_of(self._graph, node_id).mode
        if known.verdict.is_run:
            node.feeding = known.active
            node.ready_s = time_s
            if mode is JoinMode.QUORUM:
                # One by rate may be decided by a DEAD edge, and the journal does not say by which.
                node.ready_s = max(self._ended_s(edge, time_s) for edge in known.active)
        incoming = edges_into(self._graph, node_id)
        if len(incoming) > 1 and known.verdict.state is not NodeState.SKIPPED:
            node.links = known.active
            if mode is JoinMode.COLLECT:
                unlinked = (EdgeState.DEAD, EdgeState.UNRESOLVED)
                node.links = tuple(edge for edge in incoming if model.scope.edges[edge] not in unlinked)

    def _ended_s(self, edge: int, now_s: float) -> float:
        """Return when an edge's source ended; the model may be ahead of the events of one instant."""
        source = self._nodes[self._graph.edges[edge].source]
        return source.left_s if source.state.is_ended else now_s

    # The spans.

    def spans(self) -> dict[bytes, ExpectedSpan]:
        """Return id -> span, of the whole execution, which has ended."""
        spans: dict[bytes, ExpectedSpan] = {}
        for node_id, node in self._nodes.items():
            if node.has_span:
                spans.update(self._attempts(node_id, node))
                spans[self._ids.node(node_id)] = self._node(node_id, node)
        spans.update(self._branch_spans())
        self._count(spans.values())
        return spans

    @property
    def _last(self) -> int:
        assert self._end is not None  # it was checked that it has ended
        return self._end.sequence

    def _branch_id(self, branch: str) -> bytes:
        return self._ids.branch("", self._branches.opened.index(branch))

    def _attempts(self, node_id: str, node: _Node) -> Iterator[tuple[bytes, ExpectedSpan]]:
        node_type = _type_of(node.node)
        for attempt in node.attempts:
            assert attempt.end is not None  # it was checked that the execution has ended
            outcome, failure = attempt.end.outcome, attempt.end.failure
            label, start = f"{node_id} attempt {attempt.number}", attempt.bounds()[0]
            shared: dict[str, Value] = {
                "plait.node.path": node_id,
                "plait.node.type": node_type,
                "plait.branch.id": shown(self._branches.of_nodes[node_id]),
                "plait.attempt.number": attempt.number,
            }
            if to_ns(attempt.start.queue_s) >= 1_000_000:
                yield (
                    self._ids.queue(node_id, attempt.number),
                    ExpectedSpan(
                        label=f"the wait of {label}",
                        sequence=attempt.sequence,
                        name=f"queue {node_type}",
                        kind=Pb.SPAN_KIND_INTERNAL,
                        parent=self._ids.node(node_id),
                        start_ns=attempt.queue_start(),
                        end_ns=start,
                        attributes=shared,
                    ),
                )
            is_error = outcome.name in _ERRORS
            code = failure.code if failure is not None else _CODES.get(outcome, "")
            yield (
                self._ids.attempt(node_id, attempt.number),
                ExpectedSpan(
                    label=label,
                    sequence=attempt.sequence,
                    name=f"attempt {node_type}",
                    kind=Pb.SPAN_KIND_CLIENT,
                    parent=self._ids.node(node_id),
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

    def _node(self, node_id: str, node: _Node) -> ExpectedSpan:
        node_type, branch = _type_of(node.node), self._branches.of_nodes[node_id]
        start, end = node.bounds()
        is_error = node.state.name in _ERRORS
        code = node.failure.code if node.failure is not None else node.reason
        return ExpectedSpan(
            label=node_id,
            sequence=node.sequence if node.state.is_ended else self._last,
            name=f"node {node_type}",
            kind=Pb.SPAN_KIND_INTERNAL,
            parent=self._branch_id(branch),
            start_ns=start,
            end_ns=end,
            attributes={
                "plait.node.id": node_id,
                "plait.node.path": node_id,
                "plait.node.kind": _KINDS[type(node.node.kind)],
                "plait.node.type": node_type,
                "plait.node.level": self._levels[node_id],
                "plait.branch.id": shown(branch),
                "plait.branch.name": self._branches.names.get(branch, ""),
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

    def _links(self, node: _Node) -> frozenset[bytes] | None:
        if node.state is NodeState.CANCELLED and not node.is_decided:
            return None  # Its join may have been decided in the instant in which it was cancelled.
        return frozenset(self._ids.node(self._graph.edges[edge].source) for edge in node.links)

    def _branch_spans(self) -> Iterator[tuple[bytes, ExpectedSpan]]:
        """Yield the spans of branches that have nodes with spans, or such branches below; branch 0 is the execution."""
        assert self._end is not None  # it was checked that it has ended
        start = to_ns(self._submitted_s)
        bounds = {"0": (start, _after(start, to_ns(self._end.time_s)))}
        for node_id, node in self._nodes.items():
            if node.has_span:
                parts = self._branches.of_nodes[node_id].split("-")
                for count in range(len(parts)):
                    branch = "-".join(parts[: count + 1])
                    start, end = node.bounds()
                    known = bounds.get(branch, (start, end))
                    bounds[branch] = min(start, known[0]), max(end, known[1])
        for branch, (start, end) in bounds.items():
            if branch == "0":
                yield self._ids.execution(), self._execution(start, end, self._end)
                continue
            yield (
                self._branch_id(branch),
                ExpectedSpan(
                    label=f"branch {branch}",
                    sequence=self._last,
                    name="branch",
                    kind=Pb.SPAN_KIND_INTERNAL,
                    parent=self._branch_id(branch.rpartition("-")[0]),
                    start_ns=start,
                    end_ns=end,
                    attributes={
                        "plait.branch.id": shown(branch),
                        "plait.branch.name": self._branches.names.get(branch, ""),
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
                "plait.critical_path_s": self._critical_path_s(),
                "plait.node_time_s": work_s,
                "plait.speedup": work_s / elapsed_s if elapsed_s > 0 else "",
                "error.type": code if is_error else "",
            },
            code=code if is_error else "",
            failure=detail.failure if is_error else None,
        )

    def _critical_path_s(self) -> float:
        """Return the work on the longest chain of nodes that fed each other."""
        ends: dict[str, float] = {}
        for node_id in sorted(self._nodes, key=lambda node_id: self._levels[node_id]):
            node = self._nodes[node_id]
            sources = [ends[self._graph.edges[edge].source] for edge in node.feeding]
            ends[node_id] = node.work_s() + max(sources, default=0.0)
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


def to_ns(time_s: float) -> int:
    """Return a time of an event in ns; events carry microseconds."""
    return round(time_s * 1e6) * 1_000


def _after(start_ns: int, end_ns: int) -> int:
    """Return the end of a span: after its start, even if the clock jumped back."""
    return max(start_ns + 1, end_ns)


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
}


def _type_of(node: Node) -> str:
    return node.kind.type if isinstance(node.kind, Task) else _KINDS[type(node.kind)]
