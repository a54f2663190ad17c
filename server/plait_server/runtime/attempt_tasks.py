"""The attempts of one execution: a task for each.

A task runs an attempt and posts how it ended; every kind of cancel goes through its cancel scope. The permits that
an attempt holds are in `permits`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import trio

from plait_server.core.definition.graph import DEFAULT_TIMEOUTS, Task
from plait_server.core.run.closed_scope import NodeAttempt
from plait_server.core.run.commands import (
    AttemptResult,
    ExtendAttempt,
    Input,
    InputMade,
    Receipt,
    SetTimer,
    TimerDue,
    TimerKind,
)
from plait_server.core.run.events import AttemptEnded, Event
from plait_server.core.run.machine import Machine
from plait_server.core.run.payload import NULL, Payload
from plait_server.core.run.states import AttemptOutcome, CancelStage
from plait_server.core.run.timers import attempt_deadline_s
from plait_server.core.run.trace import SpanIds, read_trace_context
from plait_server.errors import InvariantViolated
from plait_server.ports.workers import Assignment, AttemptKey
from plait_server.runtime.answers import Answers
from plait_server.runtime.content_store import ContentMissing, ContentStore
from plait_server.runtime.environment import Environment
from plait_server.runtime.permits import Permits

_BY_REPORT: Final = (
    AttemptOutcome.SUCCEEDED,
    AttemptOutcome.FAILED,
    AttemptOutcome.RETURNED,
    AttemptOutcome.LOST,
)
"""The outcomes reported by workers, after which a task has nothing to wait for."""


class _Running:
    """An attempt's task; receives its worker's reports."""

    __slots__ = ("_attempt", "_machine", "_node_path", "_post", "_worker_id", "heard_s", "reason", "scope")

    def __init__(self, held: NodeAttempt, machine: Machine, post: Callable[[Input], None]) -> None:
        self._node_path = held.node_path
        self._attempt = held.attempt.number
        self._worker_id = held.attempt.worker_id
        self._machine = machine
        self._post = post
        self.scope = trio.CancelScope()
        self.heard_s = trio.current_time()
        """The trio time of its worker's last report, or of its start here."""
        self.reason = ""
        """Why it was stopped, for the worker; empty if it was not."""

    def stop_reason(self) -> str:
        return self.reason

    def on_receipt(self, stage: CancelStage, usage: Mapping[str, str] | None = None) -> None:
        self._post(Receipt(self._node_path, self._attempt, stage, self._worker_id, usage))

    def on_usage(self, unit: str, amount: str) -> None:
        # Not an input: it has no effect until the attempt ends.
        self._machine.note_usage(self._node_path, self._attempt, unit, amount)

    def on_extend(self, duration_s: float) -> None:
        self._post(ExtendAttempt(self._node_path, self._attempt, duration_s))

    def on_heard(self, details_json: str = "") -> None:
        # Not an input either: a timer asks for it, and the event that ends the attempt.
        self.heard_s = trio.current_time()
        if details_json:
            self._machine.note_heartbeat(self._node_path, self._attempt, Payload(details_json))


