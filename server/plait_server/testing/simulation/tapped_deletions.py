"""Tells which executions were taken out of a store, and breaks deletions where it is told to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from plait_server.ports.audit import ActionRecord
from plait_server.ports.deletions import DeleteResult, DeletionBegun, Deletions
from plait_server.ports.journal import RequestRecord


class TappedDeletions:
    """The `Deletions` of a `TappedJournal`.

    Args:
        inner: Those of the store beneath.
        before: Called before something is written; breaks if it is time.
        after: Called after that; breaks if it is time.
        note: Called with the id of each execution that was taken out.
    """

    def __init__(
        self,
        inner: Deletions,
        *,
        before: Callable[[], None],
        after: Callable[[], None],
        note: Callable[[str], None],
    ) -> None:
        self._inner = inner
        self._before = before
        self._after = after
        self._note = note
        self._is_idle = False

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
        """Take an execution out of the store."""
        self._before()
        result = await self._inner.begin(
            namespace, execution_id, now_s=now_s, is_corrupt=is_corrupt, action=action, request=request
        )
        if isinstance(result, DeletionBegun):
            self._note(execution_id)
            self._is_idle = False
        self._after()
        return result

    async def begin_expired(
        self,
        namespace: str,
        *,
        ended_before_s: float,
        now_s: float,
        limit: int,
        is_busy: Callable[[str], bool],
    ) -> Sequence[str]:
        """Take executions that ended before a time out of the store."""
        expired = await self._inner.begin_expired(
            namespace, ended_before_s=ended_before_s, now_s=now_s, limit=limit, is_busy=is_busy
        )
        for execution_id in expired:
            self._note(execution_id)
        if expired:
            self._is_idle = False
            self._after()
        return expired

    async def delete_some(self, *, rows_max: int, bytes_max: int) -> bool:
        """Delete a few rows of executions that were taken out; far fewer than a server wants, so that it is cut."""
        if not self._is_idle:
            self._before()
        self._is_idle = await self._inner.delete_some(rows_max=min(rows_max, 5), bytes_max=bytes_max)
        if not self._is_idle:
            self._after()
        return self._is_idle

    async def forget_some(self, *, now_s: float, actions_before_s: float, limit: int) -> bool:
        """Forget old records of requests and actions."""
        return await self._inner.forget_some(now_s=now_s, actions_before_s=actions_before_s, limit=limit)

    async def list_namespaces(self) -> Sequence[str]:
        """List the namespaces that have executions."""
        return await self._inner.list_namespaces()
