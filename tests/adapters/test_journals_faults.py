"""FAILURES.md 1: the SQLite store over a disk that loses power, fills up or fails (#6, #7, #8)."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.errors import JournalFull, JournalUnavailable, StoreDamaged
from plait_server.ports.journal import Appended, AppendItem, ExecutionRow, NamespaceJournal
from tests.adapters.journals_disk import Disk, Fault

NUMBERS = itertools.count()
SUMMARY = b"summary" * 30


@pytest.fixture
def disk() -> Iterator[Disk]:
    disk = Disk(f"failing-{next(NUMBERS)}")
    yield disk
    disk.fault = Fault.NONE
    disk.on_operation = None
    disk.unregister()


def open_on(disk: Disk, path: Path, *, checkpoint_pages: int = 1000) -> SqliteJournal:
    return SqliteJournal.open(path, owner="o", vfs=disk.name, checkpoint_pages=checkpoint_pages)


def item(number: int, sequence: int, *, events: int = 2) -> AppendItem:
    return AppendItem(
        namespace="n",
        execution_id=f"x{number}",
        expected_sequence=sequence,
        owner_epoch=1,
        events=[event(number, sequence + 1 + index) for index in range(events)],
        row=ExecutionRow(summary=SUMMARY, is_open=True),
    )


def event(number: int, sequence: int) -> bytes:
    return f"event {sequence} of {number} ".encode() * 10


async def count_events(handle: NamespaceJournal, number: int) -> int:
    """Read an execution's events, which must be those of `event`; give how many there are."""
    if await handle.read_row(f"x{number}") is None:
        return 0
    page = await handle.read(f"x{number}", after=0, events_max=10_000, bytes_max=1 << 30)
    assert list(page.events) == [event(number, sequence) for sequence in range(1, page.last_sequence + 1)]
    return page.last_sequence


# Power.


async def lose_power(disk: Disk, folder: Path, *, synchronous: str, seed: int) -> int:
    """Append while power is lost at many points; give in how many of them something acknowledged was lost."""
    rng = random.Random(seed)
    acknowledged = [0] * 5
    cuts: list[tuple[Path, list[int]]] = []
    journal = open_on(disk, folder / "store.db", checkpoint_pages=12)
    journal._connection.pragma("synchronous", synchronous)

    def cut_sometimes() -> None:
        if rng.random() < 0.15:
            path = folder / f"cut-{len(cuts)}"
            disk.save_after_cut(path, rng)
            cuts.append((path, list(acknowledged)))

    disk.on_operation = cut_sometimes
    for _ in range(30):
        numbers = rng.sample(range(5), 3)
        results = await journal.append_many([item(number, acknowledged[number]) for number in numbers])
        for number, result in zip(numbers, results, strict=True):
            assert isinstance(result, Appended)
            acknowledged[number] = result.last_sequence
    disk.on_operation = None
    journal.crash()

    losses = 0
    for path, promised in cuts:
        try:
            survivor = SqliteJournal.open(path / "store.db", owner="after", vfs="unix")
        except StoreDamaged:
            losses += 1
            continue
        handle = survivor.namespace("n")
        found = [await count_events(handle, number) for number in range(5)]
        losses += any(have < want for have, want in zip(found, promised, strict=True))
        # An append in flight may have happened, whole.
        assert all((have - want) % 2 == 0 for have, want in zip(found, promised, strict=True))
        survivor.crash()
    assert len(cuts) > 20
    return losses


@pytest.mark.parametrize("seed", [0, 1, 2])
async def test_a_power_cut_loses_nothing_acknowledged(disk: Disk, tmp_path: Path, seed: int) -> None:
    assert await lose_power(disk, tmp_path, synchronous="full", seed=seed) == 0


async def test_the_power_cut_would_be_noticed(disk: Disk, tmp_path: Path) -> None:
    """The positive control: with synchronous=NORMAL the same test sees losses."""
    assert await lose_power(disk, tmp_path, synchronous="normal", seed=0) > 0


# A full disk.


async def test_a_full_disk_writes_nothing_and_heals(disk: Disk, tmp_path: Path) -> None:
    journal = open_on(disk, tmp_path / "store.db")
    await journal.append_many([item(0, 0)])
    disk.fault = Fault.FULL
    for _ in range(3):
        with pytest.raises(JournalFull) as caught:
            await journal.append_many([item(0, 2, events=300), item(1, 0, events=300)])
        assert caught.value.fields["nothing_written"] is True
        assert await count_events(journal.namespace("n"), 0) == 2
        assert await count_events(journal.namespace("n"), 1) == 0
    assert await journal.renew()
    disk.fault = Fault.NONE
    results = await journal.append_many([item(0, 2), item(1, 0)])
    assert list(results) == [Appended(last_sequence=4), Appended(last_sequence=2)]
    journal.crash()
    journal = open_on(disk, tmp_path / "store.db")
    assert await count_events(journal.namespace("n"), 0) == 4
    assert await count_events(journal.namespace("n"), 1) == 2
    await journal.aclose()


