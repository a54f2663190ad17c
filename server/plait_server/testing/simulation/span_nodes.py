"""What the events of an execution tell of its nodes and attempts, as far as their spans need it (B2.1)."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field

from plait_server.core.definition.graph import Node, Task
from plait_server.core.run.events import AttemptEnded, AttemptStarted
from plait_server.core.run.failures import Failure
from plait_server.core.run.states import NodeState, Reason
from plait_server.testing.slow_model.nodes import ModelNode


@dataclass
class SeenAttempt:
    """An attempt, as its events tell of it."""

    number: int
    started_s: float
    start: AttemptStarted
    ended_s: float = 0.0
    end: AttemptEnded | None = None
    sequence: int = 0

    @property
    def is_retried(self) -> bool:
        """Whether a backoff followed."""
        return self.end is not None and self.end.retry_time_s > 0

    def bounds(self) -> tuple[int, int]:
        """Return its start and end."""
        start = to_ns(self.started_s)
        return start, after(start, to_ns(self.ended_s))

    def queue_start(self) -> int:
        """Return when its wait for capacity began."""
        return to_ns(self.started_s) - to_ns(self.start.queue_s)


@dataclass
class SeenNode:
    """A node, as its events tell of it."""

    known: ModelNode
    """What the slow model knows of it."""
    opened_s: float | None = None
    """When its scope opened."""
    inside: list[SeenNode] = field(default_factory=list["SeenNode"])
    """The nodes of its scope."""
    attempts: list[SeenAttempt] = field(default_factory=list[SeenAttempt])
    waited_since_s: float | None = None
    """When a delay began to wait."""
    ready_s: float | None = None
    """When its join was decided in its favor."""
    feeding: tuple[int, ...] = ()
    """The edges that fed its join; for ANY the winner's."""
    links: tuple[int, ...] = ()
    """The edges to whose sources it links."""
    is_decided: bool = False
    state: NodeState = NodeState.IDLE
    reason: str = ""
    failure: Failure | None = None
    left_s: float = 0.0
    """When it ended, or was put back to idle."""
    sequence: int = 0

    @property
    def node(self) -> Node:
        """The node in its graph."""
        return self.known.node

    @property
    def branch(self) -> str:
        """The path of its branch."""
        return self.known.scope.tree.of_nodes[self.node.id]

    @property
    def has_span(self) -> bool:
        """Whether it began or ended (B2.1)."""
        has_begun = bool(self.attempts) or self.waited_since_s is not None or self.opened_s is not None
        return self.state.is_ended or has_begun

    def bounds(self) -> tuple[int, int]:
        """Return its start and end: it encloses its attempts, its waits for capacity, and the nodes in it."""
        end = to_ns(self.left_s)
        if self.opened_s is not None:
            inside = [node.bounds() for node in self.inside if node.has_span]
            start = min([to_ns(self.opened_s), *(start for start, _ in inside)])
            return start, max([after(start, end), *(end for _, end in inside)])
        if self.attempts:
            ends = [attempt.bounds()[1] for attempt in self.attempts]
            return min(attempt.queue_start() for attempt in self.attempts), max(end, *ends)
        begun_s = self.waited_since_s
        if isinstance(self.node.kind, Task) and self.reason != Reason.LOCKED:
            begun_s = self.ready_s  # It waited for capacity until then.
        start = min(end, to_ns(begun_s)) if begun_s is not None else end
        return start, after(start, end)

    def work_s(self) -> float:
        """Return how long it worked: attempts and the backoffs between them, or the delay."""
        if self.waited_since_s is not None:
            return max(0.0, self.left_s - self.waited_since_s)
        total_s = math.fsum(max(0.0, attempt.ended_s - attempt.started_s) for attempt in self.attempts)
        for before, after in itertools.pairwise(self.attempts):
            if before.end is not None and before.is_retried:
                total_s += max(0.0, min(before.end.retry_time_s, after.started_s) - before.ended_s)
        return total_s


def to_ns(time_s: float) -> int:
    """Return a time of an event in ns; events carry microseconds."""
    return round(time_s * 1e6) * 1_000


def after(start_ns: int, end_ns: int) -> int:
    """Return the end of a span: after its start, even if the clock jumped back."""
    return max(start_ns + 1, end_ns)
