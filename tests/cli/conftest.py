"""One server and one worker for all tests of the command line; each test has executions of its own."""

from collections.abc import Callable, Generator
from pathlib import Path
from subprocess import CompletedProcess

import pytest

from tests.cli import live

Run = Callable[..., CompletedProcess[str]]


@pytest.fixture(scope="session")
def address() -> Generator[str]:
    """The address of a server with a worker."""
    with live.server(":memory:") as listening, live.worker(listening):
        yield listening


@pytest.fixture
def run(address: str) -> Run:
    """Run a command against the server."""

    def run_there(*arguments: str, stdin: str = "", **more: str) -> CompletedProcess[str]:
        return live.call(*arguments, stdin=stdin, env={"PLAIT_SERVER": address} | more)

    return run_there


@pytest.fixture
def graph_file(tmp_path: Path) -> Callable[[str], str]:
    """Write a graph of one task node of a type, and give the file's name."""

    def write(node_type: str) -> str:
        path = tmp_path / "graph.yaml"
        path.write_text(f"name: one\nnodes:\n  - id: only\n    task: {{type: {node_type}}}\n")
        return str(path)

    return write
