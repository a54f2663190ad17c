"""Checks of sizes at the moment in which something leaves the server (DESIGN 4): a client's defaults must take it."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import Message

from plait_server.core.limits import EVENT_BYTES_MAX, MESSAGE_BYTES_MAX, MIB
from plait_server.testing.simulation.world import World

FRAME_BYTES_MAX: Final = MIB


def check_answer(world: World, name: str, answer: object) -> None:
    """Check the answer to a call."""
    if isinstance(answer, (Message, bytes)):
        _check(world, f"the answer to {name}", _size(answer), MESSAGE_BYTES_MAX)


def check_frame(world: World, name: str, frame: Message | bytes) -> None:
    """Check a frame of a stream."""
    _check(world, f"a frame of {name}", _size(frame), FRAME_BYTES_MAX)


def check_event(world: World, content: bytes) -> None:
    """Check an event that a client received."""
    _check(world, "an event", len(content), EVENT_BYTES_MAX)


def _size(message: Message | bytes) -> int:
    return len(message) if isinstance(message, bytes) else message.ByteSize()


def _check(world: World, what: str, size: int, limit: int) -> None:
    if size > limit:
        world.fail("DESIGN 4", f"{what} has {size} bytes, over the limit of {limit}")
