"""Replays to telemetry, after a start, the events from before it, because its memory was lost with the old process.

Executions that were open are read a second time, one by one in the background, up to the ends of their journals at the
start; later events reach telemetry as they happen. Rejected: replaying the events while executions are read back to be
resumed. That has to be quick, and this waits for the collector.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import aclosing, suppress
from typing import Final

import trio

from plait_server.errors import EventDamaged, ExecutionNotFound
from plait_server.ports.journal import Claim, Journal
from plait_server.ports.observer import Retelling
from plait_server.runtime.recovery import replay

EVENTS_PER_SLICE: Final = 100
"""About 1 ms of reading; other tasks run after it."""


async def tell_again(journal: Journal, retelling: Retelling, claims: Sequence[Claim]) -> None:
    """Replay the events of executions that were open at the start, each up to the sequence of its claim.

    Raises:
        JournalUnavailable: The store does not answer.
    """
    for claim in claims:
        # A damaged execution is quarantined, with an error, by the task that resumes it.
        with suppress(ExecutionNotFound, EventDamaged):
            await _tell(journal, retelling, claim)
        await trio.lowlevel.checkpoint()


async def _tell(journal: Journal, retelling: Retelling, claim: Claim) -> None:
    namespace = claim.namespace
    async with aclosing(replay(journal.namespace(namespace), claim.execution_id)) as events:
        async for execution, event in events:
            if event.sequence > claim.last_sequence:
                return
            if not await retelling.event_again(namespace, execution, event):
                return
            if event.sequence % EVENTS_PER_SLICE == 0:
                await trio.lowlevel.checkpoint()
