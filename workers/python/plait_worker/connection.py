"""Drives a session over gRPC: one Attach stream at a time, reopened for ever.

Liveness is judged on the stream itself: the server pings on it, and when nothing came for the lease time it
is dropped. gRPC's own keepalive finds a peer that is gone without a word (half-open TCP) within 15 s; with
its defaults, never.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias, assert_never

import grpc
import grpc.aio

from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker.access import Access
from plait_worker.backoff import Backoff
from plait_worker.failures import WorkerRefused
from plait_worker.limits import RECEIVED_BYTES_MAX
from plait_worker.session import WorkerSession
from plait_worker.session_events import ProtocolError, SessionEvent, Welcomed
from plait_worker.stream_end import REMEDIES, NextStep, StreamEnd, end_of_error

logger = logging.getLogger("plait_worker")

CHANNEL_OPTIONS: Final[Sequence[tuple[str, int]]] = (
    # A half-open peer is found within 10 s + 5 s. What bounds the wait for the answer in today's gRPC is
    # ping_timeout_ms: with keepalive_timeout_ms alone it took a minute.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    # The channel's own waits must not be longer than those between streams; the default is up to 120 s.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 5_000),
    ("grpc.max_reconnect_backoff_ms", 5_000),
    ("grpc.max_receive_message_length", RECEIVED_BYTES_MAX),
    ("grpc.max_send_message_length", -1),
)

GREETING_S: Final = 15.0
"""How long `welcome` may take: a server busy with recovery is slow, a half-open one is found as fast."""
LEASE_DEFAULT_S: Final = 30.0
"""The silence that ends a stream when the server did not name its lease."""
STABLE_S: Final = 5.0
"""A stream that lasted this long resets the backoff, so that a server that hangs up at once is not hammered."""

IN_USE_S: Final = 120.0
"""How long a worker whose id is in use tries again. In a rolling restart the new process comes before the old
one has drained, which takes 30 s by default; and it is over sooner when somebody forgot to give an id."""

_OnEvents: TypeAlias = Callable[[Sequence[SessionEvent]], None]
_Call: TypeAlias = "grpc.aio.StreamStreamCall[hub.AttachRequest, hub.AttachResponse]"

# The errors of reads and writes when the stream is over; the status has the reason.
_STREAM_OVER: Final = (grpc.aio.AioRpcError, grpc.aio.InternalError, asyncio.InvalidStateError)


class Connection:
    """Keeps a session attached.

    Args:
        session: what is driven; its owner may call it too, and then calls `wake`.
        channel: where the server is.
        address: the server's address, for people.
        access: the token that each stream begins with.
        jitter: draws a number in [0, 1).
    """

    def __init__(
        self,
        session: WorkerSession,
        channel: grpc.aio.Channel,
        *,
        address: str,
        access: Access,
        jitter: Callable[[], float],
    ) -> None:
        self._session = session
        self.address: Final = address
        """The server's address."""
        self._access = access
        self._shown: tuple[tuple[str, str], ...] = ()
        """The credentials with which the last stream began."""
        self._jitter = jitter
        self._attach = channel.stream_stream(
            "/plait.v1.WorkerHubService/Attach",
            request_serializer=_serialize,
            response_deserializer=hub.AttachResponse.FromString,
        )
        self._loop = asyncio.get_running_loop()
        self._call: _Call | None = None
        self._has_work = asyncio.Event()
        self._has_moved = asyncio.Event()
        self._is_writing = False
        self._is_closing = False
        self._is_out_of_reach = False
        self._is_in_use = False
        self._welcome_time_s: float | None = None

    def __repr__(self) -> str:
        """Show the address and the session."""
        return f"<Connection {self.address} {self._session!r}>"

    def wake(self) -> None:
        """Have what the session has queued written soon."""
        self._has_work.set()

    async def run(self, on_events: _OnEvents) -> None:
        """Keep attached until `close` is called.

        If the caller is cancelled, the stream is dropped at once; the session keeps what it holds.

        Args:
            on_events: carries out the session's events, at once.

        Raises:
            WorkerRefused: if the server will not have this worker, and trying again cannot help.
        """
        backoff = Backoff(self._jitter)
        in_use_since_s: float | None = None
        while not self._is_closing:
            end = await self._stream(on_events)
            if self._is_closing:
                return
            next_step = self._next_step(end)
            match next_step:
                case NextStep.WAIT_FOR_ID:
                    now_s = self._loop.time()
                    in_use_since_s = now_s if in_use_since_s is None else in_use_since_s
                    if now_s - in_use_since_s >= IN_USE_S:
                        raise self._refusal(end)
                    self._tell_in_use(end)
                case NextStep.GIVE_UP:
                    raise self._refusal(end)
                case NextStep.ATTACH_AGAIN:
                    in_use_since_s = None
                    self._tell_lost(end)
                case _:
                    assert_never(next_step)
            if self._lived_s() >= STABLE_S:
                backoff.reset()
            await asyncio.sleep(backoff.next_delay_s())

    async def wait_settled(self) -> None:
        """Wait until the session is idle and all of its messages are written. The caller bounds the wait."""
        while not self._session.is_idle or self._is_writing:
            self._has_moved.clear()
            await self._has_moved.wait()

    async def close(self) -> None:
        """Say that nothing more comes; `run` returns when the server has ended the stream, too.

        To be called once everything is settled. Without a stream the caller cancels `run`.
        """
        self._is_closing = True
        if self._call is not None:
            try:
                await self._call.done_writing()
            except _STREAM_OVER:
                return

    async def _stream(self, on_events: _OnEvents) -> StreamEnd:
        """Drive the session over one stream, to its end."""
        self._welcome_time_s = None
        try:
            self._shown = self._access.metadata()
        except (OSError, ValueError) as error:
            # Whoever replaces the token's file may not have finished.
            return StreamEnd(code=grpc.StatusCode.UNAVAILABLE, details=str(error))
        call = self._attach(metadata=self._shown)
        self._session.connected()
        self._call = call
        try:
            async with asyncio.TaskGroup() as tasks:
                writer = tasks.create_task(self._write(call))
                end = await self._read(call, on_events)
                writer.cancel()
        finally:
            self._call = None
            self._session.disconnected()
            call.cancel()
        return end

    def _next_step(self, end: StreamEnd) -> NextStep:
        """Return what to do now: a token that was revoked may have been replaced in its file already."""
        if end.code is grpc.StatusCode.UNAUTHENTICATED:
            with contextlib.suppress(OSError, ValueError):
                if self._access.metadata() != self._shown:
                    return NextStep.ATTACH_AGAIN
        return end.next_step

    def _lived_s(self) -> float:
        """Return for how long the last stream was attached; 0 if it was not."""
        return 0.0 if self._welcome_time_s is None else self._loop.time() - self._welcome_time_s

    async def _read(self, call: _Call, on_events: _OnEvents) -> StreamEnd:
        session = self._session
        silence_s = GREETING_S
        try:
            async with asyncio.timeout(silence_s) as silence:
                while isinstance(frame := await call.read(), hub.AttachResponse):
                    events = session.receive(frame)
                    on_events(events)
                    for event in events:
                        match event:
                            case Welcomed():
                                silence_s = event.lease_s or LEASE_DEFAULT_S
                                self._tell_attached(event)
                            case ProtocolError():
                                return StreamEnd(code=grpc.StatusCode.INTERNAL, details=event.message)
                            case _:
                                pass
                    silence.reschedule(self._loop.time() + silence_s)
                    self._has_work.set()
                    self._has_moved.set()
        except TimeoutError:
            details = f"nothing was heard for {silence_s:g} s"
            return StreamEnd(code=grpc.StatusCode.DEADLINE_EXCEEDED, details=details)
        except grpc.aio.AioRpcError as error:
            return end_of_error(error)
        return StreamEnd(code=grpc.StatusCode.OK, details="the server ended the stream")

    async def _write(self, call: _Call) -> None:
        session = self._session
        try:
            while True:
                frame = session.take_frame()
                if frame is None:
                    self._is_writing = False
                    self._has_moved.set()
                    self._has_work.clear()
                    await self._has_work.wait()
                else:
                    self._is_writing = True
                    await call.write(frame)
        except _STREAM_OVER:
            # The reader learns why.
            return
        finally:
            self._is_writing = False
            self._has_moved.set()

    def _refusal(self, end: StreamEnd) -> WorkerRefused:
        text = f"the server at {self.address} refused the worker: {end}; {REMEDIES[end.code]}"
        return WorkerRefused(end.code.name, text, end.reason)

    def _tell_in_use(self, end: StreamEnd) -> None:
        """Log once that another process has the worker's id."""
        if not self._is_in_use:
            self._is_in_use = True
            text = "not attached, trying again for %g s in case the other process is leaving: %s (%s)"
            logger.warning(text, IN_USE_S, end, REMEDIES[end.code])

    def _tell_attached(self, welcome: Welcomed) -> None:
        self._welcome_time_s = self._loop.time()
        self._is_out_of_reach = self._is_in_use = False
        version = welcome.server_version or "of unknown version"
        logger.info("attached to %s (Plait %s) as %s", self.address, version, self._session.worker_id)

    def _tell_lost(self, end: StreamEnd) -> None:
        """Log only once that the server cannot be reached, not at every attempt."""
        if self._is_out_of_reach:
            return
        self._is_out_of_reach = True
        if self._welcome_time_s is not None:
            logger.warning("lost the server at %s, retrying: %s", self.address, end)
        elif end.code is grpc.StatusCode.UNAVAILABLE:
            logger.warning("server not reachable at %s, retrying: %s", self.address, end)
        else:
            logger.warning("the server at %s did not take the worker, retrying: %s", self.address, end)


def _serialize(frame: hub.AttachRequest) -> bytes:
    # A function with types: of a generated method type checkers see that it serializes any message.
    return frame.SerializeToString()
