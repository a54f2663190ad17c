"""Sends spans by OTLP over HTTP, by httpx on trio."""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Final

import httpx
import trio

from plait_server.adapters.otlp.answers import ANSWER_BYTES_MAX, PROTOBUF, read_http_answer
from plait_server.adapters.otlp.settings import GZIP_LEVEL, HTTP_PORT, OtlpSettings
from plait_server.adapters.otlp.tls import tls_context
from plait_server.ports.span_sender import SendFailed, Sent

PIECE_BYTES: Final = 128 * 1024
"""How much is compressed at a time, in about 1 ms; other tasks run after it."""
_GZIP_WINDOW: Final = 31
"""The value of zlib's `wbits` for gzip."""


class HttpSender:
    """Sends requests over a few persistent connections.

    Args:
        settings: Where and how to send.
        user_agent: The user agent of the requests.

    Raises:
        InvalidSetting: a certificate or key file cannot be used.
    """

    def __init__(self, settings: OtlpSettings, user_agent: str) -> None:
        self._url = settings.endpoint
        self._shown = settings.url
        self._has_gzip = settings.has_gzip
        headers = {
            "user-agent": user_agent,
            **dict(settings.headers),
            "content-type": PROTOBUF,
            # A small compressed answer may decompress to a large one.
            "accept-encoding": "identity",
        }
        if settings.has_gzip:
            headers["content-encoding"] = "gzip"
        self._client = httpx.AsyncClient(
            headers=headers,
            verify=tls_context(settings) if settings.is_secure else True,
            follow_redirects=False,
            timeout=None,  # noqa: S113 -- The caller sets the deadline, as the port says.
        )

    def __repr__(self) -> str:
        return f"<HttpSender to {self._shown}>"

    async def send(self, request: bytes) -> Sent:
        """Send a request."""
        content = await _compress(request) if self._has_gzip else request
        post = self._client.build_request("POST", self._url, headers={"content-length": str(len(content))})
        post.stream = _Body(content)
        try:
            response = await self._client.send(post, stream=True)
            async with aclosing(response):
                answer = await _read_bounded(response)
                return read_http_answer(self._shown, response.status_code, response.headers, answer)
        except httpx.TransportError as error:
            text = f"{self._shown} cannot be reached: {_reason(error)}"
            if isinstance(error, httpx.RemoteProtocolError):
                text += f" (it may speak gRPC; the usual port of OTLP over HTTP is {HTTP_PORT})"
            raise SendFailed(text, is_retryable=True) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


class _Body(httpx.AsyncByteStream):
    """The content of a request, in one piece.

    httpx's own is a generator, which is not exhausted where the connection breaks in the middle of it; trio then warns
    of it when it is collected.
    """

    def __init__(self, content: bytes) -> None:
        self._pieces = iter((content,))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


async def _read_bounded(response: httpx.Response) -> bytes:
    """Read an answer, or just over ANSWER_BYTES_MAX of a longer one."""
    answer = b""
    try:
        async for piece in response.aiter_raw():
            answer += piece
            if len(answer) > ANSWER_BYTES_MAX:
                # This ends the loop with an error. A break would leave httpx's generators unfinished.
                await response.aclose()
    except httpx.TransportError:
        if len(answer) <= ANSWER_BYTES_MAX:
            raise
    return answer


def _reason(error: BaseException) -> str:
    """Return the text of an error, or of its first cause that has one: trio's TLS errors have none."""
    while not str(error) and (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__


async def _compress(request: bytes) -> bytes:
    compressor = zlib.compressobj(GZIP_LEVEL, wbits=_GZIP_WINDOW)
    pieces: list[bytes] = []
    for start in range(0, len(request), PIECE_BYTES):
        pieces.append(compressor.compress(request[start : start + PIECE_BYTES]))
        await trio.lowlevel.checkpoint()
    pieces.append(compressor.flush())
    return b"".join(pieces)
