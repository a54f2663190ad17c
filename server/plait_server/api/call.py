"""What a servicer knows of a call, whichever door it came through."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import trio
from google.protobuf.message import Message

from plait_server.errors import SlowConsumer

SLOW_S: Final = 60.0
"""A reader that takes nothing for so long is told to come back: what waits for it stays in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call."""

    method: str
    """Full name, such as `/plait.v1.ExecutionService/SubmitGraph`."""
    peer: str
    """Who calls, as the transport names it."""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    """Headers that are text; keys in lower case."""


class CallerGone(Exception):
    """The caller left, or its connection broke, while it was written to; nobody is left to be told of anything."""


Send: TypeAlias = Callable[[Message | bytes], Awaitable[None]]
"""Sends one message of a stream, encoded already if it is bytes; waits for the transport's flow control.

Raises CallerGone if there is nobody to send to any more.
"""
Receive: TypeAlias = Callable[[], Awaitable[bytes | None]]
"""Receives one message of a stream, encoded: its size says nothing of what it costs to parse; None at its end."""


async def send_in_time(send: Send, message: Message | bytes) -> None:
    """Send a message of a stream.

    Raises:
        SlowConsumer: nobody took it for 60 s.
    """
    with trio.move_on_after(SLOW_S) as waited:
        await send(message)
    if waited.cancelled_caught:
        raise SlowConsumer
