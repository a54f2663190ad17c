"""The law of attempts over all executions: details of heartbeats (T4), and more time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from plait_server.core.definition.graph import DEFAULT_TIMEOUTS
from plait_server.core.run.events import AttemptEnded, AttemptExtended, AttemptStarted, Event, NodeEnded
from plait_server.core.run.states import AttemptOutcome, NodeState
from plait_server.testing.simulation.store import Durable
from plait_server.testing.simulation.world import SimulationFailure, World

ATTEMPT_ROWS: Final = (
    "a wait for capacity that was too long",
    "a wait for a worker that was too long",
    "an attempt that fell silent",
    "details left to the next attempt",
    "more time",
    "a concurrency key",
)
"""What happens to attempts beside their outcomes."""


def attempt_problem(executions: Iterable[Durable], world: World) -> SimulationFailure | None:
    """Check the attempts of all executions; return the first problem."""
    for durable in executions:
        for problem in _details_problems(durable, world.details, world.beats):
            return SimulationFailure("T4", problem, durable.execution_id)
    return None


def attempt_rows(durable: Durable) -> Iterator[str]:
    """Name what happened to the attempts of an execution."""
    for event in durable.events:
        match event.detail:
            case AttemptStarted(concurrency_key=key) if key:
                yield "a concurrency key"
            case AttemptExtended():
                yield "more time"
            case AttemptEnded(failure=failure, heartbeat_details=details):
                if details is not None:
                    yield "details left to the next attempt"
                if failure is not None and failure.message.startswith("the worker has not sent a heartbeat"):
                    yield "an attempt that fell silent"
            case NodeEnded(failure=failure) if (
                event.node_state is NodeState.TIMED_OUT and failure is not None
            ):
                if "timeouts.queue" in failure.message:
                    yield "a wait for capacity that was too long"
                elif "timeouts.worker" in failure.message:
                    yield "a wait for a worker that was too long"
            case _:
                pass


def _details_problems(
    durable: Durable,
    given: Mapping[tuple[str, str, int], str | None],
    sent: Mapping[tuple[str, str, int], Sequence[str]],
) -> Iterator[str]:
    """T4: an attempt is given what the newest earlier one has left, and that is what its handler said."""
    left: dict[str, str] = {}
    for event in durable.events:
        key = durable.execution_id, event.node_path, event.attempt
        what = f"attempt {event.attempt} of {event.node_path}"
        match event.detail:
            case AttemptStarted():
                if key in given and given[key] != left.get(event.node_path):
                    yield f"{what} was given {given[key]}, and {left.get(event.node_path)} was left to it"
            case AttemptEnded(heartbeat_details=details) if details is not None:
                left[event.node_path] = details.json
                if details.json not in sent.get(key, ()):
                    yield f"{what} left {details.json}, which its handler never said"
                if event.detail.outcome is AttemptOutcome.SUCCEEDED:
                    yield f"{what} succeeded, and left details"
            case AttemptExtended() if not _may_extend(durable, event):
                yield f"{what} has no timeout, and got more time"
            case _:
                pass


def _may_extend(durable: Durable, event: Event) -> bool:
    record = durable.replayed.find(event.node_path)
    return record is None or bool((record.node.timeouts or DEFAULT_TIMEOUTS).attempt_s)
