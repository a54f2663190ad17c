"""Security: a server without protection listens to its own machine alone, however the address is spelled."""

from __future__ import annotations

import pytest

from plait_server.config import ServerConfig
from plait_server.errors import InsecureAddress, InvalidAddress


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
