"""The running slot of one live execution: held while anything goes on in it (Q3)."""

from __future__ import annotations

from typing import Final

from plait_server.core.run.execution import Execution
from plait_server.core.run.states import ExecutionState, NodeState
from plait_server.runtime.admission import Admission, Key

WITHOUT_SLOT: Final = frozenset({ExecutionState.QUEUED, ExecutionState.PAUSED})
"""The states in which an execution holds no slot, whatever goes on in it."""


class RunningSlot:
    """Tells admission whether an execution holds a slot, when that changes."""

    def __init__(self, admission: Admission, key: Key) -> None:
        self._admission = admission
        self._key = key
        self._is_held: bool | None = None
        """What admission was told last; None before."""

    def __repr__(self) -> str:
        return f"<RunningSlot of {self._key[1]}, held={self._is_held}>"

    def queue_due_s(self, execution: Execution) -> float | None:
        """Return when the execution's wait to begin ends (wall time); None if it does not wait, or for ever."""
        if execution.state is not ExecutionState.QUEUED:
            return None
        return self._admission.due_time_s(self._key[0], execution.created_s)

    def note(self, execution: Execution, *, is_busy: bool) -> None:
        """Take or give back the slot.

        A node that backs off keeps it: else a broken dependency would let in execution after execution, all of which
        fail and are retried.

        Args:
            execution: The execution after a step.
            is_busy: Whether anything runs, waits for capacity or is to be decided.
        """
        goes_on = is_busy or execution.totals.state_counts[NodeState.BACKING_OFF] > 0
        is_held = goes_on and execution.state not in WITHOUT_SLOT
        if is_held is self._is_held:
            return
        self._is_held = is_held
        if is_held:
            self._admission.hold(self._key)
        elif execution.state is not ExecutionState.QUEUED:
            self._admission.release(self._key)
