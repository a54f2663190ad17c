"""Streams that carry frames as bytes between a worker and the server, late, stalled or cut."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Final

import trio

CAPACITY: Final = 64
"""Frames under way in one direction, beyond which the sender waits, as under gRPC's flow control."""


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
                return self._frames.popleft()[1]
            with trio.CancelScope(deadline=due_s):
                await self._changed.wait()

    def close(self) -> None:
        """Say that nothing more is sent."""
        self._is_closed = True
        self._notify()

    def lose(self) -> None:
        """Drop what is under way; whoever sends or receives learns it at once."""
        self._is_lost = True
        self._frames.clear()
        self._notify()

    def stall(self, until_s: float) -> None:
        """Let nothing arrive before a time."""
        self._stalled_until_s = max(self._stalled_until_s, until_s)
        self._notify()

    def _notify(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()


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
