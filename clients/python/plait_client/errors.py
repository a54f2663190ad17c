"""The errors of calls, made from gRPC statuses.

The reason, the violations and the advice on when to try again travel as google.rpc messages. They are read
here by their field numbers, with protobuf's reader of unknown fields: a client needs no package for them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, cast

import grpc
from google.protobuf import any_pb2, duration_pb2, empty_pb2
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-not-found] # Has no stub.

_NOT_CONNECTED: Final = "failed to connect"
_STATUS_TRAILER: Final = "grpc-status-details-bin"
# Numbers of fields in google/rpc/status.proto and error_details.proto; they are never used for anything else.
_STATUS_DETAILS: Final = 3
_ERROR_INFO_REASON: Final = 1
_ERROR_INFO_METADATA: Final = 3
_BAD_REQUEST_VIOLATIONS: Final = 1
_VIOLATION_FIELD: Final = 1
_VIOLATION_DESCRIPTION: Final = 2
_RETRY_INFO_DELAY: Final = 1
_MAP_KEY: Final = 1
_MAP_VALUE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing wrong with a request."""

    field: str
    """Path of the field, such as `graph.edges[3].target`."""
    message: str
    """What is wrong and what to do."""


class PlaitError(Exception):
    """A call failed; the subclasses are for those that callers tell apart.

    Args:
        message: what happened and what to do about it.
        code: the gRPC code.
        reason: the reason in the contract's ErrorReason, such as EXECUTION_NOT_FOUND; empty when the server
            did not say, or was not reached.
        metadata: further facts from the server, by name.
        violations: what is wrong with the request, field by field.
        retry_after: how long to wait before a retry; None if the server did not say.
    """

    def __init__(
        self,
        message: str,
        *,
        code: grpc.StatusCode = grpc.StatusCode.UNKNOWN,
        reason: str = "",
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[Violation] = (),
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        """What happened and what to do about it."""
        self.code = code
        """The gRPC code."""
        self.reason = reason
        """The reason in the contract's ErrorReason; empty when the server did not say."""
        self.metadata = dict(metadata or {})
        """Further facts from the server, by name."""
        self.violations = tuple(violations)
        """What is wrong with the request, field by field."""
        self.retry_after = retry_after
        """How long to wait before another try; None when nothing was said."""


class InvalidArgument(PlaitError):
    """The request cannot be carried out as it is; `violations` says which fields are wrong."""


class NotFound(PlaitError):
    """There is no such execution, node or payload in this namespace."""


class Unauthenticated(PlaitError):
    """The server does not know the token or certificate, or it was revoked or has expired."""


class PermissionDenied(PlaitError):
    """The token or certificate lacks the role that the call needs in this namespace."""


class AlreadyExists(PlaitError):
    """The request id was used with other content, or the execution id is taken."""


class OutOfRange(PlaitError):
    """The sequence lies beyond the newest event."""


class ResourceExhausted(PlaitError):
    """The server has too much to do, or its disk or the namespace's queue is full; `retry_after` says when to retry."""


class DeadlineExceeded(PlaitError):
    """The server did not answer in time. What the call asked for may still have happened."""


class Unavailable(PlaitError):
    """The server is not there, shuts down, or cannot write its store."""


_CLASSES: Final[Mapping[grpc.StatusCode, type[PlaitError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidArgument,
    grpc.StatusCode.NOT_FOUND: NotFound,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.ALREADY_EXISTS: AlreadyExists,
    grpc.StatusCode.OUT_OF_RANGE: OutOfRange,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ResourceExhausted,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceeded,
    grpc.StatusCode.UNAVAILABLE: Unavailable,
}


class RpcFailure(Protocol):
    """What the failed calls of grpc and of grpc.aio have in common."""

    def code(self) -> grpc.StatusCode:
        """Return the gRPC code."""
        ...

    def details(self) -> str | None:
        """Return the message."""
        ...

    def trailing_metadata(self) -> object:
        """Return the trailers as pairs."""
        ...


def error_of(call: RpcFailure, address: str) -> PlaitError:
    """Make the error of a failed call to a server at an address."""
    code = call.code()
    details = _Details.of(call)
    message = call.details() or f"the server at {address} answered {code.name}"
    if not details.reason:
        message = _message_without_reason(code, message, address)
    return _CLASSES.get(code, PlaitError)(
        message,
        code=code,
        reason=details.reason,
        metadata=details.metadata,
        violations=details.violations,
        retry_after=details.retry_after,
    )


def cut_off(address: str) -> Unavailable:
    """Make the error of a stream that a server at an address ended before its final frame."""
    message = f"the server at {address} ended a stream before its end; resume after the last event received"
    return Unavailable(message, code=grpc.StatusCode.UNAVAILABLE)


def _message_without_reason(code: grpc.StatusCode, message: str, address: str) -> str:
    """Return our wording of an error that comes from the gRPC library, not the server."""
    match code:
        case grpc.StatusCode.UNAVAILABLE if "handshake failed" in message:
            problem = message.partition("OPENSSL_internal:")[2].partition(":")[0] or "the handshake failed"
            plain = "write its address without https://" if address.startswith("https://") else "name no CA"
            return (
                f"no TLS connection to {address}: {problem}; name the CA of the server's certificate in PLAIT_TLS_CA, "
                f"or, if it has no TLS, {plain}"
            )
        case grpc.StatusCode.UNAVAILABLE if "Hostname Verification" in message:
            host = address.removeprefix("https://").rpartition(":")[0]
            return (
                f"the certificate of the server at {address} does not name {host}; use a name that it has, or issue "
                f"one with {host} as subjectAltName"
            )
        case grpc.StatusCode.UNAVAILABLE if message.startswith(_NOT_CONNECTED) and "Socket closed" in message:
            if address.startswith("https://"):
                remedy = "name a client certificate that it trusts in PLAIT_TLS_CERT and PLAIT_TLS_KEY"
            else:
                remedy = f"if it is a Plait server with TLS, write https://{address}"
            return f"what listens at {address} closed the connection; {remedy}"
        case grpc.StatusCode.UNAVAILABLE:
            return f"no Plait server at {address}; start one with `plait serve`"
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return f"the server at {address} did not answer in time"
        case grpc.StatusCode.UNIMPLEMENTED:
            return f"the server at {address} does not know this call: it is no Plait server, or an older one"
        case _:
            return message


@dataclass(slots=True)
class _Details:
    """What a status says beside code and message."""

    reason: str
    metadata: dict[str, str]
    violations: list[Violation]
    retry_after: timedelta | None = None

    @classmethod
    def of(cls, call: RpcFailure) -> _Details:
        details = cls(reason="", metadata={}, violations=[])
        try:
            for number, content in _fields(_status_bytes(call)):
                if number == _STATUS_DETAILS:
                    details._add(any_pb2.Any.FromString(content))
        except DecodeError:
            # A proxy's own trailer; the code and the message still say what happened.
            pass
        return details

    def _add(self, detail: any_pb2.Any) -> None:
        match detail.type_url.rpartition("/")[2]:
            case "google.rpc.ErrorInfo":
                self.reason = _texts(detail.value).get(_ERROR_INFO_REASON, "")
                for _, entry in _fields(detail.value, _ERROR_INFO_METADATA):
                    texts = _texts(entry)
                    self.metadata[texts.get(_MAP_KEY, "")] = texts.get(_MAP_VALUE, "")
            case "google.rpc.BadRequest":
                for _, violation in _fields(detail.value, _BAD_REQUEST_VIOLATIONS):
                    texts = _texts(violation)
                    field, message = texts.get(_VIOLATION_FIELD, ""), texts.get(_VIOLATION_DESCRIPTION, "")
                    self.violations.append(Violation(field=field, message=message))
            case "google.rpc.RetryInfo":
                for _, delay in _fields(detail.value, _RETRY_INFO_DELAY):
                    self.retry_after = duration_pb2.Duration.FromString(delay).ToTimedelta()
            case _:
                pass


def _status_bytes(call: RpcFailure) -> bytes:
    # Of grpc these are tuples, of grpc.aio a Metadata that gives pairs; None before any trailer came.
    pairs = cast("Sequence[tuple[str, str | bytes]] | None", call.trailing_metadata())
    for key, value in pairs or ():
        if key == _STATUS_TRAILER and isinstance(value, bytes):
            return value
    return b""


def _fields(message: bytes, only: int | None = None) -> Iterator[tuple[int, bytes]]:
    """Return the fields of a message that are texts, bytes or messages, with their numbers, in order."""
    for field in UnknownFieldSet(empty_pb2.Empty.FromString(message)):
        content: object = field.data
        if isinstance(content, bytes) and only in (None, field.field_number):
            yield field.field_number, content


def _texts(message: bytes) -> dict[int, str]:
    return {number: content.decode(errors="replace") for number, content in _fields(message)}
