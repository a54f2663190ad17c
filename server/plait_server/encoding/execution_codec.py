"""Executions and nodes as plait.v1 messages, built from the core's state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from decimal import Decimal
from itertools import islice
from typing import Final, NamedTuple, TypeVar

from google.protobuf.message import DecodeError, Message

from plait.v1 import execution_pb2, failure_pb2, graph_pb2, state_pb2
from plait_server.core.definition.graph import Condition, Delay, Subgraph, Switch, Task, Transform
from plait_server.core.limits import KIB, MIB
from plait_server.core.lists.listing import Listing
from plait_server.core.run.attempt_record import AttemptRecord
from plait_server.core.run.execution import Execution
from plait_server.core.run.failures import Failure, cut_failure
from plait_server.core.run.scope import NodeRecord
from plait_server.core.run.states import ExecutionState, NodeState
from plait_server.core.run.usage import usage_text
from plait_server.encoding.event_codec import duration, seconds_of_timestamp, timestamp
from plait_server.encoding.failure_codec import failure_to_proto, payload_to_proto

FAILURES_SHOWN_MAX: Final = 100
"""The most failures in one Execution; ListNodes has them all."""
FAILURES_BYTES_MAX: Final = 256 * KIB
"""The size of all failures of one Execution; with it, an Execution fits into the first part of a snapshot."""
LISTED_FAILURE_BYTES_MAX: Final = 4 * KIB
"""The size of a failure's details and causes in a list of executions or nodes, of which a page has a thousand."""
ATTEMPTS_BYTES_MAX: Final = 2 * MIB
"""The size of all attempts of one ExecutionNode."""

USAGE_UNITS_SHOWN_MAX: Final = 1_000

M = TypeVar("M", bound=Message)

_KINDS: Final[Mapping[type, graph_pb2.NodeKind]] = {
    Task: graph_pb2.NODE_KIND_TASK,
    Condition: graph_pb2.NODE_KIND_CONDITION,
    Switch: graph_pb2.NODE_KIND_SWITCH,
    Transform: graph_pb2.NODE_KIND_TRANSFORM,
    Delay: graph_pb2.NODE_KIND_DELAY,
    Subgraph: graph_pb2.NODE_KIND_SUBGRAPH,
}

_COUNT_FIELDS: Final = {
    NodeState.IDLE: "idle",
    NodeState.QUEUED: "queued",
    NodeState.RUNNING: "running",
    NodeState.BACKING_OFF: "backing_off",
    NodeState.WAITING: "waiting",
    NodeState.SUCCEEDED: "succeeded",
    NodeState.FAILED: "failed",
    NodeState.TIMED_OUT: "timed_out",
    NodeState.SKIPPED: "skipped",
    NodeState.CANCELLED: "cancelled",
}


def summarize(namespace: str, execution: Execution) -> execution_pb2.Execution:
    """Build the short form of an execution that lists show."""
    message = execution_pb2.Execution(
        namespace=namespace,
        execution_id=execution.execution_id,
        graph_name=execution.root.graph.name,
        state=int(execution.state or 0),  # type: ignore[arg-type] # the core's numbers are the contract's
        reason=execution.reason,
        run=execution.run,
        create_time=timestamp(execution.created_s),
        labels=execution.labels,
        last_sequence=execution.sequence,
        node_count=execution.totals.node_count,
        failure_count=len(execution.totals.failures),
        traceparent=execution.traceparent,
        priority=execution.priority,
        etag=etag_of(execution),
    )
    if execution.started_s:
        message.start_time.CopyFrom(timestamp(execution.started_s))
    if execution.ended_s:
        message.end_time.CopyFrom(timestamp(execution.ended_s))
    if execution.failure is not None:
        message.failure.CopyFrom(_listed(execution.failure))
    return message