class AttemptTasks:
    """The attempts of one execution. Its tasks live in the executor's nursery."""

    def __init__(
        self,
        environment: Environment,
        namespace: str,
        machine: Machine,
        permits: Permits,
        contents: ContentStore,
        answers: Answers,
        post: Callable[[Input], None],
        on_end: Callable[[], None],
    ) -> None:
        self._environment = environment
        self._namespace = namespace
        self._machine = machine
        self._execution = machine.execution
        self._permits = permits
        self._contents = contents
        self._answers = answers
        self._post = post
        self._on_end = on_end
        self._running: dict[tuple[str, int], _Running] = {}
        self._trace = read_trace_context(self._execution.traceparent)
        self._span_ids: dict[int, SpanIds] = {}
        """By run."""
        self._inputs: dict[str, Payload] = {}
        """Joined inputs of nodes that are about to start."""

    def __repr__(self) -> str:
        return f"<AttemptTasks {len(self._running)} running>"

    def let_go(self) -> None:
        """Drop the execution, once no attempt runs: tracebacks of cancelled attempts may keep this object alive."""
        del self._machine, self._execution, self._contents, self._answers, self._post, self._on_end

    @property
    def running_count(self) -> int:
        """How many tasks there are."""
        return len(self._running)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and no permit is held."""
        return not self._running and self._permits.is_empty

    def take_up(self, nursery: trio.Nursery) -> None:
        """Start the tasks of all attempts that are at their workers, after the execution was read back."""
        for scope in self._execution.scopes.values():
            for record in scope.in_flight():
                if record.is_at_worker:
                    self.take_back(record.path, len(record.attempts))
                    self.start(nursery, record.path, len(record.attempts), recovered=True)
        for (node_path, attempt), stage in self._execution.receipts.items():
            if self._execution.is_cancelling and not stage.is_final:
                self.take_back(node_path, attempt)

    def take_back(self, node_path: str, number: int) -> None:
        """Account for an attempt that has been at its worker since before the execution was read back."""
        held = self._held(node_path, number)
        kind, attempt = held.node.kind, held.attempt
        assert isinstance(kind, Task)  # only tasks have attempts
        record = self._execution.find(node_path)
        limits = record.scope.limits if record is not None else ()
        self._permits.take_back(
            (node_path, number),
            kind.type,
            attempt.worker_id,
            attempt.worker_instance_id,
            limit_path=limits[-1] if limits else "",
            key=attempt.concurrency_key,
            age_s=max(0.0, self._environment.seams.now_s() - attempt.started_s),
            is_decided=attempt.outcome is not None,
        )

    def decided(self, event: Event) -> None:
        """Handle an event: an attempt that ended returns the engine's permits."""
        detail = event.detail
        if not isinstance(detail, AttemptEnded):
            return
        key = event.node_path, event.attempt
        running = self._running.get(key)
        if running is not None and detail.outcome in _BY_REPORT:
            running.scope.cancel()  # The report came another way; the worker need not be told.
        self._permits.release_engine(key)

    # Tasks.

    def note_input(self, made: InputMade) -> None:
        """Keep the input that a join made until its node starts."""
        record = self._execution.find(made.node_path)
        if record is None or made.payload is None:
            return  # Its scope was closed while a helper rendered the input.
        if isinstance(record.node.kind, Task) and record.node.input is None:
            self._inputs[made.node_path] = made.payload

    def start(self, nursery: trio.Nursery, node_path: str, attempt: int, *, recovered: bool) -> None:
        """Start the task of an attempt."""
        held = self._held(node_path, attempt)
        running = self._running[node_path, attempt] = _Running(held, self._machine, self._post)
        self._environment.committer.gathering.attempts += 1
        nursery.start_soon(partial(self._carry_out, held, running, recovered=recovered))

    def stop(self, nursery: trio.Nursery, node_path: str, attempt: int, reason: str) -> None:
        """Tell the worker to cancel an attempt, if it may not know yet."""
        if (node_path, attempt) not in self._running and self._permits.holds((node_path, attempt)):
            # It was being cancelled when the execution was read back.
            self.start(nursery, node_path, attempt, recovered=True)
        running = self._running.get((node_path, attempt))
        if running is None:
            # Its report came while the decision became durable: the handler has ended, and the worker need not be told.
            worker_id = self._held(node_path, attempt).attempt.worker_id
            self._post(Receipt(node_path, attempt, CancelStage.EXITED, worker_id))
            return
        running.reason = reason
        running.scope.cancel()

    def key(self, node_path: str, attempt: int) -> AttemptKey:
        """Return the key that identifies an attempt to workers."""
        found = self._execution.attempt(node_path, attempt)
        run = found.run if found is not None else self._execution.run
        return AttemptKey(self._namespace, self._execution.execution_id, run, node_path, attempt)

    def timer_due(self, timer: SetTimer) -> TimerDue:
        """Return the input for an expired timer, with what only the runtime knows."""
        jitter = self._environment.seams.random()
        due = TimerDue(timer.kind, timer.node_path, timer.number, timer.turn, jitter)
        if timer.kind is TimerKind.HEARTBEAT_TIMEOUT:
            running = self._running.get((timer.node_path, timer.number))
            # Without a task, its result has come and is about to be decided on.
            return due._replace(quiet_s=trio.current_time() - running.heard_s if running is not None else 0.0)
        if timer.kind is TimerKind.QUEUE_TIMEOUT:
            return due._replace(lacking=self._permits.reason(timer.node_path))
        if timer.kind is TimerKind.WORKER_TIMEOUT:
            return due._replace(unserved_s=self._permits.unserved_s(timer.node_path))
        return due

    def post_result(self, result: AttemptResult) -> None:
        """Post an attempt's result from its worker; its long texts are stored by digest."""
        output, failure = result.output, result.failure
        if output is not None:
            output = self._contents.keep(output.json)
        if failure is not None and failure.details is not None and not failure.details.digest:
            failure = replace(failure, details=self._contents.keep(failure.details.json))
        jitter = self._environment.seams.random()
        self._environment.committer.gathering.note_result()
        self._post(result._replace(output=output, failure=failure, jitter=jitter))

    # Inside.

    def _held(self, node_path: str, number: int) -> NodeAttempt:
        found = self._execution.node_attempt(node_path, number)
        if found is None:
            message = f"attempt {number} of {node_path!r} never existed; please report this"
            raise InvariantViolated(message)
        return found

    async def _carry_out(self, held: NodeAttempt, running: _Running, *, recovered: bool) -> None:
        node_path, attempt = held.node_path, held.attempt.number
        try:
            with running.scope:
                assignment = await self._assignment(held, self.key(node_path, attempt), recovered=recovered)
                self.post_result(await self._environment.workers.execute(assignment, running))
                if running.reason:
                    # It was stopped between the result and this task's turn: the handler has ended.
                    running.on_receipt(CancelStage.EXITED)
        finally:
            key = node_path, attempt
            del self._running[key]
            self._environment.committer.gathering.attempts -= 1
            self._permits.release_slot(key)
            self._on_end()

    async def _assignment(self, held: NodeAttempt, key: AttemptKey, *, recovered: bool) -> Assignment:
        node, attempt = held.node, held.attempt
        kind = node.kind
        assert isinstance(kind, Task)  # only tasks have attempts
        payload = await self._input(held)
        timeouts = node.timeouts or DEFAULT_TIMEOUTS
        deadline_s = attempt_deadline_s(node, attempt)
        # A worker would take 0 for no limit.
        left_s = max(0.001, deadline_s - self._environment.seams.now_s()) if deadline_s else 0.0
        return Assignment(
            key,
            attempt.worker_id,
            attempt.worker_instance_id,
            kind.type,
            payload.json,
            payload.digest,
            payload.size_bytes,
            left_s,
            self._traceparent(key),
            self._execution.tracestate,
            held.branch,
            recovered,
            self._heartbeat_details(held),
            timeouts.heartbeat_s,
        )

    def _heartbeat_details(self, held: NodeAttempt) -> str:
        """Return the details that the newest earlier attempt of the node has left; empty if there are none."""
        record = self._execution.find(held.node_path)
        earlier = record.attempts[: held.attempt.number - 1] if record is not None else ()
        left = (attempt.heartbeat_details for attempt in reversed(earlier))
        return next((details.json for details in left if details is not None), "")

    def _traceparent(self, key: AttemptKey) -> str:
        if self._trace is None:
            return ""
        ids = self._span_ids.get(key.run)
        if ids is None:
            ids = self._span_ids[key.run] = SpanIds(key.namespace, key.execution_id, key.run)
        return self._trace._replace(span_id=ids.attempt(key.node_path, key.attempt).hex()).traceparent

    async def _input(self, held: NodeAttempt) -> Payload:
        record = self._execution.find(held.node_path)
        if record is None:
            return NULL  # Its scope is closed; the worker is only told to stop.
        if record.node.input is not None and record.input is not None:
            return record.input
        kept = self._inputs.pop(record.path, None)
        if kept is not None:
            return kept
        if record.total == 0:
            return self._execution.input_of(record.scope)
        while True:
            try:
                # If it is long, the first attempt's step stored it, so there is nothing new to save.
                return self._contents.keep(self._answers.join_input(record))
            except ContentMissing as missing:
                # Reading it may take a while; a worker is told of a cancel regardless.
                with trio.CancelScope(shield=True):
                    await self._contents.load(missing.digest)
