"""The trace of an execution as a fold over its events (B2): the spans that each event completes.

Rules
1. A span is a function of the journal. It depends on nothing that a later event of its run changes, so it is the
   same, to the bit, whether it is made live, after a crash, or for an export years later.
2. The spans of an attempt, of its wait in the queue, and of a node are completed when these end. The spans of
   branches, and of nodes that were put back to idle, are completed by the end of their scope's node, or of the run;
   that of the execution by the end of the run.
3. A span encloses its children, even if the wall clock jumped: it starts no later than they do, and ends no earlier.
   It lasts at least 1 ns: Jaeger considers a duration of 0 negative, and extends the span past its parent's end.
4. Every node that ended has a span, even if it was skipped. A node that neither began nor ended has none, and
   neither has a branch none of whose nodes, or branches below, has one.

The tree is execution > branch > node > attempt. Branch 0 is the execution's own span. The wait before an attempt is a
child of the node, if it took 1 ms or more. The nodes of a scope are children of the scope's node, or of a branch that
the scope opened: that node's span stands for the branch that the scope goes on in.
"""

from __future__ import annotations

import enum
from collections.abc import Generator, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

from plait_server.core.definition.branches import MAIN
from plait_server.core.definition.graph import JoinMode, Subgraph, Task
from plait_server.core.run.attempt_record import AttemptRecord
from plait_server.core.run.events import AttemptEnded, Event, ExecutionEnded, NodeEnded
from plait_server.core.run.execution import ROOT_BRANCH, Execution
from plait_server.core.run.failures import DEADLINE_EXCEEDED, WORKER_LOST, Failure
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.states import AttemptOutcome, EdgeState, ExecutionState, NodeState
from plait_server.core.run.times import (
    Bounds,
    CriticalPath,
    attempt_bounds,
    attempts_in,
    bounds_of,
    critical_path_in_slices,
    has_times,
    inside_times_in_slices,
    node_bounds,
    queue_start,
    to_ns,
)
from plait_server.core.run.trace import SpanIds, read_trace_context
from plait_server.core.slices import ITEMS_PER_SLICE

QUEUE_SHOWN_S: Final = 0.001
"""A wait for capacity that is shorter has no span."""
MESSAGE_CHARS_MAX: Final = 1_000
"""Characters of a failure's message in a span; the journal has all of it."""
LINKS_MAX: Final = 128
"""Links of a span; OpenTelemetry's default limit."""
EVENTS_MAX: Final = 128
"""Events of a span, the newest; OpenTelemetry's default limit."""

Attribute: TypeAlias = tuple[str, str | int | float]
Attributes: TypeAlias = tuple[Attribute, ...]


class SpanKind(enum.IntEnum):
    """The kinds of the spans that the server makes. The values are those of OTLP."""

    INTERNAL = 1
    CLIENT = 3
    CONSUMER = 5


class SpanEvent(NamedTuple):
    """Something that happened within a span."""

    name: str
    time_ns: int
    attributes: Attributes


class Trace(NamedTuple):
    """The parts that all spans of one run of an execution share."""

    trace_id: bytes
    flags: int
    tracestate: str
    attributes: Attributes


class Span(NamedTuple):
    """One span, completed."""

    trace: Trace
    span_id: bytes
    parent_id: bytes
    """Empty for an execution whose caller sent no trace context."""
    name: str
    kind: SpanKind
    start_ns: int
    """Nanoseconds since 1970."""
    end_ns: int
    shared: Attributes
    """Attributes that many spans of the trace have in common; they are encoded once."""
    attributes: Attributes
    """The other attributes."""
    events: tuple[SpanEvent, ...] = ()
    links: tuple[bytes, ...] = ()
    """Ids of spans of the same trace."""
    links_dropped: int = 0
    events_dropped: int = 0
    error: str | None = None
    """The error message; None if the span is not an error."""
    has_remote_parent: bool = False


class _Place(NamedTuple):
    """A node, and where its spans are."""

    scope: Scope
    record: NodeRecord
    node_id: bytes
    """The id of its span."""
    branch: int
    branch_path: str


