"""The events of a worker's session for its driver: facts, in the past tense, in their order of arrival."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias


class SessionState(enum.Enum):
    """The state of a session's stream."""

    DETACHED = "detached"
    """There is no stream."""
    GREETING = "greeting"
    """A stream is open; `welcome` has not come yet."""
    ATTACHED = "attached"
    """The server said `welcome`."""
    BROKEN = "broken"
    """The server broke the protocol: the stream is to be dropped."""


class RecordedResult(enum.Enum):
    """What became of a result. Values are those of plait.v1.RecordedResult."""

    RECORDED = 1
    """It is durable."""
    ALREADY_RECORDED = 2
    """It was durable before."""
    STALE = 3
    """The attempt was not the current one; the result changed nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Welcomed:
    """The server took the worker in; results that wait are queued again."""

    server_version: str
    """The server's version."""
    server_instance_id: str
    """A different value than before means that the server has restarted."""
    ping_interval_s: float
    """Seconds between pings; 0 when the server did not say."""
    lease_s: float
    """Seconds of silence after which the stream is dead; 0 if the server did not say."""
    payload_bytes_max: int
    """The largest result in bytes; 0 when the server did not say."""
    frame_bytes_max: int = 0
    """The size up to which a frame is filled; 0 when the server did not say."""


class Assigned(NamedTuple):
    """An attempt was taken: its handler is to be started, once.

    A NamedTuple, since one is made for every attempt: 0.6 us against 3.0 for a frozen dataclass of these
    fields.
    """

    token: str
    """Names the attempt in every call to the session. Secret: it is not logged."""
    execution_id: str
    """The execution's id."""
    node_path: str
    """The node's path."""
    attempt: int
    """The number of the attempt, from 1."""
    run: int
    """The run, from 1."""
    type: str
    """The node type; one that the session serves."""
    input_json: str | None
    """The input as JSON text; None when there is none, or when it is named by digest."""
    input_digest: str | None
    """The digest to fetch the input by, or None."""
    time_left_s: float | None
    """Seconds the attempt has; None: no bound."""
    traceparent: str
    """The W3C traceparent of the attempt's span, or empty."""
    tracestate: str
    """The W3C tracestate that goes with it, or empty."""
    branch: str
    """The path of the node's branch, such as `0-002`."""
    idempotency_key: str
    """The same for every attempt and run of the node in the execution."""
    heartbeat_details_json: str | None = None
    """The details that the last heartbeat of an earlier attempt left, as JSON text, or None."""
    heartbeat_timeout_s: float | None = None
    """Seconds for which the attempt may be silent; None: no bound."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelRequested:
    """A handler must be cancelled. Its attempt stays held until the driver reports its end."""

    token: str
    """Names the attempt."""
    reason: str
    """CANCELLED, TIMED_OUT, SIBLING_FAILED, RACE_LOST, EXECUTION_TIMEOUT or STALE."""
    grace_s: float
    """Seconds the server waits for the handler's end; 0 when it does not wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A result has been dealt with; the session has forgotten it."""

    token: str
    """Names the attempt."""
    result: RecordedResult
    """What became of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolError:
    """The server broke the protocol. The stream is to be dropped; attempts and results stay held."""

    message: str
    """What was wrong."""


SessionEvent: TypeAlias = Welcomed | Assigned | CancelRequested | Recorded | ProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionStatistics:
    """What a session has done since its creation, and what it holds."""

    state: SessionState
    """The state of its stream."""
    is_draining: bool
    """Whether it takes nothing new."""
    slots: int
    """How many attempts it takes at once."""
    running: int
    """Attempts whose handlers have not ended, or whose end the server does not know."""
    unrecorded: int
    """Results kept until the server has recorded them."""
    queued: int
    """Messages that wait to be taken."""
    streams: int
    """Streams begun."""
    assigned: int
    """Attempts taken."""
    duplicates: int
    """Assigns of attempts that were held or had ended; none started a handler."""
    rejected: int
    """Assigns turned away by the session itself."""
    completed: int
    """Results delivered by handlers."""
    failed: int
    """Failures delivered by handlers."""
    exited: int
    """Cancelled handlers that ended."""
    handed_back: int
    """Attempts handed back by the driver."""
    recorded: int
    """Results that the server recorded, now or before."""
    stale: int
    """Results that the server did not want."""
    logs_dropped: int
    """Log lines that made room for newer ones."""
