"""Logs forks, failed nodes, the ends of executions, and what workers report (B3).

A graph may fork, or fail, at each of its 100,000 nodes. So only a few nodes of each batch of events are logged, with
one line that counts the others; the journal has them all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from plait_server.core.run.events import (
    AttemptEnded,
    Event,
    ExecutionEnded,
    ExecutionStarted,
    NodeEnded,
)
from plait_server.core.run.execution import Execution
from plait_server.core.run.failures import Failure
from plait_server.core.run.scope import Scope
from plait_server.core.run.states import EdgeState, ExecutionState, NodeState
from plait_server.ports.log_fields import LogFields, assignment_fields, event_fields, execution_fields
from plait_server.ports.workers import Assignment

logger = logging.getLogger(__name__)

NODE_LINES_MAX: Final = 10
"""Lines about nodes in one batch of events."""
MESSAGE_CHARS_MAX: Final = 300
_WORKER_LEVELS: Final[Mapping[str, int]] = {
    "DEBUG": logging.DEBUG,
    "INFO": logging.INFO,
    "WARNING": logging.WARNING,
    "ERROR": logging.ERROR,
}
_BRANCHES: Final = "executing %d parallel branches from %s"
_FAILED: Final = (NodeState.FAILED, NodeState.TIMED_OUT)
_STOPPED: Final = (ExecutionState.CANCELLING, ExecutionState.CANCELLED, ExecutionState.TIMED_OUT)


class _Line(NamedTuple):
    level: int
    text: str
    args: tuple[object, ...]
    event: Event


class LogObserver:
    """An observer that logs."""

    def events_durable(self, namespace: str, execution: Execution, events: Sequence[Event]) -> None:
        """Log forks, failed nodes and the end of an execution."""
        level = logger.getEffectiveLevel()
        if level > logging.WARNING:
            return
        left_out = 0
        for count, line in enumerate(_node_lines(execution, events, level)):
            if count < NODE_LINES_MAX or line.level < logging.INFO:
                fields = event_fields(namespace, execution, line.event)
                logger.log(line.level, line.text, *line.args, extra=fields)
            else:
                left_out += 1
        last = events[-1]
        if left_out or isinstance(last.detail, ExecutionEnded):
            fields = execution_fields(namespace, execution)
            if left_out:
                logger.info(
                    "%d more nodes at once forked or failed: `plait watch` shows them",
                    left_out,
                    extra=fields,
                )
            if isinstance(last.detail, ExecutionEnded):
                _log_end(execution, last, fields)

    def worker_said(self, assignment: Assignment, kind: str, text: str) -> None:
        """Log what a worker said of an attempt: a log line at its level, progress and heartbeats at DEBUG."""
        level = _WORKER_LEVELS.get(kind, logging.DEBUG)
        if logger.isEnabledFor(level):
            fields = assignment_fields(assignment)
            what = text if kind in _WORKER_LEVELS else f"{kind}: {text}"
            logger.log(level, "worker %s: %s", assignment.worker_id, what, extra=fields)


def _node_lines(execution: Execution, events: Sequence[Event], level: int) -> Iterator[_Line]:
    tells_forks = level <= logging.INFO
    for event in events:
        state = event.node_state
        if state is None:
            if tells_forks and isinstance(event.detail, ExecutionStarted):
                sources = execution.root.analysis.levels.count(0)
                if sources > 1:
                    yield _Line(logging.INFO, _BRANCHES, (sources, "the start"), event)
        elif state.is_ended:
            if tells_forks:
                record = execution.find_told(event.node_path)
                assert record is not None  # an event has just told of it
                scope = record.scope
                edges = scope.adjacency.outgoing[record.index]
                if edges and level <= logging.DEBUG:
                    args = event.node_path, len(edges), "s" if len(edges) > 1 else ""
                    yield _Line(logging.DEBUG, "node %s has %d outgoing edge%s", args, event)
                if len(edges) > 1 and _goes_on(execution, scope):
                    # A node may have half a million edges: this way they take 10 ms.
                    active = list(map(scope.edge_states.__getitem__, edges)).count(EdgeState.ACTIVE)
                    if active > 1:
                        yield _Line(logging.INFO, _BRANCHES, (active, event.node_path), event)
            if state in _FAILED:
                failure = _failure_of(event)
                yield _Line(logging.WARNING, "node %s %s: %s", _failure_args(event, failure), event)


def _failure_of(event: Event) -> Failure | None:
    return event.detail.failure if isinstance(event.detail, AttemptEnded | NodeEnded) else None


def _goes_on(execution: Execution, scope: Scope) -> bool:
    """Return whether the targets of active edges are executed: not if the scope was stopped."""
    return not scope.is_stopped and execution.state not in _STOPPED


def _failure_args(event: Event, failure: Failure | None) -> tuple[object, ...]:
    state = "failed" if event.node_state is NodeState.FAILED else "timed out"
    if failure is None:
        return event.node_path, state, event.reason
    return event.node_path, state, f"{failure.code}: {failure.message}"[:MESSAGE_CHARS_MAX]


def _log_end(execution: Execution, event: Event, fields: LogFields) -> None:
    assert event.execution_state is not None  # the event is about the execution
    reason = f" ({event.reason})" if event.reason else ""
    elapsed_s = event.time_s - execution.created_s
    text = "execution %s ended: %s%s after %.3f s"
    logger.info(text, execution.execution_id, event.execution_state.name, reason, elapsed_s, extra=fields)
