"""A worker: functions that do the work of nodes, and the loop that serves them."""

from __future__ import annotations

import asyncio
import inspect
import logging
import random
import re
import socket
import uuid
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import nullcontext
from datetime import timedelta
from typing import Final

import grpc
import grpc.aio

# Imported by name, so that OpenTelemetry's instrumentation cannot replace them later and intercept every stream.
from grpc.aio import insecure_channel, secure_channel

from plait_worker.access import Access, check_address, target_of
from plait_worker.attempts import Attempts, CancelledBy
from plait_worker.connection import CHANNEL_OPTIONS, LEASE_DEFAULT_S, Connection
from plait_worker.event_loop import run_in_loop
from plait_worker.failures import WorkerRefused
from plait_worker.handlers import Handler, HandlerFunction, HandlerT
from plait_worker.identity import check_count, check_id
from plait_worker.inputs import Inputs
from plait_worker.limits import SLOTS_MAX
from plait_worker.session import WorkerSession
from plait_worker.session_events import SessionEvent, SessionStatistics, Welcomed
from plait_worker.signals import first_signal_calls
from plait_worker.threads import DaemonThreads, HandlerThreads
from plait_worker.tracing import load_tracer, untraced
from plait_worker.version import sdk_version

logger = logging.getLogger("plait_worker")

UNBOUNDED_SLOTS: Final = 64
"""What types without a bound of their own add to the slots."""
CANCEL_S: Final = 5.0
"""How long handlers have to end once a leaving worker has cancelled them."""
GIVE_UP_S: Final = 1.0
"""How long handlers may take to end once their results are no longer needed."""
SETTLE_S: Final = 10.0
"""How long a leaving worker waits until its results are recorded; unrecorded ones are run again elsewhere."""
CLOSE_S: Final = 2.0
"""How long the server has to end its side of the stream."""


