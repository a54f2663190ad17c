"""Interprets a collector's answers by the OTLP specification (https://opentelemetry.io/docs/specs/otlp/).

An answer is not to be trusted: the senders bound its size, and its texts are cut here.
"""

from __future__ import annotations

import email.utils
import time
from collections.abc import Iterable, Mapping
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from plait_server.ports.span_sender import SendFailed, Sent

ANSWER_BYTES_MAX: Final = 64 * 1024
"""An answer holds a count and a message; a larger one is not read."""
PROTOBUF: Final = "application/x-protobuf"
METHOD: Final = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

_STATUS_DETAILS: Final = "grpc-status-details-bin"
_MESSAGE_CHARS_MAX: Final = 300
_RETRYABLE_CODES: Final = frozenset(
    {
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DATA_LOSS,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
    }
)
_RETRYABLE_STATUSES: Final = frozenset({429, 502, 503, 504})


def read_answer(content: bytes) -> Sent:
    """Read an ExportTraceServiceResponse.

    Raises:
        SendFailed: it cannot be parsed, so whatever answered is not a collector.
    """
    try:
        partial = ExportTraceServiceResponse.FromString(content).partial_success
    except DecodeError as error:
        text = "the answer is not OTLP; is the endpoint a collector of traces?"
        raise SendFailed(text, is_retryable=False) from error
    return Sent(rejected=partial.rejected_spans, message=partial.error_message[:_MESSAGE_CHARS_MAX])


def grpc_failure(
    endpoint: str, code: grpc.StatusCode, details: str | None, trailers: Iterable[tuple[str, str | bytes]]
) -> SendFailed:
    """Return the failure that a gRPC status stands for.

    Args:
        endpoint: Where the request was sent.
        code: The status code.
        details: The status message.
        trailers: The trailing metadata of the call.
    """
    retry_after_s = _retry_delay_s(trailers)
    # RESOURCE_EXHAUSTED may mean that the request is too large; with RetryInfo it means that the collector is busy.
    is_busy = code is grpc.StatusCode.RESOURCE_EXHAUSTED and retry_after_s is not None
    message = f"{endpoint} answered {code.name}: {(details or '')[:_MESSAGE_CHARS_MAX]}"
    return SendFailed(message, is_retryable=is_busy or code in _RETRYABLE_CODES, retry_after_s=retry_after_s)


def read_http_answer(url: str, status: int, headers: Mapping[str, str], content: bytes) -> Sent:
    """Interpret an HTTP response.

    Args:
        url: Where the request was sent, without credentials.
        status: The status code.
        headers: By name in lower case.
        content: The body, as far as it was read.

    Raises:
        SendFailed: the collector did not accept the request.
    """
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    is_protobuf = content_type == PROTOBUF
    is_whole = len(content) <= ANSWER_BYTES_MAX and "content-encoding" not in headers
    if 200 <= status < 300:
        if content_type == "text/html":  # Some web servers answer any request with a page.
            raise SendFailed(f"{url} answered with a web page; it is not a collector", is_retryable=False)
        # Some accept protobuf and answer with JSON; whether they rejected some spans is then unknown.
        return read_answer(content) if is_protobuf and is_whole else Sent()
    message = f"{url} answered {status}"
    if 300 <= status < 400:
        target = headers.get("location", "")[:_MESSAGE_CHARS_MAX]
        message += f", a redirect to {target!r}, which is not followed; name the collector itself"
    elif is_protobuf and is_whole:
        message += f": {_status_message(content)}"
    raise SendFailed(
        message,
        is_retryable=status in _RETRYABLE_STATUSES,
        retry_after_s=_read_retry_after(headers.get("retry-after", "")),
    )


def _status_message(content: bytes) -> str:
    try:
        return status_pb2.Status.FromString(content).message[:_MESSAGE_CHARS_MAX]
    except DecodeError:
        return ""


def _retry_delay_s(trailers: Iterable[tuple[str, str | bytes]]) -> float | None:
    """Read the RetryInfo in the google.rpc.Status of the trailers, whose size gRPC limits."""
    status_details = next((value for key, value in trailers if key == _STATUS_DETAILS), b"")
    if isinstance(status_details, str):
        return None
    try:
        for detail in status_pb2.Status.FromString(status_details).details:
            info = error_details_pb2.RetryInfo()
            if detail.Unpack(info):
                return max(0.0, info.retry_delay.seconds + info.retry_delay.nanos / 1e9)
    except DecodeError:
        pass
    return None


def _read_retry_after(text: str) -> float | None:
    """Read a number of seconds or an HTTP date (RFC 9110, 10.2.3)."""
    text = text.strip()
    if text.isascii() and text.isdigit():
        return float(text[:10])  # Longer than anybody waits, and no more digits than a float takes.
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError):
        return None
