"""The tokens file, and who is recognized by it."""

from __future__ import annotations

import json
import logging
import stat
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from plait_server.adapters.access.tokens import FileAuthenticator
from plait_server.adapters.access.tokens_file import (
    FILE_BYTES_MAX,
    Entry,
    locked,
    new_entry,
    read_entries,
    write_entries,
)
from plait_server.errors import InvalidTokensFile, Unauthenticated
from plait_server.ports.access import Credentials, Role

SUBMIT = {"shop": frozenset({Role.SUBMIT})}
GOOD = {"id": "abcd", "name": "ci", "sha256": "0" * 64, "roles": {"shop": ["submit"]}}


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


def entry(name: str = "ci", *, expires_s: float | None = None, certificate: str = "") -> tuple[Entry, str]:
    return new_entry(name=name, roles=SUBMIT, now_s=1e6, expires_s=expires_s, certificate=certificate)


def write(path: Path, entries: list[Entry]) -> None:
    with locked(path):
        write_entries(path, entries)


def document(**changes: object) -> str:
    changed: Mapping[str, object] = {
        key: value for key, value in (GOOD | changes).items() if value is not None
    }
    return json.dumps({"version": 1, "entries": [GOOD | {"id": "other"}, changed]})


def test_what_is_written_is_read(tmp_path: Path) -> None:
    entries = [
        entry()[0],
        entry("worker", certificate="spiffe://example.org/render")[0],
        entry("brief", expires_s=1_000_060.0)[0],
    ]
    path = tmp_path / "tokens.json"
    write(path, entries)
    assert read_entries(path) == entries
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {each.name for each in tmp_path.iterdir()} == {"tokens.json", "tokens.json.lock"}


def test_the_file_does_not_hold_the_secret(tmp_path: Path) -> None:
    made, token = entry()
    write(tmp_path / "tokens.json", [made])
    secret = token.split("_", 2)[2]
    assert len(secret) == 43, "256 bits"
    assert secret not in (tmp_path / "tokens.json").read_text()


def test_two_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    write(path, [])

    def add() -> None:
        for _ in range(5):
            with locked(path):
                write_entries(path, [*read_entries(path), entry()[0]])

    writers = [threading.Thread(target=add) for _ in range(4)]
    for each in writers:
        each.start()
    for each in writers:
        each.join()
    assert len(read_entries(path)) == 20


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("", "line 1, column 1"),
        ('{\n "version": 1\n"entries"}', "line 3, column 1"),
        ("[]", "the file"),
        ("\xff", "the file"),
        ("[" * 100_000, "the file"),
        ('{"version": 2, "entries": []}', "version"),
        ('{"version": 1, "tokens": []}', "'tokens' is unknown"),
        ('{"version": 1}', "entries: must be a list"),
        ('{"version": 1, "entries": [7]}', "entries[0]: must be an object"),
        (document(name=None), "entries[1]: lacks 'name'"),
        (document(sha256=None), "entries[1]: must have either"),
        (document(certificate="a.example"), "entries[1]: must have either"),
        (document(sha256="abc"), "entries[1].sha256"),
        (document(id="A!"), "entries[1].id"),
        (document(id="other"), "entries[1].id: is that of entries[0]"),
        (document(name="a\nb"), "entries[1].name"),
        (document(roles={}), "entries[1].roles"),
        (document(roles={"a b": ["read"]}), "entries[1].roles"),
        (document(roles={"shop": "read"}), "entries[1].roles['shop']: must be a list"),
        (document(roles={"shop": ["root"]}), "'root' is no role; there are read, submit"),
        (document(expires="soon"), "entries[1].expires"),
        (document(expires="2027-01-31T12:00:00"), "entries[1].expires: must name its time zone"),
        (document(role=["read"]), "entries[1]: 'role' is unknown"),
        (" " * (FILE_BYTES_MAX + 1), "more than"),
    ],
    ids=str,
)
def test_a_bad_file_is_named_with_the_place(tmp_path: Path, content: str, place: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InvalidTokensFile) as raised:
        read_entries(path)
    assert str(path) in str(raised.value)
    assert place in str(raised.value)


def test_a_missing_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InvalidTokensFile, match="plait token create"):
        FileAuthenticator(tmp_path / "tokens.json", Clock())


