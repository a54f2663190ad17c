"""The server's state of a worker: its stream, if it has one, its lease, and the attempts it holds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final

import trio

from plait_server.adapters.workers.attempt_reports import Quota
from plait_server.adapters.workers.reading import USAGE_UNITS_MAX
from plait_server.adapters.workers.session_events import Hello, Used
from plait_server.adapters.workers.streams import Stream
from plait_server.core.limits import MIB
from plait_server.core.run.commands import AttemptResult
from plait_server.core.run.failures import INVALID_RESULT, WORKER_LOST, Failure
from plait_server.core.run.states import AttemptOutcome, CancelStage
from plait_server.errors import LeaseExpired
from plait_server.ports.workers import Assignment, AttemptListener, WorkerSnapshot

logger = logging.getLogger(__name__)

QUIET_INTERVALS: Final = 2
DETAILS_BYTES_MAX: Final = 32 * MIB
"""The details of heartbeats that one worker's attempts may leave in memory: a thousand of the largest."""
LEASE_INTERVALS: Final = 3
"""A lease is three ping intervals: one lost answer is an accident, three are a death."""


class Held:
    """An attempt that a worker has, or is about to receive."""

    __slots__ = (
        "assignment",
        "details_bytes",
        "done",
        "exit_usage",
        "exited",
        "is_delivered",
        "listener",
        "reason",
        "result",
        "token",
        "units",
        "usage_problem",
    )

    def __init__(self, token: str, assignment: Assignment, listener: AttemptListener) -> None:
        self.token = token
        self.assignment = assignment
        self.listener = listener
        self.done = trio.Event()
        self.exited = trio.Event()
        self.exit_usage: Mapping[str, str] | None = None
        """Its total usage, as its worker reports at its end."""
        self.result: AttemptResult | None = None
        self.reason = ""
        """The reason for its cancel; empty if it is not being cancelled."""
        self.is_delivered = False
        """Whether its cancel is known to have reached the worker's stream."""
        self.details_bytes = 0
        """The size of the details of its latest heartbeat."""
        self.units: dict[str, None] = {}
        """The units that it has reported so far."""
        self.usage_problem = ""
        """Why some of its usage cannot be counted."""

    def take_usage(self, used: Used) -> None:
        """Record a report of usage; usage that cannot be counted fails the attempt when it ends (U1)."""
        problem = used.problem
        if not problem and used.unit not in self.units and len(self.units) >= USAGE_UNITS_MAX:
            problem = f"usage {used.unit!r} is one more than {USAGE_UNITS_MAX} units; report fewer"
        if problem:
            self.usage_problem = self.usage_problem or problem
            return
        self.units[used.unit] = None
        self.listener.on_heard()
        self.listener.on_usage(used.unit, used.amount)

    def with_usage_problem(self, result: AttemptResult) -> AttemptResult:
        """Turn a success into a failure if some usage could not be counted."""
        if not self.usage_problem or result.outcome is not AttemptOutcome.SUCCEEDED:
            return result
        key = self.assignment.key
        failure = Failure(
            code=INVALID_RESULT, message=self.usage_problem, node_path=key.node_path, attempt=key.attempt
        )
        return result._replace(outcome=AttemptOutcome.FAILED, output=None, failure=failure)

    def note_delivered(self) -> None:
        """Return the receipt DELIVERED, once."""
        if not self.is_delivered:
            self.is_delivered = True
            self.listener.on_receipt(CancelStage.DELIVERED)

    def end(self, result: AttemptResult) -> None:
        """Wake the task that waits for its result."""
        self.result = result
        self.done.set()

    def lose(self, worker_id: str, lease_s: float) -> None:
        """End it as LOST with its worker."""
        key = self.assignment.key
        failure = Failure(
            code=WORKER_LOST,
            message=f"the worker {worker_id} was lost: nothing was heard of it for {lease_s:g} s, or it came back "
            "without the attempt",
            node_path=key.node_path,
            attempt=key.attempt,
        )
        outcome = AttemptOutcome.LOST
        self.end(AttemptResult(key.node_path, key.attempt, outcome, failure=failure, worker_id=worker_id))


