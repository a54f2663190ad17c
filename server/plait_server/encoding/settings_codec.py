"""The settings of an execution and the events that hold and change it, between the core and protobuf (C2, C10)."""

from __future__ import annotations

from plait.v1 import event_pb2, graph_pb2
from plait_server.core.run.events import (
    Detail,
    ExecutionResumed,
    ExecutionUpdated,
    NodeLock,
    PauseRequested,
)
from plait_server.core.run.states import PauseMode
from plait_server.encoding.failure_codec import payload_from_proto, payload_to_proto
from plait_server.encoding.graph_codec import policy_to_proto
from plait_server.encoding.graph_reading import policy_from_proto


def encode_pause(message: event_pb2.Event, detail: PauseRequested) -> None:
    """Write a request to pause into an event."""
    message.pause_requested.mode = detail.mode  # type: ignore[assignment] # an IntEnum of the same numbers
    message.pause_requested.reason = detail.message


def decode_pause(message: event_pb2.Event) -> Detail:
    """Read a request to pause."""
    return PauseRequested(PauseMode(message.pause_requested.mode), message.pause_requested.reason)


def encode_resumed(message: event_pb2.Event, detail: ExecutionResumed) -> None:
    """Write the end of a pause into an event."""
    message.execution_resumed.data.CopyFrom(payload_to_proto(detail.data))
    message.execution_resumed.reason = detail.message


def decode_resumed(message: event_pb2.Event) -> Detail:
    """Read the end of a pause."""
    source = message.execution_resumed
    return ExecutionResumed(payload_from_proto(source.data), source.reason)


def encode_updated(message: event_pb2.Event, detail: ExecutionUpdated) -> None:
    """Write a change of settings into an event."""
    target = message.execution_updated
    target.SetInParent()
    if detail.priority is not None:
        target.priority = detail.priority
    if detail.policy is not None:
        target.policy.CopyFrom(policy_to_proto(detail.policy))
    for lock in detail.locks:
        added = target.locks.add(node_path=lock.node_path, locked=lock.is_locked)
        if lock.output is not None:
            added.locked_output.CopyFrom(payload_to_proto(lock.output))


def decode_updated(message: event_pb2.Event) -> Detail:
    """Read a change of settings."""
    source = message.execution_updated
    return ExecutionUpdated(
        source.priority if source.HasField("priority") else None,
        policy_from_proto(source.policy, "policy", []) if source.HasField("policy") else None,
        tuple(_lock_from_proto(lock) for lock in source.locks),
    )


def _lock_from_proto(message: graph_pb2.NodeLock) -> NodeLock:
    output = payload_from_proto(message.locked_output) if message.HasField("locked_output") else None
    return NodeLock(message.node_path, message.locked, output)
