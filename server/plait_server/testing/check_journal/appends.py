"""Rules 1 to 3 of the journal port: what is appended, and who may append."""

from __future__ import annotations

from dataclasses import replace

from plait_server.errors import InvariantViolated
from plait_server.ports.journal import (
    Appended,
    AppendItem,
    Claim,
    EpochConflict,
    ExecutionRow,
    RequestConflict,
    SequenceConflict,
)
from plait_server.testing.check_journal.items import (
    ALL,
    ENDED,
    NAMESPACE,
    OPEN,
    OTHER_NAMESPACE,
    append,
    digest_of,
    everything,
    go_on,
    is_missing,
    make,
    make_audit,
    make_request,
    read_events,
    require_everything,
    require_nothing,
)
from plait_server.testing.check_journal.store import StoreUnderTest

# Rule 1: events are numbered 1, 2, 3; what was appended is durable.


async def check_events_are_kept_in_order(store: StoreUnderTest) -> None:
    """Check that events of an execution are numbered without gaps, whatever is appended in between (1)."""
    journal = await store.open()
    first, second = await journal.append_many([make("x", b"1", b"2"), make("y", b"one")])
    assert first == Appended(last_sequence=2)
    assert second == Appended(last_sequence=1)
    results = await journal.append_many([go_on("y", 1, b"two"), go_on("x", 2, b"3", b"4")])
    assert list(results) == [Appended(last_sequence=2), Appended(last_sequence=4)]
    assert await read_events(journal, "x") == [b"1", b"2", b"3", b"4"]
    assert await read_events(journal, "y") == [b"one", b"two"]


async def check_appended_items_survive_a_crash(store: StoreUnderTest) -> None:
    """Check that what has an Appended result is there after kill -9 (1)."""
    journal = await store.open()
    made = everything("x", mark="1")
    await append(journal, made)
    await store.crash(journal)
    journal = await store.open()
    await require_everything(journal, made)


async def check_appended_items_survive_closing(store: StoreUnderTest) -> None:
    """Check that what has an Appended result is there after a clean end; closing is idempotent (1)."""
    journal = await store.open()
    made = everything("x", mark="1")
    await append(journal, made)
    await journal.aclose()
    await journal.aclose()
    journal = await store.open()
    await require_everything(journal, made)


async def check_an_append_holds_an_execution_once(store: StoreUnderTest) -> None:
    """Check that two items of an execution, and a beginning without row or event, are refused (1, 3)."""
    journal = await store.open()
    rowless = AppendItem(
        namespace=NAMESPACE, execution_id="x", expected_sequence=0, owner_epoch=1, events=(b"1",)
    )
    for items in (
        [make("y"), make("x"), go_on("x", 1, b"2")],
        [make("y"), rowless],
        [
            make("y"),
            AppendItem(namespace=NAMESPACE, execution_id="x", expected_sequence=0, owner_epoch=1, row=OPEN),
        ],
    ):
        try:
            await journal.append_many(items)
        except InvariantViolated:
            pass
        else:
            raise AssertionError("accepted")
        assert await is_missing(journal, "x")
        assert await is_missing(journal, "y")


async def check_an_empty_append_is_nothing(store: StoreUnderTest) -> None:
    """Check that no items, no results."""
    journal = await store.open()
    assert list(await journal.append_many([])) == []


# Rule 2: an item is all or nothing, and alone.


async def check_a_conflict_fails_its_item_alone(store: StoreUnderTest) -> None:
    """Check that nothing of a refused item is kept, everything of its neighbors (2)."""
    journal = await store.open()
    await append(journal, make("x", b"1"))
    before, refused, after = (
        everything("before", mark="before"),
        everything("x", expected=7, mark="refused"),
        everything("after", mark="after"),
    )
    results = await journal.append_many([before, refused, after])
    assert list(results) == [
        Appended(last_sequence=2),
        SequenceConflict(last_sequence=1),
        Appended(last_sequence=2),
    ]
    await require_everything(journal, before)
    await require_nothing(journal, refused)
    await require_everything(journal, after)
    await append(journal, go_on("x", 1, b"2"))


