"""Assigns events to the nested scopes that they are about: a fold over the events, whose entries the journal keeps.

A scope that has ended is dropped from memory, and read back from its events alone; this finds them. An event belongs
to the scope whose node it names; `ScopeOpened` belongs to the scope that it opens as well. Events of the root scope
belong to none: of an execution without nested scopes nothing is kept.

A scope gets an entry when it ends, and for each `SEQUENCES_MAX` of its events before. An entry for each event would be
ten times as many, and with 10,000 scopes open at once each would change a page of its own.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

from plait_server.core.run.events import Event, ScopeEnded, ScopeOpened
from plait_server.core.run.states import NodeState

SEQUENCES_MAX: Final = 500
"""Events of one entry: 2 KiB in the store."""


class ScopeEntry(NamedTuple):
    """Some of the events of a nested scope."""

    scope_path: str
    sequences: Sequence[int]
    """Ascending, at least one; each stands in one entry of a scope."""


class ScopeIndex:
    """The events of nested scopes that are not in an entry yet."""

    __slots__ = ("_complete", "_ended", "_lists")

    def __init__(self) -> None:
        self._lists: dict[str, array[int]] = {}
        """Scope path -> sequences."""
        self._ended: dict[str, None] = {}
        """Scopes of which the list is due, however short."""
        self._complete: list[ScopeEntry] = []

    def __repr__(self) -> str:
        return f"<ScopeIndex of {len(self._lists)} scopes>"

    def apply(self, event: Event) -> None:
        """Take in an event; the next one of its execution."""
        detail = event.detail
        if not self._lists and "/" not in event.node_path and not isinstance(detail, ScopeOpened):
            return  # The rest takes 0.2 us, and most executions have no scopes inside.
        scope_path = event.node_path.rpartition("/")[0]
        if scope_path:
            self._add(scope_path, event.sequence)
        if isinstance(detail, ScopeOpened):
            self._lists[detail.scope_path] = array("q", (event.sequence,))
        elif self._lists:
            if isinstance(detail, ScopeEnded):
                self._end(detail.scope_path)
            elif event.node_state is not None and event.node_state is not NodeState.RUNNING:
                # What ends a node from outside leaves its scope without a ScopeEnded.
                self._end(event.node_path)

    def take(self) -> Sequence[ScopeEntry]:
        """Return the entries that go with the events since the last call, and forget them."""
        if not self._ended and not self._complete:
            return ()
        entries, self._complete = self._complete, []
        for scope_path in self._ended:
            sequences = self._lists.pop(scope_path)
            if sequences:
                entries.append(ScopeEntry(scope_path, sequences))
        self._ended.clear()
        return entries

    def _add(self, scope_path: str, sequence: int) -> None:
        sequences = self._lists.get(scope_path)
        if sequences is None:
            # The scope has ended: a receipt, for instance.
            sequences = self._lists[scope_path] = array("q")
            self._ended[scope_path] = None
        sequences.append(sequence)
        if len(sequences) == SEQUENCES_MAX:
            self._complete.append(ScopeEntry(scope_path, sequences))
            self._lists[scope_path] = array("q")

    def _end(self, scope_path: str) -> None:
        if scope_path in self._lists:
            self._ended[scope_path] = None
