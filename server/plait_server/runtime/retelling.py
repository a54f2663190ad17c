"""Telling again, after a start, what happened before it: the telemetry of that time died with the process.

Executions that were open are read a second time, in the background and one after the other, up to where the
journal ended when the server started; what happens since then is told as it happens. Rejected: telling it when
they are read back to go on, for that must be quick, and this waits for the collector of traces.
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
"""About 1 ms of reading, after which others have their turn."""


async def tell_again(journal: Journal, retelling: Retelling, claims: Sequence[Claim]) -> None:
    """Tell the events of what was open at a start, each execution's up to the sequence of its claim.

    Raises:
        JournalUnavailable: the store does not answer.
    """
    for claim in claims:
        # Whoever goes on with a damaged one quarantines it, and shows what is damaged.
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
