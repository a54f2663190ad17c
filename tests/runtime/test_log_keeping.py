"""A6: logs and progress of handlers, kept at most once, in order and bounded, and written together."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_log_lines import MemoryLogLines
from plait_server.adapters.journals.memory_store import MemoryStore
from plait_server.errors import JournalFull
from plait_server.ports.log_lines import LogLine
from plait_server.ports.workers import Assignment, AttemptKey
from plait_server.runtime import log_keeping
from plait_server.runtime.log_keeping import LogKeeping
from plait_server.testing.check_journal.items import NAMESPACE, append, make

A = Assignment(AttemptKey(NAMESPACE, "x", 1, "a", 1), "w", "w.1", "t", "", "", 0, 0.0, "", "", "0", False)
B = A._replace(key=A.key._replace(node_path="b", attempt=3), branch="0-001")


@asynccontextmanager
async def keeping(store: MemoryStore) -> AsyncGenerator[tuple[LogKeeping, MemoryJournal]]:
    journal = MemoryJournal(store, owner="o")
    async with trio.open_nursery() as nursery:
        kept = LogKeeping(journal, trio.current_time)
        nursery.start_soon(kept.run)
        yield kept, journal
        nursery.cancel_scope.cancel()


async def read(journal: MemoryJournal) -> list[LogLine]:
    return list(await journal.log_lines.read(NAMESPACE, "x", after=0, limit=1_000_000))


async def test_lines_are_written_together_in_their_order(autojump_clock: MockClock) -> None:
    """Not one by one: half a second after the first; the rest when the server stops. Heartbeats are not kept."""
    store = MemoryStore()
    async with keeping(store) as (kept, journal):
        await append(journal, make("x"))
        kept.worker_said(A, "INFO", "one")
        await trio.sleep(0.4)
        kept.worker_said(B, "progress", "0.5 half")
        kept.worker_said(B, "heartbeat", "{}")
        assert await read(journal) == []
        assert kept.has_unwritten(NAMESPACE, "x")
        written = kept.next_write()
        await written.wait()
        assert not kept.has_unwritten(NAMESPACE, "x")
        begun_s = (await read(journal))[0].time_s
        assert await read(journal) == [
            LogLine(1, begun_s, "INFO", "a", 1, "0", "one"),
            LogLine(2, begun_s + 0.4, "progress", "b", 3, "0-001", "0.5 half"),
        ]
        kept.worker_said(A, "INFO", "last")
    assert [line.text for line in store.executions[NAMESPACE, "x"].log_lines] == ["one", "0.5 half", "last"]


async def test_numbers_go_on_after_a_restart(autojump_clock: MockClock) -> None:
    store = MemoryStore()
    async with keeping(store) as (kept, journal):
        await append(journal, make("x"))
        kept.worker_said(A, "INFO", "one")
    async with keeping(store) as (kept, journal):
        kept.worker_said(A, "INFO", "two")
        await trio.sleep(1)
        assert [line.sequence for line in await read(journal)] == [1, 2]


async def test_oldest_lines_are_dropped(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last 10,000 lines and 4 MiB; the numbers tell how many are missing."""
    monkeypatch.setattr(log_keeping, "LINES_MAX", 1_000)
    async with keeping(MemoryStore()) as (kept, journal):
        await append(journal, make("x"))
        for number in range(2_000):
            kept.worker_said(A, "INFO", str(number))
        await trio.sleep(1)
        assert [line.sequence for line in await read(journal)] == list(range(1_001, 2_001))
        monkeypatch.setattr(log_keeping, "BYTES_MAX", 100_000)
        for _ in range(60):
            kept.worker_said(A, "INFO", "x" * 2_000)
        await trio.sleep(1)
        left = await read(journal)
        assert left[-1].sequence == 2_060
        assert sum(len(line.text) for line in left) <= 100_000


async def test_memory_is_bounded(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_keeping, "GATHERED_MAX", 10)
    async with keeping(MemoryStore()) as (kept, journal):
        await append(journal, make("x"))
        for number in range(15):
            kept.worker_said(A, "INFO", str(number))
        await trio.sleep(1)
        assert len(await read(journal)) == 10


async def test_full_store_drops_lines(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are dropped, not kept in memory; those after them have later numbers."""

    async def refuse(*_: object) -> None:
        raise JournalFull

    async with keeping(MemoryStore()) as (kept, journal):
        await append(journal, make("x"))
        with monkeypatch.context() as full:
            full.setattr(MemoryLogLines, "write", refuse)
            kept.worker_said(A, "INFO", "lost")
            await trio.sleep(1)
        kept.worker_said(A, "INFO", "kept")
        await trio.sleep(1)
        assert [(line.sequence, line.text) for line in await read(journal)] == [(2, "kept")]
