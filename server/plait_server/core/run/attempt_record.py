"""The state of one attempt of a node; it changes by events alone."""

from __future__ import annotations

from collections.abc import Mapping

from plait_server.core.run.events import NO_USAGE, AttemptExtended, AttemptStarted
from plait_server.core.run.failures import Failure
from plait_server.core.run.payload import Payload
from plait_server.core.run.states import AttemptOutcome


class AttemptRecord:
    """One attempt of a node."""

    __slots__ = (
        "concurrency_key",
        "deadline_s",
        "ended_s",
        "extensions",
        "failure",
        "heartbeat_details",
        "late_usage",
        "number",
        "outcome",
        "queue_s",
        "retry_time_s",
        "run",
        "started_s",
        "usage",
        "worker_id",
        "worker_instance_id",
    )

    def __init__(self, number: int, run: int, started_s: float, detail: AttemptStarted) -> None:
        self.number = number
        self.run = run
        self.worker_id = detail.worker_id
        self.worker_instance_id = detail.worker_instance_id
        self.queue_s = detail.queue_s
        self.concurrency_key = detail.concurrency_key
        self.started_s = started_s
        self.ended_s = 0.0
        self.deadline_s = 0.0
        """When its timeout runs out, once it was extended; 0 before."""
        self.extensions = 0
        self.retry_time_s = 0.0
        """When the backoff after it ends; 0 if there is none."""
        self.outcome: AttemptOutcome | None = None
        self.failure: Failure | None = None
        self.usage: Mapping[str, str] = NO_USAGE
        self.heartbeat_details: Payload | None = None
        """The details of its latest heartbeat, once it has ended without success."""
        self.late_usage: Mapping[str, str] = NO_USAGE
        """Late usage audited since the execution was read; not durable state."""

    def apply_extended(self, detail: AttemptExtended) -> None:
        """Apply that it has more time."""
        self.deadline_s = detail.deadline_s
        self.extensions += 1
