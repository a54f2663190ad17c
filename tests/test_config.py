"""Security: a server without protection listens to its own machine alone, however the address is spelled."""

from __future__ import annotations

import pytest

from plait_server.config import ServerConfig
from plait_server.errors import InsecureAddress, InvalidAddress, InvalidTlsFiles


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.2",
        "127.1",
        "2130706433",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[0:0:0:0:0:0:0:1]",
        "localhost",
    ],
)
def test_addresses_of_this_machine_alone_are_served(host: str) -> None:
    ServerConfig(listen=f"{host}:0").check_address()
    assert ServerConfig(listen=f"{host}:0").is_local


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "0",
        "[::]",
        "[::0]",
        "*",
        "10.0.0.1",
        "192.0.2.1",
        "[::ffff:192.0.2.1]",
        "[::ffff:0.0.0.0]",
        "[fe80::1]",
        # A name, and no address of this machine, whatever it begins with.
        "127.0.0.1.invalid",
        "localhost.invalid",
        "l\u00f6calhost." + "x" * 80,
    ],
)
def test_addresses_of_others_need_insecure(host: str) -> None:
    with pytest.raises(InsecureAddress, match="--insecure"):
        ServerConfig(listen=f"{host}:0").check_address()
    ServerConfig(listen=f"{host}:0", insecure=True).check_address()


@pytest.mark.parametrize(
    "listen",
    [
        "",
        ":",
        ":0",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:x",
        "127.0.0.1:65536",
        "127.0.0.1:\u0661",
        "unix:/tmp/x",
    ],
)
def test_what_is_no_address_is_refused_with_the_remedy(listen: str) -> None:
    with pytest.raises(InvalidAddress, match="give HOST:PORT"):
        ServerConfig(listen=listen, insecure=True).check_address()


@pytest.mark.parametrize("listen", ["::1:0", ":::0", "fe80::1:0"])
def test_an_ipv6_address_needs_brackets(listen: str) -> None:
    with pytest.raises(InvalidAddress, match="in brackets"):
        ServerConfig(listen=listen, insecure=True).check_address()


TLS = {"tls_cert": "c", "tls_key": "k"}
TOKENS = {"tokens_file": "t"}
MUTUAL = {"tls_client_ca": "a"}


@pytest.mark.parametrize("insecure", [False, True], ids=["", "insecure"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
@pytest.mark.parametrize(
    ("files", "lacking"),
    [
        ({}, "TLS (--tls-cert and --tls-key) and authentication (--tokens-file)"),
        (TLS, "lacks authentication (--tokens-file)"),
        (TOKENS, "lacks TLS (--tls-cert and --tls-key)"),
        (TLS | TOKENS, ""),
        (TLS | TOKENS | MUTUAL, ""),
    ],
    ids=["nothing", "tls", "tokens", "both", "mutual"],
)
def test_off_loopback_a_server_starts_only_protected_or_insecure(
    host: str, files: dict[str, str], lacking: str, insecure: bool
) -> None:
    """FAILURES, security: refuse to start without TLS and an authenticator; `--insecure` is the only way round."""
    config = ServerConfig(listen=f"{host}:0", insecure=insecure, **files)  # type: ignore[arg-type] # all are str
    assert config.is_protected is (not lacking)
    if insecure or not lacking or host == "127.0.0.1":
        config.check_address()
        return
    with pytest.raises(InsecureAddress) as raised:
        config.check_address()
    assert lacking in str(raised.value)
    assert "pass --insecure" in str(raised.value)


@pytest.mark.parametrize(
    ("files", "remedy"),
    [
        ({"tls_cert": "c"}, "give --tls-key as well"),
        ({"tls_key": "k"}, "give --tls-cert as well"),
        (MUTUAL | TOKENS, "--tls-client-ca needs TLS"),
        (MUTUAL | TLS, "--tls-client-ca needs --tokens-file"),
    ],
    ids=["no-key", "no-certificate", "no-tls", "no-tokens"],
)
def test_files_of_tls_that_need_others_are_refused(files: dict[str, str], remedy: str) -> None:
    with pytest.raises(InvalidTlsFiles, match=remedy):
        ServerConfig(insecure=True, **files).check_tls()  # type: ignore[arg-type] # all are str
