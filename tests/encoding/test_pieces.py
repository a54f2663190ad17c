"""Graphs that are read piece by piece are those that are read at once."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError

from plait.v1 import graph_pb2
from plait_server.core.definition.graph import EdgeColumns
from plait_server.encoding.graph_codec import (
    EDGE_OBJECTS_MAX,
    graph_from_bytes,
    graph_from_bytes_in_slices,
    graph_from_proto,
)
from plait_server.encoding.pieces import PIECE_BYTES_MAX, PIECE_FIELDS_MAX, pieces_of


def large_graph() -> graph_pb2.Graph:
    graph = graph_pb2.Graph(name="g", output="1", scheduling=graph_pb2.SCHEDULING_LEVELS, labels={"a": "b"})
    graph.policy.max_concurrency = 7
    for number in range(3 * PIECE_FIELDS_MAX):
        graph.nodes.add(id=f"n{number}", priority=number % 5).task.type = "t"
    graph.nodes[10].input.json = '"' + "x" * 2 * PIECE_BYTES_MAX + '"'
    for number in range(2 * PIECE_FIELDS_MAX):
        graph.edges.add(source=f"n{number}", target=f"n{number + 1}", branch_name="b" * (number % 3))
    return graph


def test_pieces_are_the_whole_in_order() -> None:
    content = large_graph().SerializeToString(deterministic=True)
    pieces = list(pieces_of(content, 0, len(content)))
    assert b"".join(content[begin:end] for begin, end in pieces) == content
    assert len(pieces) > 5
    for begin, end in pieces:
        piece = graph_pb2.Graph.FromString(content[begin:end])
        elements = len(piece.nodes) + len(piece.edges)
        assert elements <= PIECE_FIELDS_MAX
        assert end - begin <= PIECE_BYTES_MAX or elements == 1


def test_a_graph_read_in_pieces_is_the_one_read_at_once() -> None:
    graph = large_graph()
    content = graph.SerializeToString(deterministic=True)
    assert graph_from_bytes(content) == graph_from_proto(graph)
    assert sum(1 for _ in graph_from_bytes_in_slices(content)) > 5


def test_many_edges_are_kept_in_columns() -> None:
    graph = graph_pb2.Graph()
    for number in range(EDGE_OBJECTS_MAX + 1):
        graph.edges.add(source="a", target=f"n{number}", handle="h", when="true", branch_name="b")
    read = graph_from_bytes(graph.SerializeToString())
    assert isinstance(read.edges, EdgeColumns)
    assert read == graph_from_proto(graph)


def test_fields_in_any_order_are_read() -> None:
    parts = [
        graph_pb2.Graph(nodes=[graph_pb2.Node(id="a")]),
        graph_pb2.Graph(edges=[graph_pb2.Edge(source="a", target="b")]),
        graph_pb2.Graph(name="g"),
        graph_pb2.Graph(nodes=[graph_pb2.Node(id="b")]),
    ]
    content = b"".join(part.SerializeToString() for part in parts)
    assert graph_from_bytes(content) == graph_from_proto(graph_pb2.Graph.FromString(content))


@pytest.mark.parametrize("content", [b"\x12", b"\x12\x05ab", b"\x12\x80", b"\xff" * 20, b"\x13\x14"])
def test_what_is_no_graph_is_refused(content: bytes) -> None:
    with pytest.raises(DecodeError):
        graph_from_bytes(content)


def test_an_inner_graph_of_any_size_is_read_in_slices() -> None:
    """However deep a large graph stands, no slice reads more than a piece of it."""
    graph = large_graph()
    for depth in range(16):
        outer = graph_pb2.Graph(name=f"around-{depth}")
        outer.nodes.add(id="before").task.type = "t"
        node = outer.nodes.add(id="sub", priority=depth)
        node.subgraph.graph.CopyFrom(graph)
        node.input.json = "1"
        outer.nodes.add(id="after").subgraph.output_of = "before"
        graph = outer
    content = graph.SerializeToString(deterministic=True)
    assert graph_from_bytes(content) == graph_from_proto(graph)
    flat = large_graph().SerializeToString(deterministic=True)
    slices = [sum(1 for _ in graph_from_bytes_in_slices(each)) for each in (flat, content)]
    assert slices[1] > slices[0]


def test_a_node_that_names_its_graph_twice_is_what_the_parser_makes_of_it() -> None:
    node = graph_pb2.Node(id="sub")
    node.subgraph.graph.CopyFrom(large_graph())
    twice = node.SerializeToString() * 2
    content = graph_pb2.Graph(nodes=[graph_pb2.Node.FromString(twice)]).SerializeToString()
    merged = b"\x12" + varint(len(twice)) + twice
    assert graph_from_bytes(merged) == graph_from_bytes(content)


@pytest.mark.parametrize("cut", [1, 1_000, 20_000])
def test_a_cut_inner_graph_is_refused(cut: int) -> None:
    graph = large_graph().SerializeToString()
    node = b"\x0a\x01s\x3a" + varint(len(graph) + 10) + b"\x0a" + varint(len(graph)) + graph
    with pytest.raises(DecodeError):
        graph_from_bytes(b"\x12" + varint(len(node) - cut) + node[:-cut])


def varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])
