"""Feeds: what watchers read of a live execution (A3)."""

from __future__ import annotations

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from plait_server.runtime.feed import TAIL_BYTES_MAX, Feed


def test_a_reader_gets_what_follows_its_sequence() -> None:
    feed = Feed(10, is_ended=False)
    feed.publish([b"11", b"12"], is_ended=False)
    feed.publish([b"13"], is_ended=True)
    assert feed.last_sequence == 13
    assert feed.is_ended
    assert list(feed.read(10) or ()) == [b"11", b"12", b"13"]
    assert list(feed.read(12) or ()) == [b"13"]
    assert list(feed.read(13) or ()) == []
    assert feed.read(13) is not None


def test_a_reader_that_is_further_behind_reads_the_journal() -> None:
    feed = Feed(10, is_ended=False)
    assert feed.read(9) is None
    feed.publish([b"11"], is_ended=False)
    assert feed.read(9) is None
    assert feed.read(0) is None


def test_the_tail_is_bounded_and_keeps_the_newest() -> None:
    """A3: a slow watcher costs bounded memory."""
    feed = Feed(0, is_ended=False)
    size = TAIL_BYTES_MAX // 4
    for number in range(1, 20):
        feed.publish([bytes([number]) * size], is_ended=False)
        events = feed.read(max(0, number - 4))
        assert events is not None
        assert [event[0] for event in events] == list(range(max(1, number - 3), number + 1))
    assert feed.read(19 - 5) is None


def test_a_single_event_over_the_bound_is_kept() -> None:
    feed = Feed(0, is_ended=False)
    feed.publish([bytes(2 * TAIL_BYTES_MAX)], is_ended=False)
    assert len(feed.read(0) or ()) == 1
    feed.publish([b"next"], is_ended=False)
    assert list(feed.read(1) or ()) == [b"next"]
    assert feed.read(0) is None


async def test_all_who_wait_wake_when_something_is_published_or_it_closes(
    autojump_clock: MockClock,
) -> None:
    feed = Feed(0, is_ended=False)
    woken: list[int] = []

    async def wait(number: int) -> None:
        await feed.wait_changed()
        woken.append(number)

    def publish() -> None:
        feed.publish([b"1"], is_ended=False)

    for change in (publish, feed.close):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(wait, number)
            await wait_all_tasks_blocked()
            assert woken == []
            change()
        assert sorted(woken) == [0, 1, 2, 3, 4]
        woken.clear()
