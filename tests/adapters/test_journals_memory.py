"""The hooks of the journal in memory for simulations."""

from __future__ import annotations

import pytest

from plait_server.adapters.journals.memory import MemoryJournal
from plait_server.adapters.journals.memory_store import AppendPoint, MemoryStore
from plait_server.errors import JournalUnavailable
from plait_server.ports.journal import Appended, AppendItem, ExecutionRow

MADE = AppendItem(
    namespace="n",
    execution_id="x",
    expected_sequence=0,
    owner_epoch=1,
    events=(b"1",),
    row=ExecutionRow(summary=b"s", is_open=True),
)


@pytest.mark.parametrize("point", AppendPoint)
async def test_an_append_can_be_cut_before_and_after_it_happens(point: AppendPoint) -> None:
    def cut(reached: AppendPoint) -> None:
        if reached is point:
            raise JournalUnavailable

    store = MemoryStore(on_append=cut)
    journal = MemoryJournal(store, owner="a")
    with pytest.raises(JournalUnavailable):
        await journal.append_many([MADE])
    has_happened = await journal.namespace("n").read_row("x") is not None
    assert has_happened == (point is AppendPoint.AFTER_COMMIT)


async def test_opening_again_kills_the_journal_before() -> None:
    store = MemoryStore()
    former = MemoryJournal(store, owner="a")
    assert list(await former.append_many([MADE])) == [Appended(last_sequence=1)]
    assert await former.renew()
    journal = MemoryJournal(store, owner="b")
    assert not await former.renew()
    for call in (former.append_many([MADE]), former.claim(limit=1), former.namespace("n").read_row("x")):
        with pytest.raises(JournalUnavailable):
            await call
    assert [claim.execution_id for claim in await journal.claim(limit=1)] == ["x"]
    assert "dead" in repr(former)
    assert "open" in repr(journal)


async def test_a_crashed_journal_is_dead_before_the_next_opens() -> None:
    journal = MemoryJournal(MemoryStore(key=b"k" * 32), owner="a")
    assert await journal.key() == b"k" * 32
    journal.crash()
    with pytest.raises(JournalUnavailable):
        await journal.append_many([])
    assert not await journal.renew()
