"""When attempts, nodes and scopes began and ended, and the critical path of a scope.

Bounds are in ns since 1970. Outer bounds enclose inner ones, even if the wall clock jumped: they begin no later and
end no earlier. Everything lasts at least 1 ns: Jaeger considers a duration of 0 negative.

The critical path is the chain of nodes, each fed by the one before, with the most work. The work of a node is the time
that it would take if it ran alone: its attempts and the backoffs between them, or its delay, but not its waits for
capacity. No schedule could finish the scope in less time than its critical path; running one node after the other
would take the sum of all work (J. E. Kelley and M. R. Walker, "Critical-path planning and scheduling", 1959). A node
with a scope has no work of its own.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from typing import Final, NamedTuple

from plait_server.core.definition.graph import DEFAULT_JOIN, JoinMode, Task
from plait_server.core.run.attempt_record import AttemptRecord
from plait_server.core.run.joins import Verdict
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.states import Reason
from plait_server.core.slices import Slices, batches

_TIMES: Final = struct.Struct("<qqdd")


class CriticalPath(NamedTuple):
    """The work of a scope."""

    length_s: float
    """Seconds of work on the critical path."""
    work_s: float
    """Seconds of work of all nodes, those in scopes inside it included."""


class ScopeTimes(NamedTuple):
    """The times of a scope that is over, stored in its node."""

    start_ns: int
    """When the first thing in it began."""
    end_ns: int
    """When the last thing in it ended."""
    length_s: float
    """The same as in CriticalPath."""
    work_s: float
    """The same as in CriticalPath."""

    def packed(self) -> bytes:
        """Return the times as 32 bytes, because an execution may have 100,000 scopes, and a tuple takes 190 each."""
        return _TIMES.pack(*self)


def unpack_times(packed: bytes) -> ScopeTimes:
    """Return the times that `packed` made."""
    return ScopeTimes(*_TIMES.unpack(packed))


class Bounds(NamedTuple):
    """When something began and ended."""

    start: int
    end: int

    def around(self, other: Bounds) -> Bounds:
        """Return bounds that enclose both."""
        return Bounds(min(self.start, other.start), max(self.end, other.end))


def to_ns(time_s: float) -> int:
    """Return a time in ns. Events keep microseconds, and a float is no more precise at the present date."""
    return round(time_s * 1e6) * 1_000


def bounds_of(start_ns: int, end_ns: int) -> Bounds:
    """Return bounds that last at least 1 ns."""
    return Bounds(start_ns, max(start_ns + 1, end_ns))


def attempt_bounds(attempt: AttemptRecord) -> Bounds:
    """Return the bounds of an attempt that has ended."""
    return bounds_of(to_ns(attempt.started_s), to_ns(attempt.ended_s))


def queue_start(attempt: AttemptRecord) -> int:
    """Return when the wait before an attempt began."""
    return to_ns(attempt.started_s) - to_ns(attempt.queue_s)


def attempts_in(record: NodeRecord, run: int) -> Sequence[AttemptRecord]:
    """Return the attempts of a node in a run."""
    if run == 1:
        return record.attempts
    return [attempt for attempt in record.attempts if attempt.run == run]


def has_times(record: NodeRecord, run: int) -> bool:
    """Whether a node has begun or ended in a run."""
    return record.state.is_ended or bool(attempts_in(record, run) or record.started_s)


def node_bounds(record: NodeRecord, run: int, started_s: float, inside: ScopeTimes | None) -> Bounds:
    """Return the bounds of a node that has begun or ended, and is not active.

    Args:
        record: The node; its scope still has its nodes.
        run: The run.
        started_s: When the node's scope began.
        inside: The times of the scope in the node, if one was opened.
    """
    attempts = attempts_in(record, run)
    left_s = record.ended_s if record.state.is_ended else record.idled_s
    if inside is not None:
        start = min(to_ns(record.started_s), inside.start_ns)
        return Bounds(start, max(bounds_of(start, to_ns(left_s)).end, inside.end_ns))
    if not attempts:
        end = to_ns(left_s)
        start_s = record.started_s or _ready_s(record, started_s)
        return bounds_of(min(end, to_ns(start_s)) if start_s is not None else end, end)
    if len(attempts) == 1:  # Nearly all nodes have one; this is quicker.
        (attempt,) = attempts
        return Bounds(queue_start(attempt), max(attempt_bounds(attempt).end, to_ns(left_s)))
    start = min(map(queue_start, attempts))
    end = max(attempt_bounds(attempt).end for attempt in attempts)
    return Bounds(start, max(end, to_ns(left_s)))


def inside_times_in_slices(record: NodeRecord, run: int) -> Slices[ScopeTimes | None]:
    """Find the times of the scope in a node, if one was opened, once nothing in it is active."""
    if record.inside:
        return unpack_times(record.inside)
    inner = record.scope.children.get(record.index)
    return (yield from scope_times_in_slices(inner, run)) if inner is not None else None


def scope_times_in_slices(scope: Scope, run: int) -> Slices[ScopeTimes]:
    """Find the times of a nested scope, once nothing in it is active."""
    whole: Bounds | None = None
    for records in batches(scope.records):
        for record in records:
            if has_times(record, run):
                inside = yield from inside_times_in_slices(record, run)
                of_node = node_bounds(record, run, scope.started_s, inside)
                whole = whole.around(of_node) if whole is not None else of_node
        yield
    path = yield from critical_path_in_slices(scope, run)
    if whole is None:
        begun = to_ns(scope.started_s)
        whole = Bounds(begun, begun)
    return ScopeTimes(whole.start, whole.end, path.length_s, path.work_s)


def critical_path_in_slices(scope: Scope, run: int) -> Slices[CriticalPath]:
    """Find the critical path of a run of a scope; a nested scope contributes its own critical path."""
    levels = scope.analysis.levels
    order = sorted(range(len(levels)), key=levels.__getitem__)
    yield
    ends = [0.0] * len(order)
    length_s = total_s = 0.0
    sources = scope.adjacency.edge_sources
    for indexes in batches(order):
        for index in indexes:
            record = scope.records[index]
            inner = yield from inside_times_in_slices(record, run)
            work_s = inner.length_s if inner is not None else node_work_s(record, run)
            total_s += inner.work_s if inner is not None else work_s
            if record.verdict is Verdict.RUN:
                work_s += max((ends[sources[edge]] for edge in record.active_edges), default=0.0)
            ends[index] = work_s
            length_s = max(length_s, work_s)
        yield
    return CriticalPath(length_s, total_s)


def node_work_s(record: NodeRecord, run: int) -> float:
    """Return the work of a node in a run, in seconds; 0 if it never began."""
    attempts = [attempt for attempt in record.attempts if attempt.run == run]
    if not attempts:
        end_s = record.ended_s or record.idled_s
        return max(0.0, end_s - record.started_s) if record.started_s else 0.0
    work_s = sum(max(0.0, attempt.ended_s - attempt.started_s) for attempt in attempts)
    for attempt, later in itertools.pairwise(attempts):
        if attempt.retry_time_s:
            work_s += max(0.0, min(attempt.retry_time_s, later.started_s) - attempt.ended_s)
    return work_s


def _ready_s(record: NodeRecord, started_s: float) -> float | None:
    """Return when a task that ended without having started became ready, in seconds; None if it never did."""
    if (
        record.verdict is not Verdict.RUN
        or not isinstance(record.node.kind, Task)
        or record.reason == Reason.LOCKED
    ):
        return None
    scope = record.scope
    edges: Sequence[int] = record.active_edges
    if (record.node.join or DEFAULT_JOIN).mode in (JoinMode.ALL, JoinMode.COLLECT):
        edges = scope.adjacency.incoming[record.index]  # These wait for every edge.
    ends = [scope.source(edge).ended_s for edge in edges]
    return max(ends, default=started_s)