class WorkerInstance:
    """One process instance of a worker."""

    def __init__(self, namespace: str, worker_id: str, instance_id: str, ping_s: float) -> None:
        self.namespace = namespace
        self.worker_id = worker_id
        self.instance_id = instance_id
        self.key = namespace, instance_id
        """What it is found by: its id is unique in its namespace alone, so that no other one learns of it."""
        self.hello: Hello | None = None
        self.stream: Stream | None = None
        self.held: dict[str, Held] = {}
        self.at_worker: dict[str, None] = {}
        """Tokens that were sent to it, or that it named, and whose attempts have not ended."""
        self.slots = 0
        self.is_draining = False
        self.is_paused = False
        self.attached_s = 0.0
        self.heard_s = trio.current_time()
        """The trio time of its last message."""
        self.quota = Quota()
        """The quota for reports on its attempts."""
        self._ping_s = ping_s
        self._details_bytes = 0
        """Bytes of the details of heartbeats, of all attempts that it holds."""

    def __repr__(self) -> str:
        state = "attached" if self.stream is not None else "detached"
        return f"<WorkerInstance {self.worker_id} {state}, {len(self.held)} attempts>"

    @property
    def lease_end_s(self) -> float:
        """The trio time at which its attempts are lost, if it stays silent."""
        return self.heard_s + LEASE_INTERVALS * self._ping_s

    @property
    def is_quiet(self) -> bool:
        """Whether it owes two answers; then it gets no new attempts."""
        return trio.current_time() >= self._quiet_s

    @property
    def open_slots(self) -> int:
        """How many attempts it accepts at once now; 0 if none."""
        is_closed = self.is_draining or self.is_paused or self.stream is None or self.is_quiet
        return 0 if is_closed else self.slots

    @property
    def _quiet_s(self) -> float:
        return self.heard_s + QUIET_INTERVALS * self._ping_s

    async def watch(self, stream: Stream, on_quiet: Callable[[WorkerInstance], None]) -> None:
        """Ping it at every interval, and end its stream when its lease runs out.

        Args:
            stream: Its stream.
            on_quiet: Called when it becomes quiet.
        """
        ping_due_s = trio.current_time() + self._ping_s
        while True:
            await trio.sleep_until(min(ping_due_s, self.lease_end_s if self.is_quiet else self._quiet_s))
            # The same sums as for the sleep: a difference may be rounded down, and this loop would spin.
            if trio.current_time() >= self.lease_end_s:
                logger.warning("worker %s does not answer its pings; its stream is dropped", self.worker_id)
                stream.end(LeaseExpired())
                return
            if self.is_quiet:
                on_quiet(self)
            if trio.current_time() >= ping_due_s:
                ping_due_s += self._ping_s
                stream.ping()

    def take_report(self, held: Held, details_json: str) -> None:
        """Note that the worker reported something of an attempt, perhaps with the details of a heartbeat.

        Details that do not fit into what one worker may leave here are dropped; the older ones are kept.
        """
        if self._details_bytes + len(details_json) - held.details_bytes > DETAILS_BYTES_MAX:
            details_json = ""
        if details_json:
            self._details_bytes += len(details_json) - held.details_bytes
            held.details_bytes = len(details_json)
        held.listener.on_heard(details_json)

    def drop(self, held: Held) -> None:
        """Forget an attempt that nothing waits for any more."""
        self._details_bytes -= held.details_bytes
        if (
            self.held.get(held.token) is held
        ):  # Otherwise the execution was read again, and waits for it anew.
            del self.held[held.token]

    def snapshot(self, slots_in_use: int, offset_s: float) -> WorkerSnapshot:
        """Describe the worker; `offset_s` converts trio's time to wall time."""
        hello = self.hello
        return WorkerSnapshot(
            namespace=self.namespace,
            worker_id=self.worker_id,
            instance_id=self.instance_id,
            is_attached=self.stream is not None,
            is_draining=self.is_draining,
            types=hello.types if hello is not None else {},
            slots=self.slots,
            slots_in_use=slots_in_use,
            labels=hello.labels if hello is not None else {},
            attached_time_s=self.attached_s + offset_s if self.attached_s else 0.0,
            heard_time_s=self.heard_s + offset_s,
            sdk=hello.sdk if hello is not None else "",
        )
