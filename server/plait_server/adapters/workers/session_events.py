"""The events that a session makes of a worker's messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from plait_server.core.run.commands import AttemptResult
from plait_server.core.run.states import CancelStage


class Hello(NamedTuple):
    """A worker's `hello`."""

    worker_id: str
    instance_id: str
    namespace: str
    types: Mapping[str, int]
    """Type -> how many attempts of it may run at once; 0 means no limit of its own."""
    slots: int
    labels: Mapping[str, str]
    sdk: str
    running: Sequence[str]
    """Tokens of attempts that it still runs."""
    finished: Sequence[str]
    """Tokens of attempts whose results follow."""


class Ended(NamedTuple):
    """An attempt ended at the worker; it waits for `recorded`."""

    token: str
    result: AttemptResult
    """Without an attempt yet: the session cannot read tokens, so its driver fills in the attempt."""


class Returned(NamedTuple):
    """An attempt was refused or handed back."""

    token: str
    result: AttemptResult
    """As in Ended; its outcome is RETURNED, and its failure has the reason."""


class Accepted(NamedTuple):
    """An attempt was accepted."""

    token: str


class CancelStep(NamedTuple):
    """A cancel was acknowledged, or its handler has ended."""

    token: str
    stage: CancelStage
    usage: Mapping[str, str] | None
    """The attempt's total usage; None if it was not reported."""


class SlotsChanged(NamedTuple):
    """The worker's number of slots changed; 0 when it drains."""

    slots: int
    is_draining: bool


class Reported(NamedTuple):
    """Progress, a log line or a heartbeat."""

    token: str
    kind: str
    text: str
    details_json: str = ""
    """The details of a heartbeat, as JSON text; empty if it has none."""


class Extended(NamedTuple):
    """An attempt asked for more time."""

    token: str
    duration_s: float
    """Seconds from now, above 0."""


class Used(NamedTuple):
    """An attempt reported usage."""

    token: str
    unit: str
    amount: str
    problem: str
    """Why the usage cannot be counted; empty if it can."""


class Ponged(NamedTuple):
    """The worker answered a ping."""

    number: int


SessionEvent: TypeAlias = (
    Hello | Ended | Returned | Accepted | CancelStep | SlotsChanged | Reported | Extended | Used | Ponged
)
