"""The worker of the bench: 256 slots, and a node type that does nothing."""

from __future__ import annotations

from plait_worker import Context, Worker

worker = Worker(slots=256)


@worker.node("bench.noop")
async def noop(context: Context, value: object) -> None:
    """Do nothing."""
    del context, value
