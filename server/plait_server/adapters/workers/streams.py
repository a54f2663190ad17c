"""One Attach stream: reads and writes its frames, sends its pings, and tracks which answers its worker waits for.

Rules
1. One task reads and one writes; they share the session, which is synchronous. Between two pieces of a frame the
   reader lets other tasks run.
2. A worker must read to be able to send: one that accepts no frame for a lease, or leaves more answers unread
   than it can be owed, loses its stream with SlowConsumer. While the journal is behind with its results, it is
   read slowly.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import trio

from plait.v1 import worker_hub_service_pb2
from plait_server.adapters.workers.session import UNRECORDED_BYTES_MAX, ServerSession
from plait_server.adapters.workers.session_events import Hello, Ponged, SessionEvent
from plait_server.core.run.commands import Disposition
from plait_server.errors import PlaitError, ProtocolViolation, SlowConsumer
from plait_server.ports.workers import AttemptKey, ReceiveFrame, SendFrame

HELLO_S: Final = 10.0
"""Seconds within which a stream must send `hello`."""
HOLD_BACK_S: Final = 1.0
"""Seconds to wait for answers before each further frame then; bounded, because a result may get no answer."""


class Stream:
    """One Attach stream."""

    def __init__(self, receive: ReceiveFrame, send: SendFrame) -> None:
        self.session = ServerSession()
        self.scope = trio.CancelScope()
        """The cancel scope of everything that serves the stream."""
        self.error: PlaitError | None = None
        """The error with which `end` ended it, if it did."""
        self._receive = receive
        self._send = send
        self._pieces: Iterator[list[SessionEvent]] = iter(())
        self._wake = trio.Event()
        self._pings = 0
        self._ponged = 0
        self._heard = trio.Event()
        self._is_closed = False
        self._unanswered: dict[AttemptKey, tuple[str, int]] = {}
        """Results without an answer yet, with their tokens and sizes."""
        self._unanswered_bytes = 0
        self._answered = trio.Event()

    def __repr__(self) -> str:
        return f"<Stream {self.session!r}, {len(self._unanswered)} unanswered>"

    # In.

    async def receive_hello(self) -> tuple[Hello, list[SessionEvent]]:
        """Receive the frame that opens the stream: `hello` and the messages after it.

        Raises:
            ProtocolViolation: `hello` did not come in time, something else came, or the worker ended its side.
            InvalidRequest, ProtocolVersionUnsupported: The worker is refused.
        """
        with trio.move_on_after(HELLO_S):
            while (events := await self.receive()) is not None:
                if self.session.hello is not None:
                    return self.session.hello, events
            raise ProtocolViolation("the worker ended its side of the stream before it said hello")
        text = f"no hello came within {HELLO_S:g} s; it is the first message of a worker"
        raise ProtocolViolation(text)

    async def receive(self) -> list[SessionEvent] | None:
        """Receive the next piece of a frame; None at the stream's end.

        Raises:
            InvalidRequest, ProtocolVersionUnsupported, ProtocolViolation: see `ServerSession.receive`.
        """
        events = next(self._pieces, None)
        if events is not None:
            await (
                trio.lowlevel.checkpoint()
            )  # A checkpoint between two pieces of a frame; the wait for a frame is one anyway.
        while events is None:
            if self._unanswered_bytes > UNRECORDED_BYTES_MAX:
                with trio.move_on_after(HOLD_BACK_S):
                    await self._answered.wait()
            content = await self._receive()
            if content is None:
                return None
            self._pieces = self.session.receive(content)
            events = next(self._pieces, None)
        for event in events:
            if isinstance(event, Ponged):
                self._ponged = max(self._ponged, event.number)
                heard, self._heard = self._heard, trio.Event()
                heard.set()
        return events

    # Out.

    def queue(self) -> None:
        """Wake the writer for queued messages; end the stream if too much is queued."""
        self._wake.set()
        if self.session.is_overfull:
            text = "the worker sends and does not read its answers; read the stream while writing to it"
            self.end(SlowConsumer(text))

    async def write(
        self, take_s: float, on_sent: Callable[[worker_hub_service_pb2.AttachResponse], None]
    ) -> None:
        """Write frames until cancelled.

        Args:
            take_s: Seconds within which the worker must read a frame.
            on_sent: Called with each frame that the transport accepted.

        Raises:
            SlowConsumer: The worker does not read.
        """
        while True:
            frame = self.session.take_frame()
            if frame is None:
                self._wake = trio.Event()
                await self._wake.wait()
                # A step queues answers at once and assigns a round of trio later: they go in one frame.
                await trio.lowlevel.checkpoint()
                continue
            with trio.move_on_after(take_s) as taking:
                await self._send(frame)
            if taking.cancelled_caught:
                text = f"the worker has read nothing for {take_s:g} s; read the stream while writing to it"
                raise SlowConsumer(text)
            on_sent(frame)

    def ping(self) -> int:
        """Send a ping; return its number."""
        self._pings += 1
        self.session.ping(self._pings)
        self.queue()
        return self._pings

    async def is_answering(self, wait_s: float) -> bool:
        """Ping the worker; return whether its pong arrives within `wait_s`."""
        number = self.ping()
        with trio.move_on_after(wait_s):
            while self._ponged < number and not self._is_closed:
                await self._heard.wait()
        return self._ponged >= number

    def end(self, error: PlaitError) -> None:
        """End the stream, with a reason for the worker."""
        self.error = self.error or error
        self.scope.cancel()

    def close(self) -> None:
        """Record that the stream is over; tasks that wait for a pong are woken without one."""
        self._is_closed = True
        self._heard.set()

    # Results.

    def await_answer(self, key: AttemptKey, token: str, size: int) -> bool:
        """Record that the worker waits for the answer to a result; return False if it already does."""
        if key in self._unanswered:
            return False
        self._unanswered[key] = token, size
        self._unanswered_bytes += size
        return True

    def answer(self, key: AttemptKey, disposition: Disposition) -> None:
        """Answer a result; does nothing if the worker does not wait for it."""
        token, size = self._unanswered.pop(key, ("", 0))
        if token:
            self._unanswered_bytes -= size
            answered, self._answered = self._answered, trio.Event()
            answered.set()
            self.session.recorded(token, disposition)
            self.queue()
