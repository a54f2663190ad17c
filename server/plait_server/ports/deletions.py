"""The part of the journal port that deletes executions.

1. `begin` and `begin_expired` take an execution out of the store at once: its row is gone, and with it every way to
   read it. They leave a tombstone for watchers, and a deletion, which survives a crash.
2. `delete_some` deletes what is left of it, a bounded number of rows at a time: events, index, audit records, and the
   contents that no other execution of its namespace uses. An execution uses each content that an append gave it. The
   last slice ends the deletion.
3. The records of its requests are kept for `REQUESTS_KEPT_S` more (K3), those of actions on their own account.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias

from plait_server.ports.audit import ActionRecord
from plait_server.ports.journal import RequestConflict, RequestRecord

REQUESTS_KEPT_S: Final = 24 * 3_600.0
"""Seconds for which the records of requests outlive what they made."""

TOMBSTONES_KEPT_S: Final = 24 * 3_600.0
"""Seconds for which a watcher of a namespace may be away and still learn of deletions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeletionBegun:
    """The execution is gone, and stays so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionOpen:
    """The execution has not ended; nothing was deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionMissing:
    """There is no such execution in the namespace."""


DeleteResult: TypeAlias = DeletionBegun | ExecutionOpen | ExecutionMissing | RequestConflict


class Deletions(Protocol):
    """Deletes executions from a journal."""

    async def begin(
        self,
        namespace: str,
        execution_id: str,
        *,
        now_s: float,
        is_corrupt: bool,
        action: ActionRecord | None,
        request: RequestRecord | None,
    ) -> DeleteResult:
        """Take an execution out of the store durably, together with the action and the request record.

        Args:
            namespace: Its namespace.
            execution_id: Its id.
            now_s: Wall time, seconds since 1970.
            is_corrupt: Whether it is quarantined, and may be deleted although it is open.
            action: Who deletes it.
            request: The request's record.

        Raises:
            JournalFull: The disk is full; nothing was written.
            JournalUnavailable: The store failed; it is unknown whether the deletion has begun.
        """
        ...

    async def begin_expired(
        self,
        namespace: str,
        *,
        ended_before_s: float,
        now_s: float,
        limit: int,
        is_busy: Callable[[str], bool],
    ) -> Sequence[str]:
        """Take executions that ended before a time out of the store durably, the earliest ended first.

        Damaged ones are left alone (K4), and those that are busy: `is_busy` tells by the id.

        Returns:
            Their ids, at most `limit`.
        """
        ...

    async def delete_some(self, *, rows_max: int, bytes_max: int) -> bool:
        """Delete some of the rows of executions that were taken out, durably.

        Args:
            rows_max: The most rows to delete.
            bytes_max: The most bytes of events and contents to delete, but for the first of them.

        Returns:
            Whether nothing is left to delete.
        """
        ...

    async def forget_some(self, *, now_s: float, actions_before_s: float, limit: int) -> bool:
        """Forget old records: of requests that have outlived what they made, actions, tombstones; `limit` of each.

        Returns:
            Whether nothing is left to forget.
        """
        ...

    async def list_namespaces(self) -> Sequence[str]:
        """List the namespaces that have executions, in order."""
        ...
