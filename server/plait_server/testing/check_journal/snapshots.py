"""Checks of snapshots (`plait_server.ports.snapshots`)."""

from __future__ import annotations

from plait_server.ports.journal import Journal
from plait_server.ports.snapshots import HEAD, SnapshotDamaged, StoredSnapshot
from plait_server.testing.check_journal.items import ENDED, NAMESPACE, OTHER_NAMESPACE, append, go_on, make
from plait_server.testing.check_journal.store import StoreUnderTest


async def write(journal: Journal, sequence: int, *contents: bytes, is_complete: bool = True) -> None:
    """Write a snapshot of the execution x."""
    for number, content in enumerate(contents, start=1):
        assert await write_part(journal, sequence, number, content)
    if is_complete:
        assert await write_part(journal, sequence, HEAD, b"head %d" % sequence)


async def write_part(
    journal: Journal, sequence: int, number: int, content: bytes, *, namespace: str = NAMESPACE
) -> bool:
    """Write a part of a snapshot of the execution x."""
    return await journal.snapshots.write(namespace, "x", sequence=sequence, number=number, content=content)


async def is_damaged(journal: Journal, sequence: int, number: int) -> bool:
    """Return whether a part of a snapshot of the execution x cannot be read."""
    try:
        await journal.snapshots.read(NAMESPACE, "x", sequence=sequence, number=number)
    except SnapshotDamaged:
        return True
    return False


async def check_the_newest_complete_snapshot_is_found(store: StoreUnderTest) -> None:
    """Check that a snapshot without a head is none, and that a crash keeps the others (1)."""
    journal = await store.open()
    await append(journal, make("x", b"1", b"2", b"3"), make("y"))
    assert await journal.snapshots.find(NAMESPACE, "x") is None
    await write(journal, 1, b"a", b"b")
    await write(journal, 2, b"c", b"old")
    assert await write_part(journal, 2, 2, b"d")
    await write(journal, 3, b"e", is_complete=False)
    await store.crash(journal)
    journal = await store.open()
    assert await journal.snapshots.find(NAMESPACE, "x") == StoredSnapshot(2, b"head 2")
    parts = [await journal.snapshots.read(NAMESPACE, "x", sequence=2, number=number) for number in (1, 2)]
    assert parts == [b"c", b"d"]
    assert await journal.snapshots.find(NAMESPACE, "y") is None
    assert await journal.snapshots.find(OTHER_NAMESPACE, "x") is None
    assert await is_damaged(journal, 2, 3)


async def check_a_snapshot_is_of_an_event_of_the_journal(store: StoreUnderTest) -> None:
    """Check that nothing is kept without its event, and that another event is noticed (2)."""
    journal = await store.open()
    await append(journal, make("x", b"1", b"2"))
    assert not await write_part(journal, 3, 1, b"a")
    assert not await write_part(journal, 0, 1, b"a")
    assert not await write_part(journal, 1, 1, b"a", namespace=OTHER_NAMESPACE)
    await write(journal, 2, b"a")
    await append(journal, go_on("x", 2, b"3"))
    assert not await is_damaged(journal, 2, 1)


async def check_other_snapshots_are_dropped(store: StoreUnderTest) -> None:
    """Check that snapshots are dropped in slices, all but one, and that deleting an execution deletes them (3)."""
    journal = await store.open()
    await append(journal, make("x", b"1", b"2", row=ENDED))
    await write(journal, 1, b"a", b"b")
    await write(journal, 2, b"c")
    assert not await journal.snapshots.drop_some(NAMESPACE, "x", keep=2, limit=2)
    assert await journal.snapshots.drop_some(NAMESPACE, "x", keep=2, limit=2)
    assert await journal.snapshots.find(NAMESPACE, "x") == StoredSnapshot(2, b"head 2")
    await journal.deletions.begin(NAMESPACE, "x", now_s=1.0, is_corrupt=False, action=None, request=None)
    assert await journal.snapshots.find(NAMESPACE, "x") is None
    while not await journal.deletions.delete_some(rows_max=2, bytes_max=100):
        pass
    await append(journal, make("x", b"1", b"2"))
    assert await journal.snapshots.find(NAMESPACE, "x") is None
    await write(journal, 2, b"c")
    assert await journal.snapshots.drop_some(NAMESPACE, "x", keep=0, limit=10)
    assert await journal.snapshots.find(NAMESPACE, "x") is None
