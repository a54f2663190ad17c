"""Cuts an encoded message between its fields: each piece is a message of the same type, and together they equal it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from google.protobuf.message import DecodeError

from plait_server.core.limits import KIB

PIECE_FIELDS_MAX: Final = 500
"""The most nodes in a piece, which take 3 us to 10 us each to read."""
PIECE_BYTES_MAX: Final = 16 * KIB
"""The most bytes in a piece: a node may hold a graph with nodes of only seven bytes, 2,300 in a piece, 8 ms."""

_GRAPH_NODES: Final = 2 << 3 | 2
_NODE_SUBGRAPH: Final = 7 << 3 | 2
_SUBGRAPH_GRAPH: Final = 1 << 3 | 2


def pieces_of(content: bytes, begin: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut the message between two positions; yield the start and end of each piece, in order.

    A change of field number starts a new piece, so that a piece holds either the elements of one field or other
    fields. A field larger than a piece is a piece by itself.

    Raises:
        DecodeError: The bytes are not a message, or have fields that are not length-delimited, varints or fixed.
    """
    position = begin
    count = 0
    tag_before = -1
    try:
        while position < end:
            at = position
            tag = content[position]
            position = _skip_field(content, position)
            if at > begin and (
                tag != tag_before or count == PIECE_FIELDS_MAX or position - begin > PIECE_BYTES_MAX
            ):
                yield begin, at
                begin, count = at, 0
            tag_before = tag
            count += 1
    except IndexError:
        raise DecodeError("the message ends within a field") from None
    if position > end:
        raise DecodeError("the message ends within a field")
    if begin < end:
        yield begin, end


@dataclass(frozen=True, slots=True)
class InnerGraph:
    """A graph found inside a large node."""

    begin: int
    """The position of its first byte."""
    end: int
    """The position after its last byte."""
    node: bytes
    """The bytes of the node without the graph."""


def find_inner_graph(content: bytes, begin: int, end: int) -> InnerGraph | None:
    """Find the graph in a piece that is one node larger than a piece; None if there is none.

    A node in which the graph's field occurs several times is left to the parser, which merges them.
    """
    if end - begin <= PIECE_BYTES_MAX or content[begin] != _GRAPH_NODES:
        return None
    try:
        ((at, _, _),) = _fields(content, begin, end)
        kinds = [field for field in _fields(content, at, end) if content[field[2]] == _NODE_SUBGRAPH]
        ((kind_at, kind_end, kind_begin),) = kinds
        ((graph_at, graph_end, graph_begin),) = _fields(content, kind_at, kind_end)
    except (IndexError, ValueError):  # Malformed, or not exactly one of each: left to the parser.
        return None
    if content[graph_begin] != _SUBGRAPH_GRAPH or graph_end != kind_end:
        return None
    return InnerGraph(graph_at, graph_end, content[at:kind_begin] + content[kind_end:end])


def _fields(content: bytes, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Walk over fields; yield for each the start and end of its value, and the position of its tag."""
    position = begin
    while position < end:
        behind = _skip_field(content, position)
        value = _skip_varint(content, position)
        if content[position] & 7 == 2:
            value = _skip_varint(content, value)
        yield value, behind, position
        position = behind


def _skip_field(content: bytes, position: int) -> int:
    """Return the position after a field."""
    tag = content[position]
    wire_type = tag & 7
    if tag > 127:
        position = _skip_varint(content, position)
    else:
        position += 1
    if wire_type == 2:
        length = content[position]
        position += 1
        if length > 127:
            length &= 127
            shift = 7
            while True:
                byte = content[position]
                position += 1
                length |= (byte & 127) << shift
                if byte < 128:
                    break
                shift += 7
        return position + length
    if wire_type == 0:
        return _skip_varint(content, position)
    if wire_type in (1, 5):
        return position + (8 if wire_type == 1 else 4)
    raise DecodeError(f"no field of a graph has the wire type {wire_type}")


def _skip_varint(content: bytes, position: int) -> int:
    while content[position] > 127:
        position += 1
    return position + 1
