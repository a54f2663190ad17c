"""Rules 5 to 9 of the journal port, and the lists: what is read back."""

from __future__ import annotations

import trio

from plait_server.errors import EventDamaged, StoreDamaged
from plait_server.ports.journal import (
    Appended,
    AppendItem,
    Claim,
    DamagedRow,
    ExecutionDamaged,
    ExecutionRow,
    ListedExecution,
)
from plait_server.testing.check_journal.items import (
    ALL,
    NAMESPACE,
    OPEN,
    OTHER_NAMESPACE,
    append,
    digest_of,
    everything,
    go_on,
    is_missing,
    make,
    read_events,
    require_everything,
)
from plait_server.testing.check_journal.store import StoreUnderTest

# Rule 5: bytes and chain.


async def check_events_are_opaque(store: StoreUnderTest) -> None:
    """Check that events come back byte for byte, whatever they hold (5)."""
    journal = await store.open()
    events = (b"", b"\x00", b"\xff\xfe", bytes(range(256)), b"x" * 100_000, "\u00e4".encode(), b"")
    await append(journal, make("x", *events))
    assert await read_events(journal, "x") == list(events)
    await store.crash(journal)
    assert await read_events(await store.open(), "x") == list(events)


async def check_reading_keeps_its_bounds(store: StoreUnderTest) -> None:
    """Check that a page holds at least one event if there is one, else no more than its bounds (5)."""
    journal = await store.open()
    await append(journal, make("x", *(bytes([number]) * 10 for number in range(10))))
    handle = journal.namespace(NAMESPACE)
    for after, events_max, bytes_max, count in (
        (0, 3, ALL, 3),
        (0, ALL, 35, 3),
        (0, ALL, 30, 3),
        (4, ALL, 1, 1),
        (7, ALL, ALL, 3),
        (9, 1, 10, 1),
        (10, ALL, ALL, 0),
        (11, ALL, ALL, 0),
    ):
        page = await handle.read("x", after=after, events_max=events_max, bytes_max=bytes_max)
        assert list(page.events) == [bytes([number]) * 10 for number in range(after, after + count)]
        assert page.last_sequence == 10


async def check_damage_is_found_and_contained(store: StoreUnderTest) -> None:
    """Check that a stretch with a damaged event raises, and what is around it is read as ever (5)."""
    journal = await store.open()
    await append(journal, make("x", b"1", b"2", b"3", b"4"), make("y", b"1", b"2"))
    await journal.aclose()
    await store.damage_event(NAMESPACE, "x", 3)
    journal = await store.open()
    handle = journal.namespace(NAMESPACE)
    for after, events_max in ((0, ALL), (2, 1), (1, 3)):
        try:
            await handle.read("x", after=after, events_max=events_max, bytes_max=ALL)
        except EventDamaged as error:
            fields = error.fields
        else:
            raise AssertionError("read")
        assert (fields["execution_id"], fields["sequence"]) == ("x", 3)
    page = await handle.read("x", after=0, events_max=2, bytes_max=ALL)
    assert list(page.events) == [b"1", b"2"]
    assert await read_events(journal, "x", after=3) == [b"4"]
    assert await read_events(journal, "y") == [b"1", b"2"]
    assert await handle.read_row("x") is not None
    await journal.claim(limit=10)
    await append(journal, go_on("y", 2, b"3", epoch=2))


# Rule 6: contents.


async def check_contents_are_kept_once(store: StoreUnderTest) -> None:
    """Check that writing a content twice is the same as once, also within one call (6)."""
    journal = await store.open()
    content = bytes(range(256)) * 300
    for ids in (("x", "y"), ("z", "w")):
        items = [
            AppendItem(
                namespace=NAMESPACE,
                execution_id=execution_id,
                expected_sequence=0,
                owner_epoch=1,
                events=(b"1",),
                row=OPEN,
                contents={digest_of(content): content, digest_of(b""): b""},
            )
            for execution_id in ids
        ]
        await append(journal, *items)
        handle = journal.namespace(NAMESPACE)
        assert await handle.read_content(digest_of(content)) == content
        assert await handle.read_content(digest_of(b"")) == b""
        assert await handle.read_content(digest_of(b"unknown")) is None
        assert await journal.namespace(OTHER_NAMESPACE).read_content(digest_of(content)) is None


