"""A scope: one running instance of a graph, with the state of its nodes and edges.

Everything here follows from events: `NodeRecord` and the counters change in `Scope.apply_*` alone, the same
live and on replay. Four lists say what is to be decided next, the first that is not empty first (J5). They
follow from events too, and each event about a node takes the node off them:

- `skips`: nodes whose join says SKIPPED, in the order of the decisions;
- `losers`: nodes that nobody waits for any more (J1), to be cancelled together, in graph order;
- `sweep_due`: an unhandled failure stopped the scope (E4), and its other nodes have not been put back yet;
- `agenda`: the other nodes whose join was decided and of which no event has told since, in the order of the
  decisions.

Losers are counted, not searched: each node knows how many of its plain edges are still wanted. An edge stops
being wanted once, when its target's join is decided or its target loses, so the work is linear in the edges
over the whole execution.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, NamedTuple

from plait_server.core.definition.analysis import Adjacency, build_adjacency_in_slices
from plait_server.core.definition.branches import Branches, assign_branches_in_slices
from plait_server.core.definition.graph import (
    DEFAULT_JOIN,
    Analysis,
    Edge,
    Graph,
    JoinMode,
    Node,
    OnFailure,
    OnTimeout,
)
from plait_server.core.run.edges import EFFECTS, ERROR_HANDLE, chosen_handle, row_of
from plait_server.core.run.events import NO_USAGE, AttemptEnded, AttemptStarted, NodeEnded, NodeWaiting
from plait_server.core.run.failures import Failure
from plait_server.core.run.joins import Verdict, judge
from plait_server.core.run.payload import NULL, Payload
from plait_server.core.run.states import (
    AttemptOutcome,
    EdgeState,
    NodeState,
    Reason,
    Treatment,
    check_node_transition,
)
from plait_server.core.slices import Slices, batches

_IN_FLIGHT: Final = (NodeState.RUNNING, NodeState.BACKING_OFF, NodeState.WAITING)
_BY_SINGLE_EDGE: Final = {
    state: judge(
        DEFAULT_JOIN,
        total=1,
        active=state is EdgeState.ACTIVE,
        active_error=0,
        dead=state is EdgeState.DEAD,
        broken=state is EdgeState.BROKEN,
    )
    for state in (EdgeState.ACTIVE, EdgeState.DEAD, EdgeState.BROKEN)
}
"""What the default join decides by the state of its only edge."""
_USED_UP: Final = (AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT)


class AttemptRecord:
    """One attempt of a node."""

    __slots__ = (
        "ended_s",
        "failure",
        "late_usage",
        "number",
        "outcome",
        "queue_s",
        "retry_time_s",
        "run",
        "started_s",
        "usage",
        "worker_id",
        "worker_instance_id",
    )

    def __init__(self, number: int, run: int, started_s: float, detail: AttemptStarted) -> None:
        self.number = number
        self.run = run
        self.worker_id = detail.worker_id
        self.worker_instance_id = detail.worker_instance_id
        self.queue_s = detail.queue_s
        self.started_s = started_s
        self.ended_s = 0.0
        self.retry_time_s = 0.0
        """When the backoff after it ends; 0 if none follows."""
        self.outcome: AttemptOutcome | None = None
        self.failure: Failure | None = None
        self.usage: Mapping[str, str] = NO_USAGE
        self.late_usage: Mapping[str, str] = NO_USAGE
        """What was audited as late usage since the execution was read; not durable state."""


class NodeRecord:
    """The state of one node in a scope. Slotted: a graph has up to 100,000."""

    __slots__ = (
        "active",
        "active_edges",
        "active_error",
        "attempts",
        "broken",
        "dead",
        "due_s",
        "ended_s",
        "failure",
        "idled_s",
        "index",
        "input",
        "lost",
        "node",
        "origin",
        "output",
        "path",
        "plain_total",
        "reason",
        "sequence",
        "started_s",
        "state",
        "total",
        "treatment",
        "used",
        "verdict",
        "wanted",
    )

    def __init__(self, index: int, node: Node, path: str, total: int, plain_total: int) -> None:
        self.index = index
        self.node = node
        self.path = path
        self.total = total
        """Incoming edges."""
        self.plain_total = plain_total
        """Outgoing plain edges; 0 makes it a sink."""
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
        """Absent (None) as F3 says."""
        self.failure: Failure | None = None
        self.treatment = Treatment.NONE
        self.origin = -1
        """Position among the scope's failures of the earliest that FAILED it or broke it; -1 if none did."""
        self.started_s = self.ended_s = self.due_s = 0.0
        self.idled_s = 0.0
        """When it was put back to idle."""
        self.sequence = 0
        """That of the newest event about it."""

    def __repr__(self) -> str:
        reason = f"/{self.reason}" if self.reason else ""
        return f"<Node {self.path} {self.state.name}{reason} attempt {len(self.attempts)}>"

    @property
    def is_current(self) -> bool:
        """Whether an attempt of it runs."""
        return self.state is NodeState.RUNNING


