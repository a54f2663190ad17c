"""The attempts that run in this process: their tasks and threads, from the assign to the end.

Rules:
1. An attempt is told to the session once: in `_finish`, or when it is handed back, whichever comes first.
2. A coroutine is cancelled through its task; a thread cannot be: its flag is set, and its end is awaited.
3. A coroutine that has not ended when the grace time is over is cancelled again and again. One that swallows
   every cancellation cannot be ended; it keeps its slot, and is given up when the worker leaves.
4. What a handler returned counts even after a cancel, and the session decides whether it may still be sent.
"""

from __future__ import annotations

import asyncio
import contextvars
import enum
import functools
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, assert_never

from plait_worker.context import Context
from plait_worker.failures import FailureReport
from plait_worker.handlers import Handler
from plait_worker.inputs import Inputs, InputUnavailable
from plait_worker.limits import PAYLOAD_BYTES_MAX
from plait_worker.logs import LogFields, attempt_fields, enter_attempt, one_line
from plait_worker.reports import ReportBuffer, ReportBuffers
from plait_worker.session import WorkerSession
from plait_worker.session_events import (
    Assigned,
    CancelRequested,
    ProtocolError,
    Recorded,
    SessionEvent,
    Welcomed,
)
from plait_worker.threads import HandlerThreads

if TYPE_CHECKING:
    from plait_worker.spans import HandlerSpan, HandlerTracer

logger = logging.getLogger("plait_worker")

GRACE_S: Final = 10.0
"""How long a cancelled handler may take if the server did not say: the server's own default."""
LOGGED_CHARS_MAX: Final = 300
"""How much of a failure's message the worker's own log shows."""
NAMES_MAX: Final = 20
"""The most attempts that a log line names."""
INSIST_S: Final = 1.0
"""How long it has each time after that."""


class CancelledBy(enum.Enum):
    """Who cancelled an attempt."""

    SERVER = "server"
    """The server asked for it."""
    DEADLINE = "deadline"
    """Its time ran out here; what that means is the server's to decide."""
    DRAIN = "drain"
    """The worker leaves and hands it back."""


class _Running:
    __slots__ = (
        "assigned",
        "buffer",
        "cancel_reason",
        "cancelled_by",
        "context",
        "handler",
        "is_cancellable",
        "is_told_stubborn",
        "span",
        "task",
        "timer",
    )

    def __init__(self, assigned: Assigned, handler: Handler, buffer: ReportBuffer, context: Context) -> None:
        self.assigned = assigned
        self.handler = handler
        self.buffer = buffer
        self.context = context
        self.cancelled_by: CancelledBy | None = None
        # The reason of the first cancel: the server's (CANCELLED, RACE_LOST, ...), or DEADLINE or DRAIN.
        self.cancel_reason = ""
        # The handler's span, once the handler runs.
        self.span: HandlerSpan | None = None
        self.task: asyncio.Task[None] | None = None
        # Until its deadline; once it is cancelled, until it is cancelled again.
        self.timer: asyncio.TimerHandle | None = None
        self.is_told_stubborn = False
        # True while it awaits something that cancelling its task ends. Not before its first step: a task that
        # is cancelled then never enters its coroutine, and would not be told to the session.
        self.is_cancellable = False