# Rules 7 and 8: damage, namespaces.


async def check_namespaces_are_apart(store: StoreUnderTest) -> None:
    """Check that what is in another namespace looks as what is nowhere (8)."""
    journal = await store.open()
    made = everything("x", mark="1")
    await append(journal, made)
    await require_everything(journal, made)
    other = journal.namespace(OTHER_NAMESPACE)
    assert other.namespace == OTHER_NAMESPACE
    assert await is_missing(journal, "x", namespace=OTHER_NAMESPACE)
    assert await other.read_row("x") is None
    assert list((await other.list_rows(limit=10)).rows) == []
    assert list(await other.read_audit("x", limit=10)) == []
    assert await other.find_request("SubmitGraph", "request 1") is None
    for digest in made.contents:
        assert await other.read_content(digest) is None
    await append(journal, make("x", b"other", namespace=OTHER_NAMESPACE))
    assert await read_events(journal, "x", namespace=OTHER_NAMESPACE) == [b"other"]
    assert await read_events(journal, "x") == list(made.events)


async def check_an_execution_is_bound_to_its_key(store: StoreUnderTest) -> None:
    """Check that what was appended to one execution is never read as another's (5, 7)."""
    journal = await store.open()
    await append(
        journal,
        make("x", b"1"),
        make("y", b"2"),
        make("x", b"3", namespace=OTHER_NAMESPACE),
        make("whole", b"4"),
    )
    await journal.aclose()
    await store.exchange((NAMESPACE, "x"), (NAMESPACE, "y"))
    await store.exchange((NAMESPACE, "y"), (OTHER_NAMESPACE, "x"))
    for namespace, execution_id in ((NAMESPACE, "x"), (NAMESPACE, "y"), (OTHER_NAMESPACE, "x")):
        # Anew each time: a store may refuse everything once it has found this.
        journal = await store.open()
        try:
            await read_events(journal, execution_id, namespace=namespace)
        except (EventDamaged, StoreDamaged):
            await store.crash(journal)
        else:
            raise AssertionError("read")
    journal = await store.open()
    assert await read_events(journal, "whole") == [b"4"]


async def check_a_damaged_row_is_told_and_contained(store: StoreUnderTest) -> None:
    """Check that a damaged row is shown as such, is neither read nor claimed nor written, and others go on (7)."""
    journal = await store.open()
    await append(journal, *(make(name) for name in ("a", "x", "b")))
    await journal.aclose()
    await store.damage_row(NAMESPACE, "x")
    journal = await store.open()
    handle = journal.namespace(NAMESPACE)
    position = ((await handle.list_rows(limit=2)).rows)[1].position
    damaged = DamagedRow(namespace=NAMESPACE, execution_id="x", position=position)
    assert ((await handle.list_rows(limit=10)).rows)[1] == damaged
    for call in (
        handle.read_row("x"),
        handle.read("x", after=0, events_max=1, bytes_max=1),
        handle.read_audit("x", limit=1),
    ):
        try:
            await call
        except EventDamaged as error:
            named = error.fields["execution_id"]
        else:
            raise AssertionError("read")
        assert named == "x"
    claims = [claim for _ in range(3) for claim in await journal.claim(limit=1)]
    assert [claim.execution_id for claim in claims] == ["a", "x", "b"]
    assert claims[1] == damaged
    assert list(await journal.claim(limit=10)) == [], "told once"
    results = await journal.append_many([make("x"), go_on("a", 1, b"2", epoch=2)])
    assert list(results) == [ExecutionDamaged(), Appended(last_sequence=2)]
    (result,) = await journal.append_many([go_on("x", 1, b"2")])
    assert result == ExecutionDamaged()
    found: list[DamagedRow] = []
    is_done = False
    while not is_done:
        verification = await journal.verify(limit=2)
        found += verification.damaged
        is_done = verification.is_done
    assert found == [damaged]


# Rule 9: cancellation.


async def check_a_cancelled_append_is_whole_or_nothing(store: StoreUnderTest) -> None:
    """Check that a cancelled append has happened or not, for all its items (9)."""
    journal = await store.open()
    with trio.CancelScope() as scope:
        scope.cancel()
        await journal.append_many([make(f"x{number}", b"1", b"2") for number in range(5)])
    rows = (await journal.namespace(NAMESPACE).list_rows(limit=10)).rows
    assert len(rows) in {0, 5}
    for row in rows:
        assert await read_events(journal, row.execution_id) == [b"1", b"2"]