def listing_of_summary(summary: bytes) -> Listing | None:
    """Return the listing of an execution from its short form; None if that is not one."""
    try:
        message = execution_pb2.Execution.FromString(summary)
        return Listing(
            state=ExecutionState(message.state),
            reason=message.reason,
            graph_name=message.graph_name,
            labels=dict(message.labels),
            create_time_s=seconds_of_timestamp(message.create_time),
            end_time_s=seconds_of_timestamp(message.end_time),
        )
    except (DecodeError, ValueError):
        return None


def etag_of(execution: Execution) -> str:
    """Return the mark of an execution's settings; it changes with each update."""
    return f"settings-{execution.settings_sequence}"


class QueueFacts(NamedTuple):
    """What the queue of a namespace needs to know of an execution that has not begun."""

    priority: int
    created_s: float


def read_queue_facts(summary: bytes) -> QueueFacts | None:
    """Read the facts from an execution's row; None if it has begun."""
    message = execution_pb2.Execution.FromString(summary)
    if message.state != state_pb2.EXECUTION_STATE_QUEUED:
        return None
    return QueueFacts(message.priority, seconds_of_timestamp(message.create_time))


def describe_corrupt(namespace: str, execution_id: str, message: str = "") -> execution_pb2.Execution:
    """Build an execution of which only the key can be trusted (K4).

    Args:
        namespace: The execution's namespace.
        execution_id: Its id.
        message: What is damaged, if it is known.
    """
    corrupt = execution_pb2.Execution(
        namespace=namespace, execution_id=execution_id, state=state_pb2.EXECUTION_STATE_CORRUPT
    )
    if message:
        corrupt.failure.CopyFrom(failure_pb2.Failure(code="DATA_LOSS", message=message))
    return corrupt


def describe(
    namespace: str, execution: Execution, queued: Mapping[NodeState, int]
) -> execution_pb2.Execution:
    """Build the full form of an execution.

    Args:
        namespace: The execution's namespace.
        execution: Its state.
        queued: How many nodes are ready and wait (A1), by their recorded states.
    """
    message = summarize(namespace, execution)
    message.input.CopyFrom(payload_to_proto(execution.input))
    if execution.failure is not None:
        message.failure.CopyFrom(failure_to_proto(execution.failure))
    if execution.output is not None:
        message.output.CopyFrom(payload_to_proto(execution.output))
    counts = dict(execution.totals.state_counts)
    for state, count in queued.items():
        counts[state] -= count
        counts[NodeState.QUEUED] += count
    shown = (
        failure_to_proto(failure) for _, failure in islice(execution.totals.failures, FAILURES_SHOWN_MAX)
    )
    message.failures.extend(_as_many_as_fit(shown, FAILURES_BYTES_MAX))
    for state, count in counts.items():
        setattr(message.node_counts, _COUNT_FIELDS[state], count)
    message.node_counts.ended = sum(count for state, count in counts.items() if state.is_ended)
    message.usage.update(shown_usage(execution.usage))
    return message


def describe_node(
    execution: Execution,
    record: NodeRecord,
    *,
    is_queued: Callable[[NodeRecord], bool],
    queue_reason: Callable[[NodeRecord], str],
    in_list: bool,
) -> execution_pb2.ExecutionNode:
    """Build a node; in a list without inputs and outputs, and only with its newest attempt.

    Args:
        execution: The node's execution.
        record: The node, in an open scope of the execution or in an ended one that was rebuilt by itself.
        is_queued: Returns whether a node is ready and waits (A1).
        queue_reason: Returns why it waits.
        in_list: Whether to build the short form for lists.
    """
    scope = record.scope
    state = _shown_state(record, is_queued)
    kind = record.node.kind
    message = execution_pb2.ExecutionNode(
        path=record.path,
        kind=_KINDS[type(kind)],
        type=getattr(kind, "type", ""),
        state=int(state),  # type: ignore[arg-type] # the core's numbers are the contract's
        reason=queue_reason(record) if state is NodeState.QUEUED else record.reason,
        level=scope.analysis.levels[record.index],
        branch=scope.branch(record.index),
        attempt_count=len(record.attempts),
    )
    if record.started_s:
        message.start_time.CopyFrom(timestamp(record.started_s))
    if record.ended_s:
        message.end_time.CopyFrom(timestamp(record.ended_s))
    if record.due_s:
        message.due_time.CopyFrom(timestamp(record.due_s))
    if record.failure is not None:
        message.failure.CopyFrom(_listed(record.failure) if in_list else failure_to_proto(record.failure))
    if isinstance(kind, Subgraph):
        _describe_scope(message, execution, record, in_list=in_list)
    newest = reversed(record.attempts[-1:] if in_list else record.attempts)
    described = (_describe_attempt(attempt, in_list=in_list) for attempt in newest)
    message.attempts.extend(reversed(list(_as_many_as_fit(described, ATTEMPTS_BYTES_MAX))))
    if not in_list:
        if record.input is not None:
            message.input.CopyFrom(payload_to_proto(record.input))
        if record.output is not None:
            message.output.CopyFrom(payload_to_proto(record.output))
    return message


