"""The settings of a namespace: how many of its executions run and wait, in which order, its share, how long it keeps.

A value comes from one of four sources, of which the first that has it wins: what the API set, the configuration of the
namespace, the configuration of all namespaces, the built-in default.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final, TypeVar

from plait_server.core.limits import DURATION_S_MAX

RUNNING_MAX_MAX: Final = 100_000
"""Each running execution takes some 50 kB."""
QUEUE_MAX_MAX: Final = 1_000_000
"""Each waiting execution takes some 1.2 kB of memory."""
WEIGHT_MAX: Final = 1_000


T = TypeVar("T")


class QueueOrder(enum.IntEnum):
    """Which of the waiting executions begins first. Values are those of plait.v1.QueueOrder."""

    FIFO = 1
    """The one submitted first."""
    LIFO = 2
    """The one submitted last."""
    PRIORITY = 3
    """The one of the highest priority; of those with the same priority, the one submitted first."""


class SettingSource(enum.IntEnum):
    """Where a value comes from. Values are those of plait.v1.SettingSource."""

    DEFAULT = 1
    CONFIGURATION = 2
    SET = 3
    """It was set by a call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamespaceSettings:
    """Settings as one source gives them; None where the source has no value."""

    running_max: int | None = None
    """Executions that run at once."""
    queue_max: int | None = None
    """Executions that wait to begin; 0 lets none wait."""
    order: QueueOrder | None = None
    queue_timeout_s: float | None = None
    """Seconds from the submission in which an execution has to begin; 0 means no limit."""
    weight: int | None = None
    """The share of the turns in which namespaces get permits."""
    retention_s: float | None = None
    """Seconds for which an ended execution is kept."""

    @property
    def is_empty(self) -> bool:
        """Whether it has no value at all."""
        return self == NamespaceSettings()

    def over(self, other: NamespaceSettings) -> NamespaceSettings:
        """Return these settings, with the values of another source where these have none."""
        return NamespaceSettings(
            running_max=_first(self.running_max, other.running_max),
            queue_max=_first(self.queue_max, other.queue_max),
            order=_first(self.order, other.order),
            queue_timeout_s=_first(self.queue_timeout_s, other.queue_timeout_s),
            weight=_first(self.weight, other.weight),
            retention_s=_first(self.retention_s, other.retention_s),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectiveSettings:
    """The settings that apply to a namespace."""

    running_max: int = 1_000
    queue_max: int = 100_000
    order: QueueOrder = QueueOrder.FIFO
    queue_timeout_s: float = 0.0
    weight: int = 1
    retention_s: float = 7 * 86_400.0


DEFAULTS: Final = EffectiveSettings()


def complete(settings: NamespaceSettings) -> EffectiveSettings:
    """Return settings with the built-in defaults where they have no value."""
    given, default = settings, DEFAULTS
    return EffectiveSettings(
        running_max=given.running_max if given.running_max is not None else default.running_max,
        queue_max=given.queue_max if given.queue_max is not None else default.queue_max,
        order=given.order if given.order is not None else default.order,
        queue_timeout_s=given.queue_timeout_s
        if given.queue_timeout_s is not None
        else default.queue_timeout_s,
        weight=given.weight if given.weight is not None else default.weight,
        retention_s=given.retention_s if given.retention_s is not None else default.retention_s,
    )


def problems_of(settings: NamespaceSettings) -> list[tuple[str, str]]:
    """Return what is wrong with given values: the name of each setting, and what is allowed."""
    problems: list[tuple[str, str]] = []

    def check(name: str, value: float | None, least: float, most: float, shown: str) -> None:
        if value is not None and not least <= value <= most:
            problems.append((name, f"is {value:,}; it may be {shown}"))

    check("running_max", settings.running_max, 1, RUNNING_MAX_MAX, f"1 to {RUNNING_MAX_MAX:,}")
    check("queue_max", settings.queue_max, 0, QUEUE_MAX_MAX, f"0 (none may wait) to {QUEUE_MAX_MAX:,}")
    check("weight", settings.weight, 1, WEIGHT_MAX, f"1 to {WEIGHT_MAX:,}")
    timeout, retention = settings.queue_timeout_s, settings.retention_s
    check("queue_timeout", timeout, 0, DURATION_S_MAX, "0 s (no limit) to 3,660 days")
    check("retention", retention, 1, DURATION_S_MAX, "1 s to 3,660 days")
    return problems


def _first(value: T | None, other: T | None) -> T | None:
    return value if value is not None else other
