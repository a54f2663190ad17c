"""Long reads in a thread beside the connection that writes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import apsw
import pytest
import trio

from plait_server.adapters.journals.sqlite import SqliteJournal
from plait_server.adapters.journals.sqlite_file import checksum_vfs
from plait_server.adapters.journals.sqlite_lists import Statement
from plait_server.adapters.journals.sqlite_reader import WAITING_MAX, Reader
from plait_server.core.lists.filters import StateIs
from plait_server.core.run.states import ExecutionState
from plait_server.errors import JournalUnavailable, Overloaded
from plait_server.testing.check_journal.items import NAMESPACE, append, make

ENDLESS = Statement(
    "WITH RECURSIVE n (i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM executions, n", ()
)
COUNT = Statement("SELECT count(*) FROM executions", ())
QUEUED = StateIs(ExecutionState.QUEUED)


@asynccontextmanager
async def opened(tmp_path: Path) -> AsyncGenerator[SqliteJournal]:
    journal = SqliteJournal.open(tmp_path / "store.db", owner="o")
    try:
        yield journal
    finally:
        await journal.aclose()


def reader_of(journal: SqliteJournal, *, read_s_max: float = 60) -> Reader:
    return Reader(journal.path, vfs=checksum_vfs(), read_s_max=read_s_max)


async def test_appends_and_checkpoints_go_on_beside_a_long_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal, trio.open_nursery() as nursery:
        reader = reader_of(journal)
        await append(journal, make("x"))
        scope = trio.CancelScope()

        async def read() -> None:
            with scope:
                await reader.read(ENDLESS, trusts_pages=True)

        nursery.start_soon(read)
        await until_reading(reader)
        for number in range(20):
            await append(journal, make(f"y{number}"))
        frames, written = journal.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        assert 0 < written < frames
        scope.cancel()
        assert await reader.read(COUNT, trusts_pages=True) == 21
        frames, written = journal.connection.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_PASSIVE)
        assert written == frames, "nothing holds up the log once the read has ended"
        reader.close()


async def test_a_caller_that_leaves_interrupts_its_read_alone(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        reader = reader_of(journal)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(read_endlessly, reader)
                await until_reading(reader)
                with trio.move_on_after(0):
                    await reader.read(COUNT, trusts_pages=True)
                scope.cancel()
        assert await reader.read(COUNT, trusts_pages=True) == 0
        reader.close()


async def test_a_read_that_takes_too_long_ends_with_a_remedy(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        reader = reader_of(journal, read_s_max=0.01)
        with pytest.raises(Overloaded, match="narrow its filter"):
            await reader.read(ENDLESS, trusts_pages=True)
        reader.close()


async def test_closing_interrupts_what_is_read(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        reader = reader_of(journal)
        async with trio.open_nursery() as nursery:

            async def read() -> None:
                with pytest.raises(JournalUnavailable, match="is closed"):
                    await reader.read(ENDLESS, trusts_pages=True)

            nursery.start_soon(read)
            nursery.start_soon(read)
            await until_reading(reader)
            reader.close()
            reader.close()
        with pytest.raises(JournalUnavailable, match="is closed"):
            await reader.read(COUNT, trusts_pages=True)


async def test_only_so_many_reads_wait(tmp_path: Path) -> None:
    async with opened(tmp_path) as journal:
        reader = reader_of(journal)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                for _ in range(WAITING_MAX + 1):
                    nursery.start_soon(read_endlessly, reader)
                await until_reading(reader)
                with pytest.raises(Overloaded, match="wait already"):
                    await reader.read(COUNT, trusts_pages=True)
                scope.cancel()
        reader.close()


async def test_a_damaged_page_is_met_as_elsewhere(tmp_path: Path) -> None:
    """If the structure is intact, lists go on without the checksums of pages; a row of a damaged page is told."""
    async with opened(tmp_path) as journal:
        await append(journal, *(make(f"x{number}") for number in range(3)))
        page = journal.connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'executions_by_state'"
        ).get
    assert isinstance(page, int)
    content = bytearray((tmp_path / "store.db").read_bytes())
    content[page * 4096 - 3] ^= 1
    (tmp_path / "store.db").write_bytes(content)
    async with opened(tmp_path) as journal:
        handle = journal.namespace(NAMESPACE)
        assert await handle.count_rows(QUEUED) == 3
        assert journal.is_doubted
        assert len((await handle.list_rows(limit=10, condition=QUEUED)).rows) == 3


async def test_a_store_without_a_reader_reads_in_place(tmp_path: Path) -> None:
    journal = SqliteJournal.open(tmp_path / "store.db", owner="o", has_reader=False)
    await append(journal, make("x"))
    assert await journal.namespace(NAMESPACE).count_rows(QUEUED) == 1
    await journal.aclose()
    with pytest.raises(JournalUnavailable):
        await journal.namespace(NAMESPACE).count_rows(QUEUED)


async def read_endlessly(reader: Reader) -> None:
    await reader.read(ENDLESS, trusts_pages=True)


async def until_reading(reader: Reader) -> None:
    """Wait until a read has begun, and all others wait."""
    while not reader.is_reading:  # noqa: ASYNC110 -- The thread tells nobody when it begins.
        await trio.sleep(0.001)
