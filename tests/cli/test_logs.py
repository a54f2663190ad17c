"""`plait logs` and `plait node`, and ReadLogs of both clients, against a real server (A6, B3)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from plait.v1 import execution_service_pb2, log_pb2
from plait_client import AsyncClient, Client, InvalidArgument, NotFound

Run = Callable[..., CompletedProcess[str]]
GRAPH = """
name: talking
nodes:
  - {id: a, task: {type: test.talk}, input: "three"}
  - {id: b, task: {type: test.talk}, input: "three"}
"""


def test_lines_of_a_node_stand_together(run: Run, address: str, tmp_path: Path) -> None:
    """B3: logs of parallel nodes do not interleave; each line says where it comes from, in which trace."""
    path = tmp_path / "graph.yaml"
    path.write_text(GRAPH)
    assert run("submit", str(path), "--id", "talk", "--wait").returncode == 0
    done = run("logs", "talk", "--follow")
    assert len(done.stdout.splitlines()) == 8
    lines = [json.loads(line) for line in run("logs", "talk", "--json").stdout.splitlines()]
    nodes = [line["nodePath"] for line in lines]
    assert nodes in (["a"] * 4 + ["b"] * 4, ["b"] * 4 + ["a"] * 4)
    assert sorted(int(line["sequence"]) for line in lines) == list(range(1, 9))
    first = [(line["kind"], line["level"], line["text"]) for line in lines[:4]]
    # Workers send progress before lines that wait.
    assert sorted(first) == [
        ("LOG_LINE_KIND_LOG", "LOG_LEVEL_INFO", "line 0 \x1b[31m"),
        ("LOG_LINE_KIND_LOG", "LOG_LEVEL_INFO", "line 1 \x1b[31m"),
        ("LOG_LINE_KIND_LOG", "LOG_LEVEL_INFO", "line 2 \x1b[31m"),
        ("LOG_LINE_KIND_PROGRESS", "LOG_LEVEL_INFO", "0.5 half"),
    ]
    assert {(line["attempt"], line["branch"], len(line["traceId"])) for line in lines} <= {
        (1, "0-001", 32),
        (1, "0-002", 32),
    }
    shown = run("logs", "talk", "b", "--attempt", "1").stdout.splitlines()
    assert sorted(line.split()[1] for line in shown) == ["INFO", "INFO", "INFO", "PROGRESS"]
    assert any(line.endswith(r"line 0 \x1b[31m") for line in shown)
    node = run("node", "talk", "b").stdout
    assert "SUCCEEDED" in node
    assert '"three"' in node
    assert shown[0] in node


def test_node_shows_the_failure_with_its_traceback(run: Run, graph_file: Callable[[str], str]) -> None:
    run("submit", graph_file("test.raise"), "--id", "raised", "--wait")
    shown = run("node", "raised", "only").stdout
    assert "attempt 1  FAILED" in shown
    assert "failure    UNKNOWN: ValueError: a canary in the message" in shown
    assert "Traceback (most recent call last):" in shown
    assert json.loads(run("node", "raised", "only", "--json").stdout)["path"] == "only"


def test_node_cuts_what_is_long_and_says_how_to_get_it(run: Run, graph_file: Callable[[str], str]) -> None:
    run("submit", graph_file("test.large"), "--id", "long", "--wait", "--input", "50000")
    shown = run("node", "long", "only").stdout
    assert len(shown) < 4_000
    assert "50,002 characters; `plait export long` shows all" in shown


def test_both_clients_read_logs(address: str, run: Run, tmp_path: Path) -> None:
    """A6: after a sequence, of one node, and as they come."""
    path = tmp_path / "graph.yaml"
    path.write_text(GRAPH)
    run("submit", str(path), "--id", "clients", "--wait")

    async def follow() -> list[execution_service_pb2.ExecutionLogLine]:
        async with AsyncClient(address) as client:
            return [line async for line in client.logs("clients", follow=True, after_sequence=3)]

    assert [line.sequence for line in asyncio.run(follow())] == [4, 5, 6, 7, 8]
    with Client(address) as client:
        lines = list(client.logs("clients", node_path="a"))
        assert {line.node_path for line in lines} == {"a"}
        assert lines[0].level == log_pb2.LOG_LEVEL_INFO
        assert not list(client.logs("clients", node_path="missing"))
        with pytest.raises(NotFound):
            list(client.logs("missing"))
        with pytest.raises(InvalidArgument):
            list(client.logs("clients", attempt=1))


def test_attempt_without_a_node_is_refused(run: Run) -> None:
    done = run("logs", "x", "--attempt", "1")
    assert done.returncode == 2
    assert "plait logs ID NODE --attempt N" in done.stderr
