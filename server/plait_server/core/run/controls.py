"""What callers do to a running execution: cancel, pause, resume, update (C1, C2, C10), and the receipts of workers.

Whatever may affect all nodes of a large graph is an iterator, as in `stopping`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from plait_server.core.run.attempts import Attempts
from plait_server.core.run.beginning import Beginnings
from plait_server.core.run.commands import (
    Audit,
    Cancel,
    ChangeCapacity,
    Pause,
    Receipt,
    Resume,
    Update,
)
from plait_server.core.run.ending import Decider
from plait_server.core.run.events import (
    CancelReceipt,
    CancelRequested,
    ExecutionDetail,
    ExecutionPaused,
    ExecutionResumed,
    ExecutionUpdated,
    PauseRequested,
)
from plait_server.core.run.states import ExecutionState, PauseMode
from plait_server.core.run.stopping import abort_attempts, cancel_open_nodes
from plait_server.core.run.timers import scope_timers


class Controlled(Decider, Protocol):
    """The part of the machine that controls use."""

    def emit_execution(self, detail: ExecutionDetail, state: ExecutionState | None, reason: str = "") -> None:
        """Decide an event about the execution."""


class Controls:
    """Handles the requests of callers. It has no state of its own."""

    def __init__(self, machine: Controlled, beginnings: Beginnings, attempts: Attempts) -> None:
        self._machine = machine
        self._beginnings = beginnings
        self._attempts = attempts

    def on_cancel(self, cancel: Cancel) -> Iterator[None] | None:
        """Cancel the execution; return the steps that cancel its nodes, if it was open (C1)."""
        execution = self._machine.execution
        if execution.is_cancelling or execution.is_ended:
            return None
        self._machine.emit_execution(
            CancelRequested(cancel.message), ExecutionState.CANCELLING, cancel.message
        )
        return cancel_open_nodes(self._machine, execution.root, "", receipts=True)

    def on_pause(self, pause: Pause) -> Iterator[None] | None:
        """Pause the execution; return the steps that withdraw its offers and, if asked to, abort its attempts (C2).

        A paused execution stays as it is; but a second request may abort what the first let finish.
        """
        execution = self._machine.execution
        is_repeated = execution.state is ExecutionState.PAUSED or (
            execution.state is ExecutionState.PAUSING
            and (pause.mode is PauseMode.WAIT or execution.pause_mode is PauseMode.ABORT)
        )
        if is_repeated or execution.is_cancelling or execution.is_ended:
            return None
        self._machine.emit_execution(
            PauseRequested(pause.mode, pause.message), ExecutionState.PAUSING, pause.message
        )
        return self._hold(pause.mode)

    def on_resume(self, resume: Resume) -> None:
        """Let a paused execution go on; one that had not started is queued again."""
        execution = self._machine.execution
        if execution.is_paused:
            state = ExecutionState.RUNNING if execution.is_started else ExecutionState.QUEUED
            self._machine.emit_execution(ExecutionResumed(resume.data, resume.message), state)

    def on_update(self, update: Update) -> Iterator[None] | None:
        """Change the settings of the execution; nothing that runs is stopped (C10).

        Return the steps that withdraw its offers, to be sent again with a new priority.
        """
        machine = self._machine
        execution = machine.execution
        if execution.is_cancelling or execution.is_ended:
            return None
        before = execution.priority
        machine.emit_execution(ExecutionUpdated(update.priority, update.policy, update.locks), None)
        machine.ask(ChangeCapacity(execution.root.policy.execution_limit, execution.priority))
        if execution.is_started:
            for timer in scope_timers(execution, execution.root, machine.now_s):
                machine.ask(timer)
        for lock in update.locks:
            record = execution.find(lock.node_path)
            if record is not None and not record.scope.is_closed:
                self._beginnings.reconsider(record)
        return self._beginnings.withhold_offers() if execution.priority != before else None

    def continue_pause(self) -> Iterator[None]:
        """Continue a pause after a replay, in which nothing is offered."""
        return self._hold(self._machine.execution.pause_mode)

    def end_pausing(self) -> None:
        """Record that no attempt runs any more."""
        execution = self._machine.execution
        if execution.state is ExecutionState.PAUSING and not execution.attempts_running:
            self._machine.emit_execution(ExecutionPaused(), ExecutionState.PAUSED, execution.reason)

    def on_receipt(self, receipt: Receipt) -> None:
        """Record how far the cancel of an attempt has come: an event of a cancelled execution, else an audit entry."""
        execution = self._machine.execution
        key = (receipt.node_path, receipt.attempt)
        if receipt.stage.is_final:
            # Before the receipt, which may be the last thing that the end of the run waits for.
            self._attempts.on_usage(receipt.node_path, receipt.attempt, receipt.usage)
        before = execution.receipts.get(key)
        if execution.is_cancelling and before is not None:
            if before < receipt.stage:
                detail = CancelReceipt(receipt.stage, receipt.worker_id)
                self._machine.emit_late(detail, receipt.node_path, receipt.attempt)
            return
        audit = Audit(
            "CANCEL_RECEIPT",
            receipt.node_path,
            receipt.attempt,
            receipt.worker_id,
            f'{{"stage":"{receipt.stage.name}"}}',
        )
        self._machine.ask(audit)

    def _hold(self, mode: PauseMode) -> Iterator[None]:
        yield from self._beginnings.withhold_offers()
        if mode is PauseMode.ABORT:
            yield from abort_attempts(self._machine, self._machine.execution.root)
