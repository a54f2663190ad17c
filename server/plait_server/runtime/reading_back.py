"""Reads back the executions that were open when the server stopped, while calls are already answered.

A server is ready when it knows the rows of open executions; reading 10,000 of them back takes seconds more. They
are read one by one, the oldest first, but a call that needs one has it read at once. When all are back, their running
attempts hold their permits, and new grants can be made.

Rejected: reading four at once. With a store that answers in place it is no faster, and calls wait longer
(p50 of 63 ms instead of 19 on a busy machine).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from plait_server.runtime.locations import Key, Locations


async def read_back(locations: Locations, revive: Callable[[Key], Awaitable[None]]) -> None:
    """Read executions back until none is unread or loading, and all of them run.

    Args:
        locations: The executions' locations; calls may have some of them read before their turn.
        revive: Reads an unread execution back and starts it.
    """
    while (key := locations.first_unread()) is not None:
        await revive(key)
        # Reading in place has no checkpoint, and calls have to be answered in between.
        await trio.lowlevel.checkpoint()
    for loading in locations.loading():
        await loading.moved.wait()
    # The executors begun last take their permits in the next round of the scheduler; after the second checkpoint
    # that round is over.
    for _ in range(2):
        await trio.lowlevel.checkpoint()
