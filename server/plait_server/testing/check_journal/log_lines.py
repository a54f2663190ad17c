"""Checks of what handlers log (`plait_server.ports.log_lines`)."""

from __future__ import annotations

from plait_server.ports.journal import Journal
from plait_server.ports.log_lines import KeptLines, LogLine, size_of
from plait_server.testing.check_journal.items import ALL, ENDED, NAMESPACE, OTHER_NAMESPACE, append, make
from plait_server.testing.check_journal.store import StoreUnderTest

X = (NAMESPACE, "x")


def make_line(sequence: int, text: str = "ä line") -> LogLine:
    """Make a line."""
    return LogLine(sequence, 1.25, "INFO", "a/b", 2, "0-001", text)


async def sequences(journal: Journal, *, after: int = 0, limit: int = ALL) -> list[int]:
    """Return the sequences of the lines of the execution x."""
    return [line.sequence for line in await journal.log_lines.read(*X, after=after, limit=limit)]


async def check_lines_are_read_in_order(store: StoreUnderTest) -> None:
    """Check that lines are kept as they were written, and are those of one execution (1, 2)."""
    journal = await store.open()
    await append(journal, make("x"), make("y"))
    lines = [make_line(1), make_line(2, "\x00 zero"), make_line(5)]
    await journal.log_lines.write({X: lines[:2], (NAMESPACE, "missing"): lines})
    await journal.log_lines.write({X: lines[2:], (NAMESPACE, "y"): lines[:1]})
    assert list(await journal.log_lines.read(*X, after=0, limit=ALL)) == lines
    assert await sequences(journal, after=1, limit=1) == [2]
    assert await journal.log_lines.measure(*X) == KeptLines(5, 3, sum(map(size_of, lines)))
    assert await journal.log_lines.measure(OTHER_NAMESPACE, "x") == KeptLines(0, 0, 0)
    assert not await journal.log_lines.read(NAMESPACE, "missing", after=0, limit=ALL)


async def check_the_oldest_lines_are_dropped(store: StoreUnderTest) -> None:
    """Check that the oldest lines are dropped, and all with their execution (3)."""
    journal = await store.open()
    await append(journal, make("x", row=ENDED))
    await journal.log_lines.write({X: [make_line(number) for number in range(1, 6)]})
    assert await journal.log_lines.drop_oldest(*X, limit=2) == KeptLines(5, 3, 3 * size_of(make_line(1)))
    assert await sequences(journal) == [3, 4, 5]
    await journal.deletions.begin(*X, now_s=1.0, is_corrupt=False, action=None, request=None)
    assert not await sequences(journal)
    while not await journal.deletions.delete_some(rows_max=2, bytes_max=100):
        pass
    await append(journal, make("x"))
    assert not await sequences(journal)
    assert await journal.log_lines.drop_oldest(*X, limit=2) == KeptLines(0, 0, 0)
