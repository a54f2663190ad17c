"""The critical path of a scope that ran: the chain of nodes, each fed by the one before, that worked longest.

Work is what a node would take if it were alone: its attempts and the backoffs between them, or its delay, but
not its waits for capacity. No schedule could end the scope sooner than its critical path, and one node after the
other would take the sum of all work (J. E. Kelley and M. R. Walker, "Critical-path planning and scheduling", 1959).
"""

from __future__ import annotations

import itertools
from typing import NamedTuple

from plait_server.core.joins import Verdict
from plait_server.core.scope import NodeRecord, Scope
from plait_server.core.slices import Slices, batches


class CriticalPath(NamedTuple):
    """What a scope's work came to."""

    length_s: float
    """Seconds of work on the critical path."""
    work_s: float
    """Seconds of work of all nodes."""


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
            work_s = node_work_s(record, run)
            total_s += work_s
            if record.verdict is Verdict.RUN:
                work_s += max((ends[sources[edge]] for edge in record.active_edges), default=0.0)
            ends[index] = work_s
            length_s = max(length_s, work_s)
        yield
    return CriticalPath(length_s, total_s)


def node_work_s(record: NodeRecord, run: int) -> float:
    """Return how long a node worked in a run, in seconds; 0 for one that never began."""
    attempts = [attempt for attempt in record.attempts if attempt.run == run]
    if not attempts:
        end_s = record.ended_s or record.idled_s
        return max(0.0, end_s - record.started_s) if record.started_s else 0.0
    work_s = sum(max(0.0, attempt.ended_s - attempt.started_s) for attempt in attempts)
    for attempt, later in itertools.pairwise(attempts):
        if attempt.retry_time_s:
            work_s += max(0.0, min(attempt.retry_time_s, later.started_s) - attempt.ended_s)
    return work_s
