"""What a client shows to a server, and by what it knows the server: a token, and the files of TLS.

Parameters win over environment variables: PLAIT_TOKEN or PLAIT_TOKEN_FILE, PLAIT_TLS_CA, PLAIT_TLS_CERT and
PLAIT_TLS_KEY. A server is reached by TLS if its address begins with `https://`, or a CA is named. A token is sent only
by TLS, or to this machine.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Self

import grpc

_SCHEME: Final = "https://"
_PORT_MAX: Final = 65_535
_CERTIFICATE: Final = re.compile(rb"-----BEGIN [A-Z0-9 ]*CERTIFICATE-----")
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,4096}")
_TOKEN_FILE_BYTES_MAX: Final = 8_192


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """A token and files of TLS. What is None is taken from the environment by `with_environment`.

    Client("https://plait.example.org:7480", access=Access(token_file="token"))
    """

    token: str | None = field(default=None, repr=False)
    """The token."""
    token_file: str | Path | None = None
    """A file with the token alone, in place of `token`; read again for each call, so that it may be replaced."""
    tls_ca: str | Path | None = None
    """The CAs of the server's certificate, a PEM file; None: those that gRPC brings."""
    tls_cert: str | Path | None = None
    """The client's certificate, a PEM file, for servers that ask for one."""
    tls_key: str | Path | None = None
    """The key of the certificate, a PEM file."""

    def with_environment(self, variables: Mapping[str, str] = os.environ) -> Self:
        """Return this with what is missing taken from environment variables; empty ones count as missing."""
        has_token = self.token is not None or self.token_file is not None
        token = self.token if has_token else variables.get("PLAIT_TOKEN") or None
        is_filed = not has_token and token is None
        return type(self)(
            token=token,
            token_file=variables.get("PLAIT_TOKEN_FILE") or None if is_filed else self.token_file,
            tls_ca=self.tls_ca or variables.get("PLAIT_TLS_CA") or None,
            tls_cert=self.tls_cert or variables.get("PLAIT_TLS_CERT") or None,
            tls_key=self.tls_key or variables.get("PLAIT_TLS_KEY") or None,
        )

    def is_tls(self, address: str) -> bool:
        """Return whether a server is reached by TLS."""
        return address.startswith(_SCHEME) or self.tls_ca is not None

    def check(self, address: str, *, is_encrypted: bool) -> None:
        """Check that the token may be sent to a server, and that a certificate comes with its key.

        Raises:
            ValueError: The token is malformed, or anyone on the way to the server could read it; or a certificate or
                its key is missing.
            OSError: The token's file cannot be read.
        """
        self._check_pair()
        if self.metadata() and not is_encrypted and not _is_this_machine(target_of(address)):
            raise ValueError(
                f"the token would be sent to {address} in plain text; write https://{address} for a server with TLS, "
                "and name its CA in PLAIT_TLS_CA"
            )

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the headers of a call.

        Raises:
            ValueError: The token is malformed.
            OSError: The token's file cannot be read.
        """
        token, source = self.token, "the token"
        if token is None and self.token_file is not None:
            source = f"the token in {self.token_file}"
            with Path(self.token_file).open("rb") as file:
                token = file.read(_TOKEN_FILE_BYTES_MAX).decode("ascii", "replace").strip()
        if token is None:
            return ()
        if not _TOKEN.fullmatch(token):
            # It is not shown, for it may be a token after all.
            raise ValueError(f"{source} is none: a token is printable ASCII without spaces")
        return (("authorization", f"Bearer {token}"),)

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Read the files of TLS.

        Raises:
            ValueError: There is a certificate without its key, or a key without its certificate, or a file has no
                certificate.
            OSError: A file cannot be read.
        """
        self._check_pair()
        ca = _read(self.tls_ca, "PLAIT_TLS_CA")
        key, certificate = _read(self.tls_key, "PLAIT_TLS_KEY"), _read(self.tls_cert, "PLAIT_TLS_CERT")
        for content, path, variable in (
            (ca, self.tls_ca, "PLAIT_TLS_CA"),
            (certificate, self.tls_cert, "PLAIT_TLS_CERT"),
        ):
            if content is not None and not _CERTIFICATE.search(content):
                raise ValueError(f"{path} has no certificate in PEM; name a file that has one as {variable}")
        return grpc.ssl_channel_credentials(ca, key, certificate)

    def _check_pair(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            lacking = "PLAIT_TLS_KEY" if self.tls_key is None else "PLAIT_TLS_CERT"
            raise ValueError(f"a certificate and its key belong together; name {lacking} as well")


def check_address(address: str) -> str:
    """Check that an address is HOST:PORT, or https://HOST:PORT, and return it.

    Raises:
        ValueError: It is not.
    """
    host, _, port = target_of(address).rpartition(":")
    # gRPC would take a name without a port, and dial port 443.
    if not host or "/" in host or not (port.isascii() and port.isdigit() and 0 < int(port) <= _PORT_MAX):
        raise ValueError(
            "the server's address is HOST:PORT, or https://HOST:PORT for one with TLS, such as 127.0.0.1:7480, "
            f"not {address!r}"
        )
    return address


def target_of(address: str) -> str:
    """Return HOST:PORT."""
    return address.removeprefix(_SCHEME)


def _read(path: str | Path | None, variable: str) -> bytes | None:
    try:
        return None if path is None else Path(path).read_bytes()
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; it is named as {variable}", str(path)) from error


def _is_this_machine(target: str) -> bool:
    host = target.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class AccessChannel:
    """A channel, synchronous or asynchronous, whose calls carry the token.

    Stubs take it for the channel. Interceptors would do the same, but those of grpc.aio give calls of another kind.
    """

    def __init__(self, channel: Any, access: Access) -> None:  # noqa: ANN401 -- grpc.Channel or grpc.aio.Channel.
        self._channel = channel
        self._access = access

    def unary_unary(self, *arguments: Any, **options: Any) -> Callable[..., Any]:  # noqa: ANN401 -- As gRPC's.
        """Return a multicallable, as the channel does."""
        return self._with_token(self._channel.unary_unary(*arguments, **options))

    def unary_stream(self, *arguments: Any, **options: Any) -> Callable[..., Any]:  # noqa: ANN401 -- As gRPC's.
        """Return a multicallable, as the channel does."""
        return self._with_token(self._channel.unary_stream(*arguments, **options))

    def stream_stream(self, *arguments: Any, **options: Any) -> Callable[..., Any]:  # noqa: ANN401 -- As gRPC's.
        """Return a multicallable, as the channel does."""
        return self._with_token(self._channel.stream_stream(*arguments, **options))

    def _with_token(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def with_token(request: object, *, metadata: Any = None, **options: Any) -> Any:  # noqa: ANN401 -- As gRPC's.
            return call(request, metadata=(*(metadata or ()), *self._access.metadata()), **options)

        return with_token
