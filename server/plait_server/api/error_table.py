"""The one table from errors to gRPC codes and reasons (AIP-193); a test proves it complete."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from plait_server import errors
from plait_server.core.limits import PROBLEMS_MAX

DOMAIN: Final = "plait.v1"

# Together they stay below 8 KiB with base64 and all names: 4/3 of 5,000, and 1,000 once more for grpc-message.
STATUS_BYTES_MAX: Final = 5_000
MESSAGE_BYTES_MAX: Final = 1_000
VALUE_BYTES_MAX: Final = 300
_BAD_REQUEST_OVERHEAD: Final = 80
_VIOLATION_OVERHEAD: Final = 10
_TEXT_BYTES_MIN: Final = 20
"""The least of a violation's text that is kept; less would be useless."""


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
    errors.LimitNotFound: Row(_C.NOT_FOUND, "LIMIT_NOT_FOUND"),
    errors.Unauthenticated: Row(_C.UNAUTHENTICATED, "UNAUTHENTICATED"),
    errors.PermissionDenied: Row(_C.PERMISSION_DENIED, "PERMISSION_DENIED"),
    errors.RequestIdReused: Row(_C.ALREADY_EXISTS, "REQUEST_ID_REUSED"),
    errors.ExecutionExists: Row(_C.ALREADY_EXISTS, "EXECUTION_EXISTS"),
    errors.ExecutionOver: Row(_C.FAILED_PRECONDITION, "EXECUTION_ENDED"),
    errors.ExecutionNotEnded: Row(_C.FAILED_PRECONDITION, "EXECUTION_NOT_ENDED"),
    errors.ExecutionNotPaused: Row(_C.FAILED_PRECONDITION, "EXECUTION_NOT_PAUSED"),
    errors.EtagMismatch: Row(_C.ABORTED, "ETAG_MISMATCH"),
    errors.InvalidPageToken: Row(_C.INVALID_ARGUMENT, "INVALID_PAGE_TOKEN"),
    errors.InvalidFilter: Row(_C.INVALID_ARGUMENT, "INVALID_FILTER"),
    errors.InvalidWatchToken: Row(_C.INVALID_ARGUMENT, "INVALID_WATCH_TOKEN"),
    errors.WatchTokenExpired: Row(_C.OUT_OF_RANGE, "WATCH_TOKEN_EXPIRED"),
    errors.SequenceOutOfRange: Row(_C.OUT_OF_RANGE, "SEQUENCE_OUT_OF_RANGE"),
    errors.QueueFull: Row(_C.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    errors.ProtocolVersionUnsupported: Row(_C.FAILED_PRECONDITION, "PROTOCOL_VERSION"),
    errors.ProtocolViolation: Row(_C.INVALID_ARGUMENT, "PROTOCOL_VIOLATION"),
    errors.WorkerIdInUse: Row(_C.ALREADY_EXISTS, "WORKER_ID_IN_USE"),
    errors.SlowConsumer: Row(_C.RESOURCE_EXHAUSTED, "SLOW_CONSUMER"),
    errors.LeaseExpired: Row(_C.ABORTED, "LEASE_EXPIRED"),
    errors.InstanceReplaced: Row(_C.ABORTED, "INSTANCE_REPLACED"),
    errors.StreamReplaced: Row(_C.ABORTED, "STREAM_REPLACED"),
    errors.ServiceUnknown: Row(_C.NOT_FOUND, "SERVICE_UNKNOWN"),
    errors.CallerError: Row(_C.INVALID_ARGUMENT, "INVALID_REQUEST"),
    errors.JournalFull: Row(_C.RESOURCE_EXHAUSTED, "STORE_FULL"),
    errors.JournalUnavailable: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.StoreLocked: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.StoreTooNew: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.StoreExists: Row(_C.ALREADY_EXISTS, "INVALID_REQUEST"),
    errors.BackupFailed: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.StoreMissing: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.StoreLost: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.StoreTooOld: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.StoreDamaged: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.EventDamaged: Row(_C.DATA_LOSS, "EXECUTION_CORRUPT"),
    errors.Overloaded: Row(_C.RESOURCE_EXHAUSTED, "OVERLOADED"),
    errors.TooManyFailures: Row(_C.RESOURCE_EXHAUSTED, "OVERLOADED"),
    errors.ShuttingDown: Row(_C.UNAVAILABLE, "SHUTTING_DOWN"),
    errors.AddressInUse: Row(_C.UNAVAILABLE, "SHUTTING_DOWN"),
    errors.InvalidAddress: Row(_C.UNAVAILABLE, "SHUTTING_DOWN"),
    errors.InsecureAddress: Row(_C.UNAVAILABLE, "SHUTTING_DOWN"),
    errors.InvalidTokensFile: Row(_C.UNAVAILABLE, "SHUTTING_DOWN"),
    errors.InvalidTlsFiles: Row(_C.UNAVAILABLE, "SHUTTING_DOWN"),
    errors.EnvironmentFault: Row(_C.UNAVAILABLE, "STORE_UNAVAILABLE"),
    errors.InvariantViolated: Row(_C.INTERNAL, "INTERNAL"),
    errors.PlaitError: Row(_C.INTERNAL, "INTERNAL"),
}


