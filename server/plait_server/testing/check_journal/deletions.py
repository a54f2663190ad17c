"""Checks of deletions (`plait_server.ports.deletions`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from plait_server.core.lists.listing import Listing
from plait_server.core.run.scope_index import ScopeEntry
from plait_server.core.run.states import ExecutionState
from plait_server.ports.deletions import (
    REQUESTS_KEPT_S,
    TOMBSTONES_KEPT_S,
    DeleteResult,
    DeletionBegun,
    ExecutionMissing,
    ExecutionOpen,
)
from plait_server.ports.journal import AppendItem, ExecutionRow, Journal, RequestConflict, RequestRecord
from plait_server.testing.check_journal.items import (
    ALL,
    ENDED,
    NAMESPACE,
    OTHER_NAMESPACE,
    append,
    digest_of,
    is_missing,
    make,
    make_audit,
    make_request,
)
from plait_server.testing.check_journal.settings import make_action
from plait_server.testing.check_journal.store import StoreUnderTest


def make_ended(
    execution_id: str, *contents: bytes, end_time_s: float = 5.0, namespace: str = NAMESPACE
) -> AppendItem:
    """Make an item of an ended execution with something in every table."""
    listing = Listing(
        state=ExecutionState.SUCCEEDED, labels={"a": "b"}, create_time_s=1.0, end_time_s=end_time_s
    )
    return AppendItem(
        namespace=namespace,
        execution_id=execution_id,
        expected_sequence=0,
        owner_epoch=1,
        events=[b"1", b"2", b"3"],
        row=ExecutionRow(summary=b"ended", is_open=False, listing=listing),
        contents={digest_of(content): content for content in contents},
        request=make_request(f"request {execution_id}", execution_id),
        audit=(make_audit("1"), make_audit("2")),
        scope_entries=[ScopeEntry("a", [1, 3])],
        action=make_action("a", execution_id=execution_id),
    )


async def delete(
    journal: Journal,
    execution_id: str,
    *,
    namespace: str = NAMESPACE,
    is_corrupt: bool = False,
    request: RequestRecord | None = None,
    now_s: float = 10.0,
) -> DeleteResult:
    """Begin a deletion."""
    return await journal.deletions.begin(
        namespace, execution_id, now_s=now_s, is_corrupt=is_corrupt, action=None, request=request
    )


async def finish(journal: Journal, *, rows_max: int = 100) -> int:
    """Delete what is left of all deleted executions; return in how many slices."""
    slices = 1
    while not await journal.deletions.delete_some(rows_max=rows_max, bytes_max=ALL):
        slices += 1
    return slices


async def kept(journal: Journal, *contents: bytes, namespace: str = NAMESPACE) -> Sequence[bool]:
    """Return which of the contents are kept."""
    handle = journal.namespace(namespace)
    return [await handle.read_content(digest_of(content)) is not None for content in contents]


async def check_a_deleted_execution_is_gone(store: StoreUnderTest) -> None:
    """Check that a deleted execution cannot be found in any way, and that its id can be taken again (1, 2)."""
    journal = await store.open()
    await append(journal, make_ended("x", b"c"), make_ended("y"))
    assert await delete(journal, "x") == DeletionBegun()
    for finished in (False, True):
        assert await is_missing(journal, "x")
        handle = journal.namespace(NAMESPACE)
        assert await handle.read_row("x") is None
        assert [row.execution_id for row in (await handle.list_rows(limit=ALL)).rows] == ["y"]
        entries = await handle.list_audit(execution_id="x", before=None, limit=ALL)
        assert [entry.record for entry in entries] == [make_action("a", execution_id="x")]
        assert not await handle.read_audit("x", limit=ALL)
        assert len(await handle.list_audit(execution_id=None, before=None, limit=ALL)) == 4
        assert await kept(journal, b"c") == [not finished]
        await finish(journal)
    assert await delete(journal, "x") == ExecutionMissing()
    await append(journal, make("x", b"new"))
    assert not await is_missing(journal, "x")
    assert not await is_missing(journal, "y")


async def check_only_ended_and_corrupt_executions_are_deleted(store: StoreUnderTest) -> None:
    """Check that an open execution is deleted only if it is corrupt (1)."""
    journal = await store.open()
    await append(journal, make("open"), make("quarantined"), make("damaged"))
    assert await delete(journal, "open") == ExecutionOpen()
    assert await delete(journal, "quarantined", is_corrupt=True) == DeletionBegun()
    await journal.aclose()
    await store.damage_row(NAMESPACE, "damaged")
    journal = await store.open()
    assert await delete(journal, "damaged", is_corrupt=True) == DeletionBegun()
    await finish(journal)
    rows = (await journal.namespace(NAMESPACE).list_rows(limit=ALL)).rows
    assert [row.execution_id for row in rows] == ["open"]
    assert await delete(journal, "open", namespace=OTHER_NAMESPACE) == ExecutionMissing()


async def check_a_deletion_goes_on_after_a_crash(store: StoreUnderTest) -> None:
    """Check that a deletion that was begun is finished after a crash, slice by slice (1, 2)."""
    journal = await store.open()
    await append(journal, *(make_ended(name, b"c", name.encode()) for name in ("x", "y", "z")))
    for name in ("x", "y"):
        assert await delete(journal, name) == DeletionBegun()
    await store.crash(journal)
    journal = await store.open()
    assert not await journal.deletions.delete_some(rows_max=2, bytes_max=ALL)
    await store.crash(journal)
    journal = await store.open()
    assert await is_missing(journal, "x")
    assert await finish(journal, rows_max=2) > 4
    assert await kept(journal, b"c", b"x", b"y", b"z") == [True, False, False, True]
    assert await finish(journal) == 1


async def check_contents_are_kept_while_they_are_used(store: StoreUnderTest) -> None:
    """Check that a content is deleted with the last execution of its namespace that uses it (2)."""
    journal = await store.open()
    await append(
        journal,
        make_ended("x", b"a", b"b"),
        make_ended("y", b"b"),
        make_ended("z", b"b", namespace=OTHER_NAMESPACE),
    )
    later = replace(make_ended("y", b"a"), expected_sequence=3, events=[b"4"], request=None, scope_entries=())
    await append(journal, later)
    await delete(journal, "x")
    await finish(journal)
    assert await kept(journal, b"a", b"b") == [True, True]
    await delete(journal, "y")
    await finish(journal)
    assert await kept(journal, b"a", b"b") == [False, False]
    assert await kept(journal, b"a", b"b", namespace=OTHER_NAMESPACE) == [False, True]
    await append(journal, make_ended("new", b"a"))
    assert await kept(journal, b"a") == [True]


async def check_expired_executions_are_deleted_earliest_first(store: StoreUnderTest) -> None:
    """Check that executions that ended before a time are taken out, the earliest ended first (1)."""
    journal = await store.open()
    ends = {"a": 3.0, "b": 1.0, "c": 2.0, "d": 4.0}
    await append(journal, make("open"), *(make_ended(name, end_time_s=end) for name, end in ends.items()))
    await append(journal, make_ended("e", end_time_s=1.0, namespace=OTHER_NAMESPACE))
    await append(journal, make("without a time", row=ENDED))
    await journal.aclose()
    await store.damage_row(NAMESPACE, "b")
    journal = await store.open()
    assert await journal.deletions.list_namespaces() == [NAMESPACE, OTHER_NAMESPACE]

    async def expire(limit: int, *busy: str) -> Sequence[str]:
        return await journal.deletions.begin_expired(
            NAMESPACE, ended_before_s=4.0, now_s=10.0, limit=limit, is_busy=busy.__contains__
        )

    # A page may be shorter than it has to be, because of those that are left alone.
    assert list(await expire(5, "c")) == ["a"]
    assert list(await expire(5)) == ["c"]
    assert list(await expire(5)) == []
    await finish(journal)
    rows = (await journal.namespace(NAMESPACE).list_rows(limit=ALL)).rows
    assert [row.execution_id for row in rows] == ["without a time", "d", "b", "open"]
    assert not await is_missing(journal, "e", namespace=OTHER_NAMESPACE)


async def check_a_deletion_s_request_is_recorded(store: StoreUnderTest) -> None:
    """Check that request and action are recorded with the deletion, and that a taken request id deletes nothing (1)."""
    journal = await store.open()
    await append(journal, make_ended("x"), make_ended("y"))
    request = make_request("r", "x", method="DeleteExecution")
    action = make_action("deleter", execution_id="x")
    result = await journal.deletions.begin(
        NAMESPACE, "x", now_s=10.0, is_corrupt=False, action=action, request=request
    )
    assert result == DeletionBegun()
    assert await delete(journal, "y", request=request) == RequestConflict(record=request)
    assert await delete(journal, "x", request=request) == RequestConflict(record=request)
    assert not await is_missing(journal, "y")
    handle = journal.namespace(NAMESPACE)
    assert await handle.find_request("DeleteExecution", "r") == request
    entries = await handle.list_audit(execution_id="x", before=None, limit=1)
    assert [entry.record for entry in entries] == [action]


async def check_request_records_outlive_what_they_made(store: StoreUnderTest) -> None:
    """Check that a request id lives at least as long as what it made, and a day longer (K3)."""
    journal = await store.open()
    await append(journal, make_ended("x"), make_ended("y"))
    await delete(journal, "x")
    await finish(journal)
    handle = journal.namespace(NAMESPACE)
    day_later_s = 10.0 + REQUESTS_KEPT_S
    for now_s, is_known in ((day_later_s - 1.0, True), (day_later_s, False)):
        assert await journal.deletions.forget_some(now_s=now_s, actions_before_s=0.0, limit=10)
        known = await handle.find_request("SubmitGraph", "request x")
        assert known == (make_request("request x", "x") if is_known else None)
    assert await handle.find_request("SubmitGraph", "request y") == make_request("request y", "y")


async def check_old_actions_are_forgotten(store: StoreUnderTest) -> None:
    """Check that actions from before a time are forgotten, a few at a time (3)."""
    journal = await store.open()
    actions = [replace(make_action("a"), time_s=float(number)) for number in range(6)]
    await journal.write_actions([(NAMESPACE, action) for action in actions])
    assert not await journal.deletions.forget_some(now_s=0.0, actions_before_s=4.0, limit=3)
    assert await journal.deletions.forget_some(now_s=0.0, actions_before_s=4.0, limit=3)
    entries = await journal.namespace(NAMESPACE).list_audit(execution_id=None, before=None, limit=ALL)
    assert [entry.record for entry in entries] == actions[:3:-1]


async def check_tombstones_are_kept_for_a_time(store: StoreUnderTest) -> None:
    """Check that watchers learn of deletions for a day, and afterwards that they may have missed some."""
    journal = await store.open()
    handle = journal.namespace(NAMESPACE)
    await append(journal, make("x", row=ENDED), make("y", row=ENDED), make("z"))
    for execution_id, now_s in (("x", 1_000.0), ("y", 2_000.0)):
        assert await delete(journal, execution_id, now_s=now_s) == DeletionBegun()
    page = await handle.list_changes(after=0, limit=10)
    assert [change.row.execution_id for change in page.changes] == ["z", "x", "y"]
    assert [change.number for change in page.changes] == [3, 4, 5]
    assert (page.last_change, page.floor) == (5, 0)

    async def forget(now_s: float) -> None:
        while not await journal.deletions.forget_some(now_s=now_s, actions_before_s=0.0, limit=1):
            pass

    await forget(2_000.0)
    assert (await handle.list_changes(after=0, limit=10)).floor == 0
    await forget(1_000.0 + TOMBSTONES_KEPT_S)
    page = await handle.list_changes(after=4, limit=10)
    assert [change.row.execution_id for change in page.changes] == ["y"]
    assert page.floor == 4
    await store.crash(journal)
    journal = await store.open()
    handle = journal.namespace(NAMESPACE)
    await forget(2_000.0 + TOMBSTONES_KEPT_S)
    page = await handle.list_changes(after=0, limit=10)
    assert [change.row.execution_id for change in page.changes] == ["z"]
    assert (page.last_change, page.floor) == (5, 5)
    await store.crash(journal)
    journal = await store.open()
    await append(journal, make("later"))
    page = await journal.namespace(NAMESPACE).list_changes(after=5, limit=10)
    assert [change.number for change in page.changes] == [6], "no number is given twice"
