"""Holds the law of admission (Q3) against what became durable, and when.

The server decides a moment before something is durable, so what happens within `MARGIN_S` of a decision is not judged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from plait_server.api.namespaces import SETTING_NAME
from plait_server.core.namespace_settings import EffectiveSettings, NamespaceSettings, QueueOrder, complete
from plait_server.core.run.events import (
    AttemptEnded,
    AttemptStarted,
    ExecutionEnded,
    ExecutionStarted,
    ExecutionUpdated,
    PauseRequested,
)
from plait_server.core.run.states import Reason
from plait_server.encoding.namespace_codec import settings_from_bytes
from plait_server.testing.simulation.store import Durable, Records
from plait_server.testing.simulation.world import SimulationFailure

MARGIN_S: Final = 5.0
"""Virtual seconds: an append that is refused for want of room is tried again every second."""


class _Story(NamedTuple):
    """What admission did to one execution; times of virtual time unless they are wall times."""

    durable: Durable
    submitted_s: float
    begun_s: float
    """Infinite if it never began."""
    begun_wall_s: float
    ended_wall_s: float
    is_timed_out: bool
    is_touched: bool
    """Whether it was paused or updated, which changes its place."""
    attempts: Sequence[tuple[float, float]]
    """When each attempt ran."""


def admission_problem(records: Records, configured: NamespaceSettings) -> SimulationFailure | None:
    """Return the first thing that is against the law of admission; None if there is none.

    Args:
        records: What is durable.
        configured: The configuration of the namespace; calls have changed no more than `running_max`.
    """
    stories = [_read(durable) for durable in records.executions.values()]
    settings = complete(configured)
    limits = [(float("-inf"), settings.running_max)]
    for time_s, _, name, value in records.settings:
        if name == SETTING_NAME:
            changed = settings_from_bytes(value or b"")
            limits.append((time_s, complete(changed.over(configured)).running_max))
    for problem, story in _problems(stories, settings, limits):
        return SimulationFailure("Q3", problem, story.durable.execution_id)
    return None


def _problems(
    stories: Sequence[_Story], settings: EffectiveSettings, limits: Sequence[tuple[float, int]]
) -> Iterator[tuple[str, _Story]]:
    timeout_s = settings.queue_timeout_s
    for story in stories:
        created_s = story.durable.replayed.created_s
        running = sum(_runs_before(other, story.begun_s) for other in stories if other is not story)
        if running >= _limit_at(limits, story.begun_s):
            yield f"it began at {story.begun_s:.3f} s beside {running} others that ran", story
        if story.is_timed_out and not (timeout_s and story.ended_wall_s >= created_s + timeout_s):
            yield "its wait to begin timed out too early", story
        waited_s = min(story.begun_wall_s - created_s, story.begun_s - story.submitted_s)
        if timeout_s and timeout_s + MARGIN_S < waited_s < float("inf"):
            yield f"it began after {waited_s:.3f} s, and may wait {timeout_s:g} s", story
        for other in stories:
            if _overtakes(story, other, settings.order):
                yield (
                    f"it began at {story.begun_s:.3f} s, before {other.durable.execution_id}, whose turn it was",
                    story,
                )


def _limit_at(limits: Sequence[tuple[float, int]], time_s: float) -> int:
    """Return the highest limit that was in force just before a time."""
    before = [limit for set_s, limit in limits if set_s <= time_s - MARGIN_S]
    return max([before[-1], *(limit for set_s, limit in limits if time_s - MARGIN_S < set_s <= time_s)])


def _runs_before(story: _Story, time_s: float) -> bool:
    """Whether an attempt ran at a time, and had for a while."""
    return any(begin_s < time_s - MARGIN_S and time_s < end_s for begin_s, end_s in story.attempts)


def _overtakes(story: _Story, other: _Story, order: QueueOrder) -> bool:
    """Whether an execution began, and another that waited beside it was to begin earlier."""
    if story.is_touched or other.is_touched or _rank(other, order) >= _rank(story, order):
        return False
    # One that is cancelled or times out is not begun any more.
    is_begun = other.begun_s < float("inf")
    waited = other.submitted_s < story.begun_s - MARGIN_S
    return is_begun and waited and other.begun_s > story.begun_s + MARGIN_S


def _rank(story: _Story, order: QueueOrder) -> tuple[float, float]:
    execution = story.durable.replayed
    sign = -1 if order is QueueOrder.LIFO else 1
    urgency = -execution.priority if order is QueueOrder.PRIORITY else 0
    return urgency, sign * execution.created_s


def _read(durable: Durable) -> _Story:
    begun_s = begun_wall_s = ended_wall_s = float("inf")
    is_timed_out = is_touched = False
    attempts: dict[tuple[str, int], tuple[float, float]] = {}
    for event, written in zip(durable.events, durable.written, strict=True):
        key = event.node_path, event.attempt
        match event.detail:
            case ExecutionStarted():
                begun_s, begun_wall_s = written.time_s, event.time_s
            case ExecutionEnded():
                ended_wall_s = event.time_s
                is_timed_out = event.reason == Reason.QUEUE_TIMEOUT
            case PauseRequested() | ExecutionUpdated():
                is_touched = True
            case AttemptStarted():
                attempts[key] = written.time_s, float("inf")
            case AttemptEnded():
                attempts[key] = attempts[key][0], written.time_s
            case _:
                pass
    return _Story(
        durable,
        durable.written[0].time_s,
        begun_s,
        begun_wall_s,
        ended_wall_s,
        is_timed_out,
        is_touched,
        list(attempts.values()),
    )
