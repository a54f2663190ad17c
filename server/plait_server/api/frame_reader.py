"""Reads the frames of a stream in one asyncio task, so that a frame costs no call across the bridge.

Such a call creates an asyncio task. For a worker that writes a frame for each message, that costs more than all other
work on the frame. Here one task reads the whole stream, and wakes trio when trio waits.

1. Frames are received in the order in which they came; then None: the peer has ended its side, or is gone.
2. Little is read ahead. While `READ_AHEAD_FRAMES` frames or `READ_AHEAD_BYTES` wait to be received, nothing more is
   read, and gRPC's flow control holds the peer back.

Joining the small frames that wait was tried. There is hardly ever more than one: gRPC reads one at a time, and takes
longer for it than a round of trio.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Final

import grpc.aio
import trio

from plait_server.core.limits import KIB

READ_AHEAD_FRAMES: Final = 16
READ_AHEAD_BYTES: Final = 256 * KIB


class FrameReader:
    """The frames of one stream. `run` is an asyncio task; one trio task calls `receive`."""

    def __init__(self, read: Callable[[], Awaitable[object]]) -> None:
        self._read = read
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._is_over = False
        self._came = trio.Event()
        self._taken = asyncio.Event()

    def __repr__(self) -> str:
        return f"<FrameReader {len(self._frames)} frames of {self._bytes} bytes wait>"

    async def run(self) -> None:
        """Read until the peer's side is over, or until cancelled; in asyncio."""
        try:
            while isinstance(content := await self._read(), bytes):
                self._frames.append(content)
                self._bytes += len(content)
                self._came.set()
                while self._is_full:
                    self._taken.clear()
                    await self._taken.wait()
        except (grpc.aio.InternalError, grpc.aio.UsageError):
            pass  # The call is over; its writer gets an error, too.
        finally:
            self._is_over = True
            self._came.set()

    async def receive(self) -> bytes | None:
        """Wait for the next frame; None when the peer's side is over; in trio. Always a checkpoint."""
        if self._frames:
            await trio.lowlevel.checkpoint()
        while not self._frames:
            if self._is_over:
                return None
            self._came = trio.Event()
            await self._came.wait()
        content = self._frames.popleft()
        self._bytes -= len(content)
        if not self._is_full:
            self._taken.set()
        return content

    @property
    def _is_full(self) -> bool:
        return len(self._frames) >= READ_AHEAD_FRAMES or self._bytes >= READ_AHEAD_BYTES
