"""Payloads and failures between the core and protobuf."""

from __future__ import annotations

from collections.abc import Iterable

from plait.v1 import failure_pb2, payload_pb2
from plait_server.core.failures import Failure, bounded
from plait_server.core.payload import Payload


def payload_to_proto(payload: Payload) -> payload_pb2.Payload:
    """Write a payload; the digest if it is stored by digest."""
    if payload.digest:
        return payload_pb2.Payload(digest=payload.digest, size_bytes=payload.size_bytes)
    return payload_pb2.Payload(json=payload.json)


def payload_from_proto(message: payload_pb2.Payload) -> Payload:
    """Read a payload; one without content is null."""
    if message.digest:
        return Payload("", message.digest, message.size_bytes)
    return Payload(message.json or "null")


def failure_to_proto(failure: Failure) -> failure_pb2.Failure:
    """Write a failure with its causes."""
    return failure_pb2.Failure(
        code=failure.code,
        message=failure.message,
        details=payload_to_proto(failure.details) if failure.details is not None else None,
        causes=[failure_to_proto(cause) for cause in failure.causes],
        retryable=failure.retryable,
        node_path=failure.node_path,
        attempt=failure.attempt,
    )


def failure_from_proto(message: failure_pb2.Failure) -> Failure:
    """Read a failure; causes past the limits are cut."""
    return Failure(
        code=message.code,
        message=message.message,
        details=payload_from_proto(message.details) if message.HasField("details") else None,
        causes=_causes(message.causes),
        retryable=message.retryable,
        node_path=message.node_path,
        attempt=message.attempt,
    )


def _causes(messages: Iterable[failure_pb2.Failure]) -> tuple[Failure, ...]:
    return bounded(failure_from_proto(message) for message in messages)
