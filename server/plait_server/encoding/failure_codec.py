"""Payloads and failures between the core and protobuf."""

from __future__ import annotations

from plait.v1 import failure_pb2, payload_pb2
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload


def payload_to_proto(payload: Payload) -> payload_pb2.Payload:
    """Write a payload; a stored one by its digest."""
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
        causes_omitted=failure.causes_omitted,
        details_omitted=failure.details_omitted,
    )


def failure_from_proto(message: failure_pb2.Failure) -> Failure:
    """Read a failure that the engine wrote; one from a worker is read by `failure_from_worker`."""
    return Failure(
        code=message.code,
        message=message.message,
        details=payload_from_proto(message.details) if message.HasField("details") else None,
        causes=tuple(map(failure_from_proto, message.causes)),
        retryable=message.retryable,
        node_path=message.node_path,
        attempt=message.attempt,
        causes_omitted=message.causes_omitted,
        details_omitted=message.details_omitted,
    )
