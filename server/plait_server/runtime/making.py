"""The first append of an execution: its submission together with the events of its first step.

So a submission needs no commit of its own, and its first attempts start with it. Until it is durable the execution is
not visible (A2): it has no location yet, and its executor has not acted. If the append is refused, the executor returns
its grants and ends.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import trio

from plait_server.errors import ShuttingDown
from plait_server.ports.journal import Appended, AppendItem, AppendResult
from plait_server.runtime.committer import Committer


class NotMade(Exception):
    """An execution was refused, or could not be made durable; its submitter has been told why."""


class Making:
    """An execution that is not durable yet.

    Args:
        committer: Makes it durable.
        item: The item of its submission.
        on_durable: Called when it is durable, before anything else happens to it.
    """

    def __init__(self, committer: Committer, item: AppendItem, on_durable: Callable[[], None]) -> None:
        self._committer = committer
        self.item = item
        self._on_durable = on_durable
        self._done = trio.Event()
        self._result: AppendResult | None = None
        self._error: Exception | None = None

    def __repr__(self) -> str:
        return f"<Making {self.item.execution_id}, done={self._done.is_set()}>"

    async def wait(self) -> AppendResult:
        """Wait for the result of the submission.

        Raises:
            JournalFull, ShuttingDown: Nothing was accepted.
            JournalUnavailable: It is unknown whether the submission was accepted.
        """
        await self._done.wait()
        if self._error is not None:
            raise self._error
        assert self._result is not None  # set together with `done`
        return self._result

    def give_up(self) -> None:
        """Fail the waiting submission if the executor ended before its first append."""
        if not self._done.is_set():
            self._error = ShuttingDown()
            self._done.set()

    async def append(self, item: AppendItem) -> AppendResult:
        """Make the submission durable together with the item of the first step. A cancel waits for the result.

        Raises:
            NotMade: The submission was refused, or the store failed.
        """
        joined = dataclasses.replace(
            item,
            events=[*self.item.events, *item.events],
            row=item.row or self.item.row,
            contents={**self.item.contents, **item.contents},
            request=self.item.request,
            action=self.item.action,
        )
        try:
            with trio.CancelScope(shield=True):
                self._result = await self._committer.append(joined)
        except Exception as error:  # Whoever waits for the submission is to be told, whatever it was.
            self._error = error
            raise NotMade from error
        finally:
            self._done.set()
        if not isinstance(self._result, Appended):
            raise NotMade
        self._on_durable()
        return self._result
