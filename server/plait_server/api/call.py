"""A call as a servicer sees it, independent of the transport."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import trio
from google.protobuf.message import Message

from plait_server.errors import SlowConsumer

SLOW_S: Final = 60.0
"""Seconds after which a reader that accepts no message is disconnected, because unsent messages stay in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls."""

    name: str
    """The name of the token, or of the entry for the client's certificate; else the peer's address."""
    is_verified: bool
    """Whether the caller was authenticated."""


NOBODY: Final = Principal(name="", is_verified=False)


def admit_all(namespace: str) -> None:
    """Admit a stream whatever namespace its first message names."""
    del namespace


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call."""

    method: str
    """The method's full name, such as `/plait.v1.ExecutionService/SubmitGraph`."""
    peer: str
    """The caller's address, as the transport reports it."""
    metadata: Mapping[str, str] = field(default_factory=dict[str, str])
    """The headers with text values but for the credentials; keys in lower case."""
    principal: Principal = NOBODY
    """Who calls."""
    admit: Callable[[str], None] = admit_all
    """Called by a bidirectional method with the namespace that the stream's first message names, before it answers.

    Raises PermissionDenied if the caller may not call the method there.
    """


class CallerGone(Exception):
    """The caller left, or its connection broke, during a write; there is no peer to report an error to."""


Send: TypeAlias = Callable[[Message | bytes], Awaitable[None]]
"""Sends one message of a stream, encoded already if it is bytes; waits for the transport's flow control.

Raises CallerGone if the peer is gone.
"""
Receive: TypeAlias = Callable[[], Awaitable[bytes | None]]
"""Receives one encoded message of a stream; None at its end. Its size does not bound the cost of parsing."""


async def send_in_time(send: Send, message: Message | bytes) -> None:
    """Send a message of a stream.

    Raises:
        SlowConsumer: The peer did not accept it for 60 s.
    """
    with trio.move_on_after(SLOW_S) as waited:
        await send(message)
    if waited.cancelled_caught:
        raise SlowConsumer
