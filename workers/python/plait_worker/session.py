"""The worker's end of Attach as a state machine without I/O, as h11 is for HTTP.

It opens no socket, reads no clock, draws no random number and knows no event loop: the SDK drives it with
asyncio, a simulator with trio under virtual time, a test with plain calls. What it promises: a result is
offered on every stream until the server has said what became of it; an attempt's token starts at most one
handler, whatever is sent twice; and each cancel is answered in full.

The driver's obligations, in their order:
1. Call `connected()` once for a new stream, before anything else is read or written there.
2. After every call that may queue something, take frames with `take_frame()` until it gives None, and write
   them in that order. A frame taken is gone: if it cannot be written, the stream is lost, see 6.
3. Give every frame received to `receive()`, in order, and act on its events, in order, before the next
   `take_frame()`: the acceptance and the acknowledgement of a cancel are queued already and say that the
   handler was started, or told.
4. For each `Assigned` start one handler. When it has ended, call exactly one of `complete`, `fail`, `exited`
   (it ended because it was cancelled) and `hand_back` (it did not do the work); after that the token is the
   session's.
5. On `CancelRequested` cancel the handler and do 4 when it has ended. On `ProtocolError` drop the stream.
6. When the stream has ended, however it did, call `disconnected()`. Handlers run on and their ends are told
   as in 4. Then open another stream and start at 1.
7. The session has no clock: drop a stream on which nothing was received for `Welcomed.lease_s`.
8. To leave, call `drain()` and keep on until `is_idle`; then nothing held by this worker can be lost.

Designs rejected: exceptions for the peer's mistakes (the caller of `receive` would lose the events that came
before the mistake); results removed when they are written (a write says nothing about the far side); one
queue in order (a flood of log lines would delay pongs until the lease runs out).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Final

from plait.v1 import failure_pb2
from plait.v1 import worker_hub_service_pb2 as hub
from plait_worker import messages
from plait_worker.identity import Identity, check_count
from plait_worker.ledger import Action, AttemptNotHeld, Ledger, Trigger
from plait_worker.limits import FRAME_BYTES_MAX, PROTOCOL_VERSION
from plait_worker.outbox import Outbox
from plait_worker.session_events import (
    CancelRequested,
    ProtocolError,
    Recorded,
    RecordedResult,
    SessionEvent,
    SessionState,
    SessionStatistics,
)
from plait_worker.usage import add_amount, parse_amount

_NO_USAGE: Final[Mapping[str, Decimal]] = MappingProxyType({})


class WorkerSession:
    """The worker's end of Attach, over as many streams as it takes.

    The driver's obligations stand at the top of the module. It begins detached, holding nothing. It belongs
    to one owner and is not thread-safe. No method blocks, and none raises for what the server did.

    Args:
        worker_id: the worker's id, stable over restarts.
        instance_id: the process instance, new at each start.
        types: node type to how many attempts of it are taken at once; 0: bounded by `slots` alone.
        slots: how many attempts are taken at once, 1 to 10,000.
        namespace: the namespace served.
        labels: labels for people, at most 64.
        sdk: names the driver and its version.

    Raises:
        ValueError: if an argument is out of its bounds; the message says which.
    """

    def __init__(
        self,
        *,
        worker_id: str,
        instance_id: str,
        types: Mapping[str, int],
        slots: int,
        namespace: str = "default",
        labels: Mapping[str, str] | None = None,
        sdk: str = "",
    ) -> None:
        self._identity = Identity(
            worker_id=worker_id,
            instance_id=instance_id,
            namespace=namespace,
            types=dict(types),
            slots=slots,
            labels=dict(labels or {}),
            sdk=sdk,
        )
        self._slots = slots
        self._state = SessionState.DETACHED
        self._is_draining = False
        self._is_hello_due = False
        self._frame_bytes_max = FRAME_BYTES_MAX
        self._outbox = Outbox()
        self._ledger = Ledger(self._identity.types, self._outbox)
        self._streams = 0
        self._completed = 0
        self._failed = 0
        self._handed_back = 0
        self._recorded = 0
        self._stale = 0
        self._receivers: dict[str | None, Callable[[hub.ServerMessage, list[SessionEvent]], None]] = {
            "assign": self._receive_assign,
            "recorded": self._receive_recorded,
            "ping": self._receive_ping,
            "cancel": self._receive_cancel,
            "welcome": self._receive_welcome,
        }

    def __repr__(self) -> str:
        """Show the state and what is held."""
        draining = " draining" if self._is_draining else ""
        held = self._ledger
        return (
            f"<WorkerSession {self._identity.worker_id} {self._state.value}{draining}"
            f" running={len(held.running)}/{self._slots} unrecorded={len(held.unrecorded)}"
            f" queued={len(self._outbox)}>"
        )

    # What it is doing.

    @property
    def worker_id(self) -> str:
        """The worker's id."""
        return self._identity.worker_id

    @property
    def namespace(self) -> str:
        """The namespace served."""
        return self._identity.namespace

    @property
    def state(self) -> SessionState:
        """The state of its stream."""
        return self._state

    @property
    def is_draining(self) -> bool:
        """Whether it takes nothing new."""
        return self._is_draining

    @property
    def running(self) -> Sequence[str]:
        """The tokens of attempts that run here as far as the server knows, in the order of their coming."""
        return tuple(self._ledger.running)

    @property
    def unrecorded(self) -> Sequence[str]:
        """The tokens of attempts whose results are not yet recorded, in the order of their ends."""
        return tuple(self._ledger.unrecorded)

    @property
    def is_idle(self) -> bool:
        """Whether it holds no attempt and no result, and owes the server no message: it may leave."""
        return not self._ledger.running and not self._ledger.unrecorded and not self._outbox.has_obligations

    def statistics(self) -> SessionStatistics:
        """Count what was done and what is held."""
        return SessionStatistics(
            state=self._state,
            is_draining=self._is_draining,
            slots=self._slots,
            running=len(self._ledger.running),
            unrecorded=len(self._ledger.unrecorded),
            queued=len(self._outbox),
            streams=self._streams,
            assigned=self._ledger.assigned,
            duplicates=self._ledger.duplicates,
            rejected=self._ledger.rejected,
            completed=self._completed,
            failed=self._failed,
            exited=self._ledger.exited,
            handed_back=self._handed_back,
            recorded=self._recorded,
            stale=self._stale,
            logs_dropped=self._outbox.logs_dropped,
        )

    # The stream.

    def connected(self) -> None:
        """Begin a new stream; the next `take_frame()` returns its `hello`.

        `hello` names every attempt of which the server has still to hear: those that run, those with a result
        that is not recorded, and those whose `exited` or `reject` was not taken. Once the server has said
        `welcome`, all these messages go out, results again if need be. What else was queued for the stream
        before is dropped, but for reports of handlers (log lines, progress, usage, heartbeats) that were not
        taken.
        """
        self._streams += 1
        self._state = SessionState.GREETING
        self._is_hello_due = True
        self._outbox.begin_stream()

    def disconnected(self) -> None:
        """End the stream, however it ended. Attempts and results stay held; handlers run on."""
        self._state = SessionState.DETACHED
        self._is_hello_due = False

    def take_frame(self, bytes_max: int = 0) -> hub.AttachRequest | None:
        """Take the next frame to write: whatever is queued, in order.

        Args:
            bytes_max: the size of a frame; a single larger message travels alone. 0: what the server allows.

        Returns:
            The frame, which is the caller's; None when nothing is to be written now: nothing is queued, there
            is no stream, or `hello` is out and `welcome` has not come.
        """
        if self._is_hello_due:
            self._is_hello_due = False
            return hub.AttachRequest(messages=[self._identity.hello(self._slots, self._ledger.in_flight())])
        if self._state is not SessionState.ATTACHED:
            return None
        taken = self._outbox.take(bytes_max or self._frame_bytes_max)
        return hub.AttachRequest(messages=taken) if taken else None

    def receive(self, frame: hub.AttachResponse) -> list[SessionEvent]:
        """Take in a frame from the server.

        Returns:
            What happened, in order. After a `ProtocolError`, always the last, the session ignores what it
            receives until the next `connected()`.
        """
        events: list[SessionEvent] = []
        receivers = self._receivers
        for message in frame.messages:
            if self._state is not SessionState.ATTACHED and not self._is_greeted_by(message, events):
                break
            receiver = receivers.get(message.WhichOneof("message"))
            # Messages of a later protocol are ignored, as the contract says.
            if receiver is not None:
                receiver(message, events)
        return events

    # What a handler says while it runs. All of these are ignored for a token that is not running.

    def progress(self, token: str, fraction: float, message: str = "") -> None:
        """Report how far an attempt is, 0 to 1. Only the newest report of an attempt waits."""
        if token in self._ledger.running:
            self._outbox.set_progress(token, messages.progress(token, fraction, message))

    def log(self, token: str, level: str, message: str, time_ns: int = 0) -> None:
        """Send a log line. Beyond 1,000 that wait the oldest is dropped and counted.

        Args:
            token: names the attempt.
            level: DEBUG, INFO, WARNING or ERROR.
            message: the text, at most 8 KiB.
            time_ns: when it was written, in nanoseconds since 1970; 0 leaves it out.
        """
        if token in self._ledger.running:
            self._outbox.add_log(messages.log(token, level, message, time_ns))

    def usage(self, token: str, unit: str, amount: Decimal | int | str) -> None:
        """Report what an attempt used since the last report; amounts of a unit add up, also in its result.

        Raises:
            TypeError: if the amount is not exact.
            ValueError: if it is out of its bounds, or the unit is no name or the 65th of the attempt.
        """
        attempt = self._ledger.running.get(token)
        if attempt is not None:
            exact = parse_amount(amount)
            add_amount(attempt.usage, unit, exact)
            self._outbox.add_usage(token, unit, exact)

    def heartbeat(self, token: str, details_json: str | None = None) -> None:
        """Queue a heartbeat. Only the newest of an attempt waits, with the newest details.

        The newest details of an attempt that runs are sent again on each new stream, because a server that has
        restarted does not know them.

        Args:
            token: names the attempt.
            details_json: how far it is, as JSON text of at most 32 KiB; None: as far as the heartbeat before said.
        """
        self._ledger.heartbeat(token, details_json)

    def extend(self, token: str, duration_s: float) -> None:
        """Ask for more time: `duration_s` seconds from now, above 0. Only the newest request of an attempt waits."""
        if token in self._ledger.running:
            self._outbox.set_extension(token, messages.extend(token, duration_s))

    # How a handler ended.

    def complete(self, token: str, output_json: str | None, usage: Mapping[str, Decimal] = _NO_USAGE) -> None:
        """Deliver a result. It is kept, and sent on every stream, until the server acknowledges it.

        If a cancel was requested before, the server has decided without it: `exited` goes out in its place.

        Args:
            token: names the attempt.
            output_json: the result as JSON text; None means null.
            usage: its usage in addition to that reported by `usage()`.

        Raises:
            AttemptNotHeld: if the attempt has no running handler here.
        """
        attempt = self._ledger.end(token, usage)
        attempt.result = messages.complete(token, output_json, attempt.usage)
        if self._ledger.step(attempt, Trigger.RESULT) is Action.SEND_RESULT:
            self._completed += 1

    def fail(  # noqa: PLR0913 -- A failure may say many things; most are keywords.
        self,
        token: str,
        code: str,
        message: str,
        *,
        details_json: str | None = None,
        retryable: bool | None = None,
        retry_after_s: float | None = None,
        causes: Iterable[failure_pb2.Failure] = (),
        usage: Mapping[str, Decimal] = _NO_USAGE,
        result_problem: hub.ResultProblem = hub.RESULT_PROBLEM_UNSPECIFIED,
    ) -> None:
        """Deliver a failure. It is kept, and yields to a cancel, as a result does.

        Args:
            token: names the attempt.
            code: the machine-readable cause; `[A-Za-z0-9_.-]{1,128}`.
            message: what happened, at most 4 KiB.
            details_json: what else there is to say, as JSON text.
            retryable: whether another attempt may help; None: the policy's codes decide.
            retry_after_s: seconds to wait before the next attempt; None: the policy decides.
            causes: the failures behind this one.
            usage: its usage in addition to that reported by `usage()`.
            result_problem: what is wrong with the handler's result, if that is why it fails; the server then
                gives the code.

        Raises:
            AttemptNotHeld: if the attempt has no running handler here.
        """
        attempt = self._ledger.end(token, usage)
        attempt.result = messages.fail(
            token,
            code,
            message,
            details_json=details_json,
            retryable=retryable,
            retry_after_s=retry_after_s,
            causes=causes,
            usage=attempt.usage,
            result_problem=result_problem,
        )
        if self._ledger.step(attempt, Trigger.RESULT) is Action.SEND_RESULT:
            self._failed += 1

    def exited(self, token: str, usage: Mapping[str, Decimal] = _NO_USAGE) -> None:
        """Report that a handler ended because it was cancelled.

        If the server asked for that, it is told now. If it did not (the driver cancelled a handler whose time
        had run out), it is told when it asks: the outcome is the server's to decide, and until then the
        attempt counts as running.

        Raises:
            AttemptNotHeld: if the attempt has no running handler here.
        """
        self._ledger.step(self._ledger.end(token, usage), Trigger.EXITED)

    def hand_back(self, token: str, code: str, message: str) -> None:
        """Hand an attempt back: the node is given out again and no attempt is used up.

        Its token is never taken again. If a cancel was requested before, `exited` goes out in its place.

        Args:
            token: names the attempt.
            code: the cause, such as DRAINING; `[A-Za-z0-9_.-]{1,128}`.
            message: an explanation for people.

        Raises:
            AttemptNotHeld: if the attempt does not run here.
        """
        attempt = self._ledger.running.get(token)
        if attempt is None:
            raise AttemptNotHeld
        attempt.result = messages.reject(token, code, message)
        if self._ledger.step(attempt, Trigger.HANDED_BACK) is Action.SEND_REJECT:
            self._handed_back += 1

    # How much is taken.

    def drain(self) -> None:
        """Accept no new attempts, on this stream and all later ones, and tell the server. Idempotent."""
        if not self._is_draining:
            self._is_draining = True
            if self._state is SessionState.ATTACHED:
                self._outbox.add_control(messages.drain())

    def set_credit(self, slots: int) -> None:
        """Change how many attempts are taken at once; what runs counts against it and runs on.

        Raises:
            ValueError: if it is not within 0 to 10,000.
        """
        check_count("slots", slots, low=0)
        if slots != self._slots:
            self._slots = slots
            if self._state is SessionState.ATTACHED:
                self._outbox.add_control(messages.credit(slots))

    # Messages from the server.

    def _is_greeted_by(self, message: hub.ServerMessage, events: list[SessionEvent]) -> bool:
        if self._state is SessionState.GREETING:
            if self._is_hello_due:
                self._break("the server spoke before the worker's hello", events)
            elif message.HasField("welcome"):
                return True
            else:
                self._break("the server's first message was not welcome", events)
        return False

    def _break(self, message: str, events: list[SessionEvent]) -> None:
        self._state = SessionState.BROKEN
        events.append(ProtocolError(message=message))

    def _receive_welcome(self, message: hub.ServerMessage, events: list[SessionEvent]) -> None:
        welcome = message.welcome
        if self._state is SessionState.ATTACHED:
            self._break("the server said welcome twice", events)
            return
        if welcome.protocol_version != PROTOCOL_VERSION:
            self._break(
                f"the server speaks protocol {welcome.protocol_version}, this worker {PROTOCOL_VERSION}:"
                " upgrade the older side",
                events,
            )
            return
        self._state = SessionState.ATTACHED
        if self._slots == 0:
            # `hello` cannot say zero.
            self._outbox.add_control(messages.credit(0))
        if self._is_draining:
            self._outbox.add_control(messages.drain())
        self._ledger.requeue()
        welcomed = messages.read_welcome(welcome)
        self._frame_bytes_max = welcomed.frame_bytes_max or FRAME_BYTES_MAX
        events.append(welcomed)

    def _receive_assign(self, message: hub.ServerMessage, events: list[SessionEvent]) -> None:
        assign = message.assign
        token = assign.token
        if not token:
            self._break("the server assigned an attempt without a token", events)
            return
        if self._ledger.take(token, assign.type, self._slots, is_draining=self._is_draining):
            events.append(messages.read_assign(assign))

    def _receive_recorded(self, message: hub.ServerMessage, events: list[SessionEvent]) -> None:
        recorded = message.recorded
        token = recorded.token
        try:
            result = RecordedResult(recorded.result)
        except ValueError:
            self._break(f"the server said recorded with the unknown result {recorded.result}", events)
            return
        attempt = self._ledger.find(token)
        if attempt is None:
            return
        action = self._ledger.step(attempt, Trigger.RECORDED)
        if action is Action.FORGET:
            if result is RecordedResult.STALE:
                self._stale += 1
            else:
                self._recorded += 1
            events.append(Recorded(token=token, result=result))
        elif action is Action.REQUEST_CANCEL:
            events.append(CancelRequested(token=token, reason="STALE", grace_s=0.0))

    def _receive_cancel(self, message: hub.ServerMessage, events: list[SessionEvent]) -> None:
        cancel = message.cancel
        token = cancel.token
        self._outbox.add_control(messages.cancel_ack(token))
        attempt = self._ledger.find(token)
        if attempt is None:
            self._ledger.answer_late_cancel(token)
        elif self._ledger.step(attempt, Trigger.CANCEL) is Action.REQUEST_CANCEL:
            grace_s = messages.seconds_of(cancel.grace)
            events.append(
                CancelRequested(token=token, reason=messages.cancel_reason_of(cancel), grace_s=grace_s)
            )

    def _receive_ping(self, message: hub.ServerMessage, _events: list[SessionEvent]) -> None:
        self._outbox.add_control(messages.pong(message.ping.number))
