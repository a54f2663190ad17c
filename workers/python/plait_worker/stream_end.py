"""How an Attach stream ended, and what a worker does then.

The reason travels as google.rpc.ErrorInfo. It is read here by its field numbers, with protobuf's reader of unknown
fields: a worker needs no package for it. What to do depends on the code alone, for proxies give no reason.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, cast

import grpc
import grpc.aio
from google.protobuf import any_pb2, empty_pb2
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet  # type: ignore[import-not-found] # Has no stub.

_STATUS_TRAILER: Final = "grpc-status-details-bin"
# Numbers of fields in google/rpc/status.proto and error_details.proto; they are never used for anything else.
_STATUS_DETAILS: Final = 3
_ERROR_INFO_REASON: Final = 1

REMEDIES: Final[Mapping[grpc.StatusCode, str]] = {
    grpc.StatusCode.FAILED_PRECONDITION: "upgrade the older of server and worker",
    grpc.StatusCode.ALREADY_EXISTS: "`--id ID`, or `Worker(worker_id=...)`",
    grpc.StatusCode.INVALID_ARGUMENT: "correct what the server names: id, namespace, types or labels",
    grpc.StatusCode.PERMISSION_DENIED: "`plait token create --role work --namespace NAMESPACE` makes a token that may",
    grpc.StatusCode.UNAUTHENTICATED: "name the worker's token in PLAIT_TOKEN_FILE or PLAIT_TOKEN",
}
"""Code -> what a person does, where another stream alone does not help."""


class NextStep(enum.Enum):
    """What a worker does when its stream has ended."""

    ATTACH_AGAIN = "attach again"
    """Open another stream after a backoff, for ever."""
    WAIT_FOR_ID = "wait for id"
    """Open another stream after a backoff, for a limited time: the process with the worker's id may be exiting."""
    GIVE_UP = "give up"
    """End: the next stream would end in the same way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamEnd:
    """How a stream ended."""

    code: grpc.StatusCode
    details: str
    reason: str = ""
    """One of plait.v1.ErrorReason without its prefix; empty if it was not the server that ended the stream."""

    @property
    def next_step(self) -> NextStep:
        """What the worker does now."""
        if self.code is grpc.StatusCode.ALREADY_EXISTS:
            return NextStep.WAIT_FOR_ID
        return NextStep.GIVE_UP if self.code in REMEDIES else NextStep.ATTACH_AGAIN

    def __str__(self) -> str:
        """Return what happened, for people."""
        said = _shortened(self.details) or self.code.name
        return f"{said} ({self.reason})" if self.reason else said


def end_of_error(error: grpc.aio.AioRpcError) -> StreamEnd:
    """Read the status with which the server, or gRPC, ended a stream."""
    return StreamEnd(code=error.code(), details=error.details() or "", reason=_reason_of(error))


def _reason_of(error: grpc.aio.AioRpcError) -> str:
    try:
        for number, content in _fields(_status_bytes(error)):
            if number != _STATUS_DETAILS:
                continue
            detail = any_pb2.Any.FromString(content)
            if detail.type_url.rpartition("/")[2] == "google.rpc.ErrorInfo":
                return dict(_fields(detail.value)).get(_ERROR_INFO_REASON, b"").decode(errors="replace")
    except DecodeError:
        # A proxy's own trailer; the code and the details still say what happened.
        pass
    return ""


def _status_bytes(error: grpc.aio.AioRpcError) -> bytes:
    for key, value in cast("Sequence[tuple[str, str | bytes]]", error.trailing_metadata()) or ():
        if key == _STATUS_TRAILER and isinstance(value, bytes):
            return value
    return b""


def _fields(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Return the fields of a message that are texts, bytes or messages, with their numbers, in order."""
    for field in UnknownFieldSet(empty_pb2.Empty.FromString(message)):
        content: object = field.data
        if isinstance(content, bytes):
            yield field.field_number, content


def _shortened(details: str) -> str:
    """Take what matters from gRPC's account of a connection that failed: its last part."""
    if "handshake failed" in details:
        problem = details.partition("OPENSSL_internal:")[2].partition(":")[0] or "it was refused"
        return (
            f"the TLS handshake failed: {problem}; name the CA of the server's certificate in PLAIT_TLS_CA, or, if the "
            "server has no TLS, name no CA and write its address without https://"
        )
    if "Hostname Verification" in details:
        return (
            "the server's certificate does not name this host; use a name that it has, or issue one with the host as "
            "subjectAltName"
        )
    if details.startswith("failed to connect") and "Socket closed" in details:
        return (
            "the connection was closed; if the server has TLS, write https://HOST:PORT, and if it asks for a client "
            "certificate, name one in PLAIT_TLS_CERT and PLAIT_TLS_KEY"
        )
    return details.rpartition(": ")[2].rstrip("]") if "ipv" in details or "[field:" in details else details
