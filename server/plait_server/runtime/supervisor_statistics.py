"""A snapshot of a supervisor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from plait_server.runtime.admission import Queued
from plait_server.runtime.locations import Asleep, Damaged, Live, Locations, Unread


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorStatistics:
    """How many executions are where."""

    live: int
    asleep: int
    queued: int
    """Executions that wait for a running slot."""
    unread: int
    """Open executions that have not been read back since the start."""
    damaged: int
    is_ready: bool
    """Whether all open executions are known."""

    @classmethod
    def of(cls, locations: Locations, *, is_ready: bool) -> Self:
        """Count the executions that have a location."""
        return cls(
            live=locations.count(Live),
            asleep=locations.count(Asleep),
            queued=locations.count(Queued),
            unread=locations.count(Unread),
            damaged=locations.count(Damaged),
            is_ready=is_ready,
        )
