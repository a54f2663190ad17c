"""The index by scope in a SQLite store: damage of it, its check and its salvage, and what reading it costs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import apsw
import pytest
import trio

from plait_server.adapters.journals.queries import load_queries
from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.adapters.journals.sqlite_check import check_store
from plait_server.adapters.journals.sqlite_salvage import salvage_store
from plait_server.core.run.events import Detail, Event, NodeEnded, ScopeEnded, ScopeOpened
from plait_server.core.run.payload import NULL
from plait_server.core.run.scope_index import ScopeIndex
from plait_server.core.run.states import ExecutionState, NodeState
from plait_server.encoding.event_codec import encode_event
from plait_server.errors import EventDamaged
from plait_server.ports.journal import AppendItem, ScopePage
from tests.adapters.journals_damage import NAMESPACE, fill_store, item_of

EXECUTION = "x0"
"""Open, and without nested scopes before `nest` adds some."""


class Nested(NamedTuple):
    item: AppendItem
    scopes: dict[str, list[bytes]]


def nest(base: int, scopes: Iterable[str], *, open_scopes: Iterable[str] = ()) -> Nested:
    """Make an item with scopes of two nodes after a sequence, and the events of each; the last ones do not end."""
    index = ScopeIndex()
    encoded: list[bytes] = []
    found: dict[str, list[bytes]] = {}

    def add(path: str, state: NodeState | None, detail: Detail) -> bytes:
        event = Event(base + len(encoded) + 1, 1.0, 1, path, 0, "0", state, None, "", detail)
        index.apply(event)
        encoded.append(encode_event(event))
        return encoded[-1]

    scopes, open_scopes = list(scopes), list(open_scopes)
    for path in (*scopes, *open_scopes):
        found[path] = [add(path, NodeState.RUNNING, ScopeOpened(path, NULL, 2, 0))]
    for node in ("a", "b"):
        for path, events in found.items():
            events.append(add(f"{path}/{node}", NodeState.SUCCEEDED, NodeEnded()))
    for path in scopes:
        add(path, None, ScopeEnded(path, ExecutionState.SUCCEEDED))
    item = AppendItem(
        namespace=NAMESPACE,
        execution_id=EXECUTION,
        expected_sequence=base,
        owner_epoch=2,
        events=encoded,
        scope_entries=index.take(),
    )
    return Nested(item, {path: found[path] for path in scopes})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    trio.run(fill_store, path)
    return path


async def append_nested(path: Path, *, loses_index: bool = False) -> dict[str, list[bytes]]:
    nested = nest(len(item_of(0).events), [f"s{number}" for number in range(50)], open_scopes=["open"])
    item = replace(nested.item, scope_entries=()) if loses_index else nested.item
    journal = SqliteJournal.open(path, owner="nester")
    await journal.claim(limit=100)
    await journal.append_many([item])
    await journal.aclose()
    return nested.scopes


async def read_scope(path: Path, scope_path: str, *, after: int = 0) -> ScopePage:
    journal = SqliteJournal.open(path, owner="reader")
    try:
        return await journal.namespace(NAMESPACE).read_scope(
            EXECUTION, scope_path, after=after, events_max=1_000, bytes_max=1 << 20
        )
    finally:
        journal.crash()


def change(path: Path, statement: str) -> None:
    with closing(apsw.Connection(str(path))) as connection:
        connection.execute(statement)
        assert connection.changes() == 1


async def test_scopes_that_ended_are_found_and_the_store_is_whole(path: Path) -> None:
    scopes = await append_nested(path)
    for scope_path, events in scopes.items():
        assert list((await read_scope(path, scope_path)).events) == events
    assert list((await read_scope(path, "open")).events) == []
    assert check_store(path).findings == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE scope_entries SET sequences = x'0000000100000000' WHERE scope_path = 's7'",
        "UPDATE scope_entries SET sequences = x'00' WHERE scope_path = 's7'",
        "UPDATE scope_entries SET last_sequence = last_sequence + 1 WHERE scope_path = 's7'",
        "UPDATE scope_entries SET checksum = x'' WHERE scope_path = 's7'",
        "UPDATE scope_entries SET execution = 2 WHERE scope_path = 's7'",
        "UPDATE scope_entries SET scope_path = 's7x' WHERE scope_path = 's7'",
        "DELETE FROM scope_entries WHERE scope_path = 's7'",
    ],
)
async def test_a_damaged_index_is_told_and_made_anew(path: Path, tmp_path: Path, statement: str) -> None:
    scopes = await append_nested(path)
    change(path, statement)
    assert any("index by scope" in finding for finding in check_store(path).findings)
    for scope_path in ("s7", "s7x"):
        # What was lost is empty, not wrong.
        with contextlib.suppress(EventDamaged):
            assert list((await read_scope(path, scope_path)).events) == []
    assert list((await read_scope(path, "s8")).events) == scopes["s8"]
    new = tmp_path / "new.db"
    assert salvage_store(path, new).lost == []
    assert check_store(new).findings == []
    assert list((await read_scope(new, "s7")).events) == scopes["s7"]


async def test_a_salvage_makes_the_index_of_the_events_alone(path: Path, tmp_path: Path) -> None:
    scopes = await append_nested(path, loses_index=True)
    new = tmp_path / "new.db"
    salvage_store(path, new)
    for scope_path, events in scopes.items():
        assert list((await read_scope(new, scope_path)).events) == events


async def test_a_scope_whose_index_names_another_s_event_is_damaged(path: Path) -> None:
    """An event that is gone is told, also where its neighbors are whole."""
    await append_nested(path)
    first = len(item_of(0).events) + 1
    change(path, f"DELETE FROM events WHERE execution = 1 AND sequence = {first}")
    with pytest.raises(EventDamaged, match=f"event {first} of execution x0"):
        await read_scope(path, "s0")


def test_what_is_read_of_a_scope_is_found_by_keys(path: Path) -> None:
    """However many scopes and events an execution has, only those of the scope are looked at."""
    queries = load_queries("sqlite.sql")
    with closing(apsw.Connection(str(path))) as connection:
        for name, values, by in (
            (
                "list_scope_entries",
                (1, "s", 1),
                "PRIMARY KEY (execution=? AND scope_path=? AND last_sequence>?)",
            ),
            ("find_event", (1, 1), "INDEX events_of_execution (execution=? AND sequence>? AND sequence<?)"),
        ):
            plan = connection.execute("EXPLAIN QUERY PLAN " + queries[name].sql, values)
            details = [str(row[3]) for row in plan]
            assert len(details) == 1
            assert by in details[0], details