class Worker:
    """Serves node types with functions.

        worker = Worker()

        @worker.node("image.generate", max_concurrency=4)
        async def generate(context: Context, input: dict[str, str]) -> dict[str, str]:
            return {"address": await render(input["prompt"])}

        asyncio.run(worker.run("localhost:50051"))

    Args:
        namespace: the namespace served.
        worker_id: the worker's id, stable over restarts; None: the name of the machine.
        labels: labels for people, at most 64.
        slots: how many attempts are taken at once, to 10,000; None: the sum of the types' `max_concurrency`,
            types without one counting 64 together.
        drain_timeout: how long attempts may run on once the worker is to leave; those that have not ended then are
            handed back, and run again elsewhere. None: until they end.
        threads: where handlers that are plain functions run; None: in threads of the worker's own.
        jitter: draws a number in [0, 1), for the waits between tries.

    Raises:
        ValueError: if an argument is out of its bounds.
    """

    def __init__(
        self,
        namespace: str = "default",
        worker_id: str | None = None,
        labels: Mapping[str, str] | None = None,
        slots: int | None = None,
        *,
        drain_timeout: timedelta | None = None,
        threads: HandlerThreads | None = None,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        check_id("the namespace", namespace)
        self.namespace: Final = namespace
        """The namespace served."""
        self.worker_id: Final = _host_id() if worker_id is None else worker_id
        """The worker's id."""
        check_id("the worker id", self.worker_id)
        if slots is not None:
            check_count("slots", slots, low=1)
        self._labels = dict(labels or {})
        self._slots = slots
        self._drain_timeout = drain_timeout
        self._threads = threads
        self._jitter = jitter
        self._handlers: dict[str, Handler] = {}
        self._session: WorkerSession | None = None
        self._stop: Callable[[], None] | None = None
        self._is_drain_asked = False
        self._lease_s = LEASE_DEFAULT_S

    def __repr__(self) -> str:
        """Return what it serves and, while it runs, its session."""
        types = ", ".join(self._handlers) or "nothing"
        running = f" {self._session!r}" if self._session is not None else ""
        return f"<Worker {self.worker_id} serves {types}{running}>"

    @property
    def types(self) -> Sequence[str]:
        """The node types served, in the order of their registration."""
        return tuple(self._handlers)

    @property
    def slots(self) -> int:
        """How many attempts are taken at once."""
        if self._slots is not None:
            return self._slots
        counts = [handler.max_concurrency for handler in self._handlers.values()]
        unbounded = 0 if all(counts) else UNBOUNDED_SLOTS
        return min(sum(counts) + unbounded, SLOTS_MAX) or UNBOUNDED_SLOTS

    @property
    def lease_s(self) -> float:
        """How long, in seconds, the worker keeps its attempts if the server receives nothing from it."""
        return self._lease_s

    def statistics(self) -> SessionStatistics | None:
        """Count what was done since `run` was called; None before that."""
        return None if self._session is None else self._session.statistics()

    def node(self, type: str, *, max_concurrency: int = 0) -> Callable[[HandlerT], HandlerT]:
        """Have a function do the work of nodes of a type.

        The function takes the attempt's context and the input, and returns what JSON can hold. A coroutine
        function runs on the event loop, a plain one in a thread. What it raises fails the attempt:
        `NodeFailure` with its code, other exceptions as UNKNOWN.

        Args:
            type: the node type; `[A-Za-z0-9_.-]{1,128}`.
            max_concurrency: how many of it run at once, up to 10,000; 0: bounded by the worker's slots alone.

        Raises:
            ValueError: if an argument is out of its bounds, or the type is served already.
            RuntimeError: if the worker runs already.
        """
        check_id("the node type", type)
        check_count("max_concurrency", max_concurrency, low=0)
        if type in self._handlers:
            raise ValueError(f"the node type {type} is served already")
        if self._session is not None:
            raise RuntimeError("node types are registered before the worker runs")

        def register(function: HandlerT) -> HandlerT:
            self._handlers[type] = _handler(type, function, max_concurrency)
            return function

        return register

    def drain(self) -> None:
        """Take nothing new, let what runs finish, and end `run`. Idempotent; open to every thread.

        Before `run` is called it holds for the next one, which then ends as soon as it may.
        """
        # First this, then the look; `run` does it the other way round, so one of the two sees the other.
        self._is_drain_asked = True
        if self._stop is not None:
            self._stop()

    def run_sync(self, connect: str) -> None:
        """Run in an event loop of its own until drained; see `run`.

        Unlike `asyncio.run(worker.run(...))` it goes on when a task that a handler made raises SystemExit, and
        ends when one does not end.
        """
        run_in_loop(self.run(connect))

    async def run(
        self,
        connect: str,
        *,
        namespace: str | None = None,
        worker_id: str | None = None,
        drain_timeout: timedelta | None = None,
        credentials: grpc.ChannelCredentials | None = None,
        access: Access | None = None,
        handle_signals: bool = True,
    ) -> None:
        """Serve until drained, by SIGTERM, SIGINT or `drain()`.

        A server that is out of reach is tried again for ever; what runs goes on meanwhile, and results are
        kept until the server has recorded them. A worker whose id another process has tries again for two
        minutes: so a new process may be started before the old one has drained. If the caller is cancelled,
        everything stops at once and what ran is given to another worker when its lease has run out.

        Args:
            connect: the server, as HOST:PORT, or https://HOST:PORT for one with TLS.
            namespace: the namespace served, in place of the worker's own.
            worker_id: the worker's id, in place of its own.
            drain_timeout: how long attempts may run on once it drains, in place of its own.
            credentials: for TLS, in place of those of `access`.
            access: the token and the files of TLS; what it lacks is taken from PLAIT_TOKEN or PLAIT_TOKEN_FILE,
                PLAIT_TLS_CA, PLAIT_TLS_CERT and PLAIT_TLS_KEY.
            handle_signals: whether SIGTERM and SIGINT drain.

        Raises:
            WorkerRefused: if the server will not have this worker, and trying again cannot help.
            ValueError: if no node types are registered, an argument is out of its bounds, or the token may not be sent
                to the server.
            OSError: if a file of `access` cannot be read.
            RuntimeError: if it runs already.
        """
        if self._stop is not None:
            raise RuntimeError("the worker runs already")
        check_address(connect)
        access = (access or Access()).with_environment()
        is_encrypted = credentials is not None or access.is_tls(connect)
        access.check(connect, is_encrypted=is_encrypted)
        if is_encrypted and credentials is None:
            credentials = access.channel_credentials()
        session = WorkerSession(
            worker_id=self.worker_id if worker_id is None else worker_id,
            instance_id=uuid.uuid4().hex,
            namespace=self.namespace if namespace is None else namespace,
            types={type_: handler.max_concurrency for type_, handler in self._handlers.items()},
            slots=self.slots,
            labels=self._labels,
            sdk=f"plait-python/{sdk_version()}".rstrip("/"),
        )
        loop = asyncio.get_running_loop()
        stopping = asyncio.Event()
        self._session = session
        self._stop = lambda: _call_soon(loop, stopping.set)
        if self._is_drain_asked:
            stopping.set()
        try:
            with first_signal_calls(self.drain) if handle_signals else nullcontext():
                async with _channel(target_of(connect), credentials) as channel:
                    connection = Connection(
                        session, channel, address=connect, access=access, jitter=self._jitter
                    )
                    inputs = Inputs(channel, access, session.namespace, self._jitter)
                    limit = self._drain_timeout if drain_timeout is None else drain_timeout
                    await self._serve(session, connection, inputs, stopping, limit)
        finally:
            self._stop = None
            self._is_drain_asked = False

    async def _serve(
        self,
        session: WorkerSession,
        connection: Connection,
        inputs: Inputs,
        stopping: asyncio.Event,
        drain_timeout: timedelta | None,
    ) -> None:
        """Own the connection and all attempts."""
        threads = DaemonThreads(self.slots) if self._threads is None else self._threads
        attempts = Attempts(
            session=session,
            handlers=self._handlers,
            threads=threads,
            inputs=inputs,
            on_queued=connection.wake,
            tracer=load_tracer(session.namespace, session.worker_id),
        )

        def carry_out(events: Sequence[SessionEvent]) -> None:
            for event in events:
                if isinstance(event, Welcomed):
                    self._lease_s = event.lease_s or LEASE_DEFAULT_S
            attempts.carry_out(events)

        refusals: Sequence[BaseException] = ()
        try:
            async with asyncio.TaskGroup() as tasks:
                with untraced():
                    driving = tasks.create_task(connection.run(carry_out))
                await stopping.wait()
                await _leave(session, connection, attempts, drain_timeout)
                await asyncio.wait([driving], timeout=CLOSE_S)
                driving.cancel()
        except* WorkerRefused as group:
            refusals = group.exceptions
        finally:
            await attempts.give_up(GIVE_UP_S)
            if self._threads is None:
                threads.shutdown()
        for refusal in refusals:
            raise refusal
        logger.info("drained")


async def _leave(
    session: WorkerSession, connection: Connection, attempts: Attempts, drain_timeout: timedelta | None
) -> None:
    """Take nothing new, let what runs finish, hand back what does not, and see the results recorded."""
    session.drain()
    connection.wake()
    limit_s = None if drain_timeout is None else drain_timeout.total_seconds()
    if attempts:
        until = "until they end" if limit_s is None else f"for {limit_s:g} s"
        logger.info("draining: %d attempts may run on %s", len(attempts), until)
    if not await _is_in_time(attempts.wait_ended(), limit_s):
        logger.warning(
            "the drain timeout of %g s is over; attempts are cancelled and handed back, to be run again: %s",
            limit_s,
            attempts.names(),
        )
        attempts.cancel_all(CancelledBy.DRAIN)
        await _is_in_time(attempts.wait_ended(), CANCEL_S)
    if attempts:
        logger.warning("handlers do not end; their attempts are handed back: %s", attempts.names())
        attempts.hand_back_all("DRAINING", "the worker leaves, and the handler did not end")
    if not await _is_in_time(connection.wait_settled(), SETTLE_S):
        logger.warning(
            "the server at %s did not record %d results; it will run those nodes again",
            connection.address,
            len(session.unrecorded),
        )
    await connection.close()


async def _is_in_time(waiting: Coroutine[None, None, None], timeout_s: float | None) -> bool:
    """Whether something comes about before the time is over; None: wait for it without a limit."""
    try:
        async with asyncio.timeout(timeout_s):
            await waiting
    except TimeoutError:
        return False
    return True


def _handler(type_: str, function: HandlerFunction, max_concurrency: int) -> Handler:
    if not callable(function):
        raise TypeError(f"the handler of {type_} is no function: {function!r}")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(f"the handler of {type_} is a generator, which has no result: return a list")
    return Handler(type=type_, function=function, max_concurrency=max_concurrency)


def _channel(connect: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    if credentials is None:
        return insecure_channel(connect, CHANNEL_OPTIONS)
    return secure_channel(connect, credentials, CHANNEL_OPTIONS)


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    try:
        loop.call_soon_threadsafe(callback)
    except RuntimeError:
        # The loop is closed: the worker has ended.
        return


def _host_id() -> str:
    """Make an id of the machine's name."""
    return re.sub(r"[^A-Za-z0-9_.-]", "-", socket.gethostname())[:128] or "worker"
