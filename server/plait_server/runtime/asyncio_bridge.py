"""The one seam to asyncio: what must run under grpc.aio's loop crosses into trio here, and back.

Cancellation crosses both ways: a client's cancel or deadline cancels the trio function; a trio cancel scope
around a call cancels it at the far side. A crossing costs 36-50 us, so streams cross once a frame, not once a
message.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar, cast

import trio_asyncio

from plait_server.runtime.burst_loop import BurstLoop

P = ParamSpec("P")
T = TypeVar("T")


@asynccontextmanager
async def open_loop() -> AsyncGenerator[None]:
    """Run an asyncio loop within trio; everything below needs it around."""
    async with trio_asyncio.open_loop() as loop:
        loop.__class__ = BurstLoop
        yield


def callable_from_asyncio(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Make a trio function awaitable from asyncio."""
    return cast("Callable[P, Awaitable[T]]", trio_asyncio.trio_as_aio(function))


def callable_from_trio(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Make an asyncio function awaitable from trio."""
    return cast("Callable[P, Awaitable[T]]", trio_asyncio.aio_as_trio(function))
