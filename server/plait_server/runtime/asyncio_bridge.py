"""The one seam to asyncio: what must run under grpc.aio's loop crosses into trio here, and back.

Cancellation crosses both ways: a client's cancel or deadline cancels the trio function; a trio cancel scope
around a call cancels it at the far side. Streams cross once a frame, not once a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final, ParamSpec, TypeVar

import trio

from plait_server.runtime.hosted_loop import HostedLoop

P = ParamSpec("P")
T = TypeVar("T")

_LOOP: Final[trio.lowlevel.RunVar[HostedLoop]] = trio.lowlevel.RunVar("plait_asyncio_loop")


@asynccontextmanager
async def open_loop() -> AsyncGenerator[HostedLoop]:
    """Run an asyncio loop within trio; everything below needs it around.

    At the exit calls from asyncio are cancelled, then the tasks of asyncio.
    """
    loop = HostedLoop()
    before = _LOOP.set(loop)
    # grpc.aio's channels and servers take it when they are made, which may be outside of any callback.
    asyncio.set_event_loop(loop)
    try:
        async with trio.open_nursery() as watching:
            await watching.start(loop.watch)
            try:
                async with trio.open_nursery() as calls:
                    loop.calls = calls
                    try:
                        yield loop
                    finally:
                        calls.cancel_scope.cancel()
            finally:
                await loop.finish()
    finally:
        loop.close()
        asyncio.set_event_loop(None)
        _LOOP.reset(before)


def callable_from_asyncio(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Make a trio function awaitable from asyncio."""

    def call(*args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return _LOOP.get().call_trio(partial(function, *args, **kwargs))

    return call


def callable_from_trio(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Make an asyncio function awaitable from trio."""

    def call(*args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return _LOOP.get().call_asyncio(partial(function, *args, **kwargs))

    return call
