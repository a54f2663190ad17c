"""How a scope ends, the execution among them: its state (E5), the failure it names (E1), its output (S2.3)."""

from __future__ import annotations

from fractions import Fraction
from typing import Final

from plait_server.core.json_text import JsonValue
from plait_server.core.run.failures import Failure
from plait_server.core.run.states import ExecutionState, Treatment
from plait_server.testing.slow_model.nodes import ModelNode, ModelScope, Outcome, Row
from plait_server.testing.slow_model.paths import is_sink

_SUCCESSES: Final = (Row.SUCCEEDED, Row.LOCKED, Row.IGNORED, Row.TIMED_OUT_CONTINUE)
_BROKEN: Final = (Row.BROKEN, Row.UPSTREAM_FAILED)


def stopped_outcome(scope: ModelScope) -> Outcome:
    """Return the outcome of a scope that a failure stopped (E4)."""
    return Outcome(ExecutionState.FAILED, _earliest_unhandled(scope))


def finished_outcome(scope: ModelScope) -> Outcome:
    """Return the outcome of a scope that was not stopped, before its output is made (E5, E1)."""
    sinks = _sinks(scope)
    succeeded = [sink for sink in sinks if sink.row in _SUCCESSES]
    broken = [sink for sink in sinks if sink.row in _BROKEN]
    unhandled = _earliest_unhandled(scope)
    if unhandled is None and not broken:
        return Outcome(ExecutionState.SUCCEEDED)
    if unhandled is not None:
        named = unhandled
    else:
        named = scope.failures[min(sink.broken_by for sink in broken if sink.broken_by is not None)].failure
    counted = len(succeeded) + len(broken)
    if succeeded and Fraction(len(succeeded), counted) >= Fraction(str(scope.graph.policy.min_success_rate)):
        return Outcome(ExecutionState.PARTIALLY_SUCCEEDED, named)
    return Outcome(ExecutionState.FAILED, named)


def sink_output(scope: ModelScope) -> JsonValue:
    """Put the output together from the sinks (S2.3)."""
    sinks = _sinks(scope)
    if len(sinks) == 1:
        return sinks[0].output if sinks[0].has_output else None
    return {sink.node.id: sink.output for sink in sinks if sink.has_output}


def _sinks(scope: ModelScope) -> list[ModelNode]:
    return [node for node_id, node in scope.nodes.items() if is_sink(scope.graph, node_id)]


def _earliest_unhandled(scope: ModelScope) -> Failure | None:
    unhandled = (kept.failure for kept in scope.failures if kept.treatment is Treatment.UNHANDLED)
    return next(unhandled, None)
