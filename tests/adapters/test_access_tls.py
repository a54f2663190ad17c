"""The files of TLS: what is wrong with them is named, and changes are noticed."""

from __future__ import annotations

import logging
import time
from pathlib import Path

import pytest

from plait_server.adapters.access.tls_files import ServerTls, TlsFiles
from plait_server.errors import InvalidTlsFiles
from tests.certificates import LIVES_DAYS, Authority, Pair


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(ca: Authority) -> Pair:
    return ca.issue("server", "DNS:localhost", "IP:127.0.0.1")


def files_of(pair: Pair, client_ca: Path | None = None) -> TlsFiles:
    return TlsFiles(certificate=pair.certificate, key=pair.key, client_ca=client_ca)


def test_good_files_are_taken_without_a_word(
    ca: Authority, server: Pair, caplog: pytest.LogCaptureFixture
) -> None:
    tls = ServerTls(files_of(server, ca.certificate))
    assert tls.credentials() is not None
    assert tls.refresh() is tls.refresh(), "files are read when they change"
    assert caplog.records == []
    assert str(server.certificate) in repr(tls)


@pytest.mark.parametrize("missing", ["certificate", "key", "client_ca"])
def test_a_missing_file_is_named(ca: Authority, server: Pair, missing: str) -> None:
    paths = {"certificate": server.certificate, "key": server.key, "client_ca": ca.certificate}
    paths[missing] = ca.folder / "nowhere.pem"
    with pytest.raises(InvalidTlsFiles, match=f"there is no .* {paths[missing]}; name its file"):
        ServerTls(TlsFiles(**paths))


def test_a_key_of_another_certificate_is_named(ca: Authority, server: Pair) -> None:
    other = ca.issue("other", "DNS:localhost")
    with pytest.raises(InvalidTlsFiles) as raised:
        ServerTls(TlsFiles(certificate=server.certificate, key=other.key))
    assert f"the key {other.key} is not that of the certificate {server.certificate}" in str(raised.value)


def test_what_is_no_pem_is_named(ca: Authority, server: Pair, tmp_path: Path) -> None:
    text = tmp_path / "text.pem"
    text.write_text("hello")
    with pytest.raises(InvalidTlsFiles, match=f"{text} and .* are no certificate"):
        ServerTls(TlsFiles(certificate=text, key=server.key))
    with pytest.raises(InvalidTlsFiles, match=f"{text} holds no CA certificates"):
        ServerTls(files_of(server, text))
    with pytest.raises(InvalidTlsFiles, match="cannot be read"):
        ServerTls(TlsFiles(certificate=tmp_path, key=server.key))


def test_an_expired_certificate_is_warned_of(ca: Authority, caplog: pytest.LogCaptureFixture) -> None:
    expired = ca.issue("expired", "DNS:localhost", days=-1)
    ServerTls(files_of(expired))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"clients will refuse the certificate {expired.certificate}" in record.getMessage()
    assert "expired" in record.getMessage().rpartition(":")[2]


def test_a_certificate_that_expires_soon_is_warned_of(server: Pair, caplog: pytest.LogCaptureFixture) -> None:
    ends_s = time.time() + LIVES_DAYS * 86_400.0
    ServerTls(files_of(server), lambda: ends_s - 3.5 * 86_400.0)
    assert "expires in 3." in caplog.text


def test_changed_files_are_read_again_and_bad_ones_are_not_taken(
    ca: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = ca.issue("first", "DNS:localhost"), ca.issue("second", "DNS:localhost")
    pair = Pair(certificate=tmp_path / "tls.crt", key=tmp_path / "tls.key")
    pair.certificate.write_bytes(first.certificate.read_bytes())
    pair.key.write_bytes(first.key.read_bytes())
    tls = ServerTls(files_of(pair))
    before = tls.refresh()
    with caplog.at_level(logging.INFO):
        pair.certificate.write_bytes(second.certificate.read_bytes())
        assert tls.refresh() is before, "the key is not there yet"
        assert tls.refresh() is before
        (record,) = caplog.records
        assert "is not that of the certificate" in record.getMessage()
        pair.key.write_bytes(second.key.read_bytes())
        assert tls.refresh() is not before
        assert "read the certificate" in caplog.text
        pair.key.unlink()
        assert tls.refresh() is not before
