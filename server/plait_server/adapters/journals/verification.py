"""What is read is verified: the chain of an execution's events, the digest of a content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from plait_server.adapters.journals.conditions import Head
from plait_server.errors import EventDamaged
from plait_server.ports.journal import CHAIN_START, EventPage, chain


def verify_page(
    stored: Iterable[tuple[int, bytes | None, bytes | None]],
    *,
    execution_id: str,
    head: Head,
    after: int,
    events_max: int,
    bytes_max: int,
) -> EventPage:
    """Take events off `stored` while they fit the chain and the bounds.

    Args:
        stored: Sequence, event and checksum in order, beginning with the event `after`, which is only chained
            to; with the first event if `after` is 0. No more is taken from it than the page needs.
        execution_id: Named in errors.
        head: Where the execution ends; missing events at the end are found by it.
        after: The page begins behind it.
        events_max: Bound of the page.
        bytes_max: Bound of the page, but for its first event.

    Raises:
        EventDamaged: an event is missing, there is one too many, or its bytes are not those that were
            appended.
    """
    events: list[bytes] = []
    if after >= head.last_sequence:
        return EventPage(events=events, last_sequence=head.last_sequence)
    expected = max(after, 1)
    previous = CHAIN_START
    budget = bytes_max
    for sequence, event, checksum in stored:
        if sequence != expected or event is None or checksum is None:
            raise _damaged(execution_id, expected)
        if sequence > after:
            budget -= len(event)
            if events and (len(events) == events_max or budget < 0):
                return EventPage(events=events, last_sequence=head.last_sequence)
            if chain(previous, event) != checksum:
                raise _damaged(execution_id, sequence)
            events.append(event)
        # BLAKE2b takes keys up to 64 bytes; a checksum that damage made longer is no key.
        if len(checksum) != len(CHAIN_START):
            raise _damaged(execution_id, sequence)
        previous = checksum
        expected += 1
    if expected != head.last_sequence + 1 or previous != head.last_checksum:
        raise _damaged(execution_id, min(expected, head.last_sequence))
    return EventPage(events=events, last_sequence=head.last_sequence)


def verify_content(digest: str, content: bytes) -> bytes:
    """Give the content back.

    Raises:
        EventDamaged: it does not have the digest.
    """
    if hashlib.sha256(content).hexdigest() != digest:
        raise EventDamaged(
            f"the content {digest} is damaged; executions that need it cannot go on", digest=digest
        )
    return content


def _damaged(execution_id: str, sequence: int) -> EventDamaged:
    return EventDamaged(
        f"event {sequence} of execution {execution_id} is damaged or missing; the execution is quarantined, "
        "others go on",
        execution_id=execution_id,
        sequence=sequence,
    )
