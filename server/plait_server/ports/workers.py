"""The worker port: runs attempts at workers, however a worker is reached.

The contract:

1. `execute` sends an attempt to the worker that was granted and waits for its result. The result is the core's
   input, to which the runtime adds only the jitter and the digests of long texts.
2. Cancelling `execute` cancels the attempt at the worker: within a bounded grace time the worker is told, and
   each stage is reported to the listener, EXITED or ABANDONED last, before the cancellation proceeds.
3. An attempt that is `recovered` (the server restarted, or the execution was read again) is not sent again to
   a worker that reports holding it; its lease starts again in full.
4. A result without a waiting `execute` goes to the supervisor, which determines whether it still counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from plait.v1 import worker_hub_service_pb2
from plait_server.core.run.commands import AttemptResult, Disposition
from plait_server.core.run.states import CancelStage


class AttemptKey(NamedTuple):
    """The identity that an attempt token carries."""

    namespace: str
    execution_id: str
    run: int
    node_path: str
    attempt: int


class Assignment(NamedTuple):
    """An attempt to run."""

    key: AttemptKey
    worker_id: str
    worker_instance_id: str
    type: str
    input_json: str
    """JSON text; empty when `input_digest` names it."""
    input_digest: str
    input_size_bytes: int
    time_left_s: float
    """Seconds; 0 means no limit."""
    traceparent: str
    """The trace context of the attempt's span."""
    tracestate: str
    branch: str
    """The display path of the node's branch."""
    recovered: bool
    heartbeat_details: str = ""
    """JSON text that the last heartbeat of an earlier attempt left; empty if there is none."""
    heartbeat_timeout_s: float = 0.0
    """Seconds; 0 means no limit."""


class AttemptListener(Protocol):
    """Receives reports about an attempt while it runs."""

    def stop_reason(self) -> str:
        """Return the reason for the worker when `execute` is cancelled; empty if the worker is not to be told."""
        ...

    def on_receipt(self, stage: CancelStage, usage: Mapping[str, str] | None = None) -> None:
        """Receive a stage of the attempt's cancel; the last one has its total usage, if the worker reported it."""

    def on_usage(self, unit: str, amount: str) -> None:
        """Receive the usage since the last report."""

    def on_extend(self, duration_s: float) -> None:
        """Receive the request for more time: seconds from now, above 0."""

    def on_heard(self, details_json: str = "") -> None:
        """Receive the sign that the worker has reported something, with the details of a heartbeat that has any."""


class Workers(Protocol):
    """All workers, however they are reached."""

    async def execute(self, assignment: Assignment, listener: AttemptListener) -> AttemptResult:
        """Run an attempt; see the contract.

        Args:
            assignment: The attempt and the worker that was granted.
            listener: Receives reports about it in the meantime.
        """
        ...

    def acknowledge(self, key: AttemptKey, disposition: Disposition, worker_id: str) -> None:
        """Tell a worker how its result was recorded.

        Does nothing if the worker is not attached, because it will ask again.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSnapshot:
    """What is known about a worker."""

    namespace: str
    worker_id: str
    instance_id: str
    is_attached: bool
    is_draining: bool
    types: Mapping[str, int]
    """Type -> how many attempts of it may run at once; 0 means no limit of its own."""
    slots: int
    slots_in_use: int
    labels: Mapping[str, str]
    attached_time_s: float
    """Wall time; 0 if it has not attached since the server started."""
    heard_time_s: float
    """Wall time."""
    sdk: str


ReceiveFrame: TypeAlias = Callable[[], Awaitable[bytes | None]]
"""Receives a worker's next frame, an AttachRequest not yet parsed; None at the end of its stream.

Always a checkpoint, because a worker may send without pause.
"""
SendFrame: TypeAlias = Callable[[worker_hub_service_pb2.AttachResponse], Awaitable[None]]
"""Sends a frame; waits for the transport's flow control."""
Admit: TypeAlias = Callable[[str], None]
"""Admits a worker in the namespace that it is to serve, or raises PermissionDenied."""


class AttachStreams(Protocol):
    """Workers that dial in."""

    async def attach(self, receive: ReceiveFrame, send: SendFrame, admit: Admit) -> None:
        """Serve one stream to its end. Returns only after the worker has ended its side of the stream.

        `admit` is called with the namespace of `hello` before anything is done for the worker.

        Raises:
            PermissionDenied: `admit` refused the worker.
            InvalidRequest: A field of `hello` is malformed.
            ProtocolVersionUnsupported: The worker speaks another version.
            ProtocolViolation: The worker broke the protocol.
            WorkerIdInUse: Another instance of the worker is attached and alive.
            SlowConsumer: The worker does not read.
            LeaseExpired: The worker answered no ping for the length of a lease.
            InstanceReplaced: The worker did not answer, and another instance has taken over its worker id.
            StreamReplaced: The same instance has opened another stream.
            Overloaded: Too many workers are attached.
        """

    def list_workers(self, namespace: str) -> Sequence[WorkerSnapshot]:
        """List the workers of a namespace, by worker id and instance."""
        ...
