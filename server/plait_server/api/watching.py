"""Frames of events, built from the stored bytes: an event is encoded once, and copied into each message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from plait_server.core.limits import MIB

EVENTS_TAG: Final = b"\x0a"
"""Field 1, length-delimited: `events` in EventBatch, ListEventsResponse and WatchExecutionResponse alike."""
FRAME_BYTES_MAX: Final = MIB
FRAME_ROOM: Final = 64
"""The most bytes of a frame or a page besides its events."""


def join_events(events: Iterable[bytes]) -> bytes:
    """Join encoded events into the field `events` of a message."""
    return join_field(EVENTS_TAG, events)


def join_frame(events: Iterable[bytes]) -> bytes:
    """Join encoded events into a frame of WatchExecution."""
    return join_field(EVENTS_TAG, (join_events(events),))


def join_field(tag: bytes, messages: Iterable[bytes]) -> bytes:
    """Join encoded messages into the field of a tag."""
    parts: list[bytes] = []
    for message in messages:
        parts += (tag, _varint(len(message)), message)
    return b"".join(parts)


def cut_frame(events: Sequence[bytes], events_max: int) -> Sequence[bytes]:
    """Return as many events as fit into one frame: at least one, else up to 1 MiB and `events_max`."""
    size = FRAME_ROOM
    for count, event in enumerate(events):
        size += len(event) + 8
        if count and (size > FRAME_BYTES_MAX or count >= events_max):
            return events[:count]
    return events


def _varint(value: int) -> bytes:
    if value < 0x80:  # seven bits fit into one byte (protobuf's encoding)
        return bytes((value,))
    out = bytearray()
    while value > 0x7F:  # seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
