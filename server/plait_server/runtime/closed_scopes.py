"""Rebuilds scopes that have ended from their events, for calls that show their nodes (N2).

The scopes read last are cached, because a page continues where the previous one ended, and a large scope takes seconds.
The cache is bounded in number, because long-lived objects slow the garbage collector, and in nodes and edges; the
newest scope is kept whatever its size.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple, TypeAlias

from plait_server.core.definition.compiled import Definition
from plait_server.core.run.closed_scope import ClosedScope, outcomes_of
from plait_server.core.run.events import Event, ScopeOpened
from plait_server.core.run.execution import Execution
from plait_server.core.run.lone_scope import apply_alone, open_alone
from plait_server.core.run.scope import Scope
from plait_server.encoding.event_codec import decode_event
from plait_server.errors import EventDamaged, InvariantViolated
from plait_server.ports.journal import Journal, NamespaceJournal
from plait_server.runtime.building import Definitions
from plait_server.runtime.slicing import Pacing, in_slices

PAGE_EVENTS: Final = 500
PAGE_BYTES: Final = 1024 * 1024
KEPT_MAX: Final = 64
ELEMENTS_MAX: Final = 50_000
"""Nodes and edges of all cached scopes except the newest: some 25 MB."""

Key: TypeAlias = tuple[str, str, str]
"""Namespace, execution id, scope path."""


class _Kept(NamedTuple):
    scope: Scope
    sequence: int
    """The sequence of the last event that was read."""


class ClosedScopes:
    """Rebuilds scopes that have ended."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._kept: OrderedDict[Key, _Kept] = OrderedDict()
        self._elements = 0

    def __repr__(self) -> str:
        return f"<ClosedScopes {len(self._kept)} kept, {self._elements} nodes and edges>"

    async def read(self, namespace: str, execution: Execution, scope_path: str) -> Scope:
        """Return a scope that has ended, as of now: late usage may still be added.

        Args:
            namespace: The namespace of the execution.
            execution: The execution, in which the scope is closed. Its facts about other scopes are used, too.
            scope_path: The path of the scope.

        Raises:
            EventDamaged: An event, the index or the graph is damaged or incomplete.
            JournalUnavailable: The store does not answer.
        """
        key = namespace, execution.execution_id, scope_path
        closed = execution.closed[scope_path]
        kept = self._kept.get(key)
        scope = kept.scope if kept is not None else None
        after = kept.sequence if kept is not None else 0
        journal = self._journal.namespace(namespace)
        pacing = Pacing()
        is_last = False
        while not is_last:
            page = await journal.read_scope(
                execution.execution_id, scope_path, after=after, events_max=PAGE_EVENTS, bytes_max=PAGE_BYTES
            )
            after, is_last = page.after, page.is_last
            for event in map(decode_event, page.events):
                if scope is None:
                    definition = await self._definition(namespace, execution, closed, event)
                    scope = await in_slices(open_alone(definition, event))
                else:
                    _apply(scope, event)
                await pacing.pause_if_due()
        if scope is None or outcomes_of(scope) != closed.outcomes:
            raise _incomplete(execution, scope_path)
        scope.close()  # Nothing in it waits.
        self._keep(key, _Kept(scope, after))
        return scope

    async def _definition(
        self, namespace: str, execution: Execution, closed: ClosedScope, first: Event
    ) -> Definition:
        """Return the graph that a closed scope ran."""
        opened = first.detail
        is_opening = isinstance(opened, ScopeOpened) and opened.scope_path == closed.path
        if not is_opening or first.sequence != closed.first_sequence:
            raise _incomplete(execution, closed.path)
        assert isinstance(opened, ScopeOpened)
        if opened.graph_digest:
            journal = self._journal.namespace(namespace)
            return await _read_definition(journal, opened)
        outer_path, _, node_id = closed.path.rpartition("/")
        outer = await self.definition(namespace, execution, outer_path)
        return outer.inner[outer.adjacency.index[node_id]]

    async def definition(self, namespace: str, execution: Execution, scope_path: str) -> Definition:
        """Return the graph that a scope runs or ran; a closed scope is read only if its graph was an output.

        Raises:
            EventDamaged, JournalUnavailable: as `read` does.
        """
        scope = execution.scopes.get(scope_path)
        if scope is not None:
            return scope.definition
        outer_path, _, node_id = scope_path.rpartition("/")
        outer = await self.definition(namespace, execution, outer_path)
        inner = outer.inner.get(outer.adjacency.index[node_id])
        # A graph taken from an output is only in the event that opened the scope.
        return inner if inner is not None else (await self.read(namespace, execution, scope_path)).definition

    def _keep(self, key: Key, kept: _Kept) -> None:
        before = self._kept.pop(key, None)
        if before is None:
            self._elements += _elements_of(kept.scope)
        self._kept[key] = kept
        while len(self._kept) > KEPT_MAX or (self._elements > ELEMENTS_MAX and len(self._kept) > 1):
            _, oldest = self._kept.popitem(last=False)
            self._elements -= _elements_of(oldest.scope)


async def _read_definition(journal: NamespaceJournal, opened: ScopeOpened) -> Definition:
    return await Definitions().read(journal, opened.graph_digest, opened.analysis_digest)


def _apply(scope: Scope, event: Event) -> None:
    try:
        apply_alone(scope, event)
    except InvariantViolated as error:
        # Each event is intact, but one between them is missing.
        raise EventDamaged(error.message) from error


def _incomplete(execution: Execution, scope_path: str) -> EventDamaged:
    message = (
        f"the index by scope of execution {execution.execution_id} lacks events of {scope_path}; stop the server and "
        "run `plait store salvage`, which rebuilds it"
    )
    return EventDamaged(message, execution_id=execution.execution_id, scope_path=scope_path)


def _elements_of(scope: Scope) -> int:
    return len(scope.records) + len(scope.edge_states)
