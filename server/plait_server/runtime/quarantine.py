"""Executions that are damaged (K4): they are shown as CORRUPT, and nothing else is done with them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeAlias

import trio

from plait_server.errors import EventDamaged
from plait_server.ports.journal import DamagedRow, Journal
from plait_server.ports.log_fields import key_fields

logger = logging.getLogger(__name__)

VERIFIED_ROWS: Final = 200
"""Rows verified at a time after a start: 2 ms."""
VERIFY_S: Final = 0.02
"""Pause between two stretches: a million executions are verified within minutes, by a tenth of a core."""

Key: TypeAlias = tuple[str, str]
"""Namespace and execution id."""


class Quarantine:
    """What is known to be damaged, since the server started; it is found again after the next start."""

    def __init__(self) -> None:
        self._errors: dict[Key, EventDamaged] = {}

    def __repr__(self) -> str:
        return f"<Quarantine of {len(self._errors)}>"

    def __len__(self) -> int:
        return len(self._errors)

    def __contains__(self, key: Key) -> bool:
        return key in self._errors

    def require_whole(self, key: Key) -> None:
        """Check that an execution is not quarantined.

        Raises:
            EventDamaged: it is.
        """
        if key in self._errors:
            raise self._errors[key]

    def add(self, key: Key, error: EventDamaged) -> None:
        """Quarantine an execution."""
        if key not in self._errors:
            logger.error("the execution is quarantined: %s", error, extra=key_fields(key))
            self._errors[key] = error

    def add_row(self, row: DamagedRow) -> None:
        """Quarantine an execution whose row is damaged."""
        message = "its row is damaged; stop the server and run `plait store check` for all that is damaged"
        self.add((row.namespace, row.execution_id), EventDamaged(message, execution_id=row.execution_id))

    async def verify_rows(self, journal: Journal, is_live: Callable[[Key], bool]) -> None:
        """Look for damage that nobody asks for: an execution whose row says that it ended is never claimed.

        Args:
            journal: Is verified once, whole.
            is_live: Whether an execution runs: its row is written anew with its next step, whatever it is now.

        Raises:
            StoreDamaged: a row is damaged that cannot be laid at one execution's door.
        """
        is_done = False
        while not is_done:
            verification = await journal.verify(limit=VERIFIED_ROWS)
            for row in verification.damaged:
                if not is_live((row.namespace, row.execution_id)):
                    self.add_row(row)
            is_done = verification.is_done
            await trio.sleep(VERIFY_S)
