"""Reading back what was open when the server stopped, while it already answers calls.

A server is ready when it knows the rows of what is open; reading 10,000 executions back takes seconds more. They
are read one after the other, the oldest first, and a call that needs one takes it out of its turn. When all are
there, their running attempts hold their permits, and others may be given some.

Rejected: reading four at once. From a store that answers in place it is no faster, and calls wait longer
meanwhile (p50 63 ms against 19, on a busy machine).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import trio

from plait_server.ports.journal import Claim

_Key: TypeAlias = tuple[str, str]


async def read_back(
    unread: dict[_Key, Claim],
    loading: Mapping[_Key, trio.Event],
    revive: Callable[[_Key, int], Awaitable[None]],
) -> None:
    """Read executions back until none is left and all of them run.

    Args:
        unread: What is to be read, the oldest first; others take out of it what they read themselves.
        loading: What is being read, whoever began it.
        revive: Reads an execution back, of this key and owner epoch, and starts it.
    """
    while unread:
        key = next(iter(unread))
        await revive(key, unread.pop(key).owner_epoch)
        # Reading in place takes no checkpoint, and calls are to be answered in between.
        await trio.lowlevel.checkpoint()
    for key in list(loading):
        if key in loading:
            await loading[key].wait()
    # The executors begun last take their permits in the next round of the scheduler; after the second checkpoint
    # that round is over.
    for _ in range(2):
        await trio.lowlevel.checkpoint()
