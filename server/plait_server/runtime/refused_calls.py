"""Refused calls on their way to the audit.

Nobody waits for their records, so they are written in batches. The queue is bounded: whoever can call without
credentials must not be able to fill memory, nor the disk; what exceeds the bound is counted in the next record.
"""

from __future__ import annotations

import dataclasses
import json
import logging
from typing import Final

import trio

from plait_server.errors import JournalFull
from plait_server.ports.audit import ActionRecord
from plait_server.ports.journal import Journal

logger = logging.getLogger(__name__)

BATCH_S: Final = 1.0
"""Seconds between two batches."""
BATCH_MAX: Final = 50
"""Records in a batch."""


class RefusedCalls:
    """Records refused calls. `run` is started once, by the server's nursery."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._queue: list[tuple[str, ActionRecord]] = []
        self._left_out = 0
        self._came = trio.Event()

    def __repr__(self) -> str:
        return f"<RefusedCalls {len(self._queue)} to be recorded, {self._left_out} left out>"

    def note(self, namespace: str, action: ActionRecord) -> None:
        """Record a refused call soon, unless too many were refused in the last second.

        Args:
            namespace: The namespace in which it is listed; empty for the server's own list, where a call belongs
                whose caller was not authenticated.
            action: The call, with `is_refused`.
        """
        if len(self._queue) >= BATCH_MAX:
            self._left_out += 1
            return
        if self._left_out:
            action = dataclasses.replace(action, detail=_with_count(action.detail, self._left_out))
            self._left_out = 0
        self._queue.append((namespace, action))
        self._came.set()

    async def run(self) -> None:
        """Write what was noted, until cancelled.

        Raises:
            JournalUnavailable, StoreDamaged: The store failed; the server must stop.
        """
        while True:
            await self._came.wait()
            self._came = trio.Event()
            batch, self._queue = self._queue, []
            try:
                with trio.CancelScope(shield=True):
                    await self._journal.write_actions(batch)
            except JournalFull:
                logger.warning("the disk is full; %d refused calls are not in the audit", len(batch))
            await trio.sleep(BATCH_S)


def _with_count(detail: str, left_out: int) -> str:
    fields: object = json.loads(detail)
    assert isinstance(fields, dict)  # as `Actions` makes it
    return json.dumps({**fields, "left_out_before": left_out}, separators=(",", ":"))
