"""Builds an execution from the bytes of its graph, when it is submitted and when it is read back."""

from __future__ import annotations

from plait_server.core.definition.compiled import Definition, compile_in_slices
from plait_server.core.definition.graph import Analysis, Graph
from plait_server.core.run.execution import Execution, execution_in_slices
from plait_server.core.slices import Slices
from plait_server.encoding.graph_codec import analysis_from_bytes_in_slices, graph_from_bytes_in_slices


def build_execution(
    graph_content: bytes, analysis_content: bytes, values: tuple[Graph, Analysis] | None = None
) -> Slices[Execution]:
    """Build an execution without events, in slices; the arguments are those of `build_definition`."""
    definition = yield from build_definition(graph_content, analysis_content, values)
    return (yield from execution_in_slices(definition))


def build_definition(
    graph_content: bytes, analysis_content: bytes, values: tuple[Graph, Analysis] | None = None
) -> Slices[Definition]:
    """Compile a graph, in slices.

    Args:
        graph_content: A valid plait.v1.Graph.
        analysis_content: Its plait.journal.v1.GraphAnalysis.
        values: The graph and analysis in them, if they have been read already.
    """
    if values is None:
        graph = yield from graph_from_bytes_in_slices(graph_content)
        yield
        analysis = yield from analysis_from_bytes_in_slices(analysis_content)
        values = graph, analysis
    return (yield from compile_in_slices(*values))
