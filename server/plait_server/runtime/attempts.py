"""The attempts of one execution: a task for each.

A task has an attempt carried out and posts how it ended; its cancel scope holds every kind of cancel. What an
attempt holds is in `permits`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import trio

from plait_server.core.definition.graph import DEFAULT_TIMEOUTS, Task
from plait_server.core.run.commands import AttemptResult, Input, InputMade, Receipt
from plait_server.core.run.events import AttemptEnded, Event
from plait_server.core.run.machine import Machine
from plait_server.core.run.payload import Payload
from plait_server.core.run.scope import NodeRecord
from plait_server.core.run.states import AttemptOutcome, CancelStage
from plait_server.core.run.trace import SpanIds, read_trace_context
from plait_server.ports.workers import Assignment, AttemptKey
from plait_server.runtime.answers import Answers
from plait_server.runtime.contents import ContentMissing, Contents
from plait_server.runtime.context import Context
from plait_server.runtime.permits import Permits

_BY_REPORT: Final = (
    AttemptOutcome.SUCCEEDED,
    AttemptOutcome.FAILED,
    AttemptOutcome.RETURNED,
    AttemptOutcome.LOST,
)
"""How attempts end by a report, after which their tasks have nothing to wait for."""


class _Running:
    """An attempt's task; hears what its worker says meanwhile."""

    __slots__ = ("_attempt", "_machine", "_node_path", "_post", "_worker_id", "reason", "scope")

    def __init__(
        self, record: NodeRecord, attempt: int, machine: Machine, post: Callable[[Input], None]
    ) -> None:
        self._node_path = record.path
        self._attempt = attempt
        self._worker_id = record.attempts[attempt - 1].worker_id
        self._machine = machine
        self._post = post
        self.scope = trio.CancelScope()
        self.reason = ""
        """Why it was stopped, for the worker; empty while it was not."""

    def stop_reason(self) -> str:
        return self.reason

    def on_receipt(self, stage: CancelStage, usage: Mapping[str, str] | None = None) -> None:
        self._post(Receipt(self._node_path, self._attempt, stage, self._worker_id, usage))

    def on_usage(self, unit: str, amount: str) -> None:
        # Not an input: nothing follows from it until the attempt ends.
        self._machine.note_usage(self._node_path, self._attempt, unit, amount)


