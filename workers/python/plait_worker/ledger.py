"""The attempts that a worker holds, from the assign to the last message about them.

The phases of an attempt and the ways between them stand in one table. Beside the attempts held the last
10,000 that ended are remembered, so that a late copy of an assign starts no second handler, and a late
cancel is answered as the first was.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, assert_never

from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker import messages
from plait_worker.limits import ENDED_TOKENS_MAX, UNRECORDED_MAX
from plait_worker.outbox import Outbox
from plait_worker.usage import add_amount, parse_amount


# IntEnums: their hash is int's own, in C; these are looked up for every attempt.
class Phase(enum.IntEnum):
    """How far a held attempt is."""

    RUNNING = 1
    """Its handler runs."""
    CANCELLING = 2
    """A cancel was requested; the handler has not ended."""
    AWAITING_CANCEL = 3
    """The driver cancelled the handler by itself, it ended, and the server has not asked for that yet."""
    FINISHED = 4
    """There is a result, not yet recorded."""
    GONE = 5
    """It is not held any more."""


class Trigger(enum.IntEnum):
    """What may happen to a held attempt."""

    RESULT = 1
    """Its handler gave a result or failed."""
    EXITED = 2
    """Its handler ended because it was cancelled."""
    HANDED_BACK = 3
    """The driver hands it back."""
    CANCEL = 4
    """The server asks to cancel it."""
    RECORDED = 5
    """The server acknowledged its result."""


class Action(enum.IntEnum):
    """What is to be done then."""

    NONE = 0
    """Nothing."""
    SEND_RESULT = 1
    """The result is queued and kept."""
    SEND_EXITED = 2
    """`exited` is queued."""
    SEND_REJECT = 3
    """`reject` is queued."""
    REQUEST_CANCEL = 4
    """The driver is told to cancel the handler."""
    FORGET = 5
    """The result is not kept any longer."""


# Keys that are missing cannot come up; `running` and `unrecorded` say which triggers may.
# A result of an attempt whose cancel was requested is not sent: the server has decided (T6), and waits
# for `exited`. `recorded` for a running attempt can only mean that it is not the current one.
_TRANSITIONS: Final[Mapping[tuple[Phase, Trigger], tuple[Phase, Action]]] = {
    (Phase.RUNNING, Trigger.RESULT): (Phase.FINISHED, Action.SEND_RESULT),
    (Phase.RUNNING, Trigger.EXITED): (Phase.AWAITING_CANCEL, Action.NONE),
    (Phase.RUNNING, Trigger.HANDED_BACK): (Phase.GONE, Action.SEND_REJECT),
    (Phase.RUNNING, Trigger.CANCEL): (Phase.CANCELLING, Action.REQUEST_CANCEL),
    (Phase.RUNNING, Trigger.RECORDED): (Phase.CANCELLING, Action.REQUEST_CANCEL),
    (Phase.CANCELLING, Trigger.RESULT): (Phase.GONE, Action.SEND_EXITED),
    (Phase.CANCELLING, Trigger.EXITED): (Phase.GONE, Action.SEND_EXITED),
    (Phase.CANCELLING, Trigger.HANDED_BACK): (Phase.GONE, Action.SEND_EXITED),
    (Phase.CANCELLING, Trigger.CANCEL): (Phase.CANCELLING, Action.NONE),
    (Phase.CANCELLING, Trigger.RECORDED): (Phase.CANCELLING, Action.NONE),
    (Phase.AWAITING_CANCEL, Trigger.HANDED_BACK): (Phase.GONE, Action.SEND_REJECT),
    (Phase.AWAITING_CANCEL, Trigger.CANCEL): (Phase.GONE, Action.SEND_EXITED),
    (Phase.AWAITING_CANCEL, Trigger.RECORDED): (Phase.GONE, Action.SEND_EXITED),
    (Phase.FINISHED, Trigger.CANCEL): (Phase.FINISHED, Action.SEND_EXITED),
    (Phase.FINISHED, Trigger.RECORDED): (Phase.GONE, Action.FORGET),
}


class AttemptNotHeld(LookupError):
    """The attempt has no running handler here: its end was reported before, or it was never assigned.

    This is a mistake of the driver, which must report the end of a handler exactly once.
    """

    def __init__(self) -> None:
        # The token is secret and does not appear.
        super().__init__(
            "the attempt has no running handler here: its end was reported before, or it was never assigned"
        )


class HeldAttempt:
    """An attempt that a worker holds. A plain slotted class: it changes, and is made by the thousand."""

    __slots__ = ("heartbeat", "phase", "result", "token", "type", "usage")

    def __init__(self, token: str, type_: str) -> None:
        self.token: Final = token
        self.type: Final = type_
        self.phase = Phase.RUNNING
        self.usage: dict[str, Decimal] = {}
        """What it used so far, by unit."""
        self.result: hub.WorkerMessage | None = None
        """`complete`, `fail` or `reject`, once its handler ended so."""
        self.heartbeat: hub.WorkerMessage | None = None
        """Its newest heartbeat that had details."""


class Ledger:
    """The attempts of one session. Only the session changes it."""

    def __init__(self, types: Mapping[str, int], outbox: Outbox) -> None:
        self._types = types
        self._outbox = outbox
        self.running: dict[str, HeldAttempt] = {}
        """Attempts that run as far as the server knows, in the order of their coming."""
        self.unrecorded: dict[str, HeldAttempt] = {}
        """Attempts that are FINISHED, in the order in which they became so."""
        self._running_by_type = dict.fromkeys(types, 0)
        # Token to what to answer when the attempt is assigned or cancelled again; None: its result was taken.
        self._ended: OrderedDict[str, hub.WorkerMessage | None] = OrderedDict()
        self.assigned = 0
        """Attempts taken."""
        self.duplicates = 0
        """Assigns of attempts that are held, or have ended."""
        self.rejected = 0
        """Assigns turned away."""
        self.exited = 0
        """Cancelled handlers that ended."""

    def find(self, token: str) -> HeldAttempt | None:
        """Find an attempt that is held."""
        return self.running.get(token) or self.unrecorded.get(token)

    def take(self, token: str, type_: str, slots: int, *, is_draining: bool) -> bool:
        """Take an attempt, or turn it away, which is queued.

        That it was taken is not said: nothing follows from an `accept`, and of an attempt that takes a while it would
        be a frame of its own.

        Returns:
            Whether its handler is to be started now: it was taken, and is no duplicate.
        """
        if token in self.running or token in self.unrecorded:
            self.duplicates += 1
            attempt = self.unrecorded.get(token)
            if attempt is not None and attempt.result is not None and not self._outbox.holds(attempt.result):
                # Whoever assigns it again has not kept its result.
                self._queue(attempt.result)
            return False
        if token in self._ended:
            self._answer_duplicate(token)
            return False
        problem = self._problem_with(type_, slots, is_draining=is_draining)
        if problem is not None:
            self.rejected += 1
            rejection = messages.reject(token, *problem)
            # Remembered, or a second copy of the assign might find a free slot and run what was turned away.
            self._remember(token, rejection)
            self._outbox.add_result(rejection)
            return False
        self.assigned += 1
        self.running[token] = HeldAttempt(token, type_)
        self._running_by_type[type_] += 1
        return True

    def end(self, token: str, usage: Mapping[str, Decimal]) -> HeldAttempt:
        """Return the attempt of a handler that ended, and add up its usage.

        Raises:
            AttemptNotHeld: if the attempt has no running handler here.
        """
        attempt = self.running.get(token)
        if attempt is None or attempt.phase is Phase.AWAITING_CANCEL:
            raise AttemptNotHeld
        for unit, amount in usage.items():
            add_amount(attempt.usage, unit, parse_amount(amount))
        return attempt

    def step(self, attempt: HeldAttempt, trigger: Trigger) -> Action:
        """Move an attempt to its next phase, and queue the messages in the table."""
        attempt.phase, action = _TRANSITIONS[attempt.phase, trigger]
        token = attempt.token
        match action:
            case Action.SEND_RESULT:
                self._release(attempt)
                self.unrecorded[token] = attempt
                self._queue(attempt.result)
            case Action.SEND_EXITED:
                exited = messages.exited(token, attempt.usage)
                if attempt.phase is Phase.GONE:
                    self._release(attempt)
                    self._remember(token, exited)
                    self.exited += 1
                self._outbox.add_result(exited)
            case Action.SEND_REJECT:
                self._release(attempt)
                self._remember(token, attempt.result)
                self._queue(attempt.result)
            case Action.FORGET:
                del self.unrecorded[token]
                self._remember(token, None)
            case Action.REQUEST_CANCEL | Action.NONE:
                pass
            case _:
                assert_never(action)
        return action

    def answer_late_cancel(self, token: str) -> None:
        """Queue `exited` for an attempt that is not held: the server's receipts are to become complete."""
        answer = self._ended.get(token)
        if answer is None or not answer.HasField("exited"):
            answer = messages.exited(token, {})
        self._outbox.add_result(answer)

    def heartbeat(self, token: str, details_json: str | None) -> None:
        """Queue a heartbeat of an attempt that runs, with the newest details."""
        attempt = self.running.get(token)
        if attempt is None:
            return
        if details_json is not None:
            attempt.heartbeat = messages.heartbeat(token, details_json)
            self._outbox.set_heartbeat(token, attempt.heartbeat)
        elif not self._outbox.has_heartbeat(token):
            self._outbox.set_heartbeat(token, messages.heartbeat(token, None))

    def requeue(self) -> None:
        """Queue for a new stream the results not yet recorded, and the newest details of attempts that run."""
        self._outbox.requeue(
            attempt.result for attempt in self.unrecorded.values() if attempt.result is not None
        )
        for token, attempt in self.running.items():
            if attempt.heartbeat is not None:
                self._outbox.set_heartbeat(token, attempt.heartbeat)

    def in_flight(self) -> list[hub.InFlight]:
        """Return the attempts whose end the server has not acknowledged."""
        # Keys in order, without duplicates.
        unended = dict.fromkeys((*self.running, *self._outbox.tokens_owed))
        return [
            *(hub.InFlight(token=token) for token in unended if token not in self.unrecorded),
            *(hub.InFlight(token=token, finished=True) for token in self.unrecorded),
        ]

    def _problem_with(self, type_: str, slots: int, *, is_draining: bool) -> tuple[str, str] | None:
        if is_draining:
            return "DRAINING", "the worker takes nothing new"
        running = self._running_by_type.get(type_)
        if running is None:
            return "UNKNOWN_TYPE", f"the worker does not serve the node type {type_!r}"
        type_max = self._types[type_]
        if len(self.running) >= slots or (type_max and running >= type_max):
            return "NO_SLOT", f"{len(self.running)} of {slots} slots are taken, {running} by {type_}"
        if len(self.unrecorded) >= UNRECORDED_MAX:
            return "NO_SLOT", f"{UNRECORDED_MAX} results wait to be recorded"
        return None

    def _answer_duplicate(self, token: str) -> None:
        self.duplicates += 1
        answer = self._ended[token]
        if answer is None:
            # A server that lost what it had recorded (an old backup) would wait for ever; others ignore this.
            text = "the attempt was run here before and its result was taken"
            answer = messages.reject(token, "ALREADY_ENDED", text)
        self._outbox.add_result(answer)

    def _queue(self, result: hub.WorkerMessage | None) -> None:
        if result is not None:
            self._outbox.add_result(result)

    def _release(self, attempt: HeldAttempt) -> None:
        if self.running.pop(attempt.token, None) is not None:
            self._running_by_type[attempt.type] -= 1
        # Its totals are in its result.
        self._outbox.drop_usage(attempt.token)

    def _remember(self, token: str, answer: hub.WorkerMessage | None) -> None:
        self._ended[token] = answer
        if len(self._ended) > ENDED_TOKENS_MAX:
            self._ended.popitem(last=False)
