"""Q6, T4: what waits says so, for whoever waits with it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from plait_client import Client
from plait_server.cli import lookout

Run = Callable[..., CompletedProcess[str]]
LINE = "draft waits: no worker serves test.ecko; test.echo is served by live"


@pytest.mark.parametrize("option", ["--wait", "--watch"])
def test_a_command_that_waits_tells_what_has_no_worker(
    option: str,
    run: Run,
    address: str,
    graph_file: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """T4: shown as NO_WORKER everywhere the execution is shown, with the type that was probably meant."""
    assert run("submit", graph_file("test.echo"), "--wait").returncode == 0  # The worker is attached.
    path = tmp_path / "misspelt.yaml"
    path.write_text("nodes: [{id: draft, task: {type: test.ecko}}]")
    told: list[str] = []

    def tell(line: str) -> None:
        told.append(line)
        with Client(address) as client:
            client.cancel(f"misspelt{option}")

    monkeypatch.setattr(lookout, "LOOK_S", 0.02)
    monkeypatch.setattr(lookout, "complain", tell)
    monkeypatch.setattr("plait_server.cli.submitting.FIRST_WAIT_S", 0.02)
    assert run("submit", str(path), "--id", f"misspelt{option}", option).returncode == 1
    assert told == [LINE]


def test_what_waits_is_shown_with_an_execution(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "graph.yaml"
    nodes = ", ".join(f"{{id: n{number}, task: {{type: nobody.knows}}}}" for number in range(3))
    path.write_text(f"nodes: [{nodes}]")
    assert run("submit", str(path), "--id", "unserved").returncode == 0
    shown = run("get", "unserved").stdout
    assert re.search(r"^state +RUNNING +NO_WORKER$", shown, re.MULTILINE)
    assert re.search(r"^waiting +n0 and 2 others wait: no worker serves nobody.knows$", shown, re.MULTILINE)
    got = json.loads(run("get", "unserved", "--json").stdout)
    listed = [json.loads(line) for line in run("list", "--json").stdout.splitlines()]
    for each in (got, next(each for each in listed if each["executionId"] == "unserved")):
        assert (each["reason"], each["unservedTypes"]) == ("NO_WORKER", ["nobody.knows"])
    paused = run("pause", "unserved")
    assert paused.returncode == 0
    assert "unservedTypes" not in json.loads(run("get", "unserved", "--json").stdout)
    assert "n0 and 2 others wait: the execution is paused" in run("get", "unserved").stdout
    run("cancel", "unserved")
    assert "waiting" not in run("get", "unserved").stdout
