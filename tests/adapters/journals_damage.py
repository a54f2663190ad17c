"""A store with something of everything in it, and all that can be read of it: for tests that damage it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.core.lists.listing import listing_of
from plait_server.core.run.events import ExecutionSubmitted
from plait_server.core.run.execution import Execution
from plait_server.encoding.event_codec import encode_event
from plait_server.encoding.execution_codec import summarize
from plait_server.encoding.graph_codec import analysis_to_bytes, graph_to_proto
from plait_server.ports.audit import ActionRecord, AuditEntry, AuditRecord
from plait_server.ports.journal import (
    AppendItem,
    ExecutionRow,
    ListedExecution,
    RequestRecord,
)
from tests.core.driver import Driver
from tests.core.graph_text import build

EXECUTIONS = 12
NAMESPACE = "n"
SETTINGS = {("", "limit/a"): b"1", (NAMESPACE, "namespace"): b"value"}
LARGE = b'"' + b"large " * 2_000 + b'"'
"""A content of several pages, which every execution has."""


class Kept(NamedTuple):
    """The rows of an execution."""

    row: ExecutionRow
    events: list[bytes]
    audit: list[AuditRecord]
    entries: list[AuditEntry]
    """Of the audit that lists show, without their positions."""
    request: RequestRecord | None
    scope: list[bytes]
    """The events of the scope `a`, if there is one."""


def item_of(number: int) -> AppendItem:
    """All of an execution: every third is open, every fourth has a scope inside."""
    execution_id = f"x{number}"
    is_nested = number % 4 == 3
    driver = Driver(build("sub a { d -> e }; a -> b; a -> c" if is_nested else "a -> b; a -> c")).start()
    if is_nested:
        driver.succeed("a/d")
        driver.succeed("a/e")
    elif number % 3:
        driver.succeed("a")
    if number % 3:
        driver.succeed("b")
        driver.succeed("c")
    graph = graph_to_proto(driver.graph).SerializeToString(deterministic=True)
    analysis = analysis_to_bytes(driver.analysis)
    first = driver.events[0]
    assert isinstance(first.detail, ExecutionSubmitted)
    detail = first.detail._replace(
        execution_id=execution_id,
        graph_digest=hashlib.sha256(graph).hexdigest(),
        analysis_digest=hashlib.sha256(analysis).hexdigest(),
    )
    events = [first._replace(detail=detail), *driver.events[1:]]
    execution = Execution(driver.graph, driver.analysis)
    for event in events:
        execution.apply(event)
    return AppendItem(
        namespace=NAMESPACE,
        execution_id=execution_id,
        expected_sequence=0,
        owner_epoch=1,
        events=[encode_event(event) for event in events],
        row=ExecutionRow(
            summary=summarize(NAMESPACE, execution).SerializeToString(),
            is_open=not execution.is_ended,
            due_time_s=None,
            listing=listing_of(execution),
        ),
        contents={hashlib.sha256(content).hexdigest(): content for content in (graph, analysis, LARGE)},
        request=RequestRecord(
            method="SubmitGraph", request_id=f"r{number}", fingerprint=b"f" * 32, execution_id=execution_id
        ),
        audit=[
            AuditRecord(
                time_s=1.5, kind="STALE_RESULT", node_path="a", attempt=1, worker_id="w", detail=f"{index}"
            )
            for index in range(2)
        ],
        scope_entries=execution.scope_index.take(),
        action=action_of(execution_id),
    )


def action_of(execution_id: str) -> ActionRecord:
    """The action that submitted an execution."""
    return ActionRecord(
        time_s=1.25,
        principal="p",
        is_verified=True,
        method="SubmitGraph",
        execution_id=execution_id,
        target="t",
        detail="{}",
    )


async def fill_store(path: Path, *, executions: int = EXECUTIONS, is_killed: bool = False) -> None:
    """Make a store of executions, one a transaction."""
    journal = SqliteJournal.open(path, owner="filler")
    for number in range(executions):
        await journal.append_many([item_of(number)])
    for (namespace, name), value in SETTINGS.items():
        await journal.write_setting(namespace, name, value, action_of(""), None)
    if is_killed:
        journal.crash()
    else:
        await journal.aclose()


async def read_everything(journal: SqliteJournal) -> dict[str, Kept]:
    """Read all that a journal has of `NAMESPACE`."""
    handle = journal.namespace(NAMESPACE)
    kept: dict[str, Kept] = {}
    for listed in (await handle.list_rows(limit=1_000)).rows:
        assert isinstance(listed, ListedExecution)
        name = listed.execution_id
        page = await handle.read(name, after=0, events_max=1_000, bytes_max=1 << 30)
        scope = await handle.read_scope(name, "a", after=0, events_max=1_000, bytes_max=1 << 30)
        kept[name] = Kept(
            listed.row,
            list(page.events),
            list(await handle.read_audit(name, limit=100)),
            [
                replace(entry, position=0)
                for entry in await handle.list_audit(execution_id=name, before=None, limit=100)
            ],
            await handle.find_request("SubmitGraph", f"r{name[1:]}"),
            list(scope.events),
        )
    return kept


async def everything_of(path: Path) -> dict[str, Kept]:
    """Open a copy of a store and read everything, so that the store stays as it is."""
    journal = SqliteJournal.open(path, owner="reader", may_create=False)
    try:
        return await read_everything(journal)
    finally:
        await journal.aclose()
