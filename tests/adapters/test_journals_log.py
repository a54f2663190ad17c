"""FAILURES.md 1: what lies behind the end of a log, after a kill, a power cut and a flipped bit (#5, #6, #9)."""

from __future__ import annotations

import logging
import random
import shutil
import struct
from pathlib import Path

import pytest
import trio

from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.adapters.journals.sqlite_log import (
    FRAME_BYTES,
    FRAME_HEADER_BYTES,
    HEADER_BYTES,
    Frame,
    Log,
    read_log,
)
from plait_server.errors import StoreDamaged
from plait_server.ports.journal import AppendItem, ExecutionRow

APPENDS = 20


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of `APPENDS` executions, one a transaction, whose server was killed; its log is in a later use."""
    folder = tmp_path_factory.mktemp("killed")
    trio.run(fill, folder / "store.db")
    return folder


async def fill(path: Path) -> None:
    journal = SqliteJournal.open(path, owner="o", checkpoint_pages=102)
    for number in range(APPENDS):
        shutil.copy(lock_of(path), former_lock_of(path))
        item = AppendItem(
            namespace="n",
            execution_id=f"x{number}",
            expected_sequence=0,
            owner_epoch=1,
            events=[content_of(number)],
            row=ExecutionRow(summary=b"s", is_open=True),
        )
        await journal.append_many([item])
    journal.crash()


def content_of(number: int) -> bytes:
    return random.Random(number).randbytes(2_000)


@pytest.fixture
def store(killed: Path, tmp_path: Path) -> Path:
    shutil.copytree(killed, tmp_path, dirs_exist_ok=True)
    return tmp_path / "store.db"


def log_of(store: Path) -> Path:
    return store.with_name(store.name + "-wal")


def lock_of(store: Path) -> Path:
    return store.with_name(store.name + ".lock")


def former_lock_of(store: Path) -> Path:
    """The lock file as it was before the last transaction was acknowledged."""
    return store.with_name("former.lock")


def boot(store: Path) -> None:
    """Make it look as if the machine had been started anew since."""
    lock_of(store).unlink()


def frames_of(store: Path) -> list[Frame]:
    log = read_log(store)
    assert log is not None
    return [frame for frame in log.frames() if log.is_of_this_use(frame)]


def ends_of(store: Path) -> list[int]:
    """The numbers of the frames that end a transaction."""
    return [frame.number for frame in frames_of(store) if frame.commit]


def offset_of(frame: int) -> int:
    return HEADER_BYTES + frame * FRAME_BYTES


def flip(store: Path, offset: int, mask: int = 1) -> None:
    content = bytearray(log_of(store).read_bytes())
    content[offset] ^= mask
    log_of(store).write_bytes(content)


async def count_whole(store: Path) -> int:
    """Open a store and count its executions, which must be the first ones, whole."""
    journal = SqliteJournal.open(store, owner="after")
    try:
        handle = journal.namespace("n")
        count = len((await handle.list_rows(limit=100)).rows)
        for number in range(count):
            page = await handle.read(f"x{number}", after=0, events_max=10, bytes_max=1 << 20)
            assert list(page.events) == [content_of(number)]
        return count
    finally:
        journal.crash()


async def test_the_log_of_a_killed_server_is_whole(store: Path) -> None:
    log = read_log(store)
    assert log is not None
    assert not all(map(log.is_of_this_use, log.frames())), "or the test would not see frames of a former use"
    assert len(ends_of(store)) > 3
    assert await count_whole(store) == APPENDS


async def test_a_log_that_grew_no_further_is_an_unfinished_transaction(store: Path) -> None:
    """A kill leaves any number of the last transaction's frames, and perhaps half a frame."""
    frames = frames_of(store)
    last_end, last = ends_of(store)[-2], frames[-1].number
    content = log_of(store).read_bytes()
    for frame in range(last_end + 1, last + 1):
        for end in (offset_of(frame), offset_of(frame) + FRAME_HEADER_BYTES, offset_of(frame) + 1_000):
            shutil.copy(store, store.with_name("copy.db"))
            log_of(store.with_name("copy.db")).write_bytes(content[:end])
            shutil.copy(former_lock_of(store), lock_of(store.with_name("copy.db")))
            assert await count_whole(store.with_name("copy.db")) == APPENDS - 1


