"""Cutting an encoded message between its fields: every piece is such a message, and together they are the whole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from google.protobuf.message import DecodeError

from plait_server.core.limits import KIB

PIECE_FIELDS_MAX: Final = 500
"""Nodes of a graph in a piece: they take 3 us to 10 us each to read."""
PIECE_BYTES_MAX: Final = 64 * KIB


def pieces_of(content: bytes) -> Iterator[tuple[int, int]]:
    """Cut a message: gives the begin and the end of each piece, in order.

    A field that is alone with its number among others starts a piece of its own, so that a piece holds either
    the elements of one field or other fields. A field larger than a piece is one by itself.

    Raises:
        DecodeError: it is no message, or has fields that are not length-delimited, varints or fixed.
    """
    begin = position = count = 0
    tag_before = -1
    end = len(content)
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


def _skip_field(content: bytes, position: int) -> int:
    """Return the position behind a field."""
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