# Lists, due times, the rest.


async def check_lists_are_newest_first(store: StoreUnderTest) -> None:
    """Check that positions grow with every execution, also after a restart; pages go on below one."""
    journal = await store.open()
    await append(journal, *(make(f"x{number}") for number in range(3)))
    await store.crash(journal)
    journal = await store.open()
    await append(
        journal, make("elsewhere", namespace=OTHER_NAMESPACE), *(make(f"x{number}") for number in range(3, 6))
    )
    handle = journal.namespace(NAMESPACE)
    listed = (await handle.list_rows(limit=100)).rows
    assert [entry.execution_id for entry in listed] == ["x5", "x4", "x3", "x2", "x1", "x0"]
    positions = [entry.position for entry in listed]
    assert positions == sorted(set(positions), reverse=True)
    first = await handle.list_rows(limit=2)
    assert first.end == first.cursors[-1]
    second = await handle.list_rows(after=first.end, limit=100)
    assert second.end is None
    assert [*first.rows, *second.rows] == list(listed)
    assert await handle.read_row("x4") == ListedExecution(
        execution_id="x4", position=positions[1], last_sequence=1, owner_epoch=1, row=OPEN
    )
    assert await handle.read_row("unknown") is None
    await journal.claim(limit=1)
    await append(journal, go_on("x0", 1, b"2", b"3", epoch=2))
    moved = await handle.read_row("x0")
    assert moved is not None
    assert (moved.last_sequence, moved.owner_epoch) == (3, 2)


async def check_due_executions_are_listed_earliest_first(store: StoreUnderTest) -> None:
    """Check that only open executions of this owner with a due time that has come are due."""
    journal = await store.open()
    due_times = {"late": 30.0, "early": 10.5, "middle": 20.0, "future": 40.5, "negative": -1.0}
    for execution_id, due_time_s in due_times.items():
        row = ExecutionRow(summary=execution_id.encode(), is_open=True, due_time_s=due_time_s)
        await append(journal, make(execution_id, row=row))
    ended = ExecutionRow(summary=b"ended", is_open=False, due_time_s=1.0)
    await append(journal, make("awake"), make("ended", row=ended))
    due = await journal.list_due(now_s=30.0, limit=10)
    assert [claim.execution_id for claim in due] == ["negative", "early", "middle", "late"]
    assert due[1] == Claim(
        namespace=NAMESPACE,
        execution_id="early",
        owner_epoch=1,
        last_sequence=1,
        row=ExecutionRow(summary=b"early", is_open=True, due_time_s=10.5),
    )
    assert [claim.execution_id for claim in await journal.list_due(now_s=30.0, limit=2)] == [
        "negative",
        "early",
    ]
    await store.crash(journal)
    journal = await store.open()
    assert list(await journal.list_due(now_s=30.0, limit=10)) == [], "nothing is claimed yet"
    await journal.claim(limit=100)
    assert len(await journal.list_due(now_s=30.0, limit=10)) == len(due)
    awake = AppendItem(
        namespace=NAMESPACE, execution_id="early", expected_sequence=1, owner_epoch=2, row=OPEN
    )
    await append(journal, awake)
    assert "early" not in [claim.execution_id for claim in await journal.list_due(now_s=30.0, limit=10)]


async def check_the_key_is_the_store_s(store: StoreUnderTest) -> None:
    """Check that the key is 32 bytes and outlasts openings; owners differ."""
    journal = await store.open()
    key = await journal.key()
    owner = journal.owner
    await store.crash(journal)
    journal = await store.open()
    assert await journal.key() == key
    assert len(key) == 32
    assert journal.owner != owner
    assert journal.kind


async def check_statistics_count_what_was_appended(store: StoreUnderTest) -> None:
    """Check that refused items count for nothing."""
    journal = await store.open()
    await journal.append_many([make("x", b"12", b"345"), go_on("unknown", 1, b"6789")])
    await journal.append_many([go_on("x", 2, b"6")])
    statistics = journal.statistics()
    assert (statistics.appends, statistics.items) == (2, 2)
    assert (statistics.events, statistics.event_bytes) == (3, 6)
