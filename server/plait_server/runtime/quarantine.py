"""Damaged executions (K4): they are shown as CORRUPT and otherwise left alone."""

from __future__ import annotations

import logging
from typing import Final

import trio

from plait_server.errors import EventDamaged
from plait_server.ports.journal import DamagedRow, Journal
from plait_server.ports.log_fields import key_fields
from plait_server.runtime.locations import Damaged, Key, Live, Loading, Locations

logger = logging.getLogger(__name__)

VERIFIED_ROWS: Final = 200
"""Rows verified at a time after a start: 2 ms."""
VERIFY_S: Final = 0.02
"""Seconds between two batches: a million executions are verified within minutes, with a tenth of a core."""


class Quarantine:
    """The executions found to be damaged since the server started; each start finds them again."""

    def __init__(self, locations: Locations) -> None:
        self._locations = locations

    def __repr__(self) -> str:
        return f"<Quarantine of {len(self)}>"

    def __len__(self) -> int:
        return self._locations.count(Damaged)

    def __contains__(self, key: Key) -> bool:
        return isinstance(self._locations.get(key), Damaged)

    def require_whole(self, key: Key) -> None:
        """Check that an execution is not quarantined.

        Raises:
            EventDamaged: The execution is quarantined.
        """
        location = self._locations.get(key)
        if isinstance(location, Damaged):
            # Every call raises the same error object; without this its traceback would grow each time.
            raise location.error.with_traceback(None)

    def add(self, key: Key, error: EventDamaged) -> None:
        """Quarantine an execution, whatever its location."""
        if key not in self:
            logger.error("the execution is quarantined: %s", error, extra=key_fields(key))
            self._locations.put(key, Damaged(error))

    def add_row(self, row: DamagedRow) -> None:
        """Quarantine an execution whose row is damaged."""
        message = "its row is damaged; stop the server and run `plait store check` for all that is damaged"
        self.add((row.namespace, row.execution_id), EventDamaged(message, execution_id=row.execution_id))

    async def verify_rows(self, journal: Journal) -> None:
        """Verify the whole journal once, to find damage in executions that no call reads.

        The recovery does not claim an execution whose row says that it ended.

        Raises:
            StoreDamaged: A damaged row cannot be attributed to one execution.
        """
        is_done = False
        while not is_done:
            verification = await journal.verify(limit=VERIFIED_ROWS)
            for row in verification.damaged:
                location = self._locations.get((row.namespace, row.execution_id))
                # The next step of a live execution rewrites its row anyway.
                if not isinstance(location, (Live, Loading)):
                    self.add_row(row)
            is_done = verification.is_done
            await trio.sleep(VERIFY_S)
