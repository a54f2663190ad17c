"""`plait export` and `plait delete`: what is deleted can still be read (K1)."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from google.protobuf import json_format

from plait.v1 import audit_service_pb2, event_pb2, execution_pb2, graph_pb2

Run = Callable[..., CompletedProcess[str]]
GraphFile = Callable[[str], str]


def read_export(text: str) -> dict[str, list[object]]:
    """Read an export: what it has of each kind."""
    found: dict[str, list[object]] = {}
    lines = text.splitlines()
    for line in lines:
        content: dict[str, object] = json.loads(line)
        ((kind, value),) = content.items()
        found.setdefault(kind, []).append(value)
    assert found["end"] == [{"lines": len(lines) - 1}]
    assert json.loads(lines[0])["format"]["version"] == 1
    return found


def test_what_was_exported_is_whole_after_the_execution_is_deleted(
    run: Run, graph_file: GraphFile, tmp_path: Path
) -> None:
    """K1: its events can be exported before."""
    run("submit", graph_file("test.large"), "--id", "kept", "--input", "200000", "--wait")
    shown = json.loads(run("get", "kept", "--json").stdout)
    path = tmp_path / "kept.jsonl"
    done = run("export", "kept", "--output", str(path))
    assert (done.returncode, done.stdout) == (0, "")
    assert f"exported kept to {path}" in done.stderr
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    done = run("delete", "kept")
    assert (done.returncode, done.stderr) == (0, "deleted kept\n")
    assert run("get", "kept").returncode == 2
    assert run("export", "kept").returncode == 2

    found = read_export(path.read_text())
    assert found["format"] == [
        {"name": "plait.export", "version": 1, "namespace": "default", "executionId": "kept"}
    ]
    assert found["execution"] == [shown]
    (node,) = (json_format.ParseDict(each, execution_pb2.ExecutionNode()) for each in found["node"])
    assert node.path == "only"
    events = [json_format.ParseDict(each, event_pb2.Event()) for each in found["event"]]
    assert [event.sequence for event in events] == list(range(1, len(events) + 1))
    assert events[-1].type == event_pb2.EVENT_TYPE_EXECUTION_ENDED
    (graph,) = found["graph"]
    assert isinstance(graph, dict)
    assert graph["digest"] == events[0].execution_submitted.graph_digest
    assert json_format.ParseDict(graph["graph"], graph_pb2.Graph()).nodes[0].id == "only"
    assert {"digest": shown["output"]["digest"], "json": json.dumps("x" * 200_000)} in found["payload"]
    entries = [json_format.ParseDict(each, audit_service_pb2.AuditEntry()) for each in found["audit"]]
    assert [entry.kind for entry in entries] == ["SubmitGraph"]


def test_an_export_does_not_replace_a_file(run: Run, graph_file: GraphFile, tmp_path: Path) -> None:
    run("submit", graph_file("test.echo"), "--id", "exported", "--wait")
    path = tmp_path / "there"
    path.write_text("mine")
    done = run("export", "exported", "--output", str(path))
    assert done.returncode == 2
    assert f"{path} exists, and is not overwritten" in done.stderr
    assert path.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir()].count("there.part") == 0


@pytest.mark.parametrize("command", ["export", "delete"])
def test_an_open_execution_is_told(run: Run, graph_file: GraphFile, command: str) -> None:
    name = f"open-{command}"
    run("submit", graph_file("test.nobody"), "--id", name)
    done = run(command, name)
    if command == "export":
        assert "what happens from now on may be missing" in done.stderr
        assert read_export(done.stdout)["event"]
    else:
        assert done.returncode == 5
        assert "Cancel it first" in done.stderr
    run("cancel", name)
