"""Which rows of the tables a simulation has seen: transitions, edges, joins, outcomes, cancel stages, ends, faults.

The rows come from the tables themselves, so that a row that is added to one is wanted here from then on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

from plait_server.core.definition.graph import JoinMode
from plait_server.core.run.edges import EdgeRow
from plait_server.core.run.events import AttemptEnded, CancelReceipt, ExecutionEnded
from plait_server.core.run.states import (
    EXECUTION_TRANSITIONS,
    NODE_TRANSITIONS,
    AttemptOutcome,
    CancelStage,
    ExecutionState,
    NodeState,
    Treatment,
)
from plait_server.testing.simulation.attempt_law import ATTEMPT_ROWS, attempt_rows
from plait_server.testing.simulation.collector import Mood
from plait_server.testing.simulation.faults import Fault
from plait_server.testing.simulation.scope_rows import SCOPE_ROWS, open_over_starts
from plait_server.testing.simulation.scripts import Act
from plait_server.testing.simulation.store import Durable, Records

_VERDICTS: Final[Mapping[JoinMode, tuple[str, ...]]] = {
    JoinMode.ALL: ("RUN", "DEAD_PATH", "UPSTREAM_FAILED"),
    JoinMode.ANY: ("RUN", "DEAD_PATH", "ALL_BRANCHES_FAILED"),
    JoinMode.QUORUM: ("RUN", "DEAD_PATH", "QUORUM_UNREACHABLE"),
    JoinMode.COLLECT: ("RUN", "DEAD_PATH", "MIN_SUCCESS_RATE"),
}
"""What each join can decide, by section 6."""

_CLIENTS: Final = (
    "an execution sleeps at a start",
    "an execution is read from a snapshot",
    "a call was cut",
    "a call was refused for want of room",
    "a submission was refused by a full queue",
    "the limit of a namespace was changed",
    "an answer was lost",
    "a watcher was cut",
    "a slow watcher was sent away",
    "a watcher of the namespace was cut",
    "the namespace was listed",
    "handler ignores its cancel",
    "handler ends after its cancel",
    "an open execution was not deleted",
    "a client deleted an execution",
    "an execution was deleted",
    "a limit was set",
    "a limit was removed",
    "an attempt started at a rate",
    "an attempt started with a key",
)

_SPANS: Final = (
    "a branch",
    "a branch with a name",
    "a join that links",
    "a wait for capacity",
    "a retry",
    "an error",
    "a loser",
    "a skipped node",
    "a node that was put back",
    "a node without a span",
    "a caller's trace",
    "an execution that is not sampled",
    "an execution told again after a crash",
)
"""What happens in traces (B2, B2.1)."""
_COLLECTOR: Final = (
    "a span comes again",
    "spans find no room",
    *(mood.value for mood in Mood if mood is not Mood.WELL),
)

_QUEUED_BY_EVENT: Final = (
    "only a task whose attempt was LOST or RETURNED is QUEUED by an event: it has its input"
)
NOT_REACHED: Final[Mapping[str, str]] = {
    "node: QUEUED -> WAITING": _QUEUED_BY_EVENT,
    "node: QUEUED -> SUCCEEDED": _QUEUED_BY_EVENT,
    "node: QUEUED -> SKIPPED": _QUEUED_BY_EVENT,
    "node: QUEUED -> FAILED": _QUEUED_BY_EVENT,
    "node: WAITING -> TIMED_OUT": "a delay has no timeout; approvals come with a later issue",
}
"""Rows that this version cannot reach, each with the reason; seeing one is as wrong as missing another."""


class Coverage:
    """Counts of the rows that were seen."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        """Row -> how often it was seen."""

    def __repr__(self) -> str:
        return f"<Coverage of {len(self.counts)} rows>"

    def take(self, seen: Counter[str], rows: Counter[str], records: Records) -> None:
        """Count what one seed has seen.

        Args:
            seen: Faults, and what handlers and clients met.
            rows: Rows of the tables of edges and joins.
            records: The events of all executions.
        """
        self.counts.update({row: count for row, count in rows.items() if row in _ALL})
        self.counts.update({f"fault: {what}": count for what, count in seen.items()})
        for durable in records.executions.values():
            self.counts.update(_rows_of(durable))
            self.counts.update(open_over_starts(durable))
            self.counts.update(f"attempt: {what}" for what in attempt_rows(durable))

    def add(self, other: Coverage) -> None:
        """Add the counts of other seeds."""
        self.counts.update(other.counts)

    def too_rare(self, least: int) -> list[str]:
        """Name the reachable rows that were seen less often than that."""
        return [row for row in wanted_rows() if self.counts[row] < least]

    def unexpected(self) -> list[str]:
        """Name the rows that were seen and are held to be out of reach."""
        return [row for row in NOT_REACHED if self.counts[row]]

    def table(self) -> str:
        """Show all rows with their counts, then those out of reach with the reason."""
        lines = [f"{self.counts[row]:8}  {row}" for row in wanted_rows()]
        lines += ["", "out of reach in this version:"]
        lines += [f"{self.counts[row]:8}  {row}: {reason}" for row, reason in NOT_REACHED.items()]
        return "\n".join(lines)


def wanted_rows() -> list[str]:
    """Name the rows that can be reached, in the order of their tables."""
    return [row for row in _ALL if row not in NOT_REACHED]


def _execution_row(before: ExecutionState, after: ExecutionState) -> str:
    """Name a transition; the ends of a paused execution are rare, so those by its nodes are one row."""
    if before.is_paused and after.is_ended:
        name = after.name if after is ExecutionState.TIMED_OUT else "an end by its nodes"
        return f"execution: PAUSING or PAUSED -> {name}"
    return f"execution: {before.name} -> {after.name}"


def _all_rows() -> Iterator[str]:
    for before, after in NODE_TRANSITIONS.items():
        yield from (f"node: {before.name} -> {state.name}" for state in sorted(after))
    for state, following in EXECUTION_TRANSITIONS.items():
        yield from dict.fromkeys(_execution_row(state, each) for each in sorted(following))
    yield from (f"edges: {row.name}" for row in EdgeRow)
    for mode, verdicts in _VERDICTS.items():
        yield from (f"join: {mode.name} {verdict}" for verdict in verdicts)
    yield from (f"failure: {treatment.name}" for treatment in Treatment if treatment)
    yield from (f"attempt: {outcome.name}" for outcome in AttemptOutcome)
    yield from (f"cancel: {stage.name}" for stage in CancelStage)
    yield from (f"end: {state.name}" for state in ExecutionState if state.is_ended)
    yield from (f"code: {code}" for code in ("POISON", "EXPRESSION", "DEADLINE_EXCEEDED", "INVALID_RESULT"))
    yield from (f"fault: {fault.value}" for fault in Fault)
    yield from (f"fault: {act.value}" for act in Act)
    yield from (f"fault: {what}" for what in (*_CLIENTS, *_COLLECTOR))
    yield from (f"span: {what}" for what in _SPANS)
    yield from (f"scope: {what}" for what in SCOPE_ROWS)
    yield from (f"attempt: {what}" for what in ATTEMPT_ROWS)


_ALL: Final = tuple(dict.fromkeys(_all_rows()))


def _rows_of(durable: Durable) -> Iterator[str]:
    states: dict[str, NodeState] = {}
    state: ExecutionState | None = None
    for event in durable.events:
        if event.node_state is not None:
            before = states.get(event.node_path, NodeState.IDLE)
            yield f"node: {before.name} -> {event.node_state.name}"
            states[event.node_path] = event.node_state
        elif event.execution_state is not None:
            if state is not None:
                yield _execution_row(state, event.execution_state)
            state = event.execution_state
        match event.detail:
            case AttemptEnded() as detail:
                yield f"attempt: {detail.outcome.name}"
                if detail.failure is not None:
                    yield f"code: {detail.failure.code}"
            case CancelReceipt() as detail:
                yield f"cancel: {detail.stage.name}"
            case ExecutionEnded() if state is not None:
                yield f"end: {state.name}"
            case _:
                pass
