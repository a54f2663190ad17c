"""The timeouts of nodes that wait for capacity, and for a worker that serves their type (T4, T5).

Since when a node waits follows from events, so a restart does not begin its waits anew. How long its type has been
without a worker only the allocator knows: the runtime says so when the timer expires. A worker that has come and
gone in between has begun the wait for a worker anew. While the execution is paused, nothing is offered and no wait goes
on. Where it cannot be told how a pause, a backoff and the absence of workers overlap, a wait ends late, never early.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from plait_server.core.definition.graph import DEFAULT_TIMEOUTS, Scheduling, Task
from plait_server.core.run.commands import SetTimer, TimerDue, TimerKind
from plait_server.core.run.ending import Decider, Endings
from plait_server.core.run.failures import DEADLINE_EXCEEDED, Failure
from plait_server.core.run.scope import NodeRecord
from plait_server.core.run.states import Reason
from plait_server.core.run.timers import CLOCK_S

WORKER_GRACE_S: Final = 60.0
"""The least time that workers have after a restart; before they have attached again no type is served."""
LOOK_AGAIN_S: Final = 1.0
"""The least time between two looks at a type that is served, so that a timeout of a millisecond makes no busy loop."""
LOOK_AGAIN_EACH_S: Final = 0.001
"""The same for each waiting node: at most 1,000 looks a second in an execution."""
_LACKED: Final = {
    Reason.NO_WORKER: "a worker that serves {type}",
    "WORKER_SLOTS": "a free slot of a worker that serves {type}",
    "NODE_TYPE_LIMIT": "a permit of the node type {type}",
    "KEY_LIMIT": "the permit of its concurrency key",
    "EXECUTION_LIMIT": "a permit of the execution",
    "NAMESPACE_LIMIT": "a permit of the namespace",
    "SERVER_LIMIT": "a permit of the server",
}


class _Offer(NamedTuple):
    turn: int
    sent_s: float
    """The wall time at which it was sent."""


class Waits:
    """The offered nodes that wait with a timeout."""

    def __init__(self, machine: Decider, endings: Endings) -> None:
        self._machine = machine
        self._endings = endings
        self._turns = 0
        self._offers: dict[str, _Offer] = {}

    def __repr__(self) -> str:
        return f"<Waits of {len(self._offers)} nodes>"

    def begin(self, record: NodeRecord) -> None:
        """Set the timers of a node that is offered, for the first time or again."""
        timeouts = record.node.timeouts or DEFAULT_TIMEOUTS
        if not (timeouts.queue_s or timeouts.worker_s):
            return
        self._turns += 1
        self._offers[record.path] = _Offer(self._turns, self._machine.now_s)
        waited_s = self._waited_s(record)
        if timeouts.queue_s:
            self._set(record, TimerKind.QUEUE_TIMEOUT, timeouts.queue_s - waited_s)
        if timeouts.worker_s:
            least_s = min(timeouts.worker_s, WORKER_GRACE_S)
            self._set(record, TimerKind.WORKER_TIMEOUT, max(timeouts.worker_s - waited_s, least_s))

    def forget(self, node_path: str) -> None:
        """Drop the waits of a node that is not offered any more. Idempotent."""
        self._offers.pop(node_path, None)

    def on_timer(self, record: NodeRecord, timer: TimerDue) -> None:
        """End a node whose wait was too long, or look again later."""
        offer, kind = self._offers.get(record.path), record.node.kind
        is_current = offer is not None and offer.turn == timer.turn and not self._machine.execution.is_paused
        if offer is None or not is_current or not isinstance(kind, Task):
            return  # After a pause the offer is sent again, with new timers.
        timeouts = record.node.timeouts or DEFAULT_TIMEOUTS
        if timer.kind is TimerKind.QUEUE_TIMEOUT:
            lacked = _LACKED.get(timer.lacking, timer.lacking or "its turn").format(type=kind.type)
            text = f"the node waited {timeouts.queue_s:g} s for capacity, its timeouts.queue, and lacked {lacked}"
            self._end(record, f"{text}; give it more time or capacity")
            return
        if not timer.unserved_s:
            least_s = max(LOOK_AGAIN_S, LOOK_AGAIN_EACH_S * len(self._offers))
            self._set(record, timer.kind, max(timeouts.worker_s, least_s))
            return
        left_s = timeouts.worker_s - min(self._waited_s(record), self._unserved_s(record, timer, offer))
        if left_s > CLOCK_S:
            self._set(record, timer.kind, left_s)
            return
        text = (
            f"the node waited {timeouts.worker_s:g} s, its timeouts.worker, and no worker served {kind.type}"
        )
        self._end(record, f"{text}; start a worker that does, or correct the type")

    # Inside.

    def _set(self, record: NodeRecord, kind: TimerKind, delay_s: float) -> None:
        turn = self._offers[record.path].turn
        self._machine.ask(SetTimer(kind, record.path, len(record.attempts), max(0.0, delay_s), turn))

    def _end(self, record: NodeRecord, message: str) -> None:
        self._machine.forget(record)
        failure = Failure(code=DEADLINE_EXCEEDED, message=message, node_path=record.path)
        self._endings.begin_timeout(record, None, failure)

    def _unserved_s(self, record: NodeRecord, timer: TimerDue, offer: _Offer) -> float:
        """Return for how long no worker has served a node's type, without pauses of its wait."""
        since_offer_s = self._machine.now_s - offer.sent_s
        if timer.unserved_s <= since_offer_s:
            return timer.unserved_s
        return max(since_offer_s, timer.unserved_s - self._paused_s(record))

    def _waited_s(self, record: NodeRecord) -> float:
        """Return the seconds for which a node has waited, without pauses."""
        return max(0.0, self._machine.now_s - _since(record)[0] - self._paused_s(record))

    def _paused_s(self, record: NodeRecord) -> float:
        """Return the seconds of its wait in which the execution was paused; more if it was paused in a backoff."""
        machine = self._machine
        return max(0.0, machine.execution.paused_total_s(machine.now_s) - _since(record)[1])


def _since(record: NodeRecord) -> tuple[float, float]:
    """Return the wall time since when an offered node waits, and how long the execution had been paused by then."""
    scope = record.scope
    if scope.graph.scheduling is Scheduling.LEVELS and scope.level_s > record.ready_s:
        return scope.level_s, scope.level_paused_s
    return record.ready_s, record.ready_paused_s
