"""Makes graphs ready to run, from the bytes that the store keeps: one of each, however many executions run it."""

from __future__ import annotations

from weakref import WeakValueDictionary

from plait_server.core.definition.compiled import Definition, compile_in_slices
from plait_server.core.definition.graph import Analysis, Graph
from plait_server.core.slices import Slices
from plait_server.encoding.graph_codec import analysis_from_bytes_in_slices, graph_from_bytes_in_slices
from plait_server.errors import EventDamaged
from plait_server.ports.graph_requests import CheckedGraph
from plait_server.ports.journal import NamespaceJournal
from plait_server.runtime.slicing import in_slices


class Definitions:
    """The graphs that scopes in memory run, by digest."""

    def __init__(self) -> None:
        self._known: WeakValueDictionary[tuple[str, str], Definition] = WeakValueDictionary()

    def __repr__(self) -> str:
        return f"<Definitions of {len(self._known)} graphs>"

    async def of(self, graph: CheckedGraph) -> Definition:
        """Return a graph that has been checked, ready to run."""
        key = graph.digest, graph.analysis_digest
        definition = self._known.get(key)
        if definition is None:
            building = _build(graph.content, graph.analysis_content, graph.values)
            definition = self._known[key] = await in_slices(building)
        return definition

    async def read(self, journal: NamespaceJournal, graph_digest: str, analysis_digest: str) -> Definition:
        """Return a graph that the store keeps, ready to run.

        Raises:
            EventDamaged: the graph or its analysis is missing or damaged.
            JournalUnavailable: the store does not answer.
        """
        key = graph_digest, analysis_digest
        definition = self._known.get(key)
        if definition is None:
            graph = await journal.read_content(graph_digest)
            analysis = await journal.read_content(analysis_digest)
            if graph is None or analysis is None:
                message = "the graph of this execution is missing from the store; restore it from a backup"
                raise EventDamaged(message)
            definition = self._known[key] = await in_slices(_build(graph, analysis))
        return definition


def _build(
    graph_content: bytes, analysis_content: bytes, values: tuple[Graph, Analysis] | None = None
) -> Slices[Definition]:
    if values is None:
        graph = yield from graph_from_bytes_in_slices(graph_content)
        yield
        analysis = yield from analysis_from_bytes_in_slices(analysis_content)
        values = graph, analysis
    return (yield from compile_in_slices(*values))
