"""Sends spans by OTLP over HTTP, on trio."""

from __future__ import annotations

import zlib
from typing import Final

import httpx
import trio

from plait_server.adapters.otlp.answers import ANSWER_BYTES_MAX, PROTOBUF, read_http_answer
from plait_server.adapters.otlp.settings import HTTP_PORT, OtlpSettings
from plait_server.adapters.otlp.tls import tls_context
from plait_server.ports.span_sender import SendFailed, Sent

GZIP_LEVEL: Final = 1
"""Spans repeat each other: it makes a tenth of them, and level 6 a twelfth in three times the time."""
PIECE_BYTES: Final = 128 * 1024
"""What is compressed before others have their turn: about a millisecond."""
_GZIP_WINDOW: Final = 31
"""zlib's way to say gzip."""


class HttpSender:
    """Sends requests over a few connections that are kept.

    Args:
        settings: Where to.
        user_agent: Names who sends.

    Raises:
        InvalidSetting: a file of a certificate or key cannot be used.
    """

    def __init__(self, settings: OtlpSettings, user_agent: str) -> None:
        self._url = settings.endpoint
        self._shown = settings.url
        self._has_gzip = settings.has_gzip
        headers = {
            "user-agent": user_agent,
            **dict(settings.headers),
            "content-type": PROTOBUF,
            # A small answer may be a large one compressed.
            "accept-encoding": "identity",
        }
        if settings.has_gzip:
            headers["content-encoding"] = "gzip"
        self._client = httpx.AsyncClient(
            headers=headers,
            verify=tls_context(settings) if settings.is_secure else True,
            follow_redirects=False,
            timeout=None,  # noqa: S113 -- The port's: who sends has a deadline for all of it.
        )

    def __repr__(self) -> str:
        return f"<HttpSender to {self._shown}>"

    async def send(self, request: bytes) -> Sent:
        """Send a request."""
        content = await _compress(request) if self._has_gzip else request
        try:
            async with self._client.stream("POST", self._url, content=content) as response:
                answer = await _read_bounded(response)
                return read_http_answer(self._shown, response.status_code, response.headers, answer)
        except httpx.TransportError as error:
            text = f"{self._shown} cannot be reached: {_reason(error)}"
            if isinstance(error, httpx.RemoteProtocolError):
                text += f" (it may speak gRPC; OTLP over HTTP mostly has port {HTTP_PORT})"
            raise SendFailed(text, is_retryable=True) from error

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()


async def _read_bounded(response: httpx.Response) -> bytes:
    """Read an answer, or a little more than may be read of it."""
    answer = b""
    try:
        async for piece in response.aiter_raw():
            answer += piece
            if len(answer) > ANSWER_BYTES_MAX:
                # Ends the loop by an error. To leave it instead would leave httpx's generators unfinished.
                await response.aclose()
    except httpx.TransportError:
        if len(answer) <= ANSWER_BYTES_MAX:
            raise
    return answer


def _reason(error: BaseException) -> str:
    """Return the text of an error, or of the first below it that has one: trio's own for TLS are empty."""
    while not str(error) and (cause := error.__cause__ or error.__context__) is not None:
        error = cause
    return str(error) or type(error).__name__


async def _compress(request: bytes) -> bytes:
    packer = zlib.compressobj(GZIP_LEVEL, wbits=_GZIP_WINDOW)
    pieces: list[bytes] = []
    for start in range(0, len(request), PIECE_BYTES):
        pieces.append(packer.compress(request[start : start + PIECE_BYTES]))
        await trio.lowlevel.checkpoint()
    pieces.append(packer.flush())
    return b"".join(pieces)
