"""The one table from errors to gRPC codes and reasons (AIP-193); a test proves it complete."""

from __future__ import annotations

from typing import Final, NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from plait_server import errors

DOMAIN: Final = "plait.v1"


class Row(NamedTuple):
    """A line of the table."""

    code: grpc.StatusCode
    reason: str


_C = grpc.StatusCode

TABLE: Final[dict[type[errors.PlaitError], Row]] = {
    errors.InvalidGraph: Row(_C.INVALID_ARGUMENT, "INVALID_GRAPH"),
    errors.InvalidRequest: Row(_C.INVALID_ARGUMENT, "INVALID_REQUEST"),
    errors.TooLarge: Row(_C.INVALID_ARGUMENT, "TOO_LARGE"),
    errors.TooCostly: Row(_C.INVALID_ARGUMENT, "TOO_LARGE"),
    errors.ExecutionNotFound: Row(_C.NOT_FOUND, "EXECUTION_NOT_FOUND"),
    errors.NodeNotFound: Row(_C.NOT_FOUND, "NODE_NOT_FOUND"),
    errors.PayloadNotFound: Row(_C.NOT_FOUND, "PAYLOAD_NOT_FOUND"),
    errors.RequestIdReused: Row(_C.ALREADY_EXISTS, "REQUEST_ID_REUSED"),
    errors.ExecutionExists: Row(_C.ALREADY_EXISTS, "EXECUTION_EXISTS"),
    errors.InvalidPageToken: Row(_C.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"),
    errors.SequenceOutOfRange: Row(_C.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE"),
    errors.ProtocolVersionUnsupported: Row(_C.FAILED_PRECONDITION, "PROTOCOL_VERSION"),
    errors.ProtocolViolation: Row(_C.INVALID_ARGUMENT, "PROTOCOL_VIOLATION"),
    errors.WorkerIdInUse: Row(_C.ALREADY_EXISTS, "WORKER_ID_IN_USE"),
    errors.SlowConsumer: Row(_C.RESOURCE_EXHAUSTED, "SLOW_CONSUMER"),
    errors.ServiceUnknown: Row(_C.NOT_FOUND, "SERVICE_UNKNOWN"),
    errors.CallerError: Row(_C.INVALID_ARGUMENT, "INVALID_REQUEST"),
    errors.JournalFull: Row(_C.RESOURCE_EXHAUSTED, "STORE_FULL"),
    errors.JournalUnavailable: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.StoreLocked: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.StoreTooNew: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.StoreMissing: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.StoreLost: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.StoreTooOld: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.StoreDamaged: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.EventDamaged: Row(_C.DATA_LOSS, "EXECUTION_CORRUPT"),
    errors.Overloaded: Row(_C.RESOURCE_EXHAUSTED, "OVERLOADED"),
    errors.ShuttingDown: Row(_C.UNAVAILABLE, "SHUTTING_DOWN"),
    errors.AddressInUse: Row(_C.UNAVAILABLE, "SHUTTING_DOWN"),
    errors.InvalidAddress: Row(_C.UNAVAILABLE, "SHUTTING_DOWN"),
    errors.InsecureAddress: Row(_C.UNAVAILABLE, "SHUTTING_DOWN"),
    errors.EnvironmentFault: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.InvariantViolated: Row(_C.INTERNAL, "INTERNAL"),
    errors.PlaitError: Row(_C.INTERNAL, "INTERNAL"),
}


def row_of(error: errors.PlaitError) -> Row:
    """Find the line of an error's class."""
    return TABLE[type(error)]


def status_of(error: errors.PlaitError) -> status_pb2.Status:
    """Write an error as google.rpc.Status with ErrorInfo, and BadRequest or RetryInfo where they apply."""
    row = row_of(error)
    code, _ = row.code.value
    status = status_pb2.Status(code=code, message=error.message)
    metadata = {name: str(value) for name, value in error.fields.items()}
    _attach(status, error_details_pb2.ErrorInfo(reason=row.reason, domain=DOMAIN, metadata=metadata))
    if isinstance(error, errors.InvalidRequest):
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=violation.message)
            for violation in error.violations
        ]
        _attach(status, error_details_pb2.BadRequest(field_violations=violations))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after_s * 1000))
        _attach(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def _attach(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
