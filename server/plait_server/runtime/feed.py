"""Feeds: pass the durable events of a live execution to its watchers.

A feed keeps the newest events, already encoded, up to a bound; a reader that is further behind reads the
journal. Readers ask for the events after a sequence, and the feed never waits for them, so a slow reader delays
only itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import trio

TAIL_BYTES_MAX: Final = 256 * 1024
"""A watcher that is no further behind than this needs no read from the store."""


class Feed:
    """The durable events of one live execution."""

    def __init__(self, last_sequence: int, *, is_ended: bool) -> None:
        self.last_sequence = last_sequence
        """Number of the newest durable event."""
        self.is_ended = is_ended
        """Whether the run is over."""
        self._tail: deque[bytes] = deque()
        self._tail_bytes = 0
        self._changed = trio.Event()

    def __repr__(self) -> str:
        return f"<Feed at {self.last_sequence}, {len(self._tail)} kept>"

    def publish(self, events: Sequence[bytes], *, is_ended: bool) -> None:
        """Make durable events available to readers."""
        self.last_sequence += len(events)
        self.is_ended = is_ended
        self._tail.extend(events)
        self._tail_bytes += sum(map(len, events))
        while self._tail_bytes > TAIL_BYTES_MAX and len(self._tail) > 1:
            self._tail_bytes -= len(self._tail.popleft())
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def close(self) -> None:
        """Wake all readers, because the execution is no longer live here; they look up its new location."""
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def read(self, after: int) -> Sequence[bytes] | None:
        """Return the events after a sequence; None if that is older than the kept events."""
        missing = self.last_sequence - after
        if missing > len(self._tail):
            return None
        if missing <= 0:
            return ()
        tail = self._tail
        return [tail[index] for index in range(len(tail) - missing, len(tail))]

    async def wait_changed(self) -> None:
        """Wait until events are published or the feed is closed. The caller bounds the wait."""
        await self._changed.wait()
