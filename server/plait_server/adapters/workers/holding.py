"""What the server keeps of a worker: its stream, if it has one, and the attempts it holds."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal

import trio

from plait_server.adapters.workers.session import Hello, ServerSession
from plait_server.core.states import CancelStage
from plait_server.ports.workers import Assignment, Report, WorkerSnapshot


class Held:
    """An attempt that a worker has, or is about to have."""

    __slots__ = (
        "assignment",
        "done",
        "exited",
        "is_delivered",
        "on_receipt",
        "reason",
        "report",
        "token",
        "usage",
    )

    def __init__(self, token: str, assignment: Assignment, on_receipt: Callable[[CancelStage], None]) -> None:
        self.token = token
        self.assignment = assignment
        self.on_receipt = on_receipt
        self.done = trio.Event()
        self.exited = trio.Event()
        self.report: Report | None = None
        self.reason = ""
        """Why it is being cancelled; empty while it is not."""
        self.is_delivered = False
        """Whether its cancel is known to have reached the worker's stream."""
        self.usage: dict[str, Decimal] = {}

    def note_delivered(self) -> None:
        """Give the receipt DELIVERED, once."""
        if not self.is_delivered:
            self.is_delivered = True
            self.on_receipt(CancelStage.DELIVERED)


class Worker:
    """One process instance of a worker."""

    def __init__(self, namespace: str, worker_id: str, instance_id: str, now_s: float) -> None:
        self.namespace = namespace
        self.worker_id = worker_id
        self.instance_id = instance_id
        self.hello: Hello | None = None
        self.session: ServerSession | None = None
        self.stream: trio.CancelScope | None = None
        self.wake = trio.Event()
        self.held: dict[str, Held] = {}
        self.at_worker: dict[str, None] = {}
        """Tokens that were sent to it, or that it named, and that have not ended."""
        self.slots = 0
        self.is_draining = False
        self.is_paused = False
        self.attached_s = 0.0
        self.heard_s = now_s
        """trio time at which it was last heard of."""

    def __repr__(self) -> str:
        state = "attached" if self.session is not None else "detached"
        return f"<Worker {self.worker_id} {state}, {len(self.held)} attempts>"

    def queue(self) -> None:
        """Let the writer see what was queued."""
        self.wake.set()

    def snapshot(self, slots_in_use: int, offset_s: float) -> WorkerSnapshot:
        """Describe it for people; `offset_s` leads from trio's time to the wall's."""
        hello = self.hello
        return WorkerSnapshot(
            namespace=self.namespace,
            worker_id=self.worker_id,
            instance_id=self.instance_id,
            is_attached=self.session is not None,
            is_draining=self.is_draining,
            types=hello.types if hello is not None else {},
            slots=self.slots,
            slots_in_use=slots_in_use,
            labels=hello.labels if hello is not None else {},
            attached_time_s=self.attached_s + offset_s if self.attached_s else 0.0,
            heard_time_s=self.heard_s + offset_s,
            sdk=hello.sdk if hello is not None else "",
        )
