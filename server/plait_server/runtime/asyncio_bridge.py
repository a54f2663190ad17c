"""The only bridge to asyncio: calls between grpc.aio's loop and trio cross here, both ways.

Cancellation crosses both ways: a client's cancel or deadline cancels the trio function; a trio cancel scope
around a call cancels it at the far side. Streams cross once for each frame, not for each message.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import ParamSpec, TypeVar, cast

import trio_asyncio

from plait_server.runtime.burst_loop import BurstLoop

P = ParamSpec("P")
T = TypeVar("T")


@asynccontextmanager
async def open_loop() -> AsyncGenerator[asyncio.AbstractEventLoop]:
    """Run an asyncio loop within trio; everything below requires it.

    At the exit, calls from asyncio and asyncio's tasks are cancelled and awaited.
    """
    async with trio_asyncio.open_loop() as loop:
        yield BurstLoop.adopt(loop)


def callable_from_asyncio(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Make a trio function awaitable from asyncio."""

    def call(*args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return _loop().call_trio(partial(function, *args, **kwargs))

    return call


def callable_from_trio(function: Callable[P, Awaitable[T]]) -> Callable[P, Awaitable[T]]:
    """Make an asyncio function awaitable from trio."""

    def call(*args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return _loop().call_asyncio(partial(function, *args, **kwargs))

    return call


def _loop() -> BurstLoop:
    return cast("BurstLoop", trio_asyncio.current_loop.get())
