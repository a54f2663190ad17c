"""A scope: one running instance of a graph, with the state of its nodes and edges.

Everything here follows from events: `NodeRecord` and the counters change in `Scope.apply_*` alone, the same live and
on replay, and by events about its own nodes alone, so that a scope that has ended can be read again by itself. Pending
decisions go to the execution's agenda.

Losers are counted, not searched: each node knows how many of its plain edges are still wanted. An edge stops
being wanted once, when its target's join is decided or its target loses, so the work is linear in the edges
over the whole execution.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from plait_server.core.definition.compiled import Definition
from plait_server.core.definition.graph import Edge, Node, OnFailure, OnTimeout
from plait_server.core.run.agenda import Agenda
from plait_server.core.run.attempt_record import AttemptRecord
from plait_server.core.run.commands import Place
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptStarted,
    NodeEnded,
    NodeLock,
    NodeWaiting,
    ScopeEnded,
    ScopeOpened,
)
from plait_server.core.run.failures import Failure
from plait_server.core.run.joins import Verdict
from plait_server.core.run.payload import NULL, Payload
from plait_server.core.run.resolution import resolve_edges
from plait_server.core.run.scope_branches import ScopeBranches
from plait_server.core.run.states import (
    AttemptOutcome,
    EdgeState,
    ExecutionState,
    NodeState,
    Reason,
    Treatment,
    check_node_transition,
)
from plait_server.core.run.totals import Totals
from plait_server.core.slices import Slices, batches

_IN_FLIGHT: Final = (NodeState.RUNNING, NodeState.BACKING_OFF, NodeState.WAITING)
NO_LOCKS: Final[Mapping[str, NodeLock]] = MappingProxyType({})
_USED_UP: Final = (AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT)


class NodeRecord:
    """The state of one node in a scope. Slotted: a graph has up to 100,000."""

    __slots__ = (
        "active",
        "active_edges",
        "active_error",
        "attempts",
        "broken",
        "changed",
        "dead",
        "due_s",
        "ended_s",
        "failure",
        "idled_s",
        "index",
        "input",
        "inside",
        "lost",
        "node",
        "origin",
        "output",
        "path",
        "plain_total",
        "ready_paused_s",
        "ready_s",
        "reason",
        "scope",
        "sequence",
        "started_s",
        "state",
        "total",
        "treatment",
        "turn",
        "used",
        "verdict",
        "wanted",
    )

    def __init__(self, scope: Scope, index: int, node: Node, path: str, total: int, plain_total: int) -> None:
        self.scope = scope
        self.index = index
        self.node = node
        self.path = path
        self.total = total
        """How many incoming edges it has."""
        self.plain_total = plain_total
        """How many outgoing plain edges it has; a sink has 0."""
        self.state = NodeState.IDLE
        self.reason = ""
        self.active = self.active_error = self.dead = self.broken = 0
        self.wanted = plain_total
        self.verdict: Verdict | None = None
        self.active_edges: tuple[int, ...] = ()
        """Positions in the graph of the edges that were ACTIVE when the join was decided, in the order of
        edges (ANY: the one that won)."""
        self.attempts: tuple[AttemptRecord, ...] = ()
        self.used = 0
        """Attempts of this run that used up max_attempts."""
        self.lost = 0
        self.input: Payload | None = None
        self.output: Payload | None = None
        """The output; None if it is absent, as F3 defines."""
        self.failure: Failure | None = None
        self.treatment = Treatment.NONE
        self.origin = -1
        """Position in the scope's failures of the earliest that FAILED or broke the node; -1 if none did."""
        self.started_s = self.ended_s = self.due_s = 0.0
        self.ready_s = 0.0
        """When its join was decided, its backoff is over, or its last attempt was lost or handed back."""
        self.ready_paused_s = 0.0
        """How long the execution had been paused by then, or by the beginning of the backoff."""
        self.idled_s = 0.0
        """When it was put back to IDLE."""
        self.sequence = 0
        """The sequence of its newest event."""
        self.changed = 0
        """The sequence of the newest event that changed anything here, its edges' ends included."""
        self.turn = 0
        """Its number among the decisions, from the join's until the next event of the node; else 0."""
        self.inside = b""
        """The times of the scope that ran in it, packed, once that scope is closed."""

    def __repr__(self) -> str:
        reason = f"/{self.reason}" if self.reason else ""
        return f"<Node {self.path} {self.state.name}{reason} attempt {len(self.attempts)}>"

    @property
    def is_at_worker(self) -> bool:
        """Whether an attempt of it runs; a node with a scope is RUNNING without an attempt."""
        return self.state is NodeState.RUNNING and bool(self.attempts)

    @property
    def place(self) -> Place:
        """Its place in R4's order among the nodes of its scope."""
        return Place(-self.node.priority, -self.scope.definition.analysis.remaining[self.index], self.index)

    @property
    def lock(self) -> NodeLock | None:
        """The lock that an update set or removed, in place of the node's own (C10); None if none did."""
        locks = self.scope.locks
        return locks.get(self.path) if locks else None


