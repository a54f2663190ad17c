"""A client or worker that leaves in the middle of a write is not logged as a bug of the server."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.end_to_end.attaching import Attached
from tests.end_to_end.processes import Process, Server
from tests.end_to_end.service import Service, until

NODES = 300
LARGE = "y" * 30_000


@pytest.fixture
def own(log: Path) -> Generator[Service]:
    """A server of which nothing but its log is known."""
    with (
        Server(log, store=":memory:", log_level="DEBUG") as server,
        Service(server.address, "leaving") as service,
    ):
        yield service


def graph(type_: str) -> str:
    nodes = ",".join(
        f'{{id: n{number}, task: {{type: {type_}}}, input: "{LARGE}"}}' for number in range(NODES)
    )
    return f"policy: {{max_concurrency: {NODES}}}\nnodes: [{nodes}]"


def leave(own: Service, tmp_path: Path, execution_id: str) -> None:
    """Open streams from a process whose reads stand still, and kill it while they are written to."""
    arguments = (own.address, own.namespace, execution_id)
    with Process(tmp_path / "leaver.log", "tests.end_to_end.leaver", *arguments) as leaver:
        assert leaver.first_line() == "ready", leaver.stderr()
        leaver.kill()


def test_watchers_that_are_killed_are_no_bug(own: Service, tmp_path: Path, log: Path) -> None:
    execution_id = own.submit(graph("small"))
    with Attached(own, "small", slots=NODES) as worker:
        tokens = [worker.next_assign().token for _ in range(NODES)]
        for token in tokens:
            worker.complete(token, f'"{LARGE}"')
        for _ in tokens:
            worker.next_recorded()
    own.wait(execution_id)

    def has_met_a_write() -> bool:
        # Whether a death is met by a write or by the end of the call is the transport's affair.
        leave(own, tmp_path, execution_id)
        return "the caller left while it was written to" in log.read_text()

    until(has_met_a_write)
    assert "ERROR" not in log.read_text()


def test_workers_that_are_killed_are_no_bug(own: Service, tmp_path: Path, log: Path) -> None:
    own.submit(graph("hand"))
    leave(own, tmp_path, "")
    until(lambda: log.read_text().count("detached, holding") == 5)
    assert own.is_serving()
    assert "ERROR" not in log.read_text()