class Attempts:
    """The attempts of one worker. Belongs to its event loop.

    Args:
        session: receives how attempts end.
        handlers: node type to handler.
        threads: run handlers that are plain functions.
        inputs: fetches inputs by digest.
        on_queued: called when the session has something to send.
        tracer: makes the spans of handlers; None: no spans are made.
    """

    def __init__(
        self,
        *,
        session: WorkerSession,
        handlers: Mapping[str, Handler],
        threads: HandlerThreads,
        inputs: Inputs,
        on_queued: Callable[[], None],
        tracer: HandlerTracer | None = None,
    ) -> None:
        self._session = session
        self._tracer = tracer
        self._handlers = handlers
        # Looked up once a type, not at every attempt.
        self._is_async = {type_: handler.is_async for type_, handler in handlers.items()}
        # Not a task group's: that waits for all, and a handler may never end.
        self._tasks: set[asyncio.Task[None]] = set()
        self._threads = threads
        self._inputs = inputs
        self._on_queued = on_queued
        self._loop = asyncio.get_running_loop()
        self._reports = ReportBuffers(session, on_queued)
        self._running: dict[str, _Running] = {}
        self._ended = asyncio.Event()
        self._ended.set()
        self._payload_bytes_max = PAYLOAD_BYTES_MAX

    def __len__(self) -> int:
        """Count the attempts that have not ended."""
        return len(self._running)

    def carry_out(self, events: Sequence[SessionEvent]) -> None:
        """Carry out the session's events: start and cancel handlers."""
        for event in events:
            match event:
                case Assigned():
                    self._start(event)
                case CancelRequested():
                    self.cancel(event.token, CancelledBy.SERVER, event.grace_s, event.reason)
                case Welcomed():
                    self._payload_bytes_max = event.payload_bytes_max or PAYLOAD_BYTES_MAX
                    self._extend_again()
                case Recorded() | ProtocolError():
                    # The session has forgotten the result; the connection drops the stream.
                    pass
                case _:
                    assert_never(event)

    def _start(self, assigned: Assigned) -> None:
        token = assigned.token
        buffer = self._reports.buffer(token)
        context = Context(assigned, worker_id=self._session.worker_id, buffer=buffer, clock=self._loop.time)
        running = _Running(assigned, self._handlers[assigned.type], buffer, context)
        self._running[token] = running
        self._ended.clear()
        if assigned.time_left_s is not None:
            running.timer = self._loop.call_later(assigned.time_left_s, self._on_deadline, running)
        running.task = self._loop.create_task(self._run(running))
        self._tasks.add(running.task)
        running.task.add_done_callback(functools.partial(self._on_done, token))

    def _on_done(self, token: str, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        running = self._running.get(token)
        fields = {} if running is None else self._fields(running)
        logger.error("a bug of the worker's own, please report: %r", error, exc_info=error, extra=fields)
        if running is not None:
            self._forget(running)
        if token in self._session.running:
            # Or it would never end.
            self._session.fail(token, "INTERNAL", f"a bug of the worker's own, please report: {error!r}")
            self._on_queued()

    def cancel(self, token: str, by: CancelledBy, grace_s: float = 0.0, reason: str = "") -> None:
        """Cancel the handler of an attempt; nothing happens if it has ended.

        Args:
            token: names the attempt.
            by: who cancels it.
            grace_s: how long the handler has to end before it is cancelled again; 0: a usual time.
            reason: why; empty: the name of who cancels it.
        """
        running = self._running.get(token)
        if running is None:
            return
        is_first = running.cancelled_by is None
        running.cancelled_by = by
        running.context.cancelled.set()
        if is_first:
            running.cancel_reason = reason or by.name
            if running.is_cancellable and running.task is not None:
                running.task.cancel()
            if running.timer is not None:
                running.timer.cancel()
            grace_s = grace_s or GRACE_S
            running.timer = self._loop.call_later(grace_s, self._insist, running, grace_s)

    def _on_deadline(self, running: _Running) -> None:
        """Cancel a handler whose time has run out, unless it has asked for more."""
        left = running.context.time_left
        if left:
            running.timer = self._loop.call_later(left.total_seconds(), self._on_deadline, running)
        else:
            self.cancel(running.assigned.token, CancelledBy.DEADLINE)

    def _extend_again(self) -> None:
        """Ask for more time again on a new stream: the request may have been lost with the stream before."""
        for token, running in self._running.items():
            left = running.context.time_left
            if running.context.is_extended and left:
                self._session.extend(token, left.total_seconds())

    def _insist(self, running: _Running, waited_s: float) -> None:
        """Cancel a handler again that did not end by it."""
        if not running.is_told_stubborn:
            running.is_told_stubborn = True
            self._look_ended()
            logger.warning(
                "the handler of %s has not ended %g s after it was cancelled (%s of %s): %s",
                running.assigned.type,
                waited_s,
                running.assigned.node_path,
                running.assigned.execution_id,
                "let CancelledError pass"
                if self._is_async[running.assigned.type]
                else "look at context.cancelled now and then",
                extra=self._fields(running),
            )
        if running.is_cancellable and running.task is not None:
            running.task.cancel()
        running.timer = self._loop.call_later(INSIST_S, self._insist, running, waited_s)

    def cancel_all(self, by: CancelledBy) -> None:
        """Cancel the handlers of all attempts."""
        for token in list(self._running):
            self.cancel(token, by)

    def hand_back_all(self, code: str, message: str) -> None:
        """Hand back all attempts, though their handlers have not ended: the process is about to."""
        for token, running in list(self._running.items()):
            running.buffer.flush_into(self._session)
            self._forget(running)
            self._session.hand_back(token, code, message)
            self._end_span(running, None)
            if running.task is not None:
                # A thread cannot be ended, but it is not waited for any longer.
                running.task.cancel()
        self._on_queued()

    def names(self) -> str:
        """Return the nodes of the attempts that have not ended, for people."""
        shown = [
            f"{each.assigned.node_path} of {each.assigned.execution_id}"
            for each in itertools.islice(self._running.values(), NAMES_MAX)
        ]
        more = len(self._running) - len(shown)
        return ", ".join([*shown, f"{more:,} more"] if more else shown)

    async def wait_ended(self) -> None:
        """Wait until no attempt runs but those whose handlers go on though they were cancelled."""
        await self._ended.wait()

    async def give_up(self, timeout_s: float) -> None:
        """Cancel the remaining handlers and wait for them, for a time; the session learns nothing more."""
        for running in self._running.values():
            if running.timer is not None:
                running.timer.cancel()
        self._running.clear()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s)

    async def _run(self, running: _Running) -> None:
        if running.task is not None:
            enter_attempt(running.task, self._session.namespace, running.assigned)
        outcome: str | FailureReport | InputUnavailable | None = None
        try:
            if running.cancelled_by is None:
                outcome = await self._outcome_of(running)
            self._finish(running, outcome)
        finally:
            # After the result is queued: the program's span processors may be slow.
            self._end_span(running, outcome)

    async def _outcome_of(self, running: _Running) -> str | FailureReport | InputUnavailable | None:
        try:
            return await self._call(running)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if running.cancelled_by is not None:
                return None
            if task is not None and task.cancelling():
                # The whole worker is being torn down.
                raise
            message = "the handler raised CancelledError, but it had not been cancelled"
            return FailureReport(code="CANCELLED_BY_WORKER", message=message)
        except InputUnavailable as problem:
            return problem

    async def _call(self, running: _Running) -> str | FailureReport:
        assigned = running.assigned
        input_json = assigned.input_json
        running.is_cancellable = True
        if assigned.input_digest is not None:
            input_json = await self._inputs.fetch(assigned.input_digest)
        if self._is_async[assigned.type]:
            self._begin_span(running)
            try:
                return await running.handler.call(running.context, input_json, self._payload_bytes_max)
            finally:
                if running.span is not None:
                    running.span.stop()
        running.is_cancellable = False
        # In a context of its own, so that what the handler sets there is gone for the thread's next handler.
        context = contextvars.copy_context()
        future = self._threads.submit(lambda: context.run(self._call_in_thread, running, input_json))
        outcome = await asyncio.wrap_future(future)
        if isinstance(outcome, asyncio.CancelledError):
            raise outcome
        return outcome

    def _call_in_thread(
        self, running: _Running, input_json: str | None
    ) -> str | FailureReport | asyncio.CancelledError:
        self._begin_span(running)
        outcome = running.handler.call_in_thread(running.context, input_json, self._payload_bytes_max)
        if running.span is not None:
            running.span.stop()
        return outcome

    def _begin_span(self, running: _Running) -> None:
        if self._tracer is not None:
            running.span = self._tracer.begin(running.assigned)

    def _end_span(self, running: _Running, outcome: object) -> None:
        span, running.span = running.span, None
        if span is not None:
            span.end(outcome, running.cancel_reason)

    def _finish(self, running: _Running, outcome: str | FailureReport | InputUnavailable | None) -> None:
        token = running.assigned.token
        if token not in self._running:
            # It was handed back while its handler ran on.
            return
        running.buffer.flush_into(self._session)
        self._forget(running)
        match outcome:
            case str():
                self._session.complete(token, outcome)
            case FailureReport():
                self._fail(running, outcome)
            case InputUnavailable(is_transient=True):
                self._session.hand_back(token, "INPUT_UNAVAILABLE", outcome.message)
            case InputUnavailable():
                self._fail(running, FailureReport(code="INPUT_UNAVAILABLE", message=outcome.message))
            case None if running.cancelled_by is CancelledBy.DRAIN:
                self._session.hand_back(token, "DRAINING", "the worker leaves")
            case None:
                self._session.exited(token)
        self._on_queued()

    def _fail(self, running: _Running, report: FailureReport) -> None:
        assigned = running.assigned
        logger.info(
            "attempt failed: %s of %s, attempt %d: %s: %s",
            assigned.node_path,
            assigned.execution_id,
            assigned.attempt,
            report.code,
            one_line(" ".join(report.message[:LOGGED_CHARS_MAX].split())),
            extra=self._fields(running) | {"code": report.code},
        )
        self._session.fail(
            assigned.token,
            report.code,
            report.message,
            details_json=report.details_json,
            retryable=report.retryable,
            retry_after_s=report.retry_after_s,
            causes=report.causes,
            result_problem=report.result_problem,
        )

    def _fields(self, running: _Running) -> LogFields:
        return attempt_fields(self._session.namespace, running.assigned)

    def _forget(self, running: _Running) -> None:
        del self._running[running.assigned.token]
        if running.timer is not None:
            running.timer.cancel()
        self._look_ended()

    def _look_ended(self) -> None:
        if all(running.is_told_stubborn for running in self._running.values()):
            self._ended.set()