class ScopeParts(NamedTuple):
    """What of a scope grows with its graph."""

    graph: Graph
    analysis: Analysis
    path: str
    adjacency: Adjacency
    branches: Branches
    records: list[NodeRecord]


def open_scope_in_slices(graph: Graph, analysis: Analysis, path: str = "") -> Slices[Scope]:
    """Make a scope in which nothing has happened, in slices."""
    adjacency = yield from build_adjacency_in_slices(graph)
    branches = yield from assign_branches_in_slices(graph, adjacency, analysis.levels)
    plain_totals = [0] * len(graph.nodes)
    sources = iter(adjacency.edge_sources)
    for edges in batches(graph.edges):
        for edge, source in zip(edges, sources):  # noqa: B905 # of the sources the next ones
            if edge.handle != ERROR_HANDLE:
                plain_totals[source] += 1
        yield
    prefix = f"{path}/" if path else ""
    incoming = adjacency.incoming
    records: list[NodeRecord] = []
    for nodes in batches(graph.nodes):
        for index, node in enumerate(nodes, len(records)):
            records.append(
                NodeRecord(index, node, prefix + node.id, len(incoming[index]), plain_totals[index])
            )
        yield
    return Scope(ScopeParts(graph, analysis, path, adjacency, branches, records))


class Scope:
    """One running instance of a graph."""

    def __init__(self, parts: ScopeParts) -> None:
        self.graph = parts.graph
        self.analysis = analysis = parts.analysis
        self.path = parts.path
        """Empty for the execution itself; `loop[3]` for an iteration."""
        self.adjacency = parts.adjacency
        self.branches = parts.branches
        self.records = parts.records
        self.edge_states = [EdgeState.UNRESOLVED] * len(parts.graph.edges)
        self._unwanted = bytearray(len(parts.graph.edges))
        self.failures: list[Failure] = []
        self.treatments: list[Treatment] = []
        """What became of each failure, in the order of `failures`."""
        self.open_count = len(self.records)
        """Nodes not ended."""
        self.running_count = 0
        self.state_counts = dict.fromkeys(NodeState, 0)
        """How many nodes are in each state, by what events say of them."""
        self.state_counts[NodeState.IDLE] = len(self.records)
        level_count = max(analysis.levels) + 1
        self.level_open = [0] * level_count
        for level in analysis.levels:
            self.level_open[level] += 1
        self.level = 0
        """The lowest level with a node that has not ended (R2)."""
        self.is_closed = False
        """Whether no join is decided any more: stopped by a failure, cancelled, or timed out."""
        self.stopped_by = Treatment.NONE
        """UNHANDLED once an unhandled failure stopped it (E4)."""
        self.sweep_due = False
        # Worked off from the front: the first of a plain dict is found behind all that were taken before.
        self.skips: OrderedDict[int, None] = OrderedDict()
        self.losers: dict[int, None] = {}
        self.agenda: OrderedDict[int, None] = OrderedDict()

    def __repr__(self) -> str:
        ended = len(self.records) - self.open_count
        return f"<Scope {self.path or '/'} {ended}/{len(self.records)} nodes, {self.running_count} running>"

    def edge(self, position: int) -> Edge:
        """Return the edge at a position in the graph."""
        return self.graph.edges[position]

    def source(self, edge: int) -> NodeRecord:
        """Return the record of the node an edge leaves."""
        return self.records[self.adjacency.edge_sources[edge]]

    def branch(self, index: int) -> str:
        """Return the display path of a node's branch."""
        return self.branches.path(self.branches.node_branch[index])

    def outgoing(self, index: int) -> tuple[Edge, ...]:
        """Return the outgoing edges of a node, in graph order."""
        return tuple(self.graph.edges[edge] for edge in self.adjacency.outgoing[index])

    def in_flight(self) -> list[NodeRecord]:
        """Return the nodes that run, back off or wait, in graph order; soon, if there are none."""
        if not any(self.state_counts[state] for state in _IN_FLIGHT):
            return []
        return [record for record in self.records if record.state in _IN_FLIGHT]

    # What events do.

    def open_sources(self) -> None:
        """Decide the nodes without incoming edges: they start together (R5)."""
        for record in self.records:
            if record.total == 0:
                record.verdict = Verdict.RUN
                self.agenda[record.index] = None

    def close(self) -> None:
        """Let no join be decided and nothing start any more."""
        self.is_closed = True
        self.sweep_due = False
        self.skips.clear()
        self.losers.clear()
        self.agenda.clear()

    def apply_started(self, record: NodeRecord, time_s: float, run: int, detail: AttemptStarted) -> None:
        """Take in that an attempt was given to a worker."""
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
        """Take in that an attempt ended; the node goes to `state`."""
        attempt = record.attempts[-1]
        attempt.outcome = detail.outcome
        attempt.ended_s = time_s
        attempt.failure = detail.failure
        attempt.usage = detail.usage
        if detail.outcome in _USED_UP:
            record.used += 1
        elif detail.outcome is AttemptOutcome.LOST:
            record.lost += 1
        if state.is_ended:
            self._end(record, state, reason, time_s, detail)
            return
        self._change(record, state, reason, time_s)
        if state is NodeState.BACKING_OFF:
            record.due_s = attempt.retry_time_s = detail.retry_time_s
        elif state is NodeState.QUEUED and not self.is_closed:
            self.agenda[record.index] = None

    def apply_waiting(self, record: NodeRecord, time_s: float, detail: NodeWaiting) -> None:
        """Take in that a node waits for a timer."""
        self._change(record, NodeState.WAITING, "", time_s)
        record.started_s = time_s
        record.due_s = detail.due_time_s
        record.input = detail.input

    def apply_idled(self, record: NodeRecord, reason: str, time_s: float) -> None:
        """Take in that a node was put back to idle."""
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
        """Take in that a node ended without an attempt."""
        self._end(record, state, reason, time_s, detail)

    def _change(self, record: NodeRecord, state: NodeState, reason: str, time_s: float) -> None:
        before = record.state
        check_node_transition(record.path, before, state)
        self.skips.pop(record.index, None)
        self.losers.pop(record.index, None)
        self.agenda.pop(record.index, None)
        self.state_counts[before] -= 1
        self.state_counts[state] += 1
        if before is NodeState.RUNNING:
            self.running_count -= 1
        if state is NodeState.RUNNING:
            self.running_count += 1
        record.state = state
        record.reason = reason
        record.due_s = 0.0
        if state.is_ended:
            record.ended_s = time_s
            self.open_count -= 1
            self.level_open[self.analysis.levels[record.index]] -= 1
            while self.level < len(self.level_open) and self.level_open[self.level] == 0:
                self.level += 1

    def _end(
        self,
        record: NodeRecord,
        state: NodeState,
        reason: str,
        time_s: float,
        detail: AttemptEnded | NodeEnded,
    ) -> None:
        self._change(record, state, reason, time_s)
        if reason == Reason.EXECUTION_TIMEOUT:
            self.close()  # The first node that it ended: what follows is the end of the others.
        record.treatment = detail.treatment
        if detail.failure is not None:
            record.failure = detail.failure
            record.origin = len(self.failures)
            self.failures.append(detail.failure)
            self.treatments.append(detail.treatment)
        elif state is NodeState.SKIPPED and reason == Reason.UPSTREAM_FAILED:
            record.origin = self._earliest_breaker(record)
        record.output = self._output(record, detail)
        if detail.treatment is Treatment.UNHANDLED and self.graph.policy.on_failure is not OnFailure.CONTINUE:
            was_stopped = self.stopped_by is Treatment.UNHANDLED
            self.stopped_by = Treatment.UNHANDLED
            self.close()
            self.sweep_due = not was_stopped
        self._resolve(record, frozenset(detail.edges_false))  # A node may have half a million edges.

    def _output(self, record: NodeRecord, detail: AttemptEnded | NodeEnded) -> Payload | None:
        """Return the output as others see it (F3)."""
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

    def _resolve(self, record: NodeRecord, edges_false: frozenset[int]) -> None:
        """Set the states of a node's outgoing edges by the table, and judge the joins they lead to."""
        positions = self.adjacency.outgoing[record.index]
        if not positions:
            return
        effect = EFFECTS[row_of(record.node, record.state, record.reason, record.treatment)]
        handle = chosen_handle(record.node, record.output or NULL) if effect.asks_plain else None
        for place, position in enumerate(positions):
            edge = self.graph.edges[position]
            if edge.handle == ERROR_HANDLE:
                state = EdgeState.DEAD if place in edges_false else effect.error
            elif effect.asks_plain and (edge.handle != handle or place in edges_false):
                state = effect.other
            else:
                state = effect.selected
            self._settle(position, edge, state)

    def _settle(self, position: int, edge: Edge, state: EdgeState) -> None:
        self.edge_states[position] = state
        target = self.records[self.adjacency.edge_targets[position]]
        if state is EdgeState.ACTIVE:
            target.active += 1
            if edge.handle == ERROR_HANDLE:
                target.active_error += 1
        elif state is EdgeState.DEAD:
            target.dead += 1
        else:
            target.broken += 1
        if target.verdict is not None or self.is_closed or target.state is not NodeState.IDLE:
            return
        join = target.node.join
        if join is None and target.total == 1:
            # The plain case, without the rest: a node may have 100,000 such edges, and they are one step.
            target.verdict = verdict = _BY_SINGLE_EDGE[state]
            target.active_edges = (position,) if state is EdgeState.ACTIVE else ()
            (self.agenda if verdict is Verdict.RUN else self.skips)[target.index] = None
            return
        join = join or DEFAULT_JOIN
        verdict = judge(
            join,
            total=target.total,
            active=target.active,
            active_error=target.active_error,
            dead=target.dead,
            broken=target.broken,
        )
        if verdict is None:
            return
        target.verdict = verdict
        if join.mode is JoinMode.ANY:
            target.active_edges = (position,) if verdict is Verdict.RUN else ()
        else:
            target.active_edges = tuple(
                edge
                for edge in self.adjacency.incoming[target.index]
                if self.edge_states[edge] is EdgeState.ACTIVE
            )
        (self.skips if verdict.is_skip else self.agenda)[target.index] = None
        if join.mode in (JoinMode.ANY, JoinMode.QUORUM):
            self._release(target)

    def _release(self, decided: NodeRecord) -> None:
        """Stop wanting what leads to a decided join, and find the losers (J1)."""
        stack = [decided]
        while stack:
            target = stack.pop()
            if not (target.node.join or DEFAULT_JOIN).cancel_losers:
                continue
            for edge in self.adjacency.incoming[target.index]:
                if self._unwanted[edge] or self.graph.edges[edge].handle == ERROR_HANDLE:
                    continue
                self._unwanted[edge] = 1
                source = self.source(edge)
                source.wanted -= 1
                if source.wanted == 0 and not source.state.is_ended and source.index not in self.losers:
                    self.losers[source.index] = None
                    self.agenda.pop(source.index, None)
                    stack.append(source)
