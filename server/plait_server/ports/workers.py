"""The worker port: how the runtime has an attempt carried out, whichever way the worker is reached.

The contract:

1. `execute` gives an attempt to the worker that was granted and waits for its result, which is the core's input
   as it stands, but for two things that the runtime adds: texts that are long are kept by digest, and the jitter.
   It returns once for each call.
2. Cancelling `execute` cancels the attempt at the worker: within a bounded grace time the worker is told, and
   each step is reported to the listener, EXITED or ABANDONED last, before the cancellation goes on.
3. An attempt that is `recovered` (the server restarted, or the execution was read again) is not sent again to
   a worker that says it holds it; its lease is granted anew in full.
4. A result that nobody waits for goes to the supervisor, which finds out whether it still counts.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, TypeAlias

from plait.v1 import worker_hub_service_pb2
from plait_server.core.run.commands import AttemptResult, Disposition
from plait_server.core.run.states import CancelStage


class AttemptKey(NamedTuple):
    """What an attempt token stands for."""

    namespace: str
    execution_id: str
    run: int
    node_path: str
    attempt: int


class Assignment(NamedTuple):
    """An attempt to be carried out."""

    key: AttemptKey
    worker_id: str
    worker_instance_id: str
    type: str
    input_json: str
    """JSON text; empty when `input_digest` names it."""
    input_digest: str
    input_size_bytes: int
    time_left_s: float
    """Seconds; 0 is no bound."""
    traceparent: str
    """That of the attempt's span."""
    tracestate: str
    branch: str
    """The display path of the node's branch."""
    recovered: bool


class AttemptListener(Protocol):
    """Hears what happens to an attempt while it is carried out."""

    def stop_reason(self) -> str:
        """Say, when `execute` is cancelled, why, for the worker; empty if nobody is to be told."""
        ...

    def on_receipt(self, stage: CancelStage, usage: Mapping[str, str] | None = None) -> None:
        """Take a step of its cancel; with the last step, what it used in all, if the worker said so."""

    def on_usage(self, unit: str, amount: str) -> None:
        """Take what it says to have used since it said so last."""


class Workers(Protocol):
    """All workers, however they are reached."""

    async def execute(self, assignment: Assignment, listener: AttemptListener) -> AttemptResult:
        """Have an attempt carried out; see the contract.

        Args:
            assignment: The attempt and the worker that was granted.
            listener: Hears what happens to it meanwhile.
        """
        ...

    def acknowledge(self, key: AttemptKey, disposition: Disposition, worker_id: str) -> None:
        """Tell a worker what became of its result. Does nothing if the worker is not attached: it asks again."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSnapshot:
    """What is known of a worker."""

    namespace: str
    worker_id: str
    instance_id: str
    is_attached: bool
    is_draining: bool
    types: Mapping[str, int]
    """Type -> how many attempts of it at once; 0: no limit of its own."""
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

Always a checkpoint, for a worker may send without end.
"""
SendFrame: TypeAlias = Callable[[worker_hub_service_pb2.AttachResponse], Awaitable[None]]
"""Sends a frame; waits for the transport's flow control."""


class AttachStreams(Protocol):
    """Workers that dial in."""

    async def attach(self, receive: ReceiveFrame, send: SendFrame) -> None:
        """Serve one stream to its end. Returns only when the worker has ended its side of it.

        Raises:
            InvalidRequest: `hello` has malformed fields.
            ProtocolVersionUnsupported: the worker speaks another version.
            ProtocolViolation: the worker broke the protocol.
            WorkerIdInUse: another instance of the worker is attached and answers.
            SlowConsumer: the worker does not read.
            LeaseExpired: the worker answered no ping for a lease.
            InstanceReplaced: it did not answer, and another instance has its worker id.
            StreamReplaced: the same instance has another stream.
            Overloaded: too many workers are attached.
        """

    def list_workers(self, namespace: str) -> Sequence[WorkerSnapshot]:
        """List the workers of a namespace, by worker id and instance."""
        ...
