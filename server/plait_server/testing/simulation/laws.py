"""Sections 5, 6 and 7 of SEMANTICS.md, written down a second time, plainly, to be held against events.

Nothing here is shared with the core but the words for graphs and events. Where the core counts, this searches;
it is quadratic, and made for small graphs.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction

from plait_server.core.events import (
    AttemptEnded,
    AttemptStarted,
    CancelRequested,
    Event,
    ExecutionEnded,
    ExecutionStarted,
    NodeEnded,
    NodeIdled,
    NodeWaiting,
)
from plait_server.core.failures import Failure, failure_to_json
from plait_server.core.graph import (
    Condition,
    Delay,
    Edge,
    Graph,
    Join,
    JoinMode,
    OnError,
    OnFailure,
    OnTimeout,
    RetryPolicy,
    Scheduling,
    Switch,
    Task,
)
from plait_server.core.json_text import JsonValue
from plait_server.core.payload import Payload
from plait_server.core.states import AttemptOutcome, EdgeState, NodeState, Treatment
from plait_server.testing.simulation.graphs import WHENS

_A, _D, _B, _U = EdgeState.ACTIVE, EdgeState.DEAD, EdgeState.BROKEN, EdgeState.UNRESOLVED
_RACES = (JoinMode.ANY, JoinMode.QUORUM)
_USED_UP = (AttemptOutcome.SUCCEEDED, AttemptOutcome.FAILED, AttemptOutcome.TIMED_OUT)


class LawBroken(Exception):
    """An event is not what the law wants; the first argument is the sentence, the second what was wrong."""


_SKIPS = ("DEAD_PATH", "UPSTREAM_FAILED")


class _Node:
    def __init__(self, incoming: int) -> None:
        self.state = NodeState.IDLE
        self.reason = ""
        self.verdict = "" if incoming else "RUN"
        self.attempts = 0
        self.used = 0
        self.lost = 0
        self.row = ""
        self.output: JsonValue = None
        self.has_output = False
        self.failure: Failure | None = None
        self.treatment = Treatment.NONE
        self.due: tuple[NodeState, str] | None = None
        """What the next events about nodes must bring first."""


class Laws:
    """Follows one execution, event by event.

    Args:
        graph: The execution's.
        read: Gives the text of a payload.
    """

    def __init__(self, graph: Graph, read: Callable[[Payload], str]) -> None:
        self._graph = graph
        self._read = read
        self.nodes = {node.id: _Node(len(self._incoming(node.id))) for node in graph.nodes}
        self.definitions = {node.id: node for node in graph.nodes}
        self.edges = [_U] * len(graph.edges)
        self.winners: dict[str, tuple[int, ...]] = {}
        """Node -> its ACTIVE edges when its join was decided."""
        self.rows: Counter[str] = Counter()
        """Rows of the tables that were seen."""
        self._is_closed = False
        self._is_stopped = False
        self._is_cancelled = False
        self.is_timed_out = False
        self._losing: list[str] = []
        """The rest of those that end together."""
        """Whether the execution's timeout ended it."""
        self._failures: list[Treatment] = []

    def __repr__(self) -> str:
        ended = sum(1 for node in self.nodes.values() if node.state.is_ended)
        return f"<Laws of {ended}/{len(self.nodes)} nodes>"

    # The graph.

    def _incoming(self, node_id: str) -> list[int]:
        return [place for place, edge in enumerate(self._graph.edges) if edge.target == node_id]

    def _outgoing(self, node_id: str) -> list[int]:
        return [place for place, edge in enumerate(self._graph.edges) if edge.source == node_id]

    def _plain(self, node_id: str) -> list[Edge]:
        return [edge for edge in self._graph.edges if edge.source == node_id and edge.handle != "error"]

    def _join(self, node_id: str) -> Join:
        return self.definitions[node_id].join or Join()

    def _level(self, node_id: str) -> int:
        return max((self._level(self._graph.edges[e].source) + 1 for e in self._incoming(node_id)), default=0)

    def _is_guarded(self, node_id: str) -> bool:
        """E3: whether every path of plain edges comes to another node that joins by ANY, QUORUM or COLLECT."""
        plain = self._plain(node_id)
        return bool(plain) and all(
            self._join(edge.target).mode is not JoinMode.ALL or self._is_guarded(edge.target)
            for edge in plain
        )

    def _is_held(self, node_id: str) -> bool:
        """R2: whether a node of a lower level has not ended."""
        level = self._level(node_id)
        return self._graph.scheduling is Scheduling.LEVELS and any(
            not node.state.is_ended and self._level(other) < level for other, node in self.nodes.items()
        )

    # Events.

    def follow(self, event: Event) -> None:
        """Take the next event.

        Raises:
            LawBroken: the law wants another.
        """
        if event.node_path:
            if event.node_state is not None:
                self._follow_node(event, event.node_state)
            return
        match event.detail:
            case CancelRequested():
                self._is_cancelled = self._is_closed = True
                self._all_due(NodeState.CANCELLED, "")
            case ExecutionStarted() | ExecutionEnded():
                if any(node.due for node in self.nodes.values()):
                    raise LawBroken("E4", f"{self._shown_due()} are due before {type(event.detail).__name__}")
            case _:
                pass

    def _follow_node(self, event: Event, state: NodeState) -> None:
        node_id = event.node_path
        node = self.nodes[node_id]
        got = state, event.reason
        is_timeout = state is NodeState.CANCELLED and event.reason == "EXECUTION_TIMEOUT"
        if is_timeout and not self.is_timed_out:
            if not self._graph.policy.timeout_s:
                raise LawBroken("T5", "an execution without a timeout timed out")
            self._is_closed = self.is_timed_out = True
            self._all_due(NodeState.CANCELLED, "EXECUTION_TIMEOUT")
        if node.state.is_ended:
            raise LawBroken("R3", f"{node_id} has ended as {node.state.name}, and becomes {state.name}")
        is_due = node.due == got
        skips = [
            each for each, other in self.nodes.items() if other.verdict in _SKIPS and not other.state.is_ended
        ]
        if skips and not self._is_closed and not self._losing:
            if node_id not in skips:
                raise LawBroken("J5", f"{node_id} becomes {got}, but first {', '.join(skips)} are skipped")
            node.due = None
        elif not is_due and any(each.due for each in self.nodes.values()):
            raise LawBroken("J1, E4", f"{node_id} becomes {got}, but first {self._shown_due()} are due")
        self._count_attempts(node_id, event)
        if is_due:
            self._losing = self._losing or [each for each, other in self.nodes.items() if other.due]
            if node_id != self._losing.pop(0):
                raise LawBroken(
                    "J5", f"{node_id} becomes {got}, and {self._shown_due()} are due in graph order"
                )
            node.due = None
            node.state, node.reason = got
            if state is NodeState.CANCELLED:
                self._end(node_id, "DROPPED")
            return
        match event.detail:
            case AttemptStarted():
                self._check_start(node_id, Task)
            case NodeWaiting():
                self._check_start(node_id, Delay)
            case AttemptEnded() | NodeEnded() as detail if state.is_ended:
                self._end_node(node_id, state, event.reason, detail)
                return
            case AttemptEnded() as detail:
                self._check_again(node_id, state, event.reason, detail)
            case _:
                raise LawBroken("S2.2", f"{node_id} becomes {got}, and nothing says why")
        node.state, node.reason = got

    def _count_attempts(self, node_id: str, event: Event) -> None:
        """A4, R3: attempts are numbered without gaps, one at a time, and each ends once."""
        node = self.nodes[node_id]
        match event.detail:
            case AttemptStarted():
                if node.state is NodeState.RUNNING or event.attempt != node.attempts + 1:
                    raise LawBroken(
                        "R3", f"attempt {event.attempt} of {node_id} starts after {node.attempts}"
                    )
                node.attempts += 1
            case AttemptEnded() as detail:
                if node.state is not NodeState.RUNNING or event.attempt != node.attempts:
                    raise LawBroken(
                        "A4", f"attempt {event.attempt} of {node_id} ends, and is not the current one"
                    )
                node.used += detail.outcome in _USED_UP
                node.lost += detail.outcome is AttemptOutcome.LOST
            case NodeEnded() | NodeWaiting() | NodeIdled():
                if node.state is NodeState.RUNNING:
                    raise LawBroken("A4", f"{node_id} leaves RUNNING, and its attempt does not end")
            case _:
                pass

    def _check_start(self, node_id: str, kind: type) -> None:
        node, definition = self.nodes[node_id], self.definitions[node_id]
        if self._is_closed:
            raise LawBroken("E4", f"{node_id} starts, and nothing may start any more")
        if node.verdict != "RUN":
            raise LawBroken("R1", f"{node_id} starts, and its join is {node.verdict or 'open'}")
        if node.state is NodeState.IDLE and (definition.locked or self._is_held(node_id)):
            raise LawBroken("C4, R2", f"{node_id} starts, and is locked or held by its level")
        if not isinstance(definition.kind, kind):
            raise LawBroken("S1", f"{node_id} starts as a {kind.__name__}")

    def _check_again(self, node_id: str, state: NodeState, reason: str, detail: AttemptEnded) -> None:
        """T1, T2: what follows an attempt that did not end its node."""
        node = self.nodes[node_id]
        policy = self.definitions[node_id].retry or RetryPolicy()
        if detail.outcome in (AttemptOutcome.LOST, AttemptOutcome.RETURNED):
            wanted = NodeState.QUEUED
            if detail.outcome is AttemptOutcome.LOST and node.lost > policy.max_lost_attempts:
                raise LawBroken("T2", f"{node_id} was lost {node.lost} times, and goes on")
        else:
            wanted = NodeState.BACKING_OFF
            if node.used >= policy.max_attempts:
                raise LawBroken(
                    "T1", f"{node_id} used {node.used} of {policy.max_attempts} attempts, and goes on"
                )
        if self._is_stopped:
            if (state, reason) != (NodeState.IDLE, "SIBLING_FAILED"):
                raise LawBroken("E4", f"{node_id} becomes {state.name}/{reason} in a stopped scope")
        elif state is not wanted:
            raise LawBroken("S2.2", f"{node_id} becomes {state.name}/{reason}, not {wanted.name}")

    # Section 5.

    def _end_node(
        self, node_id: str, state: NodeState, reason: str, detail: AttemptEnded | NodeEnded
    ) -> None:
        node, definition = self.nodes[node_id], self.definitions[node_id]
        was = node.state
        node.state, node.reason, node.failure = state, reason, detail.failure
        if self._is_closed and was in (NodeState.IDLE, NodeState.BACKING_OFF, NodeState.WAITING):
            raise LawBroken("E4", f"{node_id} ends as {state.name}/{reason}, and nothing is decided any more")
        if was is NodeState.IDLE:
            self._check_verdict(node_id, state, reason)
        match state:
            case NodeState.SUCCEEDED:
                self._set_output(node, detail.output)
                self._end(node_id, "SUCCEEDED")
            case NodeState.SKIPPED if reason == "LOCKED":
                locked = definition.locked_output
                self._set_output(node, Payload(locked) if locked is not None else None)
                if not definition.locked:
                    raise LawBroken("C4", f"{node_id} is not locked")
                self._end(node_id, "LOCKED")
            case NodeState.TIMED_OUT if definition.on_timeout is OnTimeout.CONTINUE:
                self._set_output(node, None)
                self._end(node_id, "TIMED_OUT_CONTINUE")
            case NodeState.TIMED_OUT if definition.on_timeout is OnTimeout.CANCEL:
                self._end(node_id, "TIMED_OUT_CANCEL")
            case NodeState.FAILED | NodeState.TIMED_OUT:
                self._fail(node_id, detail.treatment)
            case NodeState.SKIPPED if reason == "UPSTREAM_FAILED":
                self._end(node_id, "UPSTREAM_FAILED")
            case NodeState.SKIPPED if reason == "DEAD_PATH":
                self._end(node_id, "DROPPED")
            case _:
                raise LawBroken("S2.1", f"{node_id} ends as {state.name}/{reason}, and nothing says why")

    def _check_verdict(self, node_id: str, state: NodeState, reason: str) -> None:
        """Section 6: a node that ends without having started ends as its join says."""
        node = self.nodes[node_id]
        if node.verdict in ("DEAD_PATH", "UPSTREAM_FAILED"):
            wanted = (NodeState.SKIPPED, node.verdict)
        elif node.verdict == "RUN":
            if self._is_held(node_id) or (state, reason) in (
                (NodeState.SKIPPED, "DEAD_PATH"),
                (NodeState.SKIPPED, "UPSTREAM_FAILED"),
            ):
                raise LawBroken("6", f"{node_id} may run, and becomes {state.name}/{reason}")
            return
        else:
            wanted = (NodeState.FAILED, node.verdict)
        if (state, reason) != wanted:
            raise LawBroken(
                "6", f"{node_id} becomes {state.name}/{reason}, and its join is {node.verdict or 'open'}"
            )

    def _set_output(self, node: _Node, payload: Payload | None) -> None:
        node.output = json.loads(self._read(payload)) if payload is not None else None
        node.has_output = True

    def _fail(self, node_id: str, treatment: Treatment) -> None:
        """Find the row of a failure by itself, and compare."""
        node, definition = self.nodes[node_id], self.definitions[node_id]
        carried = json.loads(failure_to_json(node.failure)) if node.failure is not None else None
        errors = [self._graph.edges[e] for e in self._outgoing(node_id)]
        if any(edge.handle == "error" and WHENS[edge.when](carried) is True for edge in errors):
            wanted, row = Treatment.HANDLED, "HANDLED"
        elif definition.on_error is OnError.IGNORE:
            wanted, row = Treatment.IGNORED, "IGNORED"
            self._set_output(node, None)
        else:
            says_nothing = definition.on_error is OnError.UNSPECIFIED
            tolerated = definition.on_error is OnError.TOLERATE or (
                says_nothing and self._is_guarded(node_id)
            )
            wanted, row = (Treatment.TOLERATED if tolerated else Treatment.UNHANDLED), "BROKEN"
        if treatment is not wanted:
            raise LawBroken("5, E3", f"the failure of {node_id} is {treatment.name}, not {wanted.name}")
        node.treatment = wanted
        self._failures.append(wanted)
        self.rows[f"failure: {wanted.name}"] += 1
        if wanted is Treatment.UNHANDLED and self._graph.policy.on_failure is not OnFailure.CONTINUE:
            self._stop()
        self._end(node_id, row)

    def _end(self, node_id: str, row: str) -> None:
        node = self.nodes[node_id]
        node.row = row
        self.rows[f"edges: {row}"] += 1
        handle = self._handle(node_id)
        for place in self._outgoing(node_id):
            edge = self._graph.edges[place]
            self.edges[place] = self._edge_state(node, edge, row, handle)
        if not self._is_closed:
            for place in self._outgoing(node_id):
                self._judge(self._graph.edges[place].target)

    def _edge_state(self, node: _Node, edge: Edge, row: str, handle: str) -> EdgeState:
        if edge.handle == "error":
            carried = json.loads(failure_to_json(node.failure)) if node.failure is not None else None
            return _A if row == "HANDLED" and WHENS[edge.when](carried) is True else _D
        match row:
            case "SUCCEEDED" | "LOCKED" | "TIMED_OUT_CONTINUE" | "IGNORED":
                if edge.handle != handle:
                    return _D
                value = WHENS[edge.when](node.output)
                if value is None and row == "SUCCEEDED":
                    raise LawBroken("F2", f"{edge.source} succeeded, and `{edge.when}` has no value")
                return _A if value is True else _D
            case "BROKEN" | "UPSTREAM_FAILED":
                return _B
            case _:
                return _D

    def _handle(self, node_id: str) -> str:
        kind, output = self.definitions[node_id].kind, self.nodes[node_id].output
        if isinstance(kind, Condition):
            return "true" if output is True else "false"
        if isinstance(kind, Switch):
            return output if isinstance(output, str) and output in kind.cases else "default"
        return ""

    def _stop(self) -> None:
        """E4: FAIL_FAST and STOP_DISPATCH."""
        self._is_closed = self._is_stopped = True
        for node in self.nodes.values():
            runs_on = (
                node.state is NodeState.RUNNING and self._graph.policy.on_failure is OnFailure.STOP_DISPATCH
            )
            is_back = (node.state, node.reason) == (NodeState.IDLE, "SIBLING_FAILED")
            if not (node.state.is_ended or runs_on or is_back):
                node.due = (NodeState.IDLE, "SIBLING_FAILED")

    def _all_due(self, state: NodeState, reason: str) -> None:
        for node in self.nodes.values():
            node.due = None if node.state.is_ended else (state, reason)

    def _shown_due(self) -> str:
        return ", ".join(f"{i} {n.due[0].name}/{n.due[1]}" for i, n in self.nodes.items() if n.due)

    # Section 6.

    def _judge(self, node_id: str) -> None:
        node, join = self.nodes[node_id], self._join(node_id)
        if node.verdict or node.state.is_ended:
            return
        incoming = self._incoming(node_id)
        node.verdict = verdict_of(
            join, [self.edges[e] for e in incoming], [self._graph.edges[e] for e in incoming]
        )
        if not node.verdict:
            return
        self.rows[f"join: {join.mode.name} {node.verdict}"] += 1
        self.winners[node_id] = tuple(e for e in incoming if self.edges[e] is _A)
        if join.mode in _RACES and join.cancel_losers:
            self._find_losers()

    def _find_losers(self) -> None:
        """J1, to the fixpoint."""
        is_found = True
        while is_found:
            is_found = False
            for node_id, node in self.nodes.items():
                plain = self._plain(node_id)
                if node.state.is_ended or node.due or not plain:
                    continue
                if all(self._is_unwanted(edge) for edge in plain):
                    node.due = (NodeState.CANCELLED, "RACE_LOST")
                    is_found = True

    def _is_unwanted(self, edge: Edge) -> bool:
        target = self.nodes[edge.target]
        is_loser = (target.due or (target.state, target.reason)) == (NodeState.CANCELLED, "RACE_LOST")
        return self._join(edge.target).cancel_losers and (bool(target.verdict) or is_loser)

    # Section 7: the end.

    def end_state(self) -> str:
        """Work out how the scope ends (E5)."""
        if self._is_cancelled:
            return "CANCELLED"
        if self.is_timed_out:
            return "TIMED_OUT"
        if self._is_stopped:
            return "FAILED"
        sinks = [node for node_id, node in self.nodes.items() if not self._plain(node_id)]
        good = sum(1 for n in sinks if n.row in ("SUCCEEDED", "LOCKED", "IGNORED", "TIMED_OUT_CONTINUE"))
        broken = sum(1 for n in sinks if n.row in ("BROKEN", "UPSTREAM_FAILED"))
        if Treatment.UNHANDLED not in self._failures and not broken:
            return "SUCCEEDED"
        share = Fraction(good, good + broken) if good + broken else Fraction(0)
        enough = share >= Fraction(str(self._graph.policy.min_success_rate))
        return "PARTIALLY_SUCCEEDED" if good and enough else "FAILED"

    def open_nodes(self) -> list[str]:
        """Name the nodes that have not ended."""
        return [node_id for node_id, node in self.nodes.items() if not node.state.is_ended]

    @property
    def is_closed(self) -> bool:
        """Whether the scope was stopped, cancelled or timed out."""
        return self._is_closed


def verdict_of(join: Join, states: list[EdgeState], edges: list[Edge]) -> str:
    """Decide a join by the states of its incoming edges; empty while it is open."""
    active, dead, broken, unresolved = (states.count(state) for state in (_A, _D, _B, _U))
    if dead == len(states):
        return "DEAD_PATH"
    match join.mode:
        case JoinMode.ALL:
            return "" if unresolved else "UPSTREAM_FAILED" if broken else "RUN"
        case JoinMode.ANY:
            return "RUN" if active else "" if unresolved else "ALL_BRANCHES_FAILED"
        case JoinMode.QUORUM:
            share = Fraction(str(join.rate)) if join.rate is not None else Fraction(0)
            needed = join.count or max(1, math.ceil(share * (len(states) - dead)))
            if active >= needed:
                return "RUN"
            return "QUORUM_UNREACHABLE" if active + unresolved < needed and active + broken else ""
        case JoinMode.COLLECT:
            if unresolved:
                return ""
            errors = sum(s is _A and e.handle == "error" for s, e in zip(states, edges, strict=True))
            share = Fraction(active - errors, active + broken)
            return "RUN" if share >= Fraction(str(join.min_success_rate)) else "MIN_SUCCESS_RATE"
