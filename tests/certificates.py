"""Certificates for tests, made with the `openssl` command."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import grpc

LIVES_DAYS = 3_650


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """A CA in a folder."""

    def __init__(self, folder: Path, name: str = "ca") -> None:
        self.folder = folder
        self.certificate = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        _openssl(
            *("req", "-x509", *_NEW_KEY, "-days", str(LIVES_DAYS), "-subj", f"/CN={name}"),
            *("-keyout", str(self._key), "-out", str(self.certificate)),
        )

    def issue(self, name: str, *names: str, days: int = LIVES_DAYS) -> Pair:
        """Make a certificate with subject alternative names, such as `DNS:localhost`."""
        pair = Pair(certificate=self.folder / f"{name}.pem", key=self.folder / f"{name}.key")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        _openssl("req", *_NEW_KEY, "-subj", f"/CN={name}", "-keyout", str(pair.key), "-out", str(request))
        extensions.write_text(f"subjectAltName={','.join(names)}\n")
        _openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.certificate), "-CAkey", str(self._key)),
            *("-CAcreateserial", "-days", str(days), "-extfile", str(extensions)),
            *("-out", str(pair.certificate)),
        )
        return pair

    def trust(self, client: Pair | None = None) -> grpc.ChannelCredentials:
        """Return the credentials of a client that trusts the CA."""
        if client is None:
            return grpc.ssl_channel_credentials(self.certificate.read_bytes())
        return grpc.ssl_channel_credentials(
            self.certificate.read_bytes(), client.key.read_bytes(), client.certificate.read_bytes()
        )


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=60)
