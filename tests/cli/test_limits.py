"""`plait limits`: limits on the command line."""

from __future__ import annotations

import json
from collections.abc import Generator

import pytest

from plait_server.cli.exit_codes import ExitCode
from tests.cli import live


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    with live.server(":memory:") as listening:
        yield listening


def test_limits_are_set_listed_and_removed(address: str) -> None:
    """Q1, Q2: what a call has set shows its source, and who holds what."""
    at = ("--server", address, "--namespace", "shop")
    for name in (("namespace",), ("type", "text.draft"), ("key", "db"), ("server",)):
        assert live.call("limits", "set", *name, "--max", "7", *at).returncode == 0
    done = live.call("limits", "set", "type", "text.draft", "--rate", "2.5", "--all-namespaces", *at)
    assert (done.returncode, done.stderr) == (0, "")
    lines = live.call("limits", *at).stdout.splitlines()
    assert lines[0].split() == [
        "KIND",
        "NAMESPACE",
        "NAME",
        "VALUE",
        "SOURCE",
        "IN",
        "USE",
        "WAITING",
        "HELD",
        "BY",
    ]
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "server (all) - 7 SET 0 0",
        "namespace shop - 7 SET 0 0",
        "type (all) text.draft 2.5/s, burst 3 SET 0 0",
        "type shop text.draft 7 SET 0 0",
        "key shop db 7 SET 0 0",
    ]
    shown = live.call("limits", "list", "--kind", "key", "--json", "--all-namespaces", *at)
    assert json.loads(shown.stdout)["maxConcurrency"] == 7
    done = live.call("limits", "remove", "key", "db", *at)
    assert " ".join(done.stdout.splitlines()[1].split()) == "key shop db 1 DEFAULT 0 0"
    done = live.call("limits", "remove", "type", "text.draft", *at)
    assert done.stdout.splitlines()[0] == "removed"
    assert " ".join(done.stdout.splitlines()[2].split()) == "type (all) text.draft 2.5/s, burst 3 SET 0 0"
    assert "--all-namespaces changes it" in done.stderr
    done = live.call("limits", "set", "type", "text.draft", "--max", "3", *at)
    assert [line.split()[1] for line in done.stdout.splitlines()[1:]] == ["shop", "(all)"]
    assert "--all-namespaces changes it" in done.stderr
    assert live.call("limits", "remove", "type", "text.draft", "--all-namespaces", *at).returncode == 0
    done = live.call("limits", "remove", "type", "text.draft", *at)
    assert (done.stdout, done.stderr) == ("removed; there is no limit now\n", "")
    assert live.call("limits", "remove", "server", *at).returncode == 0


def test_what_is_wrong_with_a_limit_is_said_by_option_with_the_remedy(address: str) -> None:
    at = ("--server", address)
    done = live.call("limits", "set", "type", "t", "--max", "99999999999999", *at)
    assert done.returncode == ExitCode.USAGE
    assert "--max" in done.stderr
    done = live.call("limits", "set", "type", "t", *at)
    assert (done.returncode, done.stderr.endswith(", or a rate\n")) == (ExitCode.USAGE, True)
    done = live.call("limits", "set", "type", "t", "--max", "0", *at)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr == "--max: 0 would let nothing run; pause executions, or remove the limit\n"
    done = live.call("limits", "set", "key", "k", "--max", "1", "--rate", "1", *at)
    assert done.stderr == "--rate: is for node types only; set a limit of the kind TYPE\n"
    done = live.call("limits", "remove", "type", "t", *at)
    assert done.returncode == ExitCode.USAGE
    assert "no call has set this limit" in done.stderr.lower()