class Attempts:
    """The attempts of one execution. Its tasks live in the executor's nursery."""

    def __init__(
        self,
        context: Context,
        namespace: str,
        machine: Machine,
        permits: Permits,
        contents: Contents,
        answers: Answers,
        post: Callable[[Input], None],
        on_end: Callable[[], None],
    ) -> None:
        self._context = context
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
        return f"<Attempts {len(self._running)} running>"

    def let_go(self) -> None:
        """Drop the execution, once no attempt runs: tracebacks of cancelled attempts may keep this object."""
        del self._machine, self._execution, self._contents, self._answers, self._post, self._on_end

    @property
    def running_count(self) -> int:
        """How many tasks there are."""
        return len(self._running)

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs and nothing is held."""
        return not self._running and self._permits.is_empty

    def take_back(self, record: NodeRecord, attempt: int) -> None:
        """Account for an attempt that is at its worker since before the execution was read back."""
        kind = record.node.kind
        assert isinstance(kind, Task)  # nothing else has attempts
        held = record.attempts[attempt - 1]
        self._permits.take_back(
            (record.path, attempt),
            kind.type,
            held.worker_id,
            held.worker_instance_id,
            is_decided=held.outcome is not None,
        )

    def decided(self, event: Event) -> None:
        """Take note of an event: an attempt that ended gives the engine's permits back."""
        detail = event.detail
        if not isinstance(detail, AttemptEnded):
            return
        key = event.node_path, event.attempt
        running = self._running.get(key)
        if running is not None and detail.outcome in _BY_REPORT:
            running.scope.cancel()  # The report came another way; nobody is to be told.
        self._permits.release_engine(key)

    # Tasks.

    def note_input(self, made: InputMade) -> None:
        """Keep the input that a join made until its node starts."""
        node = self._execution.record(made.node_path).node
        if made.payload is not None and isinstance(node.kind, Task) and node.input is None:
            self._inputs[made.node_path] = made.payload

    def start(self, nursery: trio.Nursery, node_path: str, attempt: int, *, recovered: bool) -> None:
        """Start the task of an attempt."""
        record = self._execution.record(node_path)
        running = self._running[node_path, attempt] = _Running(record, attempt, self._machine, self._post)
        nursery.start_soon(partial(self._carry_out, node_path, attempt, running, recovered=recovered))

    def stop(self, nursery: trio.Nursery, node_path: str, attempt: int, reason: str) -> None:
        """Have the worker told to cancel an attempt, if it may not know yet."""
        if (node_path, attempt) not in self._running and self._permits.holds((node_path, attempt)):
            # It was being cancelled when the execution was read back.
            self.start(nursery, node_path, attempt, recovered=True)
        running = self._running.get((node_path, attempt))
        if running is None:
            # Its report came while the decision became durable: the handler has ended, and nobody is to be told.
            held = self._execution.record(node_path).attempts[attempt - 1]
            self._post(Receipt(node_path, attempt, CancelStage.EXITED, held.worker_id))
            return
        running.reason = reason
        running.scope.cancel()

    def key(self, node_path: str, attempt: int) -> AttemptKey:
        """Name an attempt to workers."""
        record = self._execution.find(node_path)
        run = self._execution.run
        if record is not None and 0 < attempt <= len(record.attempts):
            run = record.attempts[attempt - 1].run
        return AttemptKey(self._namespace, self._execution.execution_id, run, node_path, attempt)

    def post_result(self, result: AttemptResult) -> None:
        """Post how an attempt ended, as its worker says; long texts in it are kept by digest."""
        output, failure = result.output, result.failure
        if output is not None:
            output = self._contents.keep(output.json)
        if failure is not None and failure.details is not None and not failure.details.digest:
            failure = replace(failure, details=self._contents.keep(failure.details.json))
        jitter = self._context.seams.random()
        self._post(result._replace(output=output, failure=failure, jitter=jitter))

    # Inside.

    async def _carry_out(self, node_path: str, attempt: int, running: _Running, *, recovered: bool) -> None:
        record = self._execution.record(node_path)
        try:
            with running.scope:
                assignment = await self._assignment(record, self.key(node_path, attempt), recovered=recovered)
                self.post_result(await self._context.workers.execute(assignment, running))
                if running.reason:
                    # It was stopped between the result and this task's turn: the handler has ended, and nobody is told.
                    running.on_receipt(CancelStage.EXITED)
        finally:
            key = node_path, attempt
            del self._running[key]
            self._permits.release_slot(key)
            self._on_end()

    async def _assignment(self, record: NodeRecord, key: AttemptKey, *, recovered: bool) -> Assignment:
        kind = record.node.kind
        assert isinstance(kind, Task)  # nothing else has attempts
        held = record.attempts[key.attempt - 1]
        payload = record.input if record.node.input is not None else self._inputs.pop(record.path, None)
        if payload is None:
            payload = await self._joined_input(record)
        timeout_s = (record.node.timeouts or DEFAULT_TIMEOUTS).attempt_s
        # A worker that was given no time at all would take it for no bound.
        left_s = max(0.001, held.started_s + timeout_s - self._context.seams.now_s()) if timeout_s else 0.0
        return Assignment(
            key,
            held.worker_id,
            held.worker_instance_id,
            kind.type,
            payload.json,
            payload.digest,
            payload.size_bytes,
            left_s,
            self._traceparent(key),
            self._execution.tracestate,
            self._execution.scope_of(record.path).branch(record.index),
            recovered,
        )

    def _traceparent(self, key: AttemptKey) -> str:
        if self._trace is None:
            return ""
        ids = self._span_ids.get(key.run)
        if ids is None:
            ids = self._span_ids[key.run] = SpanIds(key.namespace, key.execution_id, key.run)
        return self._trace._replace(span_id=ids.attempt(key.node_path, key.attempt).hex()).traceparent

    async def _joined_input(self, record: NodeRecord) -> Payload:
        if record.total == 0:
            return self._execution.input
        while True:
            try:
                # The first attempt's step kept it, if it is long; nothing new is to be saved.
                return self._contents.keep(self._answers.join_input(record))
            except ContentMissing as missing:
                # Reading it may take a while; a worker is told of a cancel nonetheless.
                with trio.CancelScope(shield=True):
                    await self._contents.load(missing.digest)