class SpanFold:
    """Makes the spans of executions, event by event. It keeps only what spans of the latest one have in common."""

    def __init__(self) -> None:
        self._latest: _Run | None = None

    def after(
        self, namespace: str, execution: Execution, event: Event, scopes: Mapping[str, Scope]
    ) -> Iterator[Span | None]:
        """Make the spans that an event completes, children before their parents.

        Args:
            namespace: The execution's namespace.
            execution: The execution as it was right after the event, or later in the same run.
            event: One of its events.
            scopes: By path the scope that the event is in, if it is nested, and those that were closed with it, whole.

        Yields:
            Spans; and None now and then, so that the caller can let others run.
        """
        if not isinstance(event.detail, AttemptEnded | NodeEnded | ExecutionEnded):
            return
        latest = self._latest
        if latest is None or latest.execution is not execution or latest.run != event.run:
            latest = self._latest = _Run(namespace, execution, event.run)
        yield from latest.after(event, scopes)


class _Run:
    """Makes the spans of one run of an execution."""

    def __init__(self, namespace: str, execution: Execution, run: int) -> None:
        self.execution = execution
        self.run = run
        self._ids = SpanIds(namespace, execution.execution_id, run)
        context = read_trace_context(execution.traceparent, execution.tracestate)
        assert context is not None  # the server wrote it
        self._trace = Trace(
            bytes.fromhex(context.trace_id),
            context.flags,
            context.tracestate,
            (
                ("plait.namespace", namespace),
                ("plait.execution.id", execution.execution_id),
                ("plait.run", run),
            ),
        )

    def after(self, event: Event, scopes: Mapping[str, Scope]) -> Iterator[Span | None]:
        """Make the spans that an event completes."""
        if not event.node_path:
            yield from self._end()
            return
        scope_path, _, node_id = event.node_path.rpartition("/")
        scope = scopes[scope_path] if scope_path else self.execution.root
        record = scope.find(node_id)
        assert record is not None  # the event is about it
        if isinstance(event.detail, AttemptEnded):
            yield from self._attempt(self._place(record), record.attempts[event.attempt - 1])
        if event.node_state is not None and event.node_state.is_ended:
            closed = scopes.get(event.node_path)
            if closed is not None:
                for each in reversed((closed, *closed.inside())):
                    yield from self._left_over(each)
            yield from self._node(record)

    def _place(self, record: NodeRecord) -> _Place:
        scope = record.scope
        branch = scope.branches.node_branch[record.index]
        return _Place(scope, record, self._ids.node(record.path), branch, scope.branches.path(branch))

    # Attempts.

    def _attempt(self, place: _Place, attempt: AttemptRecord) -> Iterator[Span]:
        outcome = attempt.outcome
        assert outcome is not None  # it has ended
        path, number = place.record.path, attempt.number
        node_type = _type_of(place.record)
        shared: Attributes = ("plait.node.type", node_type), ("plait.attempt.number", number)
        own: Attributes = ("plait.node.path", path), ("plait.branch.id", place.branch_path)
        bounds = attempt_bounds(attempt)
        if attempt.queue_s >= QUEUE_SHOWN_S:
            yield Span(
                self._trace,
                self._ids.queue(path, number),
                place.node_id,
                f"queue {node_type}",
                SpanKind.INTERNAL,
                queue_start(attempt),
                bounds.start,
                shared,
                own,
            )
        is_error = outcome in _FAILED_OUTCOMES
        failure = attempt.failure if is_error else None
        code = _code(failure, _CODES.get(outcome, "")) if is_error else ""
        yield Span(
            self._trace,
            self._ids.attempt(path, number),
            place.node_id,
            f"attempt {node_type}",
            SpanKind.CLIENT,
            bounds.start,
            bounds.end,
            (
                *shared,
                ("plait.attempt.outcome", outcome.name),
                ("plait.worker.id", attempt.worker_id),
                ("plait.worker.instance_id", attempt.worker_instance_id),
                *_error_type(code),
            ),
            (*own, ("plait.queue_s", attempt.queue_s)),
            _exception(failure, bounds.end),
            error=_error(failure, code) if is_error else None,
        )

    # Nodes.

    def _node(self, record: NodeRecord) -> Generator[Span | None, None, None]:
        place = self._place(record)
        scope, branch = place.scope, place.branch
        bounds = yield from self._node_bounds(record)
        node_type = _type_of(record)
        attempts = attempts_in(record, self.run)
        is_error = record.state in _FAILED_STATES
        failure = record.failure if is_error else None
        code = _code(failure, record.reason or record.state.name) if is_error else ""
        links, links_dropped = self._links(scope, record)
        exception = _exception(failure, bounds.end)
        retries = [attempt for attempt in attempts if attempt.retry_time_s]
        retries_dropped = max(0, len(retries) + len(exception) - EVENTS_MAX)
        branch_name = scope.branches.name(branch)
        yield Span(
            self._trace,
            place.node_id,
            self._branch_id(scope, branch),
            f"node {node_type}",
            SpanKind.INTERNAL,
            bounds.start,
            bounds.end,
            (
                ("plait.node.kind", _kind_of(record)),
                ("plait.node.type", node_type),
                ("plait.node.state", record.state.name),
                ("plait.attempt.count", len(attempts)),
                *((("plait.reason", record.reason),) if record.reason else ()),
                *_error_type(code),
            ),
            (
                ("plait.node.id", record.node.id),
                ("plait.node.path", record.path),
                ("plait.branch.id", place.branch_path),
                ("plait.node.level", scope.analysis.levels[record.index]),
                *((("plait.branch.name", branch_name),) if branch_name else ()),
            ),
            (*map(_retry, retries[retries_dropped:]), *exception),
            links,
            links_dropped,
            retries_dropped,
            _error(failure, code) if is_error else None,
        )

    def _links(self, scope: Scope, record: NodeRecord) -> tuple[tuple[bytes, ...], int]:
        """Return the ids of the spans that fed a join, and how many were left out.

        These are the ACTIVE sources: for ANY the winner, for COLLECT the BROKEN ones as well (B2.1).
        """
        if record.total < 2 or record.verdict is None or record.verdict.is_skip:
            return (), 0
        edges: Sequence[int] = record.active_edges
        join = record.node.join
        if join is not None and join.mode is JoinMode.COLLECT:
            states = scope.edge_states
            edges = [
                edge
                for edge in scope.adjacency.incoming[record.index]
                if states[edge] is EdgeState.ACTIVE or states[edge] is EdgeState.BROKEN
            ]
        # Several edges may come from one source.
        sources = list(dict.fromkeys(scope.source(edge).path for edge in edges))
        return tuple(map(self._ids.node, sources[:LINKS_MAX])), max(0, len(sources) - LINKS_MAX)

    # The end of the run.

    def _end(self) -> Iterator[Span | None]:
        execution = self.execution
        whole = bounds_of(to_ns(execution.created_s), to_ns(execution.ended_s))
        for scope in sorted(execution.scopes.values(), key=lambda each: -each.depth):
            main = yield from self._left_over(scope)
            if scope is execution.root and main is not None:
                whole = whole.around(main)
        path = yield from critical_path_in_slices(execution.root, self.run)
        yield self._execution(whole, path)

    def _left_over(self, scope: Scope) -> Generator[Span | None, None, Bounds | None]:
        """Make the spans that no event of a scope completed: of nodes that were put back to idle, and of branches.

        Returns:
            The bounds of what is on the scope's own branch, or below.
        """
        bounds: dict[int, Bounds] = {}
        for count, record in enumerate(scope.records):
            if count % ITEMS_PER_SLICE == ITEMS_PER_SLICE - 1:
                yield None
            if not has_times(record, self.run):
                continue
            if not record.state.is_ended:
                yield from self._node(record)
            branch = scope.branches.node_branch[record.index]
            of_node = yield from self._node_bounds(record)
            bounds[branch] = bounds.get(branch, of_node).around(of_node)
        # Parents have lower numbers than their branches, and may have no nodes with spans of their own.
        for branch in range(max(bounds, default=MAIN), MAIN, -1):
            if branch % ITEMS_PER_SLICE == 0:
                yield None
            parent = scope.branches.parent(branch)
            if parent is not None and branch in bounds:
                bounds[parent] = bounds.get(parent, bounds[branch]).around(bounds[branch])
        for branch, of_branch in bounds.items():
            if branch != MAIN:
                yield self._branch(scope, branch, of_branch)
        return bounds.get(MAIN)

    def _node_bounds(self, record: NodeRecord) -> Generator[None, None, Bounds]:
        inside = None
        if isinstance(record.node.kind, Subgraph):
            inside = yield from inside_times_in_slices(record, self.run)
        started_s = record.scope.started_s or self.execution.started_s
        return node_bounds(record, self.run, started_s, inside)

    def _branch_id(self, scope: Scope, branch: int) -> bytes:
        """Return the id of a branch's span; that of the branch that a scope goes on in is its node's."""
        if branch == MAIN and scope.parent is not None:
            return self._ids.node(scope.parent.path)
        return self._ids.branch(scope.path, branch)

    def _branch(self, scope: Scope, branch: int, bounds: Bounds) -> Span:
        parent = scope.branches.parent(branch)
        name = scope.branches.name(branch)
        return Span(
            self._trace,
            self._ids.branch(scope.path, branch),
            self._branch_id(scope, parent or MAIN),
            "branch",
            SpanKind.INTERNAL,
            bounds.start,
            bounds.end,
            (),
            _without_empty(("plait.branch.id", scope.branches.path(branch)), ("plait.branch.name", name)),
        )

    def _execution(self, bounds: Bounds, path: CriticalPath) -> Span:
        execution = self.execution
        state = execution.state
        assert state is not None  # it has ended
        graph = execution.root.graph
        elapsed_s = execution.ended_s - execution.started_s
        is_error = state in (ExecutionState.FAILED, ExecutionState.TIMED_OUT)
        failure = execution.failure if is_error else None
        code = _code(failure, execution.reason or state.name) if is_error else ""
        return Span(
            self._trace,
            self._ids.execution(),
            bytes.fromhex(execution.parent_span_id),
            "execution",
            SpanKind.CONSUMER,
            bounds.start,
            bounds.end,
            (),
            _without_empty(
                ("plait.graph.name", graph.name),
                ("plait.execution.state", state.name),
                ("plait.reason", execution.reason),
                ("plait.node.count", len(graph.nodes)),
                ("plait.limit", graph.policy.execution_limit),
                ("plait.branch.id", ROOT_BRANCH),
                ("plait.critical_path_s", round(path.length_s, 6)),
                ("plait.node_time_s", round(path.work_s, 6)),
                ("plait.speedup", round(path.work_s / elapsed_s, 3) if elapsed_s > 0 else ""),
                *_error_type(code),
            ),
            _exception(failure, bounds.end),
            error=_error(failure, code) if is_error else None,
            has_remote_parent=bool(execution.parent_span_id),
        )


