"""A graph as a plain value: what a node returns whose output is to run as a graph."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf import json_format

from plait.v1 import graph_pb2
from plait_client.graph_builder import GraphBuilder
from plait_client.graph_file import payload_text


def graph_value(graph: GraphBuilder | graph_pb2.Graph) -> dict[str, Any]:
    """Return a graph as the value that a graph file holds, which JSON can write.

    A handler returns it, and a sub-graph node with `output_of` runs it. `parse_graph` of its JSON is the graph again.
    """
    message = graph.build() if isinstance(graph, GraphBuilder) else graph
    value: dict[str, Any] = json_format.MessageToDict(message, preserving_proto_field_name=True)
    rest = [value]
    while rest:
        for node in rest.pop().get("nodes", ()):
            for name in ("input", "locked_output"):
                # A file may hold the value itself, unless that could be taken for the message that holds its text.
                if name in node and payload_text(plain := json.loads(node[name]["json"])) is None:
                    node[name] = plain
            inner = node.get("subgraph", {}).get("graph")
            if inner is not None:
                rest.append(inner)
    return value
