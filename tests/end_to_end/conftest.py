"""One server and one worker for all tests that do not kill them; each test has executions of its own."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from tests.end_to_end.guarding import Guarded
from tests.end_to_end.processes import Server, Worker
from tests.end_to_end.service import Service
from tests.end_to_end.stage import Stage


@pytest.fixture(scope="session")
def stage() -> Generator[Stage]:
    """The stage that the handlers of all workers connect to."""
    stage = Stage()
    yield stage
    stage.close()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A server with a SQLite store."""
    folder = tmp_path_factory.mktemp("server")
    with Server(folder / "server.log", store=str(folder / "plait.db")) as server:
        yield server


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Guarded:
    """The tokens of a server."""
    return Guarded(tmp_path_factory.mktemp("guarded"))


@pytest.fixture(scope="session")
def guarded_server(guarded: Guarded, tmp_path_factory: pytest.TempPathFactory) -> Generator[Server]:
    """A server with tokens."""
    folder = tmp_path_factory.mktemp("guarded-server")
    with Server(folder / "log", store=":memory:", tokens_file=str(guarded.path)) as server:
        yield server


@pytest.fixture(scope="session")
def worker(server: Server, stage: Stage, tmp_path_factory: pytest.TempPathFactory) -> Generator[Worker]:
    """A worker of the namespace `default`."""
    folder = tmp_path_factory.mktemp("worker")
    with Worker(folder / "worker.log", server.address, stage.address) as worker:
        yield worker


@pytest.fixture(scope="session")
def service(server: Server, worker: Worker) -> Generator[Service]:
    """A client of the server, in the namespace that has a worker."""
    with Service(server.address) as service:
        yield service


@pytest.fixture
def alone(server: Server, request: pytest.FixtureRequest) -> Generator[Service]:
    """A client of the server, in a namespace of its own without workers."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[-100:]
    with Service(server.address, name) as service:
        yield service


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """The folder for the logs of a test's processes."""
    return tmp_path / "process.log"