def row_of(error: errors.PlaitError) -> Row:
    """Return the row of an error's class."""
    return TABLE[type(error)]


def status_of(error: errors.PlaitError) -> status_pb2.Status:
    """Write an error as google.rpc.Status with ErrorInfo, and BadRequest or RetryInfo where they apply.

    The status is sent in headers, of which default clients accept 8 KiB, so texts are cut to fit.
    """
    row = row_of(error)
    code, _ = row.code.value
    status = status_pb2.Status(code=code, message=_cut(error.message, MESSAGE_BYTES_MAX))
    metadata = {name: _cut(str(value), VALUE_BYTES_MAX) for name, value in error.fields.items()}
    _attach(status, error_details_pb2.ErrorInfo(reason=row.reason, domain=DOMAIN, metadata=metadata))
    if error.retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromMilliseconds(int(error.retry_after_s * 1000))
        _attach(status, error_details_pb2.RetryInfo(retry_delay=delay))
    if isinstance(error, errors.QueueFull):
        _attach(status, _quota_failure(error))
    if isinstance(error, errors.InvalidRequest):
        room = STATUS_BYTES_MAX - status.ByteSize() - _BAD_REQUEST_OVERHEAD
        violations = [
            error_details_pb2.BadRequest.FieldViolation(field=violation.field, description=text)
            for violation, text in _fit(error.violations[:PROBLEMS_MAX], room)
        ]
        _attach(status, error_details_pb2.BadRequest(field_violations=violations))
    return status


def _quota_failure(error: errors.QueueFull) -> error_details_pb2.QuotaFailure:
    description = f"queue_max is {error.fields.get('queue_max', 'reached')}; UpdateNamespace changes it"
    subject = f"namespace:{error.fields.get('namespace', '')}"
    violation = error_details_pb2.QuotaFailure.Violation(subject=subject, description=description)
    return error_details_pb2.QuotaFailure(violations=[violation])


def _fit(violations: Sequence[errors.FieldViolation], room: int) -> list[tuple[errors.FieldViolation, str]]:
    """Cut the violations' texts, the longest first, so that all fields are named within a number of bytes."""
    fixed = [len(each.field.encode()) + _VIOLATION_OVERHEAD for each in violations]
    while fixed and room - sum(fixed) < len(fixed) * _TEXT_BYTES_MIN:
        fixed.pop()
    sizes = sorted(len(each.message.encode()) for each in violations[: len(fixed)])
    left, longest = room - sum(fixed), sizes[-1] if sizes else 0
    for place, size in enumerate(sizes):
        share = left // (len(sizes) - place)
        if size > share:
            longest = share
            break
        left -= size
    return [(each, _cut(each.message, longest)) for each in violations[: len(fixed)]]


def _cut(text: str, bytes_max: int) -> str:
    """Cut a text to a size that includes percent-encoding in a header."""
    size = 0
    for place, byte in enumerate(content := text.encode("utf-8", "replace")):
        size += 1 if 0x20 <= byte <= 0x7E and byte != 0x25 else 3
        if size > bytes_max:
            return content[: max(0, place - 3)].decode("utf-8", "ignore") + "…"
    return text


def _attach(status: status_pb2.Status, detail: Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