def shown_usage(totals: Mapping[str, Decimal]) -> dict[str, str]:
    """Write totals, at most 1,000 units of them, because every attempt may report a unit of its own."""
    units = islice(sorted(totals), USAGE_UNITS_SHOWN_MAX)
    return usage_text({unit: totals[unit] for unit in units})


def _describe_scope(
    message: execution_pb2.ExecutionNode, execution: Execution, record: NodeRecord, *, in_list: bool
) -> None:
    """Describe the scope in a node, if one was opened (E6)."""
    scope = execution.scopes.get(record.path)
    closed = execution.closed.get(record.path)
    if scope is not None:
        # If its node was put back to IDLE, the scope has been stopped, and does not continue by itself.
        is_running = record.state is NodeState.RUNNING
        state = scope.ended_as or (ExecutionState.RUNNING if is_running else ExecutionState.CANCELLED)
        graph_name, node_count, failure = scope.graph.name, len(scope.records), scope.failure
    elif closed is not None:
        state, failure = closed.state, closed.failure
        graph_name, node_count = closed.graph_name, closed.node_count
    else:
        return
    shown = execution_pb2.ExecutionScope(
        path=record.path,
        graph_name=graph_name,
        state=int(state),  # type: ignore[arg-type] # the core's numbers are the contract's
        node_count=node_count,
    )
    if failure is not None:
        shown.failure.CopyFrom(_listed(failure) if in_list else failure_to_proto(failure))
    message.scope.CopyFrom(shown)


def _shown_state(record: NodeRecord, is_queued: Callable[[NodeRecord], bool]) -> NodeState:
    waits = record.state in (NodeState.IDLE, NodeState.BACKING_OFF)
    return NodeState.QUEUED if waits and is_queued(record) else record.state


def _describe_attempt(attempt: AttemptRecord, *, in_list: bool) -> execution_pb2.Attempt:
    message = execution_pb2.Attempt(
        number=attempt.number,
        run=attempt.run,
        worker_id=attempt.worker_id,
        outcome=int(attempt.outcome or 0),  # type: ignore[arg-type] # the core's numbers are the contract's
        start_time=timestamp(attempt.started_s),
        queue_time=duration(attempt.queue_s),
        usage=attempt.usage,
    )
    if attempt.ended_s:
        message.end_time.CopyFrom(timestamp(attempt.ended_s))
    if attempt.failure is not None:
        message.failure.CopyFrom(_listed(attempt.failure) if in_list else failure_to_proto(attempt.failure))
    return message


def _listed(failure: Failure) -> failure_pb2.Failure:
    return failure_to_proto(cut_failure(failure, LISTED_FAILURE_BYTES_MAX))


def _as_many_as_fit(messages: Iterable[M], bytes_max: int) -> Iterator[M]:
    for message in messages:
        bytes_max -= message.ByteSize()
        if bytes_max < 0:
            return
        yield message
