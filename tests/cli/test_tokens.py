"""`plait token`: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from plait_server.adapters.access.tokens_file import hash_of, read_entries, split_token
from plait_server.cli.exit_codes import ExitCode
from plait_server.ports.access import Role
from tests.cli.live import call


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def create(path: Path, *more: str) -> CompletedProcess[str]:
    return call("token", "create", "--name", "ci", "--role", "submit", "--file", str(path), *more)


def test_a_token_is_printed_once_and_kept_as_a_hash(path: Path) -> None:
    made = create(path, "--namespace", "shop", "--namespace", "lab", "--role", "work", "--expires", "90d")
    assert made.returncode == ExitCode.SUCCESS
    (token,) = made.stdout.split()
    id_, secret = split_token(token) or ("", "")
    (entry,) = read_entries(path)
    assert (entry.id, entry.sha256) == (id_, hash_of(secret))
    assert entry.roles == {name: {Role.SUBMIT, Role.WORK} for name in ("shop", "lab")}
    assert "not shown again" in made.stderr
    assert secret not in made.stderr
    shown = call("token", "list", "--file", str(path))
    assert f"{id_}  ci  token  shop: submit, work; lab: submit, work  expires " in shown.stdout
    assert secret not in shown.stdout


def test_an_entry_for_a_certificate_has_no_token(path: Path) -> None:
    made = create(path, "--certificate", "spiffe://example.org/ci")
    assert (made.returncode, made.stdout) == (ExitCode.SUCCESS, "")
    assert "certificate spiffe://example.org/ci" in call("token", "list", "--file", str(path)).stdout
    again = create(path, "--certificate", "spiffe://example.org/ci")
    assert again.returncode == ExitCode.USAGE
    assert "revoke that first" in again.stderr
    assert len(read_entries(path)) == 1


def test_revoking_removes_one_entry(path: Path) -> None:
    create(path)
    create(path)
    first, second = read_entries(path)
    assert call("token", "revoke", first.id, "--file", str(path)).stdout == f"revoked {first.id}\n"
    assert read_entries(path) == [second]
    again = call("token", "revoke", first.id, "--file", str(path))
    assert again.returncode == ExitCode.USAGE
    assert f"no entry {first.id}; `plait token list" in again.stderr


def test_a_damaged_file_is_named_and_left_alone(path: Path) -> None:
    create(path)
    document = json.loads(path.read_text())
    document["entries"][0]["roles"] = {"shop": ["root"]}
    path.write_text(content := json.dumps(document))
    for arguments in (["list"], ["revoke", "x"], ["create", "--name", "b", "--role", "read"]):
        done = call("token", *arguments, "--file", str(path))
        assert done.returncode == ExitCode.FAILED
        assert f"{path}: entries[0].roles['shop']: 'root' is no role" in done.stderr
        assert "Traceback" not in done.stderr
    assert path.read_text() == content


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--expires", "90"], "'90' is no time; write a number and m, h or d, such as 90d"),
        (["--expires", "0d"], "'0d' is no time"),
        (["--expires", "999999999d"], "is no time"),
        (["--namespace", "a b"], "'a b' must match"),
        (["--role", "root"], "'root' is not one of"),
        (["--name", "a\nb"], "printable"),
        (["--certificate", "a b"], "subject alternative name"),
    ],
    ids=str,
)
def test_wrong_options_write_nothing(path: Path, arguments: list[str], problem: str) -> None:
    done = create(path, *arguments)
    assert done.returncode == ExitCode.USAGE
    assert problem in done.stderr
    assert not path.exists()


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = create(tmp_path / "nowhere" / "tokens.json")
    assert done.returncode == ExitCode.FAILED
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