def test_a_token_is_recognized_and_others_are_not(tmp_path: Path) -> None:
    made, token = entry()
    path = tmp_path / "tokens.json"
    write(path, [made])
    authenticator = FileAuthenticator(path, Clock())
    identity = authenticator.identify(Credentials(token=token))
    assert identity.name == "ci"
    assert identity.roles_in("shop") == {Role.SUBMIT}
    assert identity.roles_in("other") == frozenset()
    _, id_, secret = token.split("_", 2)
    for bad in [
        "",
        "plait",
        token[:-1],
        token + "A",
        f"plait_{id_}_{'A' * 43}",
        f"plait_{'0' * 12}_{secret}",
        f"{id_}_{secret}",
        token.upper(),
        f" {token}",
        made.sha256,
        f"plait_{id_}_{made.sha256[:43]}",
        "x" * 100_000,
    ]:
        with pytest.raises(Unauthenticated) as raised:
            authenticator.identify(Credentials(token=bad))
        assert "unknown or was revoked" in str(raised.value)
        assert secret not in repr(raised.value)


def test_a_missing_token_is_told(tmp_path: Path) -> None:
    write(tmp_path / "tokens.json", [entry()[0]])
    authenticator = FileAuthenticator(tmp_path / "tokens.json", Clock())
    with pytest.raises(Unauthenticated, match="PLAIT_TOKEN_FILE"):
        authenticator.identify(Credentials())


def test_a_token_expires(tmp_path: Path) -> None:
    made, token = entry(expires_s=1_000_060.0)
    write(tmp_path / "tokens.json", [made])
    clock = Clock()
    authenticator = FileAuthenticator(tmp_path / "tokens.json", clock)
    identity = authenticator.identify(Credentials(token=token))
    assert not authenticator.refresh()
    clock.now_s += 60
    assert authenticator.refresh(), "open streams are to be looked at"
    assert not authenticator.refresh()
    with pytest.raises(Unauthenticated, match="token ci has expired"):
        authenticator.identify(Credentials(token=token))
    with pytest.raises(Unauthenticated, match="has expired"):
        authenticator.renew(identity)


def test_a_certificate_is_recognized_by_any_of_its_names(tmp_path: Path) -> None:
    made, _ = entry(certificate="spiffe://example.org/ci")
    write(tmp_path / "tokens.json", [made])
    authenticator = FileAuthenticator(tmp_path / "tokens.json", Clock())
    names = "ci.example.org", "spiffe://example.org/ci"
    assert authenticator.identify(Credentials(certificate_names=names)).name == "ci"
    with pytest.raises(Unauthenticated, match=r"no entry is for a certificate of ci\.example\.org"):
        authenticator.identify(Credentials(certificate_names=names[:1]))
    with pytest.raises(Unauthenticated, match="unknown"):
        authenticator.identify(Credentials(token="plait_0_0", certificate_names=names))


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    (first, token), (second, certificate) = (
        entry(),
        (entry("host", certificate="a.example")[0], ("a.example",)),
    )
    write(path, [first, second])
    authenticator = FileAuthenticator(path, Clock())
    of_token = authenticator.identify(Credentials(token=token))
    of_certificate = authenticator.identify(Credentials(certificate_names=certificate))
    assert not authenticator.refresh()
    write(path, [])
    assert authenticator.refresh()
    for identity in (of_token, of_certificate):
        with pytest.raises(Unauthenticated, match=f"access of {identity.name} was revoked"):
            authenticator.renew(identity)
    with pytest.raises(Unauthenticated):
        authenticator.identify(Credentials(token=token))


def test_the_last_good_file_stands_while_a_bad_one_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens.json"
    made, token = entry()
    write(path, [made])
    authenticator = FileAuthenticator(path, Clock())
    with caplog.at_level(logging.ERROR):
        path.write_text("{")
        assert not authenticator.refresh()
        assert not authenticator.refresh()
        path.unlink()
        assert not authenticator.refresh()
    assert len(caplog.records) == 2, "each state is told once"
    assert str(path) in caplog.text
    assert authenticator.identify(Credentials(token=token)).name == "ci"
    write(path, [])
    assert authenticator.refresh()


def test_secrets_are_in_no_repr(tmp_path: Path) -> None:
    made, token = entry()
    secret = token.split("_", 2)[2]
    write(tmp_path / "tokens.json", [made])
    authenticator = FileAuthenticator(tmp_path / "tokens.json", Clock())
    identity = authenticator.identify(Credentials(token=token))
    for each in (made, Credentials(token=token), authenticator, identity):
        assert secret not in repr(each)
