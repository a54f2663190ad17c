"""What must hold of every event of an execution, written from the law, and the states that follow."""

from __future__ import annotations

from collections import Counter

from plait_server.core.definition.graph import Graph, Node, Subgraph
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptExtended,
    AttemptStarted,
    CancelReceipt,
    Event,
    ExecutionEnded,
    NodeEnded,
    NodeIdled,
    ScopeEnded,
    ScopeOpened,
    UsageReported,
)
from plait_server.core.run.states import AttemptOutcome, ExecutionState, NodeState

_N = NodeState
_FROM_QUEUED = {
    _N.RUNNING,
    _N.WAITING,
    _N.SUCCEEDED,
    _N.FAILED,
    _N.TIMED_OUT,
    _N.SKIPPED,
    _N.IDLE,
    _N.CANCELLED,
}
# S2.2, written from the law: QUEUED has no event (A1), so IDLE and BACKING_OFF take what QUEUED may do too.
LEGAL: dict[NodeState, set[NodeState]] = {
    _N.IDLE: {_N.QUEUED, _N.WAITING, _N.SKIPPED, _N.SUCCEEDED, _N.FAILED, _N.CANCELLED} | _FROM_QUEUED,
    _N.QUEUED: _FROM_QUEUED,
    _N.RUNNING: {
        _N.SUCCEEDED,
        _N.FAILED,
        _N.TIMED_OUT,
        _N.BACKING_OFF,
        _N.QUEUED,
        _N.IDLE,
        _N.CANCELLED,
    },
    _N.BACKING_OFF: {_N.QUEUED, _N.TIMED_OUT, _N.IDLE, _N.CANCELLED} | _FROM_QUEUED,
    _N.WAITING: {_N.SUCCEEDED, _N.FAILED, _N.TIMED_OUT, _N.IDLE, _N.CANCELLED},
}
ENDED = frozenset({_N.SUCCEEDED, _N.FAILED, _N.TIMED_OUT, _N.SKIPPED, _N.CANCELLED})


class JournalRules:
    """Follows a journal; breaks at the first event that may not be."""

    def __init__(self, graph: Graph) -> None:
        self.graphs: dict[str, Graph] = {}
        """Scope path -> the graph that runs in it, of all scopes there ever were (N2)."""
        self.states: dict[str, NodeState] = {}
        """Node path -> state, in the order in which the scopes opened."""
        self.reasons: dict[str, str] = {}
        """Node path -> reason; that of QUEUED is the allocator's (A1)."""
        self.read: dict[str, Graph] = {}
        """Node path -> the graph that an output was, put here before its scope opens (N7)."""
        self.starts: Counter[str] = Counter()
        """Node path -> attempts started."""
        self.aborted: set[str] = set()
        """Nodes that a pause put back to IDLE."""
        self.ended_attempts: set[tuple[str, int]] = set()
        self._sequence = 0
        self._ending = ""
        """The node whose scope has ended by the last event: that of the node must follow."""
        self._terminal: Event | None = None
        self._know("", graph)

    def node(self, path: str) -> Node:
        """Return the node with a path."""
        scope_path, _, node_id = path.rpartition("/")
        return next(node for node in self.graphs[scope_path].nodes if node.id == node_id)

    def follow(self, event: Event) -> None:
        """Take the next event."""
        assert self._terminal is None, f"A5: {event} follows the terminal event"
        self._sequence += 1
        assert event.sequence == self._sequence, "A1: a gap in the journal"
        assert event.run == 1
        if event.execution_state is not None and event.execution_state.is_ended:
            assert isinstance(event.detail, ExecutionEnded)
            self._terminal = event
        path, after = event.node_path, event.node_state
        if self._ending:
            is_end = path == self._ending and after in (_N.SUCCEEDED, _N.FAILED)
            assert is_end, f"N4: the scope of {self._ending} ended, and {event} follows"
            self._ending = ""
        if isinstance(event.detail, ScopeEnded):
            self._end_scope(path, event.detail)
        elif not path or after is None:
            assert isinstance(event.detail, CancelReceipt | UsageReported | AttemptExtended) or not path
        else:
            self._follow_node(event, path, after)

    def _end_scope(self, path: str, ended: ScopeEnded) -> None:
        assert ended.scope_path == path
        assert self.states[path] is _N.RUNNING, f"N2: the scope of {path} ended while it is not RUNNING"
        if ended.state is not ExecutionState.TIMED_OUT:
            self._ending = path

    def _follow_node(self, event: Event, path: str, after: NodeState) -> None:
        before, outer = self.states[path], path.rpartition("/")[0]
        assert before not in ENDED, f"{path} ended as {before.name}, yet goes to {after.name}"
        is_over = bool(outer) and self.states[outer] in ENDED
        assert not is_over, f"{path} goes to {after.name} after {outer} ended"
        assert after in LEGAL[before], f"S2.2: {path} goes from {before.name} to {after.name}"
        match event.detail:
            case AttemptStarted():
                started = self.starts[path]
                assert event.attempt == started + 1, f"{path}: attempt {event.attempt} follows {started}"
                # C2: what a pause aborted runs again, and is IDLE until then.
                again = before in (_N.BACKING_OFF, _N.QUEUED) or path in self.aborted
                self.aborted.discard(path)
                assert again == (started > 0), f"R3: {path} starts again from {before.name}"
                self.starts[path] += 1
            case AttemptEnded(failure=failure, outcome=outcome):
                assert before is _N.RUNNING
                assert (outcome is AttemptOutcome.SUCCEEDED) <= (failure is None or after is _N.FAILED)
                self.ended_attempts.add((path, event.attempt))
                if outcome is AttemptOutcome.ABORTED and not event.reason:
                    self.aborted.add(path)
            case NodeEnded():
                is_subgraph = isinstance(self.node(path).kind, Subgraph)
                assert is_subgraph or before is not _N.RUNNING, f"{path} ran and ended without its attempt"
            case ScopeOpened() as opened:
                self._open_scope(path, opened)
            case NodeIdled():
                assert after is _N.IDLE
            case _:
                pass
        self.states[path] = after
        self.reasons[path] = event.reason if after is not _N.QUEUED else ""

    def _open_scope(self, path: str, opened: ScopeOpened) -> None:
        kind = self.node(path).kind
        assert isinstance(kind, Subgraph)
        assert opened.scope_path == path
        graph = kind.graph or self.read[path]
        assert bool(opened.graph_digest) == (kind.graph is None), (
            "N7: the graph of an output stands in the event"
        )
        assert opened.node_count == len(graph.nodes)
        self._know(path, graph)

    def _know(self, scope_path: str, graph: Graph) -> None:
        self.graphs[scope_path] = graph
        for node in graph.nodes:
            path = f"{scope_path}/{node.id}" if scope_path else node.id
            self.states[path], self.reasons[path] = NodeState.IDLE, ""
