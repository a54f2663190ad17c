"""Reads one text of a large message without parsing it."""

from __future__ import annotations

from typing import Final

from google.protobuf.message import DecodeError

FIELDS_MAX: Final = 1_000
"""Fields at the top of a request. One with a graph has a dozen, and 64 labels."""
_TAG_END: Final = 1 << 32


def last_text(content: bytes, number: int) -> str:
    """Return the text of a singular field at the top of an encoded message, as the parser will see it: the last one.

    Empty if there is none.

    Raises:
        DecodeError: The bytes are no message, or have more than FIELDS_MAX fields at the top, or groups.
    """
    text = b""
    position, fields = 0, 0
    try:
        while position < len(content):
            fields += 1
            tag, position = _varint(content, position)
            size = 0
            match tag & 7 if tag < _TAG_END else None:
                case 0:
                    _, position = _varint(content, position)
                case 1:
                    size = 8
                case 2:
                    size, position = _varint(content, position)
                    if tag >> 3 == number:
                        text = content[position : position + size]
                case 5:
                    size = 4
                case _:
                    raise IndexError  # A group, or no tag at all; no version of the contract has groups.
            position += size
            if fields > FIELDS_MAX or position > len(content):
                raise IndexError
        return text.decode()
    except (IndexError, UnicodeDecodeError):
        raise DecodeError(f"is malformed, or has more than {FIELDS_MAX} fields") from None


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """Read a number, and return the position after it; IndexError if it has more than ten bytes."""
    value = 0
    for shift in range(0, 70, 7):
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise IndexError
