"""Reading back what was open when the server stopped, while it already answers calls.

A server is ready when it knows the rows of what is open; reading 10,000 executions back takes seconds more. They
are read one after the other, the oldest first, and a call that needs one takes it out of its turn. When all are
there, their running attempts hold their permits, and others may be given some.

Rejected: reading four at once. From a store that answers in place it is no faster, and calls wait longer
meanwhile (p50 63 ms against 19, on a busy machine).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import trio

from plait_server.runtime.locations import Key, Locations


async def read_back(locations: Locations, revive: Callable[[Key], Awaitable[None]]) -> None:
    """Read executions back until none is unread or loading, and all of them run.

    Args:
        locations: Where they are; others may have some of them read before their turn.
        revive: Reads an unread execution back and starts it.
    """
    while (key := locations.first_unread()) is not None:
        await revive(key)
        # Reading in place takes no checkpoint, and calls are to be answered in between.
        await trio.lowlevel.checkpoint()
    for loading in locations.loading():
        await loading.moved.wait()
    # The executors begun last take their permits in the next round of the scheduler; after the second checkpoint
    # that round is over.
    for _ in range(2):
        await trio.lowlevel.checkpoint()