async def test_a_disk_that_fills_at_any_write_leaves_nothing_half(disk: Disk, tmp_path: Path) -> None:
    for writes_left in range(40):
        path = tmp_path / str(writes_left) / "store.db"
        journal = open_on(disk, path, checkpoint_pages=4)
        sequence = 0
        disk.writes_left = writes_left
        was_full = False
        for _ in range(3):
            try:
                await journal.append_many([item(0, sequence, events=20), item(1, sequence, events=20)])
            except JournalFull:
                was_full = True
            else:
                sequence += 20
        disk.writes_left = None
        disk.fault = Fault.NONE
        assert was_full or writes_left > 10
        journal.crash()
        journal = open_on(disk, path)
        assert await count_events(journal.namespace("n"), 0) == sequence
        assert await count_events(journal.namespace("n"), 1) == sequence
        journal.crash()


# A disk that fails.


async def test_a_failed_flush_fences_for_ever(disk: Disk, tmp_path: Path) -> None:
    journal = open_on(disk, tmp_path / "store.db")
    await journal.append_many([item(0, 0)])
    disk.fault = Fault.SYNC_FAILS
    with pytest.raises(JournalUnavailable) as caught:
        await journal.append_many([item(0, 2)])
    assert "nothing_written" not in caught.value.fields
    disk.fault = Fault.NONE
    syncs = disk.syncs
    for _ in range(2):
        with pytest.raises(JournalUnavailable) as caught:
            await journal.append_many([item(0, 2)])
        assert caught.value.fields["nothing_written"] is True
    # Reading it back would show what was before, though the file may hold the append.
    with pytest.raises(JournalUnavailable):
        await journal.namespace("n").read_row("x0")
    with pytest.raises(JournalUnavailable):
        await journal.claim(limit=1)
    with pytest.raises(JournalUnavailable, match="restart the server"):
        await journal.renew()
    assert "fenced" in repr(journal)
    await journal.aclose()
    assert disk.syncs == syncs, "a failed flush was tried again"

    journal = open_on(disk, tmp_path / "store.db")
    assert await count_events(journal.namespace("n"), 0) in {2, 4}
    await journal.aclose()


async def test_what_is_read_after_a_failed_flush_is_durable(disk: Disk, tmp_path: Path) -> None:
    """The file may hold what the disk does not; opening makes both equal before anything is appended."""
    path = tmp_path / "store.db"
    journal = open_on(disk, path)
    await journal.append_many([item(0, 0)])
    disk.fault = Fault.SYNC_FAILS
    with pytest.raises(JournalUnavailable):
        await journal.append_many([item(0, 2)])
    disk.fault = Fault.NONE
    await journal.aclose()

    journal = open_on(disk, path)
    found = await count_events(journal.namespace("n"), 0)
    await journal.claim(limit=1)
    again = AppendItem(
        namespace="n",
        execution_id="x0",
        expected_sequence=found,
        owner_epoch=2,
        events=[event(0, found + 1)],
    )
    assert list(await journal.append_many([again])) == [Appended(last_sequence=found + 1)]
    disk.save_after_cut(tmp_path / "cut", random.Random(0))
    journal.crash()
    survivor = SqliteJournal.open(tmp_path / "cut" / "store.db", owner="after", vfs="unix")
    assert await count_events(survivor.namespace("n"), 0) == found + 1
    await survivor.aclose()


async def test_a_failed_checkpoint_keeps_the_append_and_fences(disk: Disk, tmp_path: Path) -> None:
    """The append was durable in the log before; only what comes after it is refused."""
    journal = open_on(disk, tmp_path / "store.db", checkpoint_pages=1)
    disk.fault = Fault.DATABASE_SYNC_FAILS
    assert list(await journal.append_many([item(0, 0)])) == [Appended(last_sequence=2)]
    disk.fault = Fault.NONE
    with pytest.raises(JournalUnavailable):
        await journal.append_many([item(0, 2)])
    await journal.aclose()
    journal = open_on(disk, tmp_path / "store.db")
    assert await count_events(journal.namespace("n"), 0) == 2
    await journal.aclose()


async def test_a_failed_read_is_told_and_fences_nothing(disk: Disk, tmp_path: Path) -> None:
    journal = open_on(disk, tmp_path / "store.db")
    await journal.append_many([item(0, 0)])
    await journal.aclose()
    journal = open_on(disk, tmp_path / "store.db")
    disk.fault = Fault.READ_FAILS
    with pytest.raises(JournalUnavailable):
        await journal.namespace("n").read("x0", after=0, events_max=1, bytes_max=1)
    disk.fault = Fault.NONE
    assert await count_events(journal.namespace("n"), 0) == 2
    await journal.aclose()
