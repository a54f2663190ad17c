"""How a node begins: carries out what its join decided, asking the questions that its kind needs.

The state here is not durable. It follows from durable state, and a replay rebuilds it: a node whose join was
decided, and that has had no event since, is on the agenda.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterator, Mapping
from typing import assert_never

from plait_server.core.definition.analysis import ERROR_HANDLE
from plait_server.core.definition.graph import (
    DEFAULT_JOIN,
    Condition,
    Delay,
    JoinMode,
    Scheduling,
    Subgraph,
    Switch,
    Task,
    Transform,
)
from plait_server.core.run.commands import (
    FindValue,
    Granted,
    InputMade,
    MakeInput,
    OfferNode,
    Place,
    SetTimer,
    TimerKind,
    ValueFound,
    WithdrawNode,
)
from plait_server.core.run.ending import Decider, Ending, Endings
from plait_server.core.run.events import AttemptStarted, NodeEnded, NodeWaiting
from plait_server.core.run.failures import EXPRESSION, Failure, caused_by
from plait_server.core.run.joins import Verdict
from plait_server.core.run.payload import NULL, Payload, is_inline
from plait_server.core.run.scope import NodeRecord
from plait_server.core.run.scopes import Scopes
from plait_server.core.run.states import EdgeState, NodeState, Reason
from plait_server.core.run.waits import Waits
from plait_server.errors import InvariantViolated

_JOIN_MESSAGES = {
    Verdict.ALL_BRANCHES_FAILED: "no branch succeeded",
    Verdict.QUORUM_UNREACHABLE: "too few branches can still succeed for the quorum",
    Verdict.MIN_SUCCESS_RATE: "too few branches succeeded",
}


class Beginnings:
    """The nodes that are about to start: held by their level, waiting for an answer, or for capacity."""

    def __init__(self, machine: Decider, endings: Endings, scopes: Scopes) -> None:
        self._machine = machine
        self._endings = endings
        self._scopes = scopes
        self._questions: dict[str, int] = {}
        """Node path -> ticket of its unanswered MakeInput or FindValue."""
        self._turns = 0
        self._released: list[tuple[int, NodeRecord]] = []
        """A heap of nodes whose level has come and whose turn has not, by the order of the decisions."""
        self._offered: dict[str, NodeRecord] = {}
        self._unsent: dict[str, OfferNode] = {}
        """Tasks to be offered at the end of this instant (J5)."""
        self._ranked: list[tuple[tuple[Place, ...], str]] = []
        """A heap of the ranks of those tasks, while they are sent in parts; may hold ranks of tasks no longer offered.

        """
        self._keys: dict[str, str] = {}
        """Node path -> its concurrency key, until its first attempt starts and has it."""
        self.waits = Waits(machine, endings)
        self._rendered: dict[str, Payload] = {}
        """Node path -> input rendered for the first attempt, until it starts."""

    def __repr__(self) -> str:
        return f"<Beginnings {len(self._offered)} offered, {len(self._questions)} questions>"

    @property
    def has_offers(self) -> bool:
        """Whether any node waits for capacity."""
        return bool(self._offered)

    def is_offered(self, node_path: str) -> bool:
        """Whether a node waits for capacity."""
        return node_path in self._offered

    def is_withheld(self, record: NodeRecord) -> bool:
        """Whether a node would begin, or wait for capacity, if the execution were not paused (C2)."""
        is_decided = record in self._machine.execution.agenda.decided and _is_favorable(record)
        return self._machine.execution.is_paused and (is_decided or record.path in self._offered)

    def queued_counts(self) -> Mapping[NodeState, int]:
        """Count the nodes that wait for capacity or for their level (A1), by their recorded states."""
        counts = {NodeState.IDLE: 0, NodeState.BACKING_OFF: 0, NodeState.QUEUED: 0}
        for record in self._offered.values():
            counts[record.state] += 1
        if self._machine.execution.is_paused:
            for record in self._machine.execution.agenda.decided:
                counts[record.state] += _is_favorable(record)
        for scope in self._machine.execution.scopes.values():
            for level, held in scope.held.items():
                for _, record in held:
                    is_held = level > scope.level and not scope.is_closed and record.state is NodeState.IDLE
                    counts[NodeState.IDLE] += is_held and record.path not in self._offered
        return counts

    def skip(self, record: NodeRecord) -> None:
        """End a node whose join says SKIPPED."""
        reason = Reason.DEAD_PATH if record.verdict is Verdict.DEAD_PATH else Reason.UPSTREAM_FAILED
        self._machine.emit(NodeEnded(), record, NodeState.SKIPPED, reason)

    def begin(self, record: NodeRecord) -> None:
        """Begin a node whose join was decided, or let it fail with its join."""
        verdict, scope = record.verdict, record.scope
        if verdict is Verdict.MIN_SUCCESS_RATE:
            self._ask_input(record)  # The failure's details hold the object that the join made.
        elif verdict is not None and verdict.is_failure:
            self._fail_join(record, verdict, None)
        else:
            level = scope.analysis.levels[record.index]
            if scope.graph.scheduling is Scheduling.LEVELS and level > scope.level:
                self._turns += 1
                scope.held.setdefault(level, []).append((self._turns, record))
            else:
                self._run(record)

    def take_next(self) -> NodeRecord | None:
        """Take the node that begins or fails with its join next, in the order of the decisions; None without one.

        A node held by its level was decided before everything on the agenda when the level opens (J5, R2).
        """
        agenda = self._machine.execution.agenda
        for scope in agenda.leveled:
            for level in [level for level in scope.held if level <= scope.level]:
                for each in scope.held.pop(level):
                    heapq.heappush(self._released, each)
        agenda.leveled.clear()
        while self._released:
            _, record = heapq.heappop(self._released)
            if (
                not record.scope.is_closed
                and record.state is NodeState.IDLE
                and not self._endings.is_out(record)
            ):
                return record
        return agenda.take_decided()

    def offer(self, record: NodeRecord) -> None:
        """Offer a task for capacity, unless its scope has stopped."""
        kind, scope = record.node.kind, record.scope
        if not isinstance(kind, Task) or scope.is_closed:
            return
        self._offered[record.path] = record
        offer = self._unsent[record.path] = self._offer(record, kind.type)
        if self._ranked:
            heapq.heappush(self._ranked, _rank(offer))

    def withhold_offers(self) -> Iterator[None]:
        """Withdraw all offers until they are sent again, after a pause; yield after each."""
        self._ranked.clear()
        for record in tuple(self._offered.values()):
            kind = record.node.kind
            if record.path not in self._unsent and isinstance(kind, Task):
                self._unsent[record.path] = self._offer(record, kind.type)
                self._machine.ask(WithdrawNode(record.path))
                yield

    def reconsider(self, record: NodeRecord) -> None:
        """Let a node that has not started begin anew, because its lock has changed (C4, C10)."""
        is_asked = record.path in self._questions
        if (is_asked or record.path in self._offered) and not record.attempts and _is_favorable(record):
            self._machine.forget(record)
            self._machine.execution.agenda.decided[record] = None

    def send_offers(self, most: int) -> bool:
        """Ask for capacity for at most this many of the offered tasks; return whether there are more."""
        if not self._ranked and len(self._unsent) <= most:
            for offer in self._unsent.values():
                self._send(offer)
            self._unsent.clear()
            return False
        # In R4's order, because another execution may have its turn between two parts.
        if not self._ranked:
            self._ranked = sorted(_rank(offer) for offer in self._unsent.values())
        sent = 0
        while self._ranked and sent < most:
            offered = self._unsent.pop(heapq.heappop(self._ranked)[-1], None)
            if offered is not None:
                self._send(offered)
                sent += 1
        return bool(self._unsent)

    def _send(self, offer: OfferNode) -> None:
        self._machine.ask(offer)
        self.waits.begin(self._offered[offer.node_path])

    def take(self, record: NodeRecord, granted: Granted) -> AttemptStarted:
        """Start an offered node; return the event, with the input of its first attempt if it was rendered."""
        del self._offered[record.path]
        self.waits.forget(record.path)
        key, rendered = self._key(record), self._rendered.pop(record.path, None)
        self._keys.pop(record.path, None)
        queue_s = round(granted.queue_s, 6)
        return AttemptStarted(granted.worker_id, granted.worker_instance_id, queue_s, rendered, key)

    def forget(self, record: NodeRecord) -> None:
        """Drop a node's pending question or offer, because something else changes the node."""
        path = record.path
        self._questions.pop(path, None)
        self._rendered.pop(path, None)
        self._keys.pop(path, None)
        if path in self._offered:
            del self._offered[path]
            self.waits.forget(path)
            if self._unsent.pop(path, None) is None:
                self._machine.ask(WithdrawNode(path))

    def on_input_made(self, made: InputMade) -> None:
        """Handle the answer to MakeInput."""
        record = self._answered(made.node_path, made.ticket)
        if record is None:
            return
        if record.verdict is not None and record.verdict.is_failure:
            self._fail_join(record, record.verdict, made.payload)
            return
        if made.payload is None:
            self._fail_expression(record, made.problem)
            return
        if record.node.locked and record.lock is None:
            self._end_locked(record, made.payload)
            return
        match record.node.kind:
            case Task():
                if record.node.input is not None:
                    self._rendered[record.path] = made.payload
                self._ask_key(record)
            case Delay(duration_s=duration_s):
                due_s = round(self._machine.now_s + duration_s, 6)
                self._machine.emit(NodeWaiting(due_s, made.payload), record, NodeState.WAITING)
                self._machine.ask(SetTimer(TimerKind.WAIT, record.path, 0, duration_s))
            case Transform():
                self._endings.begin(record, Ending(state=NodeState.SUCCEEDED, output=made.payload))
            case Subgraph():
                self._scopes.begin(record, made.payload)
            case Condition() | Switch() | None:
                message = f"node {record.path!r} takes no input; please report this"
                raise InvariantViolated(message)
            case _:
                assert_never(record.node.kind)

    def on_value_found(self, found: ValueFound) -> None:
        """Handle the answer to FindValue."""
        record = self._answered(found.node_path, found.ticket)
        if record is None:
            return
        if found.payload is None:
            self._fail_expression(record, found.problem)
        elif isinstance(record.node.kind, Task):
            self._keys[record.path] = json.loads(found.payload.json)
            self.offer(record)
        else:
            self._endings.begin(record, Ending(state=NodeState.SUCCEEDED, output=found.payload))

    # Inside.

    def _run(self, record: NodeRecord) -> None:
        node, lock = record.node, record.lock
        if lock is not None and lock.is_locked and not record.attempts:
            self._end_locked(record, lock.output if lock.output is not None else NULL)
            return
        if lock is None and node.locked:
            if node.locked_output is None:
                self._end_locked(record, NULL)
            elif is_inline(node.locked_output):
                self._end_locked(record, Payload(node.locked_output))
            else:
                self._ask_input(record)  # The shell may have to store it by digest.
            return
        match node.kind:
            case Task():
                if record.attempts or (node.input is None and self._is_input_kept(record)):
                    # The input was rendered before, or is one value that is stored already.
                    self._ask_key(record)
                else:
                    self._ask_input(record)
            case Condition() | Switch():
                self._ask_value(record)
            case Transform() | Delay() | Subgraph():
                self._ask_input(record)
            case None:
                message = f"node {record.path!r} has no kind; please report this"
                raise InvariantViolated(message)
            case _:
                assert_never(node.kind)

    def _end_locked(self, record: NodeRecord, output: Payload) -> None:
        ending = Ending(state=NodeState.SKIPPED, reason=Reason.LOCKED, output=output)
        self._endings.begin(record, ending)

    def _is_input_kept(self, record: NodeRecord) -> bool:
        """Return whether the node's input is an output or an input that is stored already (J2)."""
        if record.total != 1 or (record.node.join or DEFAULT_JOIN).mode is not JoinMode.ALL:
            return record.total == 0
        scope = record.scope
        return scope.edge(scope.adjacency.incoming[record.index][0]).handle != ERROR_HANDLE

    def _ask_input(self, record: NodeRecord) -> None:
        ticket = self._questions[record.path] = self._machine.next_ticket()
        self._machine.ask(MakeInput(record.path, ticket))

    def _ask_value(self, record: NodeRecord) -> None:
        ticket = self._questions[record.path] = self._machine.next_ticket()
        self._machine.ask(FindValue(record.path, ticket))

    def _ask_key(self, record: NodeRecord) -> None:
        """Offer a task, once its concurrency key is known; its first attempt decides the key of all (Q1)."""
        if record.node.concurrency_key and not record.attempts:
            self._ask_value(record)
        else:
            self.offer(record)

    def _key(self, record: NodeRecord) -> str:
        return record.attempts[-1].concurrency_key if record.attempts else self._keys.get(record.path, "")

    def _offer(self, record: NodeRecord, node_type: str) -> OfferNode:
        scope = record.scope
        places = *scope.places_around, record.place
        return OfferNode(record.path, node_type, places, scope.limits, self._key(record))

    def _answered(self, node_path: str, ticket: int) -> NodeRecord | None:
        if self._questions.get(node_path) != ticket:
            return None
        del self._questions[node_path]
        return self._machine.execution.record(node_path)

    def _fail_expression(self, record: NodeRecord, problem: str) -> None:
        failure = Failure(code=EXPRESSION, message=problem, node_path=record.path)
        self._endings.begin_failure(record, failure, None)

    def _fail_join(self, record: NodeRecord, verdict: Verdict, details: Payload | None) -> None:
        """Fail a node by its join, with the failures behind its edges as causes (E1, J3)."""
        scope = record.scope
        origins: dict[int, None] = {}  # Each failure once, in the order of the edges.
        for edge in scope.adjacency.incoming[record.index]:
            source, state = scope.source(edge), scope.edge_states[edge]
            is_error = state is EdgeState.ACTIVE and scope.edge(edge).handle == ERROR_HANDLE
            if (state is EdgeState.BROKEN or is_error) and source.origin >= 0:
                origins[source.origin] = None
        causes = [scope.failures[origin] for origin in origins]
        failure = Failure(
            code=verdict.value,
            message=f"{_JOIN_MESSAGES[verdict]}: {record.path}",
            details=details,
            details_omitted=details is None and verdict is Verdict.MIN_SUCCESS_RATE,
            node_path=record.path,
        )
        self._endings.begin_failure(record, caused_by(failure, causes), None)


def _is_favorable(record: NodeRecord) -> bool:
    """Return whether a node's join was decided in its favor."""
    return record.verdict is Verdict.RUN


def _rank(offer: OfferNode) -> tuple[tuple[Place, ...], str]:
    """Return an offer's rank in its execution by R4; the path comes last."""
    return offer.places, offer.node_path
