"""The index by scope: which entries come of which events (N2)."""

from __future__ import annotations

from plait_server.core.run.events import (
    AttemptStarted,
    CancelReceipt,
    Detail,
    Event,
    ExecutionStarted,
    NodeEnded,
    ScopeEnded,
    ScopeOpened,
)
from plait_server.core.run.payload import NULL
from plait_server.core.run.scope_index import SEQUENCES_MAX, ScopeIndex
from plait_server.core.run.states import CancelStage, ExecutionState, NodeState

STARTED = AttemptStarted("w", "i", 0.0)


class Log:
    """Numbers events, and folds them."""

    def __init__(self) -> None:
        self.index = ScopeIndex()
        self.sequence = 0

    def add(self, node_path: str, state: NodeState | None, detail: Detail) -> int:
        self.sequence += 1
        self.index.apply(Event(self.sequence, 1.0, 1, node_path, 0, "0", state, None, "", detail))
        return self.sequence

    def opened(self, path: str) -> int:
        return self.add(path, NodeState.RUNNING, ScopeOpened(path, NULL, 2, 0))

    def started(self, path: str) -> int:
        return self.add(path, NodeState.RUNNING, STARTED)

    def ended(self, path: str, state: NodeState = NodeState.SUCCEEDED) -> int:
        return self.add(path, state, NodeEnded())

    def scope_ended(self, path: str) -> int:
        return self.add(path, None, ScopeEnded(path, ExecutionState.SUCCEEDED))

    def take(self) -> dict[str, list[int]]:
        entries = self.index.take()
        assert len({entry.scope_path for entry in entries}) == len(entries)
        return {entry.scope_path: list(entry.sequences) for entry in entries}


def test_a_flat_graph_has_no_entries() -> None:
    log = Log()
    log.add("", None, ExecutionStarted())
    log.started("a")
    log.ended("a")
    assert log.take() == {}


def test_n2_a_scope_is_told_of_once_when_it_ends() -> None:
    log = Log()
    log.started("x")
    sequences = [log.opened("a"), log.started("a/b")]
    log.ended("x")
    assert log.take() == {}
    sequences.append(log.ended("a/b"))
    log.scope_ended("a")
    log.ended("a")
    assert log.take() == {"a": sequences}
    assert log.take() == {}


def test_an_opening_belongs_to_the_scope_around_it_too() -> None:
    log = Log()
    outer = [log.opened("a"), log.opened("a/b")]
    inner = [outer[1], log.ended("a/b/c")]
    outer.append(log.scope_ended("a/b"))
    assert log.take() == {"a/b": inner}
    outer.append(log.ended("a/b"))
    log.scope_ended("a")
    assert log.take() == {"a": outer}


def test_what_ends_from_outside_has_an_entry_without_a_scope_ended() -> None:
    for state in (NodeState.CANCELLED, NodeState.IDLE):
        log = Log()
        sequences = [log.opened("a"), log.ended("a/b", state)]
        log.ended("a", state)
        assert log.take() == {"a": sequences}


def test_what_comes_after_the_end_is_told_as_it_comes() -> None:
    log = Log()
    log.opened("a")
    log.scope_ended("a")
    log.take()
    late = [
        log.ended("a/b", NodeState.CANCELLED),
        log.add("a/b", None, CancelReceipt(CancelStage.EXITED, "w")),
    ]
    assert log.take() == {"a": late}


def test_a_large_scope_is_told_of_in_parts_that_do_not_depend_on_when_they_are_taken() -> None:
    live, replayed = Log(), Log()
    told: list[int] = []
    for log in (live, replayed):
        log.opened("a")
        for number in range(SEQUENCES_MAX + 10):
            log.started(f"a/{number}")
            if log is live:
                told += log.take().get("a", [])
    assert told == list(range(1, SEQUENCES_MAX + 1))
    assert replayed.take() == {"a": told}
    for log in (live, replayed):
        log.scope_ended("a")
    assert live.take() == replayed.take() == {"a": list(range(SEQUENCES_MAX + 1, SEQUENCES_MAX + 12))}
