"""Streams that carry frames as bytes between a worker and the server, late, stalled, split, joined or cut.

What one end sends in a frame may reach the other in several, and what it sends in several may reach it in one:
a frame is a matter of the writer's haste, and nothing may follow from where it ends.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Final

import trio

CAPACITY: Final = 64
"""Frames under way in one direction, beyond which the sender waits, as under gRPC's flow control."""


SPLIT_SHARE: Final = 0.25
"""Share of the frames of several messages that arrive in two."""
JOIN_SHARE: Final = 0.25
"""Share of the frames that arrive in one with those that are due at the same time."""


class ConnectionLost(Exception):
    """The stream, or the call, broke; what was under way may have arrived or not."""


class ServerUnreachable(ConnectionLost):
    """Nobody listens at the server's address."""


class Direction:
    """One direction of a stream: what is sent arrives in order, each frame some time after it was sent.

    Args:
        chance: Rolls the delays.
        delay_s: The longest delay of a frame in seconds.
    """

    def __init__(self, chance: Random, delay_s: float) -> None:
        self._chance = chance
        self.delay_s = delay_s
        self._frames: deque[tuple[float, bytes]] = deque()
        self._changed = trio.Event()
        self._stalled_until_s = 0.0
        self._is_closed = False
        self._is_lost = False

    def __repr__(self) -> str:
        return f"<Direction with {len(self._frames)} frames>"

    async def send(self, content: bytes) -> None:
        """Send a frame; waits while too many are under way.

        Raises:
            ConnectionLost: this end knows that the stream is lost.
        """
        await trio.lowlevel.checkpoint()
        while len(self._frames) >= CAPACITY and not self._is_lost:
            await self._changed.wait()
        if self._is_lost:
            raise ConnectionLost
        due_s = trio.current_time() + self._chance.random() * self.delay_s
        self._frames.append((due_s, content))
        self._notify()

    async def receive(self) -> bytes | None:
        """Receive the next frame; None when the sender has closed its end.

        Raises:
            ConnectionLost: this end knows that the stream is lost.
        """
        await trio.lowlevel.checkpoint()
        while True:
            if self._is_lost:
                raise ConnectionLost
            due_s = self._stalled_until_s
            if self._frames:
                due_s = max(due_s, self._frames[0][0])
            elif not self._is_closed:
                due_s = float("inf")
            if due_s <= trio.current_time():
                if not self._frames:
                    return None
                self._notify()
                return self._take_due()
            with trio.CancelScope(deadline=due_s):
                await self._changed.wait()

    def _take_due(self) -> bytes:
        """Take the first frame, a part of it, or it and some that follow and are due as well."""
        content = self._frames.popleft()[1]
        chance, now_s = self._chance, trio.current_time()
        if chance.random() < JOIN_SHARE:
            while self._frames and self._frames[0][0] <= now_s and chance.random() < 0.8:
                # Messages are a repeated field, so that frames joined are a frame.
                content += self._frames.popleft()[1]
        ends = _message_ends(content)
        if len(ends) > 1 and chance.random() < SPLIT_SHARE:
            end = chance.choice(ends[:-1])
            due_s = now_s + chance.choice((0.0, 0.0, self.delay_s))
            self._frames.appendleft((due_s, content[end:]))
            content = content[:end]
        return content

    def close(self) -> None:
        """End the sending side."""
        self._is_closed = True
        self._notify()

    def lose(self) -> None:
        """Drop what is under way; whoever sends or receives learns it at once."""
        self._is_lost = True
        self._frames.clear()
        self._notify()

    @property
    def has_stalled(self) -> bool:
        """Whether anything was held up on its way."""
        return self._stalled_until_s > 0

    def stall(self, until_s: float) -> None:
        """Let nothing arrive before a time."""
        self._stalled_until_s = max(self._stalled_until_s, until_s)
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


def _message_ends(frame: bytes) -> list[int]:
    """Find where each message of a frame ends: field 1, length-delimited, in both directions."""
    ends: list[int] = []
    position = 0
    while position < len(frame):
        position += 1  # the tag
        length = shift = 0
        while True:
            byte = frame[position]
            position += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:  # the last byte of a varint
                break
        position += length
        ends.append(position)
    return ends


class Link:
    """One Attach stream.

    `up` leads to the server, `down` to the worker. Each end has a scope, which whoever serves it enters, and
    which is cancelled when that end learns of a cut.
    """

    def __init__(self, number: int, up: Direction, down: Direction) -> None:
        self.number: Final = number
        self.up: Final = up
        self.down: Final = down
        self.server = trio.CancelScope()
        self.worker = trio.CancelScope()
        self.is_cut = False

    def __repr__(self) -> str:
        return f"<Link {self.number}{' cut' if self.is_cut else ''}>"

    def cut(self, *, server_knows: bool = True, worker_knows: bool = True) -> None:
        """Break the stream; an end that does not know hears nothing any more, until its lease runs out."""
        self.is_cut = True
        if server_knows:
            self.server.cancel()
        else:
            self.up.stall(float("inf"))
        if worker_knows:
            self.down.lose()
            self.worker.cancel()
        else:
            self.down.stall(float("inf"))
