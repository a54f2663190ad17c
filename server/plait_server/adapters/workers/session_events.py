"""What the messages of a worker mean to the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from plait_server.core.run.commands import AttemptResult
from plait_server.core.run.states import CancelStage


class Hello(NamedTuple):
    """A worker introduced itself."""

    worker_id: str
    instance_id: str
    namespace: str
    types: Mapping[str, int]
    """Type -> how many attempts of it at once; 0: no limit of its own."""
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
    """It names no attempt yet: the session cannot read tokens, and its driver fills in which one it is for."""


class Returned(NamedTuple):
    """An attempt was not taken, or is handed back."""

    token: str
    result: AttemptResult
    """As in Ended; its outcome is RETURNED, and its failure says why."""


class Accepted(NamedTuple):
    """An attempt was taken."""

    token: str


class CancelStep(NamedTuple):
    """A cancel was acknowledged, or its handler has ended."""

    token: str
    stage: CancelStage
    usage: Mapping[str, str] | None
    """What the attempt used in all; None if nothing is said of it."""


class SlotsChanged(NamedTuple):
    """The worker takes another number of attempts at once; 0 when it drains."""

    slots: int
    is_draining: bool


class Reported(NamedTuple):
    """Progress, a log line or a heartbeat."""

    token: str
    kind: str
    text: str


class Used(NamedTuple):
    """An attempt used something."""

    token: str
    unit: str
    amount: str
    problem: str
    """Why it cannot be counted; empty if it can."""


class Ponged(NamedTuple):
    """The worker answered a ping."""

    number: int


SessionEvent: TypeAlias = (
    Hello | Ended | Returned | Accepted | CancelStep | SlotsChanged | Reported | Used | Ponged
)
