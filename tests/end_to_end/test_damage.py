"""K4: what a client sees of a store that was damaged while no server ran."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc
import pytest

from plait.v1 import state_pb2
from plait_server.cli.exit_codes import ExitCode
from tests.end_to_end.processes import HANG_S, Process, Server
from tests.end_to_end.service import CALL_S, Pb, Service, outcome, refusal_of

GRAPH = "nodes: [{id: a, transform: }]"
WAITING = "nodes: [{id: a, task: {type: nobody.serves.it}}]"


CHANGES = {
    "ended-1": "summary = x'ffff'",
    "ended-2": "is_open = 1",
    "ended-3": "last_sequence = last_sequence - 1",
    "ended-4": "identity = zeroblob(16)",
    "open-1": "is_open = 0",
    "open-2": "owner = 99",
    "open-3": "due_time_s = 1e12",
    "open-4": "owner_epoch = 7",
}
"""Execution -> what becomes of its row."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of the executions of `CHANGES`, and of the ended one `other`."""
    folder = tmp_path_factory.mktemp("whole")
    store = folder / "plait.db"
    with Server(folder / "log", store=str(store)) as server, Service(server.address) as service:
        for name in CHANGES:
            service.submit(GRAPH if name.startswith("ended") else WAITING, execution_id=name)
        for name in ("other", *CHANGES):
            if name.startswith("ended"):
                service.wait(name)
            elif name == "other":
                service.run(GRAPH, execution_id=name, request_id="r")
    return store


def copied(whole: Path, folder: Path) -> Path:
    for each in (whole, whole.with_name(whole.name + "-wal")):
        if each.exists():
            shutil.copy(each, folder / each.name)
    return folder / whole.name


def damage(store: Path, statement: str) -> None:
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        assert connection.execute(statement).rowcount == 1


def test_damaged_rows_are_shown_as_corrupt_and_the_others_go_on(whole: Path, tmp_path: Path) -> None:
    store = copied(whole, tmp_path)
    for name, change in CHANGES.items():
        damage(store, f"UPDATE executions SET {change} WHERE execution_id = '{name}'")
    with Server(tmp_path / "log", store=str(store)) as server, Service(server.address) as service:
        listed = service.executions.ListExecutions(
            Pb.ListExecutionsRequest(namespace="default"), timeout=CALL_S
        ).executions
        expected = dict.fromkeys(CHANGES, "CORRUPT") | {"other": "SUCCEEDED"}
        assert {each.execution_id: outcome(each) for each in listed} == expected
        for name in CHANGES:
            shown = service.get(name)
            assert (shown.namespace, shown.execution_id) == ("default", name)
            assert shown.state == state_pb2.EXECUTION_STATE_CORRUPT
            assert "plait store check" in shown.failure.message
        calls: list[Callable[[str], object]] = [service.events, service.cancel, service.wait, service.nodes]
        for call in calls:
            refusal = refusal_of(partial(call, "open-1"))
            assert (refusal.code, refusal.reason) == (grpc.StatusCode.DATA_LOSS, "EXECUTION_CORRUPT")
        taken = refusal_of(lambda: service.submit(GRAPH, execution_id="ended-1"))
        assert taken.reason == "EXECUTION_EXISTS"
        assert outcome(service.run(GRAPH)) == "SUCCEEDED"


@pytest.mark.parametrize("is_idle", [True, False])
def test_a_store_that_is_deleted_under_the_server_stops_it(tmp_path: Path, *, is_idle: bool) -> None:
    """Nothing is acknowledged that was written to a deleted file."""
    store = tmp_path / "plait.db"
    server = Process(
        tmp_path / "log",
        "plait_server",
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--store",
        str(store),
        "--create",
    )
    with server, Service(server.first_line().split()[-1]) as service:
        service.run(GRAPH)
        store.unlink()
        if not is_idle:
            refusal = refusal_of(lambda: service.submit(GRAPH))
            assert refusal.code is grpc.StatusCode.UNAVAILABLE
        assert server.popen.wait(HANG_S) == ExitCode.FAILED
        assert "start the server again" in server.stderr()
        assert "Traceback" not in server.stderr()
    assert not store.exists()


def test_a_store_that_is_not_there_is_not_made_by_mistake(tmp_path: Path) -> None:
    store = tmp_path / "plait.db"
    with Process(tmp_path / "log", "plait_server", "serve", "--store", str(store)) as server:
        assert server.popen.wait(HANG_S) == ExitCode.FAILED
        assert f"there is no store at {store}; pass --create" in server.stderr()
    assert not store.exists()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE executions SET execution_id = 'another' WHERE execution_id = 'other'",
        "UPDATE executions SET namespace = 'another' WHERE execution_id = 'other'",
        "UPDATE requests SET request_id = 's'",
        "UPDATE requests SET execution_id = 'ended-1'",
        "UPDATE store SET generation = 0",
        "UPDATE store SET key = zeroblob(32)",
    ],
)
def test_damage_of_no_single_execution_stops_the_server(whole: Path, tmp_path: Path, statement: str) -> None:
    store = copied(whole, tmp_path)
    damage(store, statement)
    with Process(
        tmp_path / "log", "plait_server", "serve", "--listen", "127.0.0.1:0", "--store", str(store)
    ) as server:
        assert server.popen.wait(HANG_S) == ExitCode.FAILED
        assert f"plait store check {store}" in server.stderr()
        assert f"plait store salvage {store}" in server.stderr()
        assert "Traceback" not in server.stderr()
