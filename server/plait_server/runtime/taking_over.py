"""Takes over the executions that were open when the server stopped: only their rows, which is quick (FAILURES 5)."""

from __future__ import annotations

import logging
from typing import Final

import trio

from plait_server.encoding.execution_codec import read_queue_facts
from plait_server.ports.journal import Claim, DamagedRow
from plait_server.runtime.admission import Queued
from plait_server.runtime.environment import Environment
from plait_server.runtime.locations import Asleep, Key, Location, Locations, Unread
from plait_server.runtime.quarantine import Quarantine

logger = logging.getLogger(__name__)

CLAIMS: Final = 1_000
"""Rows claimed at a time."""


async def take_over(environment: Environment, locations: Locations, quarantine: Quarantine) -> list[Claim]:
    """Claim the open executions, and give each a location. The oldest are first, in queues too.

    Returns:
        The claims, if their events are to be replayed to telemetry; else none.
    """
    found: list[Claim] = []
    while claims := await environment.journal.claim(limit=CLAIMS):
        for claim in claims:
            if isinstance(claim, DamagedRow):
                quarantine.add_row(claim)
                continue
            # Of one that was only submitted there is nothing to tell, and a queue may hold a million of them.
            if environment.retelling is not None and claim.last_sequence > 1:
                found.append(claim)
            _locate(environment, locations, claim)
        await trio.lowlevel.checkpoint()
    unread, asleep, queued = map(locations.count, (Unread, Asleep, Queued))
    if unread or asleep or queued:
        logger.info("claimed: %d executions to resume, %d asleep, %d queued", unread, asleep, queued)
    return found


def _locate(environment: Environment, locations: Locations, claim: Claim) -> None:
    key: Key = claim.namespace, claim.execution_id
    due_time_s = claim.row.due_time_s
    location: Location
    facts = read_queue_facts(claim.row.summary)
    if facts is not None:
        location = Queued(
            key,
            owner_epoch=claim.owner_epoch,
            last_sequence=claim.last_sequence,
            priority=facts.priority,
            created_s=facts.created_s,
            due_time_s=due_time_s,
        )
        locations.put(key, location)
        environment.admission.push(location)
    elif due_time_s is None or due_time_s <= environment.seams.now_s():
        locations.put(key, Unread(claim.owner_epoch))
        environment.admission.hold(key)
    else:
        locations.put(key, Asleep(claim.owner_epoch, claim.last_sequence, due_time_s))