@pytest.mark.parametrize("is_end", [False, True])
async def test_a_kill_between_a_frame_s_header_and_its_page_is_none_of_damage(
    store: Path, is_end: bool
) -> None:
    """The header is this use's, the page that of another frame of a former use."""
    last = frames_of(store)[-1].number - (not is_end)
    content = bytearray(log_of(store).read_bytes())
    page = offset_of(last) + FRAME_HEADER_BYTES
    content[page : offset_of(last + 1)] = random.Random(0).randbytes(FRAME_BYTES - FRAME_HEADER_BYTES)
    # Behind it lies what a former use left.
    if not is_end:
        content[offset_of(last + 1) :] = bytes(len(content) - offset_of(last + 1))
    log_of(store).write_bytes(content)
    shutil.copy(former_lock_of(store), lock_of(store))
    assert await count_whole(store) == APPENDS - 1


@pytest.mark.parametrize("seed", range(40))
async def test_no_flipped_bits_drop_what_was_acknowledged(store: Path, seed: int) -> None:
    rng = random.Random(seed)
    size = offset_of(frames_of(store)[-1].number + 1)
    flip(store, rng.randrange(size), 1 << rng.randrange(8) if seed % 2 else rng.randrange(1, 256))
    try:
        assert await count_whole(store) == APPENDS
    except StoreDamaged as error:
        message = error.message
    else:
        return
    assert f"plait store check {store}" in message
    with pytest.raises(StoreDamaged):
        await count_whole(store)  # It does not go away by itself.


@pytest.mark.parametrize("place", ["header", "salt", "commit", "checksum", "page"])
async def test_damage_of_the_last_transaction_is_told_after_a_kill(store: Path, place: str) -> None:
    begin = offset_of(ends_of(store)[-1])
    offsets = {
        "header": 9,
        "salt": begin + 9,
        "commit": begin + 7,
        "checksum": begin + 17,
        "page": begin + 3_000,
    }
    flip(store, offsets[place])
    with pytest.raises(StoreDamaged, match="its log is damaged"):
        await count_whole(store)


async def test_damage_before_a_later_transaction_is_told_after_a_reboot_too(store: Path) -> None:
    flip(store, offset_of(ends_of(store)[-2]) + 100)
    boot(store)
    with pytest.raises(StoreDamaged, match="its log is damaged"):
        await count_whole(store)


async def test_a_transaction_that_a_power_cut_tore_is_a_warning(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its frames reach the disk in any order: here the last one did, and one before it did not."""
    flip(store, offset_of(ends_of(store)[-1] - 1) + 100)
    boot(store)
    with caplog.at_level(logging.WARNING):
        assert await count_whole(store) == APPENDS - 1
    assert "never acknowledged" in caplog.text


async def test_a_log_that_is_gone_is_told(store: Path) -> None:
    log_of(store).write_bytes(b"")
    with pytest.raises(StoreDamaged, match="its log, which the last server left, is gone"):
        await count_whole(store)
    log_of(store).unlink()
    with pytest.raises(StoreDamaged, match="its log, which the last server left, is gone"):
        await count_whole(store)


def test_checksums_are_worked_out_as_sqlite_does(store: Path) -> None:
    log = read_log(store)
    assert log is not None
    assert log.has_header
    # A page whose checksum did not fit would be repaired or left out.
    assert list(log.pages()) == [(frame.page, log.page(frame.number)) for frame in frames_of(store)]


def test_a_log_in_the_other_byte_order_is_read() -> None:
    """One that was written on another kind of machine."""
    header = struct.pack(">6I", 0x377F0683, 3_007_000, 4096, 0, 1, 2)
    assert not Log(header + bytes(8) + bytes(FRAME_BYTES)).has_header
    words = struct.unpack(">6I", header)
    sum_1 = sum_2 = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        sum_1 = (sum_1 + even + sum_2) & 0xFFFFFFFF
        sum_2 = (sum_2 + odd + sum_1) & 0xFFFFFFFF
    assert Log(header + struct.pack(">2I", sum_1, sum_2) + bytes(FRAME_BYTES)).has_header
