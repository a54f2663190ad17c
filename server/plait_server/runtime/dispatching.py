"""Grants capacity that came free outside of any execution's step, such as a worker's slot."""

from __future__ import annotations

import trio

from plait_server.runtime.allocator import Allocator


async def keep_dispatching(allocator: Allocator) -> None:
    """Dispatch soon after each time that an allocator reports free capacity, and when a rate allows the next start.

    Runs until cancelled.
    """
    capacity = trio.Event()

    def note_capacity() -> None:
        capacity.set()

    allocator.on_capacity = note_capacity
    while True:
        with trio.move_on_at(allocator.next_start_s):
            await capacity.wait()
        capacity = trio.Event()
        allocator.dispatch()