_FAILED_OUTCOMES: Final = (AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT, AttemptOutcome.LOST)
_FAILED_STATES: Final = (NodeState.FAILED, NodeState.TIMED_OUT)
_CODES: Final = {AttemptOutcome.TIMED_OUT: DEADLINE_EXCEEDED, AttemptOutcome.LOST: WORKER_LOST}
"""The codes of attempts that ended without a failure."""


def _kind_of(record: NodeRecord) -> str:
    return type(record.node.kind).__name__.lower()


def _type_of(record: NodeRecord) -> str:
    kind = record.node.kind
    return kind.type if isinstance(kind, Task) else _kind_of(record)


def _without_empty(*attributes: Attribute) -> Attributes:
    """Return the attributes without those that are empty."""
    return tuple(attribute for attribute in attributes if attribute[1] != "")


def _code(failure: Failure | None, otherwise: str) -> str:
    """Return the code of what went wrong; `otherwise` if there is no failure, as for some timeouts (E1)."""
    return otherwise if failure is None else failure.code


def _error_type(code: str) -> Attributes:
    return (("error.type", code),) if code else ()


def _error(failure: Failure | None, code: str) -> str:
    """Return the message of the status."""
    return code if failure is None else f"{code}: {failure.message}"[:MESSAGE_CHARS_MAX]


def _exception(failure: Failure | None, time_ns: int) -> tuple[SpanEvent, ...]:
    """Return a failure as an event `exception`, by the semantic conventions."""
    if failure is None:
        return ()
    return (SpanEvent("exception", time_ns, _exception_attributes(failure)),)


def _exception_attributes(failure: Failure) -> Attributes:
    return ("exception.type", failure.code), ("exception.message", failure.message[:MESSAGE_CHARS_MAX])


def _retry(attempt: AttemptRecord) -> SpanEvent:
    """Return the event of an attempt that was to be retried."""
    failure = attempt.failure
    delay_s = round(max(0.0, attempt.retry_time_s - attempt.ended_s), 6)
    attributes: Attributes = (("plait.attempt.number", attempt.number), ("plait.retry_delay_s", delay_s))
    if failure is not None:
        attributes += _exception_attributes(failure)
    return SpanEvent("retry", attempt_bounds(attempt).end, attributes)
