"""A small interpreter of SEMANTICS.md, sections 4 to 9, naive on purpose, that follows a journal and objects.

The journal says in which order things happened. What each of them has to be, what has to come of it, and what
has to have happened before anything else may, the reference works out by itself: paths by enumeration, losers
by a fixpoint, joins by counting anew.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from fractions import Fraction

from plait_server.core.events import AttemptEnded, AttemptStarted, Event, NodeEnded, NodeIdled, NodeWaiting
from plait_server.core.graph import (
    Condition,
    Delay,
    Edge,
    Graph,
    Join,
    JoinMode,
    Node,
    OnError,
    OnFailure,
    OnTimeout,
    RetryPolicy,
    Scheduling,
    Switch,
    Task,
    Transform,
)
from plait_server.core.states import Treatment

ENDED = ("SUCCEEDED", "FAILED", "TIMED_OUT", "SKIPPED", "CANCELLED")
A, D, B = "ACTIVE", "DEAD", "BROKEN"

SKIPS = ("DEAD_PATH", "UPSTREAM_FAILED")


@dataclass
class Stimulus:
    """What came from outside last."""

    kind: str
    """`result`, `node_timeout`, `execution_timeout`, `cancel`, or anything else."""
    path: str = ""
    outcome: str = ""
    code: str = ""
    output: str = "null"
    retryable: bool | None = None


@dataclass
class _State:
    node: Node
    state: str = "IDLE"
    reason: str = ""
    decided: str = ""
    treatment: str = "NONE"
    output: str | None = None
    used: int = 0
    lost: int = 0
    broke: int | None = None
    """Position of the earliest failure that FAILED or broke it."""
    due: tuple[str, str] | None = None
    """State and reason that it must go to before anything else happens."""

    @property
    def ended(self) -> bool:
        return self.state in ENDED


@dataclass
class Reference:
    """What the law says of one execution so far."""

    graph: Graph
    nodes: dict[str, _State] = field(default_factory=dict[str, _State])
    edges: list[str] = field(default_factory=list[str])
    failures: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    """Node, code, treatment."""
    stopped: bool = False
    cancelled: bool = False
    timed_out: bool = False
    losing: list[str] = field(default_factory=list[str])
    """The rest of those that end together."""

    def __post_init__(self) -> None:
        self.nodes = {node.id: _State(node) for node in self.graph.nodes}
        self.edges = [""] * len(self.graph.edges)

    # Asking.

    def level(self, id: str) -> int:
        """Section 1: the longest path to it, in edges, `error` edges too."""
        return max((self.level(edge.source) + 1 for edge in self.graph.edges if edge.target == id), default=0)

    def guarded(self, id: str) -> bool:
        """E3, by enumerating every path of plain edges."""
        plain = [edge for edge in self.graph.edges if edge.source == id and edge.handle != "error"]
        paths = [[edge.target] for edge in plain]
        whole: list[list[str]] = []
        while paths:
            path = paths.pop()
            further = [e.target for e in self.graph.edges if e.source == path[-1] and e.handle != "error"]
            if not further:
                whole.append(path)
            paths.extend([*path, target] for target in further)
        return bool(plain) and all(
            any(self._join(id).mode is not JoinMode.ALL for id in path) for path in whole
        )

    def held(self, id: str) -> bool:
        """R2: whether a lower level has a node that has not ended."""
        level = self.level(id)
        return self.graph.scheduling is Scheduling.LEVELS and any(
            self.level(other) < level and not state.ended for other, state in self.nodes.items()
        )

    @property
    def closed(self) -> bool:
        """Whether no join is decided and nothing starts."""
        return self.stopped or self.cancelled or self.timed_out

    def states(self) -> dict[str, str]:
        """State and reason of all nodes."""
        return {id: f"{s.state}/{s.reason}" if s.reason else s.state for id, s in self.nodes.items()}

    # Following.

    def begin(self, stimulus: Stimulus) -> None:
        """Take note of what came from outside, before the events it led to."""
        if stimulus.kind == "start":
            for id in self.nodes:
                if not any(edge.target == id for edge in self.graph.edges):
                    self.nodes[id].decided = "RUN"
        elif stimulus.kind == "cancel" and not self.cancelled and not self.timed_out:
            self.cancelled = True
            self._all_due("CANCELLED", "")
        elif stimulus.kind == "execution_timeout" and not self.cancelled:
            self.timed_out = True
            self._all_due("CANCELLED", "EXECUTION_TIMEOUT")

    def follow(self, event: Event, stimulus: Stimulus) -> None:
        """Take the next event about a node's state, and object if the law wants another."""
        if event.node_state is None:
            return
        id = event.node_path
        here = self.nodes[id]
        got = (event.node_state.name, event.reason)
        waiting = {other: state.due for other, state in self.nodes.items() if state.due}
        skips = [other for other, state in self.nodes.items() if state.decided in SKIPS and not state.ended]
        if skips and not self.closed and not self.losing:
            assert id in skips, f"J5: {id} became {got}, but first {skips} are skipped"
            here.due = None
            wanted, treatment = self._happen(id, event, stimulus)
        elif waiting:
            assert here.due == got, f"{id} became {got}, but first {waiting} are due"
            self.losing = self.losing or list(waiting)
            assert id == self.losing.pop(0), (
                f"J5: {id} became {got}, but first {waiting} are due, in graph order"
            )
            here.due = None
            wanted, treatment = got, "NONE"
            if got[0] == "CANCELLED":
                self._end(id, "LOSER")
            here.state, here.reason = got
        else:
            wanted, treatment = self._happen(id, event, stimulus)
            if here.state in ("BACKING_OFF", "QUEUED"):
                # S2.1 leaves open what is shown as the reason of a node that goes on.
                here.reason = event.reason
                wanted = (here.state, here.reason)
        assert got == wanted, f"{id} became {got}, and the law says {wanted}"
        if isinstance(event.detail, AttemptEnded | NodeEnded):
            assert event.detail.treatment is Treatment[treatment], (
                f"{id}: {event.detail.treatment!r}, not {treatment}"
            )

    def _happen(self, id: str, event: Event, stimulus: Stimulus) -> tuple[tuple[str, str], str]:
        here = self.nodes[id]
        node = here.node
        mine = stimulus.path == id
        match event.detail:
            case AttemptStarted():
                assert not self.closed, f"{id} starts, but nothing may start any more"
                assert isinstance(node.kind, Task)
                if here.state == "IDLE":
                    assert here.decided == "RUN", f"{id} starts, but its join is {here.decided or 'open'}"
                    assert not node.locked, f"{id} is locked, yet starts"
                    assert not self.held(id), f"{id} starts before its level"
                here.state, here.reason = "RUNNING", ""
            case NodeWaiting():
                may_wait = not self.closed and here.decided == "RUN" and not self.held(id)
                assert may_wait, f"{id} waits, but nothing let it"
                assert isinstance(node.kind, Delay)
                here.state = "WAITING"
            case AttemptEnded():
                assert mine, f"{id} ended, and nobody said so"
                if stimulus.kind == "node_timeout":
                    self._end(id, "TIMED_OUT", code="DEADLINE_EXCEEDED")
                else:
                    self._result(id, stimulus)
            case NodeEnded():
                self._end_without_attempt(id, mine and stimulus.kind == "node_timeout")
            case NodeIdled():
                raise AssertionError(f"{id} was put back, and nothing says why")
            case _:
                raise AssertionError(event)
        return (here.state, here.reason), here.treatment

    def _result(self, id: str, stimulus: Stimulus) -> None:
        here = self.nodes[id]
        retry = here.node.retry or RetryPolicy()
        assert here.state == "RUNNING"
        match stimulus.outcome:
            case "SUCCEEDED":
                here.used += 1
                self._end(id, "SUCCEEDED", output=stimulus.output)
            case "FAILED" | "TIMED_OUT":
                here.used += 1
                listed = not retry.retryable_codes or stimulus.code in retry.retryable_codes
                again = listed if stimulus.retryable is None else stimulus.retryable
                if again and here.used < retry.max_attempts:
                    self._again(here, "BACKING_OFF")
                else:
                    self._end(id, stimulus.outcome, code=stimulus.code)
            case "LOST" if here.lost == retry.max_lost_attempts:
                self._end(id, "FAILED", code="POISON")
            case _:
                here.lost += stimulus.outcome == "LOST"
                self._again(here, "QUEUED")

    def _again(self, here: _State, state: str) -> None:
        here.state, here.reason = ("IDLE", "SIBLING_FAILED") if self.stopped else (state, "")

    def _end_without_attempt(self, id: str, timed_out: bool) -> None:
        here = self.nodes[id]
        node = here.node
        if timed_out:
            assert here.state == "BACKING_OFF"
            self._end(id, "TIMED_OUT", code="DEADLINE_EXCEEDED")
            return
        assert not self.closed, f"{id} ended, but nothing is decided any more"
        assert here.state in ("IDLE", "WAITING")
        if here.decided in ("DEAD_PATH", "UPSTREAM_FAILED"):
            self._end(id, here.decided)
            return
        if here.decided != "RUN":
            assert here.decided, f"{id} ended, but its join is open"
            self._end(id, "FAILED", code=here.decided)
            return
        assert not self.held(id), f"{id} ended before its level"
        broken = node.input == '"broken"'
        match node.kind:
            case _ if node.locked:
                self._end(id, "LOCKED", output=node.locked_output or "null")
            case Condition(expression="true" | "false" as value):
                self._end(id, "SUCCEEDED", output=value)
            case Switch(expression=value) if value.startswith('"'):
                self._end(id, "SUCCEEDED", output=value)
            case Transform() if not broken:
                self._end(id, "SUCCEEDED", output=node.input or "any")
            case Delay() if not broken:
                assert here.state == "WAITING"
                self._end(id, "SUCCEEDED", output=node.input or "any")
            case _:
                assert broken or isinstance(node.kind, Condition | Switch), f"{id} ended without an attempt"
                self._end(id, "FAILED", code="EXPRESSION")

    # Section 5.

    def _end(self, id: str, how: str, *, code: str = "", output: str | None = None) -> None:
        here = self.nodes[id]
        node = here.node
        here.output = output
        outgoing = [(position, edge) for position, edge in enumerate(self.graph.edges) if edge.source == id]
        if how == "SUCCEEDED":
            for _, edge in outgoing:
                if edge.handle == _handle(node, output) and edge.when in ("broken", "1"):
                    how, code = "FAILED", "EXPRESSION"
                    here.output = output = None
        here.state = how if how in ENDED else "SKIPPED"
        here.reason = how if how in ("DEAD_PATH", "UPSTREAM_FAILED", "LOCKED") else code
        error = D
        match how:
            case "SUCCEEDED" | "LOCKED":
                selected, other = A, D
            case "TIMED_OUT" if node.on_timeout is OnTimeout.CONTINUE:
                selected, other, here.output = A, D, "null"
            case "TIMED_OUT" if node.on_timeout is OnTimeout.CANCEL:
                selected = other = D
            case "FAILED" | "TIMED_OUT":
                here.broke = len(self.failures)
                if any(edge.handle == "error" and edge.when in ("", "true") for _, edge in outgoing):
                    here.treatment, selected, other, error = "HANDLED", D, D, A
                elif node.on_error is OnError.IGNORE:
                    here.treatment, selected, other, here.output = "IGNORED", A, D, "null"
                else:
                    says_nothing = node.on_error is OnError.UNSPECIFIED
                    tolerated = node.on_error is OnError.TOLERATE or (says_nothing and self.guarded(id))
                    here.treatment, selected, other = "TOLERATED" if tolerated else "UNHANDLED", B, B
                self.failures.append((id, code, here.treatment))
            case "UPSTREAM_FAILED":
                selected = other = B
                here.broke = min(self._broke(edge) for edge in self._incoming(id) if self.edges[edge] == B)
            case _:
                selected = other = D
        for position, edge in outgoing:
            true = edge.when in ("", "true")
            if edge.handle == "error":
                self.edges[position] = error if true else D
            else:
                fits = true and edge.handle == _handle(node, here.output)
                self.edges[position] = selected if fits else other
        if here.treatment == "UNHANDLED" and self.graph.policy.on_failure is not OnFailure.CONTINUE:
            self._stop()
        if not self.closed:
            for _, edge in outgoing:
                self._judge(edge.target)

    def _stop(self) -> None:
        """E4."""
        self.stopped = True
        for here in self.nodes.values():
            running = here.state == "RUNNING" and self.graph.policy.on_failure is OnFailure.STOP_DISPATCH
            if not here.ended and not running and (here.state, here.reason) != ("IDLE", "SIBLING_FAILED"):
                here.due = ("IDLE", "SIBLING_FAILED")

    def _all_due(self, state: str, reason: str) -> None:
        for here in self.nodes.values():
            here.due = None if here.ended else (state, reason)

    # Section 6.

    def _join(self, id: str) -> Join:
        return self.nodes[id].node.join or Join()

    def _incoming(self, id: str) -> list[int]:
        return [position for position, edge in enumerate(self.graph.edges) if edge.target == id]

    def _broke(self, edge: int) -> int:
        broke = self.nodes[self.graph.edges[edge].source].broke
        assert broke is not None
        return broke

    def _judge(self, id: str) -> None:
        here = self.nodes[id]
        join = self._join(id)
        if here.decided or here.ended:
            return
        states = [self.edges[edge] for edge in self._incoming(id)]
        active, dead, broken, unresolved = (states.count(state) for state in (A, D, B, ""))
        resolved = not unresolved
        if dead == len(states):
            here.decided = "DEAD_PATH"
        elif join.mode is JoinMode.ALL and resolved:
            here.decided = "UPSTREAM_FAILED" if broken else "RUN"
        elif join.mode is JoinMode.ANY:
            here.decided = "RUN" if active else "ALL_BRANCHES_FAILED" if resolved else ""
        elif join.mode is JoinMode.QUORUM:
            needed = join.count or max(1, math.ceil(Fraction(str(join.rate)) * (len(states) - dead)))
            if active >= needed:
                here.decided = "RUN"
            elif active + unresolved < needed and active + broken:
                here.decided = "QUORUM_UNREACHABLE"
        elif join.mode is JoinMode.COLLECT and resolved:
            errors = sum(
                self.edges[e] == A and self.graph.edges[e].handle == "error" for e in self._incoming(id)
            )
            share = Fraction(active - errors, active + broken)
            here.decided = "RUN" if share >= Fraction(str(join.min_success_rate)) else "MIN_SUCCESS_RATE"
        if here.decided and join.mode in (JoinMode.ANY, JoinMode.QUORUM) and join.cancel_losers:
            self._cancel_losers()

    def _cancel_losers(self) -> None:
        """J1, to the fixpoint."""
        more = True
        while more:
            more = False
            for id, here in self.nodes.items():
                plain = [edge for edge in self.graph.edges if edge.source == id and edge.handle != "error"]
                if not here.ended and not here.due and plain and all(self._is_lost(edge) for edge in plain):
                    here.due = ("CANCELLED", "RACE_LOST")
                    more = True

    def _is_lost(self, edge: Edge) -> bool:
        target = self.nodes[edge.target]
        return self._join(edge.target).cancel_losers and bool(
            target.decided or target.due or target.reason == "RACE_LOST"
        )

    # Section 7: how it ends.

    def must_be_settled(self, offered: set[str]) -> None:
        """Nothing that the law wants at once is left undone."""
        assert not any(here.due for here in self.nodes.values()), {
            i: h.due for i, h in self.nodes.items() if h.due
        }
        for id, here in self.nodes.items():
            if self.closed or here.state not in ("IDLE", "QUEUED") or not here.decided:
                assert id not in offered or here.state == "BACKING_OFF", f"{id} is offered as {here.state}"
                continue
            assert here.decided == "RUN", f"{id}: {here.decided} waits"
            if self.held(id):
                assert id not in offered, f"{id} is offered before its level"
            else:
                assert id in offered, f"{id} is ready (R1), yet not offered"

    @property
    def is_over(self) -> bool:
        """Whether the run must be over (receipts of a cancel apart)."""
        if self.stopped and self.graph.policy.on_failure is OnFailure.FAIL_FAST:
            return True
        if self.stopped:
            return all(here.state != "RUNNING" for here in self.nodes.values())
        return all(here.ended for here in self.nodes.values())

    def conclude(self) -> tuple[str, tuple[str, str] | None, object]:
        """E5, E1, S2.3: state, node and code of the failure named, output."""
        if self.cancelled or self.timed_out:
            return "CANCELLED" if self.cancelled else "TIMED_OUT", None, None
        state, named = self._outcome()
        if state == "FAILED":
            return state, named, None
        if self.graph.output == "broken":
            return "FAILED", ("", "EXPRESSION"), None
        return (
            state,
            named,
            json.loads(self.graph.output or "0") if self.graph.output else self._sink_output(),
        )

    def _outcome(self) -> tuple[str, tuple[str, str] | None]:
        unhandled = [failure[:2] for failure in self.failures if failure[2] == "UNHANDLED"]
        if self.stopped:
            return "FAILED", unhandled[0]
        good, broken = 0, list[_State]()
        for here in self._sinks():
            if here.state == "SUCCEEDED" or here.reason == "LOCKED" or here.output == "null":
                good += 1
            elif here.treatment in ("TOLERATED", "UNHANDLED") or here.reason == "UPSTREAM_FAILED":
                broken.append(here)
        if not unhandled and not broken:
            return "SUCCEEDED", None
        named = unhandled[0] if unhandled else self.failures[min(here.broke or 0 for here in broken)][:2]
        counted = good + len(broken)
        partially = good and Fraction(good, counted) >= Fraction(str(self.graph.policy.min_success_rate))
        return "PARTIALLY_SUCCEEDED" if partially else "FAILED", named

    def _sinks(self) -> list[_State]:
        return [
            here
            for id, here in self.nodes.items()
            if not any(edge.source == id and edge.handle != "error" for edge in self.graph.edges)
        ]

    def _sink_output(self) -> object:
        sinks = self._sinks()
        outputs = {here.node.id: here.output for here in sinks if here.output is not None}
        if len(sinks) == 1:
            return next(iter(outputs.values()), "null")
        return outputs


def _handle(node: Node, output: str | None) -> str:
    """Section 5: the plain handle that an output selects."""
    match node.kind:
        case Condition():
            return "true" if output == "true" else "false"
        case Switch(cases=cases):
            return next((case for case in cases if output == json.dumps(case)), "default")
        case _:
            return ""