async def check_an_item_may_be_audit_alone(store: StoreUnderTest) -> None:
    """Check that an item without events keeps the sequence, without a row the row; audit is in order (2)."""
    journal = await store.open()
    handle = journal.namespace(NAMESPACE)
    await append(journal, make("x", b"1"))
    marks = ("a", "b", "c")
    for mark in marks:
        item = AppendItem(
            namespace=NAMESPACE,
            execution_id="x",
            expected_sequence=1,
            owner_epoch=1,
            audit=(make_audit(mark), make_audit(mark)),
        )
        assert list(await journal.append_many([item])) == [Appended(last_sequence=1)]
    expected = [make_audit(mark) for mark in marks for _ in range(2)]
    assert list(await handle.read_audit("x", limit=ALL)) == expected
    assert list(await handle.read_audit("x", limit=3)) == expected[:3]
    assert list(await handle.read_audit("unknown", limit=ALL)) == []
    listed = await handle.read_row("x")
    assert listed is not None
    assert listed.row == OPEN
    assert await read_events(journal, "x") == [b"1"]


# Rule 3: sequence, epoch, owner.


async def check_a_wrong_sequence_is_refused(store: StoreUnderTest) -> None:
    """Check that an item is refused if the execution does not end where it expects (3)."""
    journal = await store.open()
    await append(journal, make("x", b"1", b"2"))
    for expected in (1, 3):
        (result,) = await journal.append_many([go_on("x", expected, b"no")])
        assert result == SequenceConflict(last_sequence=2)
    (result,) = await journal.append_many([go_on("unknown", 2, b"no")])
    assert result == SequenceConflict(last_sequence=0)
    (result,) = await journal.append_many([make("x", b"again", epoch=9)])
    assert result == SequenceConflict(last_sequence=2)
    assert await read_events(journal, "x") == [b"1", b"2"]
    assert await is_missing(journal, "unknown")


async def check_a_wrong_epoch_is_refused(store: StoreUnderTest) -> None:
    """Check that the epoch of the item that made the execution is the execution's (3)."""
    journal = await store.open()
    await append(journal, make("x", b"1", epoch=5))
    for epoch in (4, 6):
        (result,) = await journal.append_many([go_on("x", 1, b"no", epoch=epoch)])
        assert result == EpochConflict(owner_epoch=5)
    # A writer that lost ownership knows nothing of the sequence: the epoch is told first.
    (result,) = await journal.append_many([go_on("x", 3, b"no", epoch=4)])
    assert result == EpochConflict(owner_epoch=5)
    await append(journal, go_on("x", 1, b"2", epoch=5))
    assert await read_events(journal, "x") == [b"1", b"2"]


async def check_a_claim_fences_the_former_owner(store: StoreUnderTest) -> None:
    """Check that a claim raises the epoch by one, and who writes under the former one is refused (3)."""
    journal = await store.open()
    await append(journal, make("x", b"1", b"2", epoch=5))
    await store.crash(journal)
    for epoch in (6, 7):
        journal = await store.open()
        (claim,) = await journal.claim(limit=10)
        assert claim == Claim(
            namespace=NAMESPACE, execution_id="x", owner_epoch=epoch, last_sequence=2, row=OPEN
        )
        (result,) = await journal.append_many([go_on("x", 2, b"zombie", epoch=epoch - 1)])
        assert result == EpochConflict(owner_epoch=epoch)
        await store.crash(journal)
    journal = await store.open()
    await journal.claim(limit=10)
    await append(journal, go_on("x", 2, b"3", epoch=8))
    assert await read_events(journal, "x") == [b"1", b"2", b"3"]


async def check_an_open_execution_is_written_by_its_owner_alone(store: StoreUnderTest) -> None:
    """Check that before the claim the right epoch is not enough; of an ended execution it is (3)."""
    journal = await store.open()
    await append(journal, make("open"), make("ended", row=ENDED))
    await journal.aclose()
    journal = await store.open()
    results = await journal.append_many([go_on("open", 1, b"no"), go_on("ended", 1, b"2")])
    assert list(results) == [EpochConflict(owner_epoch=1), Appended(last_sequence=2)]
    assert [claim.execution_id for claim in await journal.claim(limit=10)] == ["open"]
    # A second run: open again, under the one that opened it.
    again = AppendItem(
        namespace=NAMESPACE,
        execution_id="ended",
        expected_sequence=2,
        owner_epoch=1,
        events=(b"3",),
        row=ExecutionRow(summary=b"again", is_open=True, due_time_s=1.0),
    )
    await append(journal, again)
    assert list(await journal.claim(limit=10)) == []
    assert [claim.execution_id for claim in await journal.list_due(now_s=2.0, limit=10)] == ["ended"]


