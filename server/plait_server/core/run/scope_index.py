"""Which events are about which nested scope: a fold over the events, written to the journal as entries.

A scope that has ended is dropped from memory, and rebuilt from its events when needed; this index finds them. An event
belongs to the scope whose node it names; `ScopeOpened` also belongs to the scope that it opens. Events of the root
scope are not indexed, so an execution without nested scopes has no entries.

A scope's entry is written when it ends, or after `SEQUENCES_MAX` of its events. An entry for each event would be ten
times as many, and with 10,000 open scopes each would change a different page.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Final, NamedTuple

from plait_server.core.run.events import Event, ScopeEnded, ScopeOpened
from plait_server.core.run.states import NodeState

SEQUENCES_MAX: Final = 500
"""Events in one entry: 2 KiB in the store."""


class ScopeEntry(NamedTuple):
    """Some of the events of a nested scope."""

    scope_path: str
    sequences: Sequence[int]
    """Ascending, not empty; no sequence is in two entries of a scope."""


class ScopeIndex:
    """The events of nested scopes that are in no entry yet."""

    __slots__ = ("_complete", "_ended", "_lists")

    def __init__(self) -> None:
        self._lists: dict[str, array[int]] = {}
        """Scope path -> sequences."""
        self._ended: dict[str, None] = {}
        """Scopes whose entry is due, however few events it has."""
        self._complete: list[ScopeEntry] = []

    def __repr__(self) -> str:
        return f"<ScopeIndex of {len(self._lists)} scopes>"

    def apply(self, event: Event) -> None:
        """Add the next event of the execution."""
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
                # A node ended from outside has a scope without a ScopeEnded.
                self._end(event.node_path)

    def take(self) -> Sequence[ScopeEntry]:
        """Return the entries due since the last call, and forget them."""
        if not self._ended and not self._complete:
            return ()
        entries, self._complete = self._complete, []
        for scope_path in self._ended:
            sequences = self._lists.pop(scope_path)
            if sequences:
                entries.append(ScopeEntry(scope_path, sequences))
        self._ended.clear()
        return entries

    def waiting(self, scope_path: str) -> Sequence[int] | None:
        """Return the events of an open scope that are in no entry yet; None if it has no entry to come."""
        return self._lists.get(scope_path)

    def restore(self, scope_path: str, sequences: Sequence[int]) -> None:
        """Set what `waiting` returned."""
        self._lists[scope_path] = array("q", sequences)

    def _add(self, scope_path: str, sequence: int) -> None:
        sequences = self._lists.get(scope_path)
        if sequences is None:
            # A receipt, for instance, after the scope has ended.
            sequences = self._lists[scope_path] = array("q")
            self._ended[scope_path] = None
        sequences.append(sequence)
        if len(sequences) == SEQUENCES_MAX:
            self._complete.append(ScopeEntry(scope_path, sequences))
            self._lists[scope_path] = array("q")

    def _end(self, scope_path: str) -> None:
        if scope_path in self._lists:
            self._ended[scope_path] = None
