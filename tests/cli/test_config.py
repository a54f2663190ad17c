"""`plait config`, and what `plait serve` says of a configuration that is wrong."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from plait_server.cli.entry import main
from plait_server.cli.serving import EXAMPLE_HEAD
from plait_server.config import OTHER_VARIABLES, ServerConfig
from plait_server.configuration.example import example_of
from plait_server.configuration.options import options_of
from tests.cli import live

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_example_in_the_documentation_is_what_the_command_writes() -> None:
    """If it fails: plait config show-defaults > docs/plait.toml"""
    text = (ROOT / "docs" / "plait.toml").read_text()
    assert text == example_of(options_of(ServerConfig), EXAMPLE_HEAD)
    assert live.call("config", "show-defaults").stdout == text


def test_check_shows_each_value_with_its_source(tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text('store = ":memory:"\n\n[types."gpu.render"]\nmax_concurrency = 4\n')
    done = live.call(
        "config",
        "check",
        "--ping-s",
        "2",
        "--create",
        env={"PLAIT_CONFIG": str(file), "PLAIT_SERVER_LIMIT": "7"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = {line.split()[0]: line.split(maxsplit=1)[1].split("  ") for line in done.stdout.splitlines()}
    shown = {name: (row[0].strip(), row[-1].strip()) for name, row in rows.items()}
    assert shown["listen"] == ('"127.0.0.1:7480"', "default")
    assert shown["store"] == ('":memory:"', f"{file}, line 1")
    assert shown["create"] == ("true", "--create")
    assert shown["ping_s"] == ("2.0", "--ping-s")
    assert shown["server_limit"] == ("7", "PLAIT_SERVER_LIMIT")
    assert shown['types."gpu.render".max_concurrency'] == ("4", f"{file}, line 4")


@pytest.mark.parametrize("command", [["config", "check"], ["serve"]])
def test_all_problems_are_told_at_once(command: list[str], tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text("stor = 1\n")
    arguments = ["--config", str(file), "--log-level", "loud"]
    done = live.call(*command, *arguments, env={"PLAIT_PING": "1"})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "plait: 3 problems in the configuration:",
        f'  {file}, line 1: there is no option "stor"; did you mean store?',
        "  PLAIT_PING: there is no such variable; did you mean PLAIT_PING_S?",
        '  --log-level: log_level: "loud" is not one of DEBUG, INFO, WARNING, ERROR',
    ]


def test_a_file_that_is_not_there_is_a_problem(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "check", "--config", "/does/not/exist"]) == 2
    assert "  /does/not/exist: cannot be read: No such file or directory\n" in capsys.readouterr().err


def test_an_address_that_needs_protection_is_a_problem_with_its_source() -> None:
    done = live.call("config", "check", env={"PLAIT_LISTEN": "0.0.0.0:7480"})
    assert done.returncode == 2
    assert "  PLAIT_LISTEN: 0.0.0.0:7480 can be reached from other machines" in done.stderr
    assert live.call("config", "check", "--insecure", env={"PLAIT_LISTEN": "0.0.0.0:7480"}).returncode == 0


def test_files_that_options_name_are_read_unless_told_otherwise(tmp_path: Path) -> None:
    (tmp_path / "tokens.json").write_text("{")
    options = [f"--tls-cert={tmp_path}/cert", "--tls-key=/none", f"--tokens-file={tmp_path}/tokens.json"]
    done = live.call("config", "check", *options)
    assert done.returncode == 2
    _, tls, key, tokens = done.stderr.splitlines()
    assert tls.startswith(f"  --tls-cert: there is no certificate {tmp_path}/cert")
    assert key.startswith("  --tls-key: there is no key /none")
    assert tokens.startswith("  --tokens-file: ")
    assert live.call("config", "check", "--no-files", *options).returncode == 0
    lacking = live.call("config", "check", "--no-files", "--tls-cert=/none")
    assert "  --tls-cert: " in lacking.stderr


def test_files_are_read_although_other_options_are_wrong(tmp_path: Path) -> None:
    file = tmp_path / "plait.toml"
    file.write_text(
        f'ping_s = 0.01\nstore = "{tmp_path}/no.db"\ntls_cert = "/no/cert"\ntls_client_ca = "/no/ca"\n'
        'tokens_file = "/no/tokens"\n'
    )
    done = live.call("config", "check", "--config", str(file))
    assert done.returncode == 2
    lines = done.stderr.splitlines()
    assert lines[0] == "plait: 6 problems in the configuration:"
    assert [line.partition(":")[0].rpartition(" ")[2] for line in lines[1:]] == ["1", "3", "3", "4", "5", "2"]
    assert lines[1].endswith("ping_s: 0.01 is not a number from 0.1 to 3,600")
    assert lines[2].endswith("give tls_key as well")
    assert f"there is no store at {tmp_path}/no.db; set create" in lines[6]


def test_each_variable_that_the_project_reads_is_known() -> None:
    """Else `plait serve` would refuse to start where a variable of another part is set."""
    found = subprocess.run(
        [
            "git",
            "grep",
            "-ohE",
            r"\bPLAIT_[A-Z][A-Z_]*[A-Z]\b",
            "--",
            "server/",
            "workers/",
            "clients/",
            "scripts/",
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if found.returncode > 1:
        pytest.skip("there is no git, or this is no clone")
    known = {*OTHER_VARIABLES, *(f"PLAIT_{each.name.upper()}" for each in options_of(ServerConfig))}
    names = {name for name in found.stdout.split() if not re.match(r"PLAIT_(SERVICE|PORT)", name)}
    assert names <= known
