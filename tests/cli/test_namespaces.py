"""`plait namespaces`: the settings of a namespace on the command line."""

from __future__ import annotations

import json
from collections.abc import Generator
from pathlib import Path

import pytest

from plait_server.cli.exit_codes import ExitCode
from tests.cli import live


@pytest.fixture(scope="module")
def address() -> Generator[str]:
    with live.server(":memory:") as listening:
        yield listening


def test_settings_are_changed_shown_and_reset(address: str) -> None:
    at = ("--server", address, "--namespace", "shop")
    done = live.call(
        "namespaces", "update", "--running-max", "5", "--order", "PRIORITY", "--queue-timeout", "10m", *at
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = live.call("namespaces", "get", *at).stdout.splitlines()
    assert lines[0] == "shop: 0 running, 0 waiting"
    shown = {line.split()[0]: line.split()[1:] for line in lines[2:-1]}
    assert shown["running_max"] == ["5", "SET"]
    assert shown["order"] == ["PRIORITY", "SET"]
    assert shown["queue_timeout"] == ["10m", "SET"]
    assert shown["retention"] == ["7d", "DEFAULT"]
    (row,) = [line for line in live.call("namespaces", "list", *at).stdout.splitlines() if "shop" in line]
    assert row.split() == ["shop", "0", "of", "5", "0", "of", "100,000", "1"]
    etag = lines[-1].removeprefix("etag ")
    done = live.call("namespaces", "update", "--reset", "running-max", "--etag", etag, "--json", *at)
    assert json.loads(done.stdout)["settings"]["runningMax"] == 1_000
    newest, first = map(json.loads, live.call("audit", "--json", *at).stdout.splitlines())
    assert json.loads(newest["detailJson"]) == {"running_max": "reset"}
    assert json.loads(first["detailJson"]) == {
        "running_max": "5",
        "order": "PRIORITY",
        "queue_timeout": "600 s",
    }
    stale = live.call("namespaces", "update", "--weight", "2", "--etag", etag, *at)
    assert stale.returncode == ExitCode.FAILED
    assert "changed" in stale.stderr


def test_what_is_out_of_range_is_refused_by_name(address: str) -> None:
    done = live.call("namespaces", "update", "--weight", "0", "--server", address)
    assert done.returncode == ExitCode.USAGE
    assert "settings.weight: is 0; it may be 1 to 1,000" in done.stderr
    assert live.call("namespaces", "update", "--server", address).returncode == ExitCode.USAGE
    assert (
        live.call("namespaces", "update", "--retention", "soon", "--server", address).returncode
        == ExitCode.USAGE
    )


def test_an_execution_that_waits_to_begin_says_why(address: str, tmp_path: Path) -> None:
    """Q6, Q3."""
    at = ("--server", address, "--namespace", "narrow")
    graph = tmp_path / "graph.yaml"
    graph.write_text("nodes:\n  - id: a\n    task: {type: nobody.serves}\n")
    live.call("namespaces", "update", "--running-max", "1", "--queue-max", "1", *at)
    ids = [live.call("submit", str(graph), *at).stdout.strip() for _ in range(2)]
    assert (
        "waits for a running slot of namespace narrow (1 of 1 running)"
        in live.call("get", ids[1], *at).stdout
    )
    done = live.call("submit", str(graph), *at)
    assert done.returncode == ExitCode.FAILED
    assert "the queue of namespace 'narrow' is full" in done.stderr
    for id_ in ids:
        live.call("cancel", id_, *at)