class Scope:
    """One running instance of a graph."""

    def __init__(
        self,
        definition: Definition,
        *,
        agenda: Agenda,
        totals: Totals,
        branches: ScopeBranches,
        path: str = "",
        parent: NodeRecord | None = None,
        locks: Mapping[str, NodeLock] = NO_LOCKS,
    ) -> None:
        """Create a scope without its nodes; `fill_in_slices` adds them.

        Args:
            definition: The compiled graph that it runs.
            agenda: The execution's pending decisions.
            totals: The execution's counts.
            branches: Its branches.
            path: Empty for the execution itself; `loop[3]` for an iteration.
            parent: The node that it runs in; None for the execution, or for a scope that is rebuilt by itself.
            locks: The locks set by updates of the execution, by node path.
        """
        self.definition = definition
        self.graph = definition.graph
        self.policy, self.locks = definition.graph.policy, locks
        self.analysis = definition.analysis
        self.adjacency = definition.adjacency
        self.branches = branches
        self.path = path
        self.parent = parent
        outer = parent.scope if parent is not None else None
        self.depth: int = outer.depth + 1 if outer is not None else 0
        self.places_around: tuple[Place, ...] = ()
        """The places of the nodes that the scope is in (N3)."""
        self.limits: tuple[str, ...] = ()
        """The paths of the limiting scopes from the outermost to this one (N1)."""
        if outer is not None and parent is not None:
            self.places_around = (*outer.places_around, parent.place)
            self.limits = (*outer.limits, path) if self.policy.max_concurrency else outer.limits
        self.agenda = agenda
        self._totals = totals
        self.input: Payload = NULL
        self.started_s = 0.0
        """When it was opened; 0 for the root scope, because the execution has its own start."""
        self.first_sequence = self.sequence = 0
        """The sequences of the event that opened it, and of the newest event that changed it or one of its nodes."""
        self.opened: ScopeOpened | None = None
        """What opened it; None for the root scope, and for one that is rebuilt by itself."""
        self.ended_as: ExecutionState | None = None
        """How it ended, from its ScopeEnded on; after a timeout its nodes end next, else the node that it is in."""
        self.failure: Failure | None = None
        """The failure named by its summary."""
        self.children: dict[int, Scope] = {}
        """The unfinished scopes directly inside, by the position of their node."""
        self.held: dict[int, list[tuple[int, NodeRecord]]] = {}
        """Level -> held nodes (R2) with the numbers of their turns; not durable state."""
        self.is_looked_at = self.is_dropped = False
        """Whether it is on the agenda because it may be over; whether its node has ended, so nothing in it matters."""
        self.records: list[NodeRecord] = []
        self.edge_states = [EdgeState.UNRESOLVED] * len(definition.graph.edges)
        self.unwanted = bytearray(len(definition.graph.edges))
        """For each edge, whether it is no longer wanted (J1)."""
        self.failures: list[Failure] = []
        self.treatments: list[Treatment] = []
        """How each failure was treated, in the order of `failures`."""
        self.open_count = len(definition.graph.nodes)
        """How many nodes have not ended."""
        self.running_count = self.in_flight_count = 0
        """How many nodes run; how many run, back off or wait."""
        self.level_open = list(definition.level_sizes)
        self.level = 0
        """The lowest level with a node that has not ended (R2)."""
        self.level_s = self.level_paused_s = 0.0
        """Since when that is so, and how long the execution had been paused by then."""
        self._is_closed = False
        self.stopped_by = Treatment.NONE
        """UNHANDLED once an unhandled failure stopped it (E4)."""
        self.losers: dict[int, None] = {}
        """Nodes whose output is no longer wanted (J1), to be cancelled together, in graph order."""
        totals.node_count += self.open_count
        totals.state_counts[NodeState.IDLE] += self.open_count

    def __repr__(self) -> str:
        ended = len(self.records) - self.open_count
        return f"<Scope {self.path or '/'} {ended}/{len(self.records)} nodes, {self.running_count} running>"

    def fill_in_slices(self) -> Slices[None]:
        """Add the nodes, in slices. Call this once, right after construction."""
        prefix = f"{self.path}/" if self.path else ""
        incoming, plain_totals = self.adjacency.incoming, self.definition.plain_totals
        records = self.records
        for nodes in batches(self.graph.nodes):
            for index, node in enumerate(nodes, len(records)):
                records.append(
                    NodeRecord(self, index, node, prefix + node.id, len(incoming[index]), plain_totals[index])
                )
            yield

    @property
    def is_closed(self) -> bool:
        """Whether it decides no more joins: stopped by a failure, cancelled, timed out, or its node has ended."""
        if self._is_closed:
            return True
        parent = self.parent
        return parent is not None and (parent.scope.is_closed or parent.index in parent.scope.losers)

    @property
    def is_stopped(self) -> bool:
        """Whether an unhandled failure stopped it or an enclosing scope (E4, E7)."""
        if self.stopped_by is Treatment.UNHANDLED:
            return True
        return self.parent is not None and self.parent.scope.is_stopped

    def find(self, node_id: str) -> NodeRecord | None:
        """Return the record of a node of this scope by its id; None if there is none."""
        index = self.adjacency.index.get(node_id)
        return self.records[index] if index is not None else None

    def edge(self, position: int) -> Edge:
        """Return the edge at a position in the graph."""
        return self.graph.edges[position]

    def source(self, edge: int) -> NodeRecord:
        """Return the record of the edge's source node."""
        return self.records[self.adjacency.edge_sources[edge]]

    def inside(self) -> list[Scope]:
        """Return the unfinished scopes inside, at any depth; a scope comes before those inside it."""
        found = list(self.children.values())
        for scope in found:
            found += scope.children.values()
        return found

    def branch(self, index: int) -> str:
        """Return the display path of a node's branch."""
        return self.branches.path(self.branches.node_branch[index])

    def outgoing(self, index: int) -> tuple[Edge, ...]:
        """Return the outgoing edges of a node, in graph order."""
        return tuple(self.graph.edges[edge] for edge in self.adjacency.outgoing[index])

    def in_flight(self) -> list[NodeRecord]:
        """Return the nodes that run, back off or wait, in graph order; quick if there are none."""
        if not self.in_flight_count:
            return []
        return [record for record in self.records if record.state in _IN_FLIGHT]

    # The effects of events.

    def open_sources(self) -> None:
        """Decide the nodes without incoming edges, which start together (R5)."""
        for index in self.definition.sources:
            record = self.records[index]
            record.verdict = Verdict.RUN
            record.changed = self.sequence
            self.agenda.decide(record)

    def close(self) -> None:
        """Let no more joins be decided and no more nodes start."""
        self._is_closed = True
        self.losers.clear()

    def apply_started(self, record: NodeRecord, time_s: float, run: int, detail: AttemptStarted) -> None:
        """Apply the start of an attempt."""
        self._change(record, NodeState.RUNNING, "", time_s)
        if not record.attempts:
            record.started_s = time_s
        record.attempts += (AttemptRecord(len(record.attempts) + 1, run, time_s, detail),)
        if detail.input is not None:
            record.input = detail.input

    def apply_attempt_ended(
        self,
        record: NodeRecord,
        state: NodeState,
        reason: str,
        time_s: float,
        detail: AttemptEnded,
    ) -> None:
        """Apply the end of an attempt; the node goes to `state`."""
        attempt = record.attempts[-1]
        attempt.outcome = detail.outcome
        attempt.ended_s = time_s
        attempt.failure = detail.failure
        attempt.usage = detail.usage
        attempt.heartbeat_details = detail.heartbeat_details
        if detail.outcome in _USED_UP:
            record.used += 1
        elif detail.outcome is AttemptOutcome.LOST:
            record.lost += 1
        if state.is_ended:
            self._end(record, state, reason, time_s, detail)
            return
        self._change(record, state, reason, time_s)
        if state is NodeState.BACKING_OFF:
            record.due_s = attempt.retry_time_s = record.ready_s = detail.retry_time_s
            record.ready_paused_s = self.agenda.paused_s
        elif not self.is_closed and (state is NodeState.QUEUED or reason != Reason.SIBLING_FAILED):
            # It runs again: at once, or after the pause that aborted it.
            self.agenda.decide(record)

    def apply_waiting(self, record: NodeRecord, time_s: float, detail: NodeWaiting) -> None:
        """Apply that a node waits for a timer."""
        self._change(record, NodeState.WAITING, "", time_s)
        record.started_s = time_s
        record.due_s = detail.due_time_s
        record.input = detail.input

    def apply_scope_opened(self, record: NodeRecord, time_s: float, given: Payload) -> None:
        """Apply that a graph started inside a node."""
        self._change(record, NodeState.RUNNING, "", time_s)
        record.started_s = time_s
        if record.node.input is not None:
            record.input = given

    def apply_scope_ended(self, detail: ScopeEnded) -> None:
        """Apply the end of this scope; after a timeout its nodes end next, and then the node that it is in."""
        self.ended_as, self.failure = detail.state, detail.failure
        if detail.state is ExecutionState.TIMED_OUT:
            self.close()

    def apply_idled(self, record: NodeRecord, reason: str, time_s: float) -> None:
        """Apply that a node was put back to IDLE."""
        self._change(record, NodeState.IDLE, reason, time_s)
        record.idled_s = time_s

    def apply_ended(
        self,
        record: NodeRecord,
        state: NodeState,
        reason: str,
        time_s: float,
        detail: NodeEnded,
    ) -> None:
        """Apply the end of a node without an attempt."""
        self._end(record, state, reason, time_s, detail)

    def _change(self, record: NodeRecord, state: NodeState, reason: str, time_s: float) -> None:
        before = record.state
        check_node_transition(record.path, before, state)
        self.agenda.forget(record)
        self.losers.pop(record.index, None)
        counts = self._totals.state_counts
        counts[before] -= 1
        counts[state] += 1
        self.in_flight_count += (state in _IN_FLIGHT) - (before in _IN_FLIGHT)
        self.running_count += (state is NodeState.RUNNING) - (before is NodeState.RUNNING)
        record.state = state
        record.reason = reason
        record.due_s = 0.0
        if state.is_ended:
            record.ended_s = time_s
            self.open_count -= 1
            self.level_open[self.analysis.levels[record.index]] -= 1
            while self.level < len(self.level_open) and self.level_open[self.level] == 0:
                self.level += 1
                self.level_s, self.level_paused_s = time_s, self.agenda.paused_s
                if self.held:
                    self.agenda.leveled[self] = None
        if self.parent is not None and (not self.open_count or self.is_closed):
            self.agenda.look_at(self)

    def _end(
        self,
        record: NodeRecord,
        state: NodeState,
        reason: str,
        time_s: float,
        detail: AttemptEnded | NodeEnded,
    ) -> None:
        self._change(record, state, reason, time_s)
        if reason == Reason.EXECUTION_TIMEOUT or (
            reason == Reason.QUEUE_TIMEOUT and state is NodeState.CANCELLED
        ):
            self._close_what_timed_out()
        record.treatment = detail.treatment
        if detail.failure is not None:
            record.failure = detail.failure
            record.origin = len(self.failures)
            self.failures.append(detail.failure)
            self._totals.failures.append((self.path, detail.failure))
            self.treatments.append(detail.treatment)
        elif state is NodeState.SKIPPED and reason == Reason.UPSTREAM_FAILED:
            record.origin = self._earliest_breaker(record)
        record.output = self._output(record, detail)
        if detail.treatment is Treatment.UNHANDLED and self.policy.on_failure is not OnFailure.CONTINUE:
            was_stopped = self.stopped_by is Treatment.UNHANDLED
            self.stopped_by = Treatment.UNHANDLED
            self.close()
            if not was_stopped:
                self.agenda.sweeping[self] = None
        resolve_edges(self, record, frozenset(detail.edges_false))  # A node may have half a million edges.

    def _close_what_timed_out(self) -> None:
        """Close the execution when its timeout ends the first node; a nested scope was closed before."""
        scope = self
        while scope.ended_as is None and scope.parent is not None:
            scope = scope.parent.scope
        if scope.ended_as is None:
            scope.sequence = self.sequence
            scope.close()

    def _output(self, record: NodeRecord, detail: AttemptEnded | NodeEnded) -> Payload | None:
        """Return the output as other nodes read it (F3)."""
        if record.treatment is Treatment.IGNORED:
            return NULL
        if record.state is NodeState.TIMED_OUT and record.treatment is Treatment.NONE:
            return NULL if record.node.on_timeout is OnTimeout.CONTINUE else None
        if record.state is NodeState.SUCCEEDED or record.reason == Reason.LOCKED:
            return detail.output if detail.output is not None else NULL
        return None

    def _earliest_breaker(self, record: NodeRecord) -> int:
        origins = [
            self.source(edge).origin
            for edge in self.adjacency.incoming[record.index]
            if self.edge_states[edge] is EdgeState.BROKEN
        ]
        return min((origin for origin in origins if origin >= 0), default=-1)
