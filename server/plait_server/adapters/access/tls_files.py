"""The server's side of TLS: a certificate, its key and a CA for clients, read from PEM files again when they change.

gRPC asks for the certificate at each handshake, in a thread of its own. While the files are wrong (a new certificate
is there, and its key not yet) the last good ones stand, and the next handshake looks again. gRPC itself refuses TLS
before 1.2.

A handshake in memory finds what is wrong before a client does: a key that is not the certificate's, and a certificate
that has expired. The latter is only warned of, because a clock may be wrong, and some clients do not mind.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import grpc

from plait_server.errors import InvalidTlsFiles

logger = logging.getLogger(__name__)

EXPIRES_SOON_S: Final = 14 * 86_400.0
"""How long before its end a certificate is warned of, in seconds."""
_HANDSHAKE_STEPS: Final = 8
"""A handshake in memory takes three."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """The files."""

    certificate: Path
    """The certificate, with those between it and its root behind it."""
    key: Path
    """The certificate's key, not encrypted."""
    client_ca: Path | None = None
    """The CAs of clients' certificates; each client then has to have one. None: clients have none."""


class ServerTls:
    """The credentials of a server.

    Args:
        files: The files.
        now_s: Returns the wall time.

    Raises:
        InvalidTlsFiles: A file is missing or wrong.
    """

    def __init__(self, files: TlsFiles, now_s: Callable[[], float] = time.time) -> None:
        self._files = files
        self._now_s = now_s
        self._lock = threading.Lock()
        self._stamp = self._stamp_of_files()
        self._configuration = self._read()

    def __repr__(self) -> str:
        return f"<ServerTls {self._files.certificate}>"

    def credentials(self) -> grpc.ServerCredentials:
        """Return what gRPC listens with."""
        # The stubs lack it.
        make: Callable[..., grpc.ServerCredentials] = grpc.dynamic_ssl_server_credentials
        return make(
            self._configuration,
            self.refresh,
            require_client_authentication=self._files.client_ca is not None,
        )

    def refresh(self) -> grpc.ServerCertificateConfiguration:
        """Return the newest good files; called by gRPC's threads."""
        with self._lock:
            stamp = self._stamp_of_files()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._configuration = self._read()
                except InvalidTlsFiles as error:
                    logger.error("%s; what was read before still stands", error)  # noqa: TRY400 -- It says it all.
                else:
                    logger.info("read the certificate %s again", self._files.certificate)
            return self._configuration

    def _read(self) -> grpc.ServerCertificateConfiguration:
        files = self._files
        certificate, key = read_part(files.certificate, "certificate"), read_part(files.key, "key")
        client_ca = None if files.client_ca is None else read_part(files.client_ca, "client CA")
        self._check(certificate.decode(errors="replace"))
        if files.client_ca is not None:
            _check_ca(files.client_ca)
        return grpc.ssl_server_certificate_configuration([(key, certificate)], client_ca)

    def _check(self, certificate: str) -> None:
        files = self._files
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            # Without a password OpenSSL would ask for one at the terminal.
            server.load_cert_chain(files.certificate, files.key, password="")
        except ssl.SSLError as error:
            raise InvalidTlsFiles(self._problem(error)) from error
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname = False
        client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        client.load_verify_locations(cadata=certificate)
        expires_s, problem = _handshake(server, client)
        if problem:
            logger.warning("clients will refuse the certificate %s: %s", files.certificate, problem)
        elif expires_s - self._now_s() < EXPIRES_SOON_S:
            days = (expires_s - self._now_s()) / 86_400
            logger.warning("the certificate %s expires in %.1f days; renew it", files.certificate, days)

    def _problem(self, error: ssl.SSLError) -> str:
        files = self._files
        match error.reason:
            case "KEY_VALUES_MISMATCH" | "KEY_TYPE_MISMATCH":
                return (
                    f"the key {files.key} is not that of the certificate {files.certificate}; "
                    "name the two that were made together"
                )
            case _:
                return (
                    f"{files.certificate} and {files.key} are no certificate and unencrypted key in PEM form "
                    f"({error.reason or error})"
                )

    def _stamp_of_files(self) -> tuple[tuple[int, int, int] | None, ...]:
        files = self._files
        return tuple(_stamp(path) for path in (files.certificate, files.key, files.client_ca) if path)


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> tuple[float, str]:
    """Return when the server's certificate expires, or why the client refuses it."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    far = server.wrap_bio(to_server, to_client, server_side=True)
    near = client.wrap_bio(to_client, to_server)
    for _ in range(_HANDSHAKE_STEPS):
        try:
            near.do_handshake()
        except ssl.SSLWantReadError:
            try:
                far.do_handshake()
            except ssl.SSLWantReadError:
                continue
            except ssl.SSLError as error:
                return 0.0, error.reason or str(error)
        except ssl.SSLCertVerificationError as error:
            return 0.0, error.verify_message
        except ssl.SSLError as error:
            return 0.0, error.reason or str(error)
        else:
            break
    certificate = near.getpeercert()
    if not certificate:
        return 0.0, "the handshake does not end"
    return float(ssl.cert_time_to_seconds(str(certificate["notAfter"]))), ""


def _check_ca(path: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cafile=path)
    except ssl.SSLError as error:
        text = f"{path} holds no CA certificates in PEM form ({error.reason or error})"
        raise InvalidTlsFiles(text) from error


def read_part(path: Path, noun: str) -> bytes:
    """Return the content of one of the files.

    Raises:
        InvalidTlsFiles: It is missing or cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InvalidTlsFiles(f"there is no {noun} {path}; name its file, in PEM form") from error
    except OSError as error:
        raise InvalidTlsFiles(f"the {noun} {path} cannot be read: {error.strerror}") from error


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
