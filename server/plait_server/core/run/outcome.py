"""How a scope ends: E5 counts its sinks, E1 chooses the failure to name, S2.3 defines its output."""

from __future__ import annotations

import enum
from typing import NamedTuple

from plait_server.core.definition.graph import OnTimeout
from plait_server.core.run.failures import Failure
from plait_server.core.run.joins import exact
from plait_server.core.run.scope import NodeRecord, Scope
from plait_server.core.run.states import ExecutionState, NodeState, Reason, Treatment


class Outcome(NamedTuple):
    """How a scope ended."""

    state: ExecutionState
    failure: Failure | None
    """The failure to name; None when it SUCCEEDED."""


class _Sink(enum.Enum):
    SUCCEEDED = "SUCCEEDED"
    BROKEN = "BROKEN"
    NOT_COUNTED = "NOT_COUNTED"


def conclude(scope: Scope) -> Outcome:
    """Return how a scope ended, which was stopped or whose nodes have all ended (E5)."""
    if scope.stopped_by is Treatment.UNHANDLED:
        return Outcome(ExecutionState.FAILED, _named_failure(scope, ()))
    sinks = [(record, _count(record)) for record in scope.records if record.plain_total == 0]
    broken = [record for record, count in sinks if count is _Sink.BROKEN]
    succeeded = sum(1 for _, count in sinks if count is _Sink.SUCCEEDED)
    if Treatment.UNHANDLED not in scope.treatments and not broken:
        return Outcome(ExecutionState.SUCCEEDED, None)
    failure = _named_failure(scope, broken)
    counted = succeeded + len(broken)
    if succeeded and succeeded >= exact(scope.policy.min_success_rate) * counted:
        return Outcome(ExecutionState.PARTIALLY_SUCCEEDED, failure)
    return Outcome(ExecutionState.FAILED, failure)


def sinks_with_output(scope: Scope) -> tuple[list[NodeRecord], bool]:
    """Return the sinks that have an output, in graph order, and whether the scope has exactly one sink (S2.3)."""
    sinks = [record for record in scope.records if record.plain_total == 0]
    return [record for record in sinks if record.output is not None], len(sinks) == 1


def _count(record: NodeRecord) -> _Sink:
    if record.state is NodeState.SUCCEEDED or record.treatment is Treatment.IGNORED:
        return _Sink.SUCCEEDED
    if record.treatment is Treatment.HANDLED:
        return _Sink.NOT_COUNTED
    if record.treatment is not Treatment.NONE:
        return _Sink.BROKEN
    if record.state is NodeState.TIMED_OUT:
        return _Sink.SUCCEEDED if record.node.on_timeout is OnTimeout.CONTINUE else _Sink.NOT_COUNTED
    if record.reason == Reason.LOCKED:
        return _Sink.SUCCEEDED
    return _Sink.BROKEN if record.reason == Reason.UPSTREAM_FAILED else _Sink.NOT_COUNTED


def _named_failure(scope: Scope, broken: list[NodeRecord] | tuple[()]) -> Failure | None:
    """Return the earliest failure left to the policy, else the earliest that broke a counted sink (E1)."""
    for failure, treatment in zip(scope.failures, scope.treatments, strict=True):
        if treatment is Treatment.UNHANDLED:
            return failure
    origin = min((record.origin for record in broken if record.origin >= 0), default=-1)
    return scope.failures[origin] if origin >= 0 else None
