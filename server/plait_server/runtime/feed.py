"""Feeds: how the durable events of a live execution reach those who watch it.

A feed keeps the newest events, already encoded, up to a bound; a reader that is further behind reads the
journal. A reader asks for what comes after a sequence and is never waited for: a slow one costs nothing but
its own place.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

import trio

TAIL_BYTES_MAX: Final = 256 * 1024
"""A watcher that is not more than this behind costs no read of the store."""


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
        """Let readers have events that are durable."""
        self.last_sequence += len(events)
        self.is_ended = is_ended
        self._tail.extend(events)
        self._tail_bytes += sum(map(len, events))
        while self._tail_bytes > TAIL_BYTES_MAX and len(self._tail) > 1:
            self._tail_bytes -= len(self._tail.popleft())
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def close(self) -> None:
        """Wake all readers: the execution is not live here any more; they look again."""
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    def read(self, after: int) -> Sequence[bytes] | None:
        """Return the events after a sequence; None if the tail does not reach back so far."""
        missing = self.last_sequence - after
        if missing > len(self._tail):
            return None
        if missing <= 0:
            return ()
        tail = self._tail
        return [tail[index] for index in range(len(tail) - missing, len(tail))]

    async def wait_changed(self) -> None:
        """Wait until something was published, or the feed was closed. The caller bounds the wait."""
        await self._changed.wait()
