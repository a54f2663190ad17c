"""How a node ends: its edges are judged first, and the verdicts decide how it ends (section 5, F2).

An ending asks at most three questions before it becomes an event, because each question depends on the
answer to the one before: the `when` of plain edges (whose failure fails a SUCCEEDED node, F2), then of
`error` edges (is the failure handled?), then of plain edges again (with null, if the failure is ignored).
Edges without a `when` ask nothing, so in the plain case the ending becomes an event at once.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

from plait_server.core.definition.analysis import ERROR_HANDLE
from plait_server.core.definition.graph import OnError, OnTimeout
from plait_server.core.limits import EDGES_NAMED_MAX
from plait_server.core.run.commands import AttemptResult, Command, Disposition, EdgesJudged, JudgeEdges
from plait_server.core.run.edges import chosen_handle
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptExtended,
    AttemptStarted,
    CancelReceipt,
    EdgeName,
    NodeEnded,
    NodeIdled,
    NodeWaiting,
    ScopeEnded,
    ScopeOpened,
    UsageReported,
)
from plait_server.core.run.execution import Execution
from plait_server.core.run.failures import DEADLINE_EXCEEDED, EXPRESSION, Failure
from plait_server.core.run.payload import NULL, Payload
from plait_server.core.run.scope import NodeRecord
from plait_server.core.run.states import AttemptOutcome, NodeState, Treatment


class _Phase(enum.Enum):
    PLAIN = "PLAIN"
    ERROR = "ERROR"
    IGNORED = "IGNORED"


@dataclass(slots=True, kw_only=True)
class Ending:
    """The end of a node while it is being decided."""

    state: NodeState
    reason: str = ""
    output: Payload | None = None
    failure: Failure | None = None
    result: AttemptResult | None = None
    """The attempt's result that caused it; None if the node ends without an attempt."""
    phase: _Phase = _Phase.PLAIN
    asked: tuple[int, ...] = ()
    edges_false: list[int] = field(default_factory=list[int])
    ticket: int = 0
    late: list[AttemptResult] = field(default_factory=list[AttemptResult])
    """Results that arrived while the edges of a timeout were judged."""
    scope_ended: ScopeEnded | None = None
    """How the scope in the node ended, if no event has recorded that yet."""


NodeDetail: TypeAlias = (
    AttemptStarted
    | AttemptExtended
    | AttemptEnded
    | CancelReceipt
    | NodeEnded
    | NodeIdled
    | NodeWaiting
    | ScopeEnded
    | ScopeOpened
    | UsageReported
)
"""The details of events about a node."""


class Decider(Protocol):
    """The part of the machine that endings use."""

    execution: Execution

    @property
    def now_s(self) -> float:
        """Wall time of the current input."""
        ...

    def ask(self, command: Command) -> None:
        """Append a command to those already decided."""

    def next_ticket(self) -> int:
        """Return a ticket that no question has had."""
        ...

    def emit(
        self,
        detail: NodeDetail,
        record: NodeRecord,
        state: NodeState | None,
        reason: str = "",
        attempt: int = 0,
    ) -> None:
        """Decide an event about a node."""

    def emit_late(self, detail: CancelReceipt | UsageReported, node_path: str, attempt: int) -> None:
        """Decide an event about an attempt that has ended; its scope may be closed."""

    def used(self, record: NodeRecord, number: int, final: Mapping[str, str] | None) -> Mapping[str, str]:
        """Return an attempt's total usage."""
        ...

    def acknowledge(self, result: AttemptResult, disposition: Disposition) -> None:
        """Acknowledge a worker's result, if it waits for that."""

    def refuse(self, result: AttemptResult, disposition: Disposition) -> None:
        """Refuse a result that changes nothing."""

    def forget(self, record: NodeRecord) -> None:
        """Drop a node's pending questions and offers, because the node is about to change for another reason."""

    def is_offered(self, node_path: str) -> bool:
        """Whether a node waits for capacity."""
        ...


