"""Frames of a stream, read in asyncio and received in trio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import grpc.aio
import pytest
import trio.testing

from plait_server.api.frame_reader import READ_AHEAD_BYTES, READ_AHEAD_FRAMES, FrameReader
from plait_server.runtime.asyncio_bridge import callable_from_trio, open_loop


class Peer:
    """Sends what it is told, as fast as it is read."""

    def __init__(self, *contents: object) -> None:
        self._contents = list(contents)
        self.was_read = 0

    async def read(self) -> object:
        await asyncio.sleep(0)
        if not self._contents:
            return grpc.aio.EOF
        self.was_read += 1
        content = self._contents.pop(0)
        if isinstance(content, Exception):
            raise content
        return content


@asynccontextmanager
async def reading(peer: Peer) -> AsyncGenerator[FrameReader]:
    async with open_loop():
        reader = FrameReader(peer.read)

        async def start() -> asyncio.Task[None]:
            return asyncio.create_task(reader.run())

        task = await callable_from_trio(start)()
        yield reader
        task.cancel()


async def settle() -> None:
    async def rounds() -> None:
        for _ in range(4 * READ_AHEAD_FRAMES):
            await asyncio.sleep(0)

    await callable_from_trio(rounds)()


async def test_frames_come_in_order_and_then_the_end() -> None:
    frames = [str(number).encode() for number in range(100)]
    async with reading(Peer(*frames)) as reader:
        assert [await reader.receive() for _ in frames] == frames
        assert await reader.receive() is None
        assert await reader.receive() is None


async def test_a_peer_that_sends_without_end_holds_up_nobody() -> None:
    """Receiving is a checkpoint, also when a frame is there."""
    async with reading(Peer(b"a")) as reader:
        await settle()
        with trio.testing.assert_checkpoints():
            await reader.receive()


async def test_frames_that_came_before_the_end_are_received() -> None:
    async with reading(Peer(b"a", b"b")) as reader:
        await settle()
        assert [await reader.receive() for _ in range(3)] == [b"a", b"b", None]


@pytest.mark.parametrize(
    ("size", "ahead"), [(1, READ_AHEAD_FRAMES), (READ_AHEAD_BYTES // 4, 4), (4 * READ_AHEAD_BYTES, 1)]
)
async def test_little_is_read_ahead(size: int, ahead: int) -> None:
    """Whoever is not received from is held back by gRPC's flow control."""
    peer = Peer(*(bytes(size) for _ in range(100)))
    async with reading(peer) as reader:
        await settle()
        assert peer.was_read == ahead
        await reader.receive()
        await settle()
        assert peer.was_read == ahead + 1


@pytest.mark.parametrize("error", [grpc.aio.InternalError(), grpc.aio.UsageError()])
async def test_a_call_that_is_over_has_no_more_frames(error: Exception) -> None:
    async with reading(Peer(b"a", error)) as reader:
        assert [await reader.receive() for _ in range(2)] == [b"a", None]
