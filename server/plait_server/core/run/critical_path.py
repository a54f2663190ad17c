"""The critical path of a scope that ran: the chain of nodes, each fed by the one before, with the most work.

The work of a node is the time that it would take if it ran alone: its attempts and the backoffs between them, or its
delay, but not its waits for capacity. No schedule could finish the scope in less time than its critical path; running
one node after the other would take the sum of all work (J. E. Kelley and M. R. Walker, "Critical-path planning and
scheduling", 1959).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

from plait_server.core.run.joins import Verdict
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.slices import Slices, batches


class CriticalPath(NamedTuple):
    """The work of a scope."""

    length_s: float
    """Seconds of work on the critical path."""
    work_s: float
    """Seconds of work of all nodes together."""


def critical_path_in_slices(scope: Scope, run: int) -> Slices[CriticalPath]:
    """Find the critical path of a run of a scope."""
    levels = scope.analysis.levels
    order = sorted(range(len(levels)), key=levels.__getitem__)
    yield
    ends = [0.0] * len(order)
    length_s = total_s = 0.0
    sources = scope.adjacency.edge_sources
    for indexes in batches(order):
        for index in indexes:
            record = scope.records[index]
            inner = record.scope_work
            if inner is None and index in scope.children:
                inner = yield from critical_path_in_slices(scope.children[index], run)
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
