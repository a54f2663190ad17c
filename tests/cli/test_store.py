"""`plait store`: what it prints, and what it ends with."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from tests.cli import live

GRAPH = "nodes: [{id: a, transform: }]"


def submit(address: str, tmp_path: Path, count: int) -> None:
    (tmp_path / "graph.yaml").write_text(GRAPH)
    for number in range(count):
        arguments = (
            "submit",
            str(tmp_path / "graph.yaml"),
            "--id",
            f"x{number}",
            "--wait",
            "--server",
            address,
        )
        assert live.call(*arguments).returncode == 0


def test_a_store_is_backed_up_checked_and_salvaged(tmp_path: Path) -> None:
    store, copy, new = (str(tmp_path / name) for name in ("plait.db", "copy.db", "new.db"))
    with live.server(store) as address:
        submit(address, tmp_path, 3)
        done = live.call("store", "backup", store, copy)
        assert (done.returncode, "it was asked for the backup" in done.stderr) == (0, True)
        assert done.stdout.startswith(f"Copied {store} to {copy} (")
        done = live.call("store", "check", store)
        assert (done.returncode, "is used by process" in done.stderr) == (5, True)
    for path in (store, copy):
        done = live.call("store", "check", path)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("Whole: 3 executions with ")
        assert done.stdout.endswith(f"The store {path} is whole.\n")
    with contextlib.closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE executions SET is_open = 1 WHERE execution_id = 'x0'")
        connection.execute("UPDATE events SET event = x'00' WHERE execution = 2 AND sequence = 2")
    done = live.call("store", "check", store)
    assert (done.returncode, done.stderr) == (1, "")
    assert "execution x0 of default: its row is damaged\n" in done.stdout
    assert "execution x1 of default: event 2 is damaged or missing\n" in done.stdout
    assert done.stdout.endswith(f"  plait store salvage {store} NEW\n")
    done = live.call("store", "salvage", store, new)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == (
        "lost: execution x1 of default: events are damaged or missing\n"
        "saved by its events, for its row is damaged: execution x0 of default\n"
        f"Saved: 2 executions. To go on:\n  plait serve --store {new}\n"
    )
    for path in (copy, new):
        with live.server(path) as address:
            done = live.call("get", "x0", "--server", address)
            assert (done.returncode, "SUCCEEDED" in done.stdout) == (0, True)


def test_what_is_wrong_is_told_with_the_remedy(tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    done = live.call("store", "check", str(missing))
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr == f"plait: there is no store at {missing}; name the store that there is\n"
    notes = tmp_path / "notes.txt"
    notes.write_text("Dear diary, " * 1_000)
    done = live.call("store", "salvage", str(notes), str(notes))
    assert done.returncode == 5
    assert "exists, and is not overwritten" in done.stderr
    done = live.call("store", "check", str(notes))
    assert (done.returncode, "Traceback" in done.stderr) == (5, False)
    assert notes.read_text() == "Dear diary, " * 1_000