class Endings:
    """The endings whose edges are being judged."""

    def __init__(self, machine: Decider) -> None:
        self._machine = machine
        self._out: dict[str, Ending] = {}

    def is_out(self, record: NodeRecord) -> bool:
        """Whether the node's edges are being judged."""
        return record.path in self._out

    def forget(self, record: NodeRecord) -> None:
        """Drop an ending that was overtaken by something else; a waiting worker is told."""
        ending = self._out.pop(record.path, None)
        if ending is None:
            return
        for result in (ending.result, *ending.late):
            if result is not None:
                self._machine.refuse(result, Disposition.STALE)

    def keep_late(self, record: NodeRecord, result: AttemptResult) -> None:
        """Keep a result of an attempt that is ending: a duplicate, or one overtaken by its timeout (T6)."""
        ending = self._out[record.path]
        if ending.result is None or not ending.result.from_worker:
            ending.late.append(result)

    def begin(self, record: NodeRecord, ending: Ending) -> None:
        """End a node that SUCCEEDED, is LOCKED, or timed out without a failure."""
        ending.phase = _Phase.PLAIN
        self._judge_plain(record, ending)

    def begin_failure(
        self,
        record: NodeRecord,
        failure: Failure,
        result: AttemptResult | None,
        scope_ended: ScopeEnded | None = None,
    ) -> None:
        """End a node that FAILED, its retries used up, or whose last attempt TIMED_OUT (E2, T5)."""
        if result is not None and result.outcome is AttemptOutcome.TIMED_OUT:
            self.begin_timeout(record, result, failure)
            return
        ending = Ending(state=NodeState.FAILED, failure=failure, result=result, scope_ended=scope_ended)
        self._fail(record, ending)

    def begin_timeout(
        self,
        record: NodeRecord,
        result: AttemptResult | None,
        failure: Failure | None = None,
    ) -> None:
        """End a node that TIMED_OUT, as its `on_timeout` says (T5)."""
        on_timeout = record.node.on_timeout or OnTimeout.ERROR
        if on_timeout is OnTimeout.ERROR:
            if failure is None:
                failure = Failure(
                    code=DEADLINE_EXCEEDED,
                    message="the node took longer than its timeout; raise timeouts.node, or make it quicker",
                    node_path=record.path,
                    attempt=result.attempt if result is not None else 0,
                )
            self._fail(record, Ending(state=NodeState.TIMED_OUT, failure=failure, result=result))
            return
        ending = Ending(state=NodeState.TIMED_OUT, reason=DEADLINE_EXCEEDED, output=NULL, result=result)
        if on_timeout is OnTimeout.CONTINUE:
            self.begin(record, ending)
        else:
            self._conclude(record, ending, Treatment.NONE)

    def on_judged(self, judged: EdgesJudged) -> None:
        """Handle the verdicts on a node's edges."""
        ending = self._out.get(judged.node_path)
        if ending is None or ending.ticket != judged.ticket:
            return
        del self._out[judged.node_path]
        record = self._machine.execution.record(judged.node_path)
        pairs = list(zip(ending.asked, judged.verdicts, strict=True))
        problems = [verdict for _, verdict in pairs if isinstance(verdict, str)]
        if ending.phase is _Phase.PLAIN and ending.state is NodeState.SUCCEEDED and problems:
            failure = Failure(
                code=EXPRESSION,
                message=problems[0],
                node_path=record.path,
                attempt=ending.result.attempt if ending.result is not None else 0,
            )
            failed = Ending(state=NodeState.FAILED, failure=failure, result=ending.result, late=ending.late)
            failed.scope_ended = ending.scope_ended
            self._fail(record, failed)
            return
        ending.edges_false.extend(place for place, verdict in pairs if verdict is not True)
        if ending.phase is _Phase.ERROR:
            self._treat(record, ending)
        elif ending.phase is _Phase.IGNORED:
            self._conclude(record, ending, Treatment.IGNORED)
        else:
            self._conclude(record, ending, Treatment.NONE)

    def _judge_plain(self, record: NodeRecord, ending: Ending) -> None:
        output = ending.output if ending.output is not None else NULL
        handle = chosen_handle(record.node, output)
        scope = record.scope
        asked = tuple(
            place
            for place, position in enumerate(scope.adjacency.outgoing[record.index])
            if scope.edge(position).when and scope.edge(position).handle == handle
        )
        if asked:
            self._ask(record, ending, asked, output)
        else:
            treatment = Treatment.IGNORED if ending.phase is _Phase.IGNORED else Treatment.NONE
            self._conclude(record, ending, treatment)

    def _fail(self, record: NodeRecord, ending: Ending) -> None:
        failure = ending.failure
        if failure is None:
            return
        ending.phase = _Phase.ERROR
        ending.reason = failure.code
        scope = record.scope
        asked = tuple(
            place
            for place, position in enumerate(scope.adjacency.outgoing[record.index])
            if scope.edge(position).when and scope.edge(position).handle == ERROR_HANDLE
        )
        if asked:
            self._ask(record, ending, asked, failure)
        else:
            self._treat(record, ending)

    def _treat(self, record: NodeRecord, ending: Ending) -> None:
        """Return how a failure is treated: the first row of section 5 that applies."""
        scope = record.scope
        edges_false = frozenset(ending.edges_false)  # A node may have half a million edges.
        handled = any(
            scope.edge(position).handle == ERROR_HANDLE and place not in edges_false
            for place, position in enumerate(scope.adjacency.outgoing[record.index])
        )
        on_error = record.node.on_error
        if handled:
            self._conclude(record, ending, Treatment.HANDLED)
        elif on_error is OnError.IGNORE:
            ending.phase = _Phase.IGNORED
            ending.edges_false = []
            self._judge_plain(record, ending)
        elif on_error is OnError.TOLERATE or (
            on_error is OnError.UNSPECIFIED and record.index in scope.analysis.guarded
        ):
            self._conclude(record, ending, Treatment.TOLERATED)
        else:
            self._conclude(record, ending, Treatment.UNHANDLED)

    def _ask(
        self,
        record: NodeRecord,
        ending: Ending,
        asked: tuple[int, ...],
        output: Payload | Failure,
    ) -> None:
        ending.asked = asked
        ending.ticket = self._machine.next_ticket()
        self._out[record.path] = ending
        self._machine.ask(JudgeEdges(record.path, ending.ticket, asked, output))

    def _conclude(self, record: NodeRecord, ending: Ending, treatment: Treatment) -> None:
        edges_false = tuple(sorted(ending.edges_false))
        named = self._names(record, edges_false[:EDGES_NAMED_MAX]) if edges_false else ()
        result = ending.result
        has_output = ending.failure is None and ending.state is not NodeState.TIMED_OUT
        output = ending.output if has_output else None
        if ending.scope_ended is not None and record.scope.children[record.index].ended_as is None:
            self._machine.emit(ending.scope_ended, record, None)
        if result is None:
            detail = NodeEnded(output, ending.failure, edges_false, treatment, named)
            self._machine.emit(detail, record, ending.state, ending.reason)
            self._refuse_late(ending)
            return
        ended = AttemptEnded(
            result.outcome,
            output,
            ending.failure,
            self._machine.used(record, result.attempt, result.usage),
            edges_false=edges_false,
            treatment=treatment,
            edges_not_taken=named,
        )
        self._machine.emit(ended, record, ending.state, ending.reason, result.attempt)
        self._machine.acknowledge(result, Disposition.RECORDED)
        self._refuse_late(ending)

    def _names(self, record: NodeRecord, places: Iterable[int]) -> tuple[EdgeName, ...]:
        scope = record.scope
        outgoing = scope.adjacency.outgoing[record.index]
        edges = [scope.edge(outgoing[place]) for place in places]
        return tuple([EdgeName(edge.handle, edge.target) for edge in edges])

    def _refuse_late(self, ending: Ending) -> None:
        for result in ending.late:
            self._machine.refuse(result, Disposition.STALE)
