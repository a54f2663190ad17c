"""FAILURES.md 1: the SQLite store and processes that are killed (#1, #2, #5), or that come second (#10)."""

from __future__ import annotations

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.errors import StoreLocked
from plait_server.ports.journal import Journal, ListedExecution
from tests.adapters import journals_writer
from tests.adapters.journals_writer import EVENTS_AN_APPEND, event


@contextlib.contextmanager
def running_writer(path: Path, owner: str) -> Generator[tuple[subprocess.Popen[str], Iterator[str]]]:
    """A writer that is ready, and its lines; it is killed at the end if it was not before."""
    command = [sys.executable, journals_writer.__file__, str(path), owner]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        try:
            assert next(lines) == "ready\n"
            yield process, lines
        finally:
            process.kill()


def write_until_killed(path: Path, owner: str, lines_max: int) -> dict[str, int]:
    """Let a writer run, kill it after so many lines, and give what it had said until then."""
    with running_writer(path, owner) as (process, lines):
        said = [next(lines) for _ in range(lines_max)]
        process.kill()
        # What it said between the last line read and its end; the last line may be torn.
        said += [line for line in lines if line.endswith("\n")]
    heads: dict[str, int] = {}
    for line in said:
        execution_id, sequence = line.split()
        heads[execution_id] = int(sequence)
    return heads


async def require_whole(journal: Journal, promised: dict[str, int]) -> None:
    """Assert that what was promised is there, and that every append is there whole or not at all."""
    handle = journal.namespace("n")
    rows = (await handle.list_rows(limit=100)).rows
    assert {row.execution_id for row in rows} >= promised.keys()
    for listed in rows:
        assert isinstance(listed, ListedExecution)
        name = listed.execution_id
        page = await handle.read(name, after=0, events_max=1_000_000, bytes_max=1 << 40)
        last = page.last_sequence
        assert last >= promised.get(name, 0)
        assert list(page.events) == [event(name, sequence) for sequence in range(1, last + 1)]
        assert listed.row.summary == str(last).encode()
        appends = range(EVENTS_AN_APPEND, last + 1, EVENTS_AN_APPEND)
        assert last % EVENTS_AN_APPEND == 0
        audit = await handle.read_audit(name, limit=1_000_000)
        assert [record.detail for record in audit] == [str(sequence) for sequence in appends]
        for sequence in appends:
            assert await handle.find_request("M", f"{name} {sequence}") is not None
        assert await handle.find_request("M", f"{name} {last + EVENTS_AN_APPEND}") is None


@pytest.mark.slow
async def test_a_killed_writer_lost_nothing_it_had_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    rng = random.Random(0)
    promised: dict[str, int] = {}
    for cycle in range(8):
        promised |= write_until_killed(path, f"writer-{cycle}", rng.randrange(1, 200))
        journal = SqliteJournal.open(path, owner=f"reader-{cycle}")
        await require_whole(journal, promised)
        # Sometimes the next start finds the log as it is, sometimes an empty one.
        if cycle % 2:
            await journal.aclose()
        else:
            journal.crash()


def test_a_second_process_is_refused_until_the_first_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with running_writer(path, "the-first") as (process, _):
        with pytest.raises(StoreLocked) as caught:
            SqliteJournal.open(path, owner="second")
        assert str(process.pid) in caught.value.message
        assert "the-first" in caught.value.message
        assert caught.value.fields["owner"] == "the-first"
        assert process.poll() is None
    SqliteJournal.open(path, owner="second").crash()
