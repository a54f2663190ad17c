"""FAILURES.md 1: every state of a log that a kill within a commit leaves, and what is never taken for one (#5, #9)."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.adapters.journals.sqlite_check import check_store
from plait_server.adapters.journals.sqlite_log import FRAME_BYTES, FRAME_HEADER_BYTES, HEADER_BYTES, Log
from plait_server.errors import StoreDamaged
from plait_server.ports.journal import Appended, ListedExecution
from tests.adapters.journals_writer import EVENTS_AN_APPEND, make_item

NAMES = ("x0", "x1")
OS_PAGE_BYTES = 4096
"""Linux may stop a write between two pages of a file."""


class Writer:
    """A store that is appended to, and what its files held before and after the newest append."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.former = path.with_name("former.db")
        self.journal = SqliteJournal.open(path, owner="o", checkpoint_pages=28)
        self.before = self.after = log_of(path).read_bytes()
        self.first = 0
        """The first frame of the newest append, and the number of those up to its last."""
        self.frames = self.count_frames()

    async def append(self, sequence: int) -> None:
        """Append to each execution; their last sequences are this one."""
        for suffix in ("", ".lock"):
            shutil.copy(f"{self.path}{suffix}", f"{self.former}{suffix}")
        former, self.before = self.after, log_of(self.path).read_bytes()
        items = [make_item(name, sequence, 1) for name in NAMES]
        assert all(isinstance(result, Appended) for result in await self.journal.append_many(items))
        self.after = log_of(self.path).read_bytes()
        is_restarted = former[:HEADER_BYTES] != self.after[:HEADER_BYTES]
        self.first, self.frames = 0 if is_restarted else self.frames, self.count_frames()

    def count_frames(self) -> int:
        frames, _ = self.journal.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_NOOP)
        return frames

    def spill(self) -> None:
        """Write frames of a transaction that is then rolled back; they stay in the log, with its salts."""
        connection = self.journal.connection
        cached = connection.pragma("cache_size")
        connection.pragma("cache_size", 1)
        connection.execute(
            "BEGIN; CREATE TABLE spilled (content); INSERT INTO spilled VALUES (zeroblob(200000)); ROLLBACK"
        )
        connection.pragma("cache_size", cached)

    def states(self) -> Iterator[tuple[bytes, bool]]:
        """Yield each state of the log within the newest append, and whether the append is whole in it."""
        writes = [(0, HEADER_BYTES)]
        for number in range(self.first, self.frames):
            begin = HEADER_BYTES + number * FRAME_BYTES
            writes.append((begin, begin + FRAME_HEADER_BYTES))
            writes.append((begin + FRAME_HEADER_BYTES, begin + FRAME_BYTES))
        state = bytearray(self.before)
        for begin, end in writes:
            boundaries = range((begin // OS_PAGE_BYTES + 1) * OS_PAGE_BYTES, end, OS_PAGE_BYTES)
            for each, cut in itertools.pairwise([begin, *boundaries, end]):
                state[each:cut] = self.after[each:cut]
                yield bytes(state), cut == writes[-1][1]


def log_of(store: Path) -> Path:
    return store.with_name(store.name + "-wal")


def count_alike(state: bytes, after: bytes) -> int:
    """How many frames have the header that they are to have, and a page in which only one word is another."""
    count = 0
    for begin in range(HEADER_BYTES, len(state) - FRAME_BYTES + 1, FRAME_BYTES):
        page, end = begin + FRAME_HEADER_BYTES, begin + FRAME_BYTES
        if state[begin:page] == after[begin:page] and state[page:end] != after[page:end]:
            count += sum(state[at : at + 4] != after[at : at + 4] for at in range(page, end, 4)) == 1
    return count


async def last_sequence(store: Path) -> int:
    """Open a store, and return the last sequence of its executions, which must be the same."""
    journal = SqliteJournal.open(store, owner="reader")
    try:
        rows = (await journal.namespace("n").list_rows(limit=10)).rows
        [summary] = {row.row.summary for row in rows if isinstance(row, ListedExecution)}
        assert len(rows) == len(NAMES)
        return int(summary)
    finally:
        journal.crash()


@pytest.mark.parametrize("is_spilling", [False, True])
async def test_no_state_that_a_kill_leaves_is_taken_for_damage(tmp_path: Path, is_spilling: bool) -> None:
    writer, copy = Writer(tmp_path / "store.db"), tmp_path / "copy.db"
    alike = 0
    for number in range(6):
        sequence = number * EVENTS_AN_APPEND
        if is_spilling:
            writer.spill()
        await writer.append(sequence)
        if is_spilling:
            behind = Log(writer.after).frame(writer.frames)
            assert Log(writer.after).has_salts_of(behind), "or there would be nothing of what was rolled back"
        # The log is used for the third time then.
        for state, is_whole in writer.states() if number >= 4 else ():
            alike += count_alike(state, writer.after)
            for suffix in ("", ".lock"):
                shutil.copy(f"{writer.former}{suffix}", f"{copy}{suffix}")
            log_of(copy).write_bytes(state)
            assert await last_sequence(copy) == sequence + is_whole * EVENTS_AN_APPEND
    writer.journal.crash()
    assert alike > 0 or is_spilling, (
        "or the test would not see a page of a former use that differs as if a bit had flipped"
    )


@pytest.mark.parametrize("lost", ["the last frame", "the last transaction", "the header", "the end"])
async def test_a_lost_stretch_of_what_was_acknowledged_is_told(tmp_path: Path, lost: str) -> None:
    """Nothing in what is left of the log tells that there was more."""
    writer = Writer(tmp_path / "store.db")
    for sequence in range(0, 5 * EVENTS_AN_APPEND, EVENTS_AN_APPEND):
        await writer.append(sequence)
    writer.journal.crash()
    assert writer.first == 0, "or there would be no header of a former use"
    former = writer.before
    log = bytearray(writer.after)
    end = HEADER_BYTES + writer.frames * FRAME_BYTES
    if lost == "the last frame":
        log[end - FRAME_BYTES : end] = bytes(FRAME_BYTES)
    elif lost == "the last transaction":
        log[HEADER_BYTES:end] = former[HEADER_BYTES:end]
    elif lost == "the header":
        log[:end] = former[:end]
    else:
        del log[end - FRAME_BYTES :]
    log_of(writer.path).write_bytes(log)
    [finding] = check_store(writer.path).findings[:1]
    assert finding.startswith("log: damaged after frame ")
    for _ in range(2):  # It does not go away by itself.
        with pytest.raises(StoreDamaged, match="its log is damaged"):
            await last_sequence(writer.path)


async def test_a_lock_file_that_says_nothing_of_the_log_is_that_of_another_boot(tmp_path: Path) -> None:
    """It is torn, or another version's."""
    writer = Writer(tmp_path / "store.db")
    await writer.append(0)
    writer.journal.crash()
    lock = writer.path.with_name("store.db.lock")
    holder, boot, *_ = lock.read_text().splitlines()
    os.truncate(log_of(writer.path), HEADER_BYTES + (writer.frames - 1) * FRAME_BYTES)
    lock.write_text(f"{holder}\n{boot}\n1 2 ?\n")
    SqliteJournal.open(writer.path, owner="reader").crash()