async def check_claims_are_of_open_executions_oldest_first(store: StoreUnderTest) -> None:
    """Check that claims come in the order in which the executions were made, of all namespaces (3)."""
    journal = await store.open()
    ids = [f"x{number}" for number in (3, 1, 4, 0, 5, 9, 2, 6)]
    for number, execution_id in enumerate(ids):
        await append(journal, make(execution_id, namespace=NAMESPACE if number % 2 else OTHER_NAMESPACE))
    await append(journal, make("ended", row=ENDED))
    assert list(await journal.claim(limit=100)) == [], "this owner is alive"
    await journal.aclose()
    journal = await store.open()
    first = await journal.claim(limit=5)
    # A crash amid the recovery: claimed or not, nobody alive holds them now.
    await store.crash(journal)
    journal = await store.open()
    second = [*await journal.claim(limit=5), *await journal.claim(limit=5)]
    assert [claim.execution_id for claim in first] == ids[:5]
    assert [claim.execution_id for claim in second] == ids
    assert [claim.owner_epoch for claim in second if isinstance(claim, Claim)] == [3] * 5 + [2] * 3
    assert list(await journal.claim(limit=5)) == []
    assert await journal.renew()


async def check_a_taken_request_id_is_told(store: StoreUnderTest) -> None:
    """Check that a request id stands for one answer in its namespace and method, also within a call (2)."""
    journal = await store.open()
    record = make_request("r", "x")
    other_method = make_request("r", "w", method="CancelExecution")
    results = await journal.append_many(
        [
            make("x", request=record),
            make("y", request=make_request("r", "y")),
            make("w", request=other_method),
        ]
    )
    assert list(results) == [
        Appended(last_sequence=1),
        RequestConflict(record=record),
        Appended(last_sequence=1),
    ]
    # The answer of a request goes before other conflicts: the execution it made exists, of course.
    (result,) = await journal.append_many([make("x", request=record)])
    assert result == RequestConflict(record=record)
    await store.crash(journal)
    journal = await store.open()
    results = await journal.append_many(
        [
            make("y", request=make_request("r", "y")),
            make("z", namespace=OTHER_NAMESPACE, request=make_request("r", "z")),
        ]
    )
    assert list(results) == [RequestConflict(record=record), Appended(last_sequence=1)]
    assert await is_missing(journal, "y")
    handle = journal.namespace(NAMESPACE)
    assert await handle.find_request("SubmitGraph", "r") == record
    assert await handle.find_request("CancelExecution", "r") == other_method
    assert await handle.find_request("SubmitGraph", "free") is None


async def check_a_taken_request_id_keeps_nothing_of_its_item(store: StoreUnderTest) -> None:
    """Check that of an item whose request id is taken not even audit and contents are kept (2)."""
    journal = await store.open()
    made = everything("x", mark="1")
    await append(journal, made)
    for execution_id, expected in (("x", 2), ("y", 0)):
        item = everything(execution_id, expected=expected, mark="2")
        item = replace(item, request=replace(make_request("request 1", execution_id), fingerprint=b"other"))
        (result,) = await journal.append_many([item])
        assert isinstance(result, RequestConflict)
        assert result.record == made.request
        assert await journal.namespace(NAMESPACE).read_content(digest_of(b"content 2")) is None
    await require_everything(journal, made)
    assert list(await journal.namespace(NAMESPACE).read_audit("x", limit=ALL)) == list(made.audit)
    assert await is_missing(journal, "y")
    # What the refused items would have written is free for others.
    await append(journal, everything("y", mark="2"), go_on("x", 2, b"3"))


async def check_a_refused_request_leaves_its_id_free(store: StoreUnderTest) -> None:
    """Check that the record of a refused item is not kept, not even for the rest of the call (2)."""
    journal = await store.open()
    await append(journal, make("x"))
    results = await journal.append_many(
        [make("x", request=make_request("r", "x")), make("y", request=make_request("r", "y"))]
    )
    assert list(results) == [SequenceConflict(last_sequence=1), Appended(last_sequence=1)]
    assert await journal.namespace(NAMESPACE).find_request("SubmitGraph", "r") == make_request("r", "y")
