"""Sends one request, blocking: for commands, which use neither trio nor the extra `otel`."""

from __future__ import annotations

import gzip
import http.client
import math
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import IO, cast

import grpc

from plait_server.adapters.otlp.answers import (
    ANSWER_BYTES_MAX,
    METHOD,
    PROTOBUF,
    grpc_failure,
    read_answer,
    read_http_answer,
)
from plait_server.adapters.otlp.grpc_sender import (
    channel_options,
    compression_of,
    credentials_of,
)
from plait_server.adapters.otlp.settings import GZIP_LEVEL, OtlpProtocol, OtlpSettings
from plait_server.adapters.otlp.tls import tls_context
from plait_server.ports.span_sender import SendFailed, Sent


def send_once(settings: OtlpSettings, request: bytes, user_agent: str) -> Sent:
    """Send an ExportTraceServiceRequest, without retries.

    Raises:
        InvalidSetting: a certificate or key file cannot be used.
        SendFailed: the collector could not be reached, or refused the request; the message says where and why.
    """
    match settings.protocol:
        case OtlpProtocol.GRPC:
            return _send_grpc(settings, request, user_agent)
        case OtlpProtocol.HTTP:
            return _send_http(settings, request, user_agent)


def _send_grpc(settings: OtlpSettings, request: bytes, user_agent: str) -> Sent:
    options = channel_options(user_agent)
    compression = compression_of(settings)
    channel = (
        grpc.secure_channel(settings.endpoint, credentials_of(settings), options, compression)
        if settings.is_secure
        else grpc.insecure_channel(settings.endpoint, options, compression)
    )
    timeout_s = settings.timeout_s if math.isfinite(settings.timeout_s) else None
    export: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(METHOD)
    with channel:
        try:
            answer = export(request, timeout_s, settings.headers)
        except grpc.RpcError as error:
            # The error of a unary call is a grpc.Call as well, which the stubs do not say.
            if not isinstance(error, grpc.Call):
                raise
            # The stubs say that there is exactly one pair.
            metadata = cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ())
            raise grpc_failure(settings.endpoint, error.code(), error.details(), metadata) from error
    return read_answer(answer)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> None:
        """Follow no redirect: spans and headers go only to the collector that was named."""


def _send_http(settings: OtlpSettings, request: bytes, user_agent: str) -> Sent:
    headers = {"user-agent": user_agent, **dict(settings.headers), "content-type": PROTOBUF}
    if settings.has_gzip:
        headers["content-encoding"] = "gzip"
        request = gzip.compress(request, GZIP_LEVEL)
    handlers: list[urllib.request.BaseHandler] = [_NoRedirects()]
    if settings.is_secure:
        handlers.append(urllib.request.HTTPSHandler(context=tls_context(settings)))
    timeout_s = settings.timeout_s if math.isfinite(settings.timeout_s) else None
    call = urllib.request.Request(settings.endpoint, request, headers, method="POST")  # noqa: S310 -- http or https.
    try:
        try:
            response = urllib.request.build_opener(*handlers).open(call, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            response = error
        with response:
            answer = response.read(ANSWER_BYTES_MAX + 1)
            found = {name.lower(): value for name, value in response.headers.items()}
            return read_http_answer(settings.url, response.status or 0, found, answer)
    except (OSError, http.client.HTTPException) as error:  # URLError is an OSError.
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise SendFailed(f"{settings.url} cannot be reached: {reason}", is_retryable=True) from error
