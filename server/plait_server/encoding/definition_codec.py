"""Compiled graphs, read from the bytes that the store keeps."""

from __future__ import annotations

from plait_server.core.definition.compiled import Definition, compile_graph
from plait_server.encoding.graph_codec import analysis_from_bytes, graph_from_bytes


def definition_from_bytes(graph_content: bytes, analysis_content: bytes) -> Definition:
    """Read a graph that was valid when it was stored.

    Args:
        graph_content: A plait.v1.Graph.
        analysis_content: Its plait.journal.v1.GraphAnalysis.

    Raises:
        InvalidGraphMessage: The graph uses something that this version does not know.
        google.protobuf.message.DecodeError: The bytes are not such a message.
    """
    return compile_graph(graph_from_bytes(graph_content), analysis_from_bytes(analysis_content))
