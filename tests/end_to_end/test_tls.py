"""TLS and mutual TLS: clients, workers and the command line against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
from collections.abc import Generator
from pathlib import Path

import grpc
import pytest

from plait_client import (
    Access,
    AsyncClient,
    Client,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    parse_graph,
)
from plait_server.adapters.access.tokens_file import Entry, locked, new_entry, write_entries
from plait_server.ports.access import Role
from tests.certificates import Authority, Pair
from tests.cli import live
from tests.end_to_end.processes import Process, Server
from tests.end_to_end.service import CALL_S


class Site:
    """A server with TLS: one that asks clients for certificates, or one that does not."""

    def __init__(self, folder: Path, *, is_mutual: bool) -> None:
        self.ca = Authority(folder)
        self.server = self.ca.issue("server", "DNS:localhost", "IP:127.0.0.1")
        self.client = self.ca.issue("client", "URI:spiffe://example.org/ci", "DNS:ci.example.org")
        self.files = Pair(certificate=folder / "tls.crt", key=folder / "tls.key")
        self.install(self.server)
        self.tokens = folder / "tokens.json"
        self.token_files: dict[Role, Path] = {}
        entries: list[Entry] = []
        for role in (Role.READ, Role.SUBMIT, Role.WORK):
            entry, token = new_entry(name=role.value, roles={"shop": frozenset({role})}, now_s=0)
            entries.append(entry)
            self.token_files[role] = folder / role.value
            self.token_files[role].write_text(token + "\n")
        certified, _ = new_entry(
            name="ci",
            roles={"shop": frozenset({Role.READ})},
            now_s=0,
            certificate="spiffe://example.org/ci",
        )
        with locked(self.tokens):
            write_entries(self.tokens, [*entries, certified])
        config = {"tls_client_ca": str(self.ca.certificate)} if is_mutual else {}
        self.process = Server(
            folder / "log",
            store=":memory:",
            tls_cert=str(self.files.certificate),
            tls_key=str(self.files.key),
            tokens_file=str(self.tokens),
            **config,
        )
        self.address = self.process.address

    def install(self, pair: Pair) -> None:
        """Replace the files of the server."""
        for source, to in ((pair.certificate, self.files.certificate), (pair.key, self.files.key)):
            shutil.copy(source, to.with_suffix(".new"))
            to.with_suffix(".new").replace(to)

    def access(self, role: Role | None = None, pair: Pair | None = None) -> Access:
        return Access(
            token_file=None if role is None else self.token_files[role],
            tls_ca=self.ca.certificate,
            tls_cert=None if pair is None else pair.certificate,
            tls_key=None if pair is None else pair.key,
        )

    def open(self, role: Role | None = None, pair: Pair | None = None, connect_s: float = CALL_S) -> Client:
        return Client(self.address, namespace="shop", access=self.access(role, pair), connect_s=connect_s)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    site = Site(tmp_path_factory.mktemp("tls"), is_mutual=False)
    with site.process:
        yield site


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    site = Site(tmp_path_factory.mktemp("mutual"), is_mutual=True)
    with site.process:
        yield site


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("PLAIT_")]:
        monkeypatch.delenv(name)


def test_a_server_with_tls_says_so_and_is_not_insecure(site: Site) -> None:
    assert site.address.startswith("https://127.0.0.1:")
    with site.open(Role.READ) as client:
        assert not client.server_info().insecure


def test_the_banner_names_an_address_that_works_and_what_else_is_needed(site: Site, tmp_path: Path) -> None:
    arguments = ["--store", ":memory:", "--listen", "0.0.0.0:0", "--tokens-file", str(site.tokens)]
    files = ["--tls-cert", str(site.files.certificate), "--tls-key", str(site.files.key)]
    with Process(tmp_path / "log", "plait_server", "serve", *arguments, *files) as process:
        port = process.first_line().rpartition(":")[2].strip()
        process.terminate()
        rest = process.rest()
    assert f"--server https://localhost:{port}\n" in rest
    assert "PLAIT_TLS_CA (the CA of its certificate) and PLAIT_TOKEN_FILE" in rest
    assert rest.endswith("its store was in memory, and all executions are gone.\n")


def test_clients_and_workers_show_a_token(site: Site, tmp_path: Path) -> None:
    """A graph is submitted by one token, and its node run with another, all over TLS; the async client looks."""
    environment = {"PLAIT_TLS_CA": str(site.ca.certificate), "PLAIT_TOKEN": "not this one"}
    arguments = [
        "tests.cli.live_worker:worker",
        "--connect",
        site.address,
        "--id",
        "w",
        "--namespace",
        "shop",
        "--token-file",
        str(site.token_files[Role.WORK]),
    ]
    with (
        Process(tmp_path / "log", "plait_server", "worker", *arguments, env=environment),
        site.open(Role.SUBMIT) as client,
    ):
        graph = parse_graph("name: one\nnodes: [{id: only, task: {type: test.echo}}]")
        # Over 32 KiB, so that the worker fetches it.
        execution = client.submit(graph, input={"text": "x" * 40_000}, wait_s=30)
        assert client.payload(execution.output) == {"text": "x" * 40_000}
        failed = client.submit(
            parse_graph("name: bad\nnodes: [{id: only, task: {type: test.raise}}]"), wait_s=30
        )
        failure = client.node(failed.execution_id, "only").failure

    async def look() -> int:
        access = site.access(Role.READ)
        async with AsyncClient(site.address, namespace="shop", access=access) as reader:
            events = [event async for event in reader.watch(execution.execution_id)]
            with pytest.raises(PermissionDenied, match="needs the role operate"):
                await reader.cancel(execution.execution_id)
            return len(events)

    assert asyncio.run(look())
    # A traceback is for those who may read the execution: it is neither in the server's log nor given to workers.
    assert "live_worker.py" in failure.details.json
    log = site.process.stderr()
    assert "canary in the message" in log
    assert "live_worker.py" not in log
    with site.open(Role.WORK) as worker, pytest.raises(PermissionDenied):
        worker.node(failed.execution_id, "only")


def test_a_certificate_stands_in_for_a_token(mutual: Site) -> None:
    with mutual.open(pair=mutual.client) as client:
        assert list(client.list()) == []
        with pytest.raises(PermissionDenied, match="which ci lacks"):
            client.cancel("x")
    with (
        mutual.open(Role.SUBMIT, mutual.client) as client,
        pytest.raises(PermissionDenied, match="submit lacks"),
    ):
        client.cancel("x")


def test_certificates_that_are_not_enough_are_refused(mutual: Site, tmp_path: Path) -> None:
    """FAILURES, security: no certificate, one of another CA, expired, of no known name."""
    unknown = mutual.ca.issue("unknown", "URI:spiffe://example.org/x")
    with (
        mutual.open(pair=unknown) as client,
        pytest.raises(Unauthenticated, match="no entry is for a certificate"),
    ):
        client.get("x")
    expired = mutual.ca.issue("expired", "URI:spiffe://example.org/ci", days=-1)
    foreign = Authority(tmp_path, "other").issue("foreign", "URI:spiffe://example.org/ci")
    for pair in (None, expired, foreign):
        with (
            mutual.open(pair=pair, connect_s=0.05) as client,
            pytest.raises(Unavailable, match="PLAIT_TLS_CERT"),
        ):
            client.get("x")


def test_a_server_that_the_client_does_not_trust_is_named_with_the_remedy(site: Site, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other")
    with (
        Client(site.address, access=Access(tls_ca=other.certificate), connect_s=0.05) as client,
        pytest.raises(Unavailable, match="PLAIT_TLS_CA"),
    ):
        client.server_info()
    plain = site.address.removeprefix("https://")
    with Client(plain, connect_s=0.05) as client, pytest.raises(Unavailable, match=f"https://{plain}"):
        client.server_info()


def test_a_certificate_that_does_not_name_the_host_is_told(site: Site, tmp_path: Path) -> None:
    ca = Authority(tmp_path, "other")
    pair = ca.issue("elsewhere", "DNS:elsewhere.example.org")
    files = {"tls_cert": str(pair.certificate), "tls_key": str(pair.key), "tokens_file": str(site.tokens)}
    access = Access(tls_ca=ca.certificate)
    with (
        Server(tmp_path / "log", store=":memory:", **files) as server,
        Client(server.address, access=access, connect_s=0.05) as client,
        pytest.raises(Unavailable, match=r"certificate .* does not name 127\.0\.0\.1;"),
    ):
        client.server_info()


@pytest.mark.parametrize("kind", ["key", "missing", "lone"])
def test_files_that_are_not_what_they_should_be_are_named(kind: str, site: Site, tmp_path: Path) -> None:
    match kind:
        case "key":
            access = Access(tls_ca=site.files.key)
            said = f"{site.files.key} has no certificate in PEM; .*PLAIT_TLS_CA"
        case "missing":
            access, said = Access(tls_ca=tmp_path / "none"), "named as PLAIT_TLS_CA"
        case _:
            access, said = Access(tls_cert=site.files.certificate), "name PLAIT_TLS_KEY as well"
    with pytest.raises((ValueError, OSError), match=said):
        Client("127.0.0.1:1", access=access)


def test_versions_of_tls_before_1_2_are_refused(site: Site) -> None:
    host, _, port = site.address.removeprefix("https://").rpartition(":")

    def connect(version: ssl.TLSVersion) -> str | None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(site.ca.certificate)
        context.set_alpn_protocols(["h2"])
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with (
            socket.create_connection((host, int(port)), timeout=30) as plain,
            context.wrap_socket(plain, server_hostname=host) as encrypted,
        ):
            return encrypted.version()

    assert connect(ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    assert connect(ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises((ssl.SSLError, ConnectionError)):
        connect(ssl.TLSVersion.TLSv1_1)


def test_a_renewed_certificate_counts_without_a_restart(site: Site) -> None:
    def serial() -> str:
        host, _, port = site.address.removeprefix("https://").rpartition(":")
        return ssl.get_server_certificate((host, int(port)), ca_certs=str(site.ca.certificate))

    before = serial()
    site.install(site.ca.issue("renewed", "DNS:localhost", "IP:127.0.0.1"))
    assert serial() != before
    with site.open(Role.READ) as client:
        client.server_info()


def test_a_token_in_a_file_may_be_replaced_while_a_client_runs(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "token"
    shutil.copy(site.token_files[Role.READ], path)
    access = Access(token_file=path, tls_ca=site.ca.certificate)
    with Client(site.address, namespace="shop", access=access) as client:
        list(client.list())
        path.write_text("plait_0000_" + "x" * 43)
        with pytest.raises(Unauthenticated, match="unknown or was revoked"):
            client.get("x")


def test_the_command_line_says_what_to_do(site: Site) -> None:
    options = ["--server", site.address, "--namespace", "shop", "--tls-ca", str(site.ca.certificate)]
    bare = live.call("list", *options)
    assert bare.returncode == 5
    assert "this server needs one; make one with `plait token create`" in bare.stderr
    reader = [*options, "--token-file", str(site.token_files[Role.READ])]
    assert live.call("list", *reader).returncode == 0
    refused = live.call("cancel", "x", *reader)
    assert refused.returncode == 5
    assert "CancelExecution needs the role operate in the namespace shop, which read lacks" in refused.stderr
    missing = live.call("list", *options, "--token-file", "/nowhere/token")
    assert "/nowhere/token: No such file" in missing.stderr
    for done in (bare, refused, missing):
        assert "Traceback" not in done.stderr


def test_a_token_is_not_sent_in_plain_text_to_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "plait_0000_" + "s" * 43
    monkeypatch.setenv("PLAIT_TOKEN", secret)
    for address in ("192.0.2.1:7480", "plait.example.org:7480", "[2001:db8::1]:7480"):
        with pytest.raises(
            ValueError, match=f"write https://{address.replace('[', '.').replace(']', '.')}"
        ) as raised:
            Client(address)
        assert secret not in str(raised.value)
    done = live.call("list", "--server", "192.0.2.1:7480", env={"PLAIT_TOKEN": secret})
    assert done.returncode == 2
    assert "in plain text" in done.stderr
    assert secret not in done.stderr
    for address in ("127.0.0.1:7480", "[::1]:7480", "localhost:7480", "https://192.0.2.1:7480"):
        with contextlib.closing(Client(address)) as client:
            assert secret not in repr(client)
    monkeypatch.setenv("PLAIT_TOKEN", "two words")
    with pytest.raises(ValueError, match="the token is none") as raised:
        Client("127.0.0.1:7480")
    assert "two words" not in str(raised.value)
    assert secret not in repr(Access(token=secret))


def test_credentials_of_a_call_are_not_replaced(site: Site) -> None:
    """`credentials` stay possible for those who make their own."""
    credentials = grpc.ssl_channel_credentials(site.ca.certificate.read_bytes())
    access = Access(token_file=site.token_files[Role.READ])
    with Client(site.address, namespace="shop", credentials=credentials, access=access) as client:
        assert client.server_info().version
