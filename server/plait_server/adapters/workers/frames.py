"""Splits a worker's frame into pieces that are cheap to parse, before anything is parsed.

A worker may send whatever it likes. Four MiB of empty messages take 0.1 s to parse, which nothing can interrupt, and
seconds to handle. So the bytes are walked first, field by field, and passed on in pieces, each an AttachRequest
of its own that takes a few milliseconds to parse and to handle. Between two pieces other tasks run.

A result that is too large is not parsed at all. Its token is read out of the bytes, so that the attempt can be
failed and the worker answered; otherwise the worker would send the result again on every stream.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

from plait_server.core.limits import (
    HELD_ATTEMPTS_MAX,
    KIB,
    LABELS_MAX,
    MESSAGE_BYTES_MAX,
    PAYLOAD_BYTES_MAX,
    SERVED_TYPES_MAX,
    TOKEN_BYTES_MAX,
)
from plait_server.errors import FieldViolation, InvalidRequest, ProtocolViolation

FRAME_MESSAGES_MAX: Final = 16_384
"""More than fit into a frame of 1 MiB, for a message that names an attempt takes 70 bytes and more."""
PIECE_BYTES: Final = 64 * KIB
PIECE_MESSAGES: Final = 500
"""Messages that are parsed and acted on together: 2 to 5 ms."""
WHOLE_BYTES: Final = 16 * KIB
"""A frame up to this size needs no walk: it holds at most 8,192 messages."""
COMPLETE_BYTES_MAX: Final = PAYLOAD_BYTES_MAX + 64 * KIB
"""The most bytes of a result with its token and its usage."""
FAIL_BYTES_MAX: Final = PAYLOAD_BYTES_MAX + 256 * KIB
"""The most bytes of a failure's details and causes."""

_MESSAGES_TAG: Final = 0x0A  # AttachRequest.messages: field 1, length-delimited
_TOKEN: Final = 1
"""The field of the token in every message that has one."""
_HELLO, _COMPLETE, _FAIL = 1, 9, 10
_KEPT_AT_MOST_ONCE: Final = frozenset({5, 6, 7, 8})
"""Progress, log, usage and heartbeat are never this large; one that is too large is dropped."""
_KNOWN: Final = frozenset(range(1, 16))
_HELLO_LISTS: Final = {
    5: ("types", SERVED_TYPES_MAX),
    7: ("labels", LABELS_MAX),
    8: ("in_flight", HELD_ATTEMPTS_MAX),
}
_COMPLETE_FIELDS_MAX: Final = 256
"""The most fields of a result: its token, its output and one for each unit of usage."""
_FAIL_FIELDS_MAX: Final = 10_000
"""The same with the causes of a failure, of which the reader keeps the first 50."""
_USAGE: Final = {_COMPLETE: 3, _FAIL: 8}
_USAGE_BYTES_MAX: Final = 16 * KIB
"""64 units of 128 characters, and 81 for each amount."""


class Oversized(NamedTuple):
    """A result or failure that is too large to be parsed."""

    token: str
    size: int
    limit: int
    is_result: bool


Piece: TypeAlias = bytes | Oversized
"""Bytes that are an AttachRequest, or a message that was too large for one."""


class _Field(NamedTuple):
    number: int
    begin: int
    """The position of its value."""
    end: int
    """The position of the next field."""
    is_delimited: bool


def split(content: bytes) -> Iterator[Piece]:
    """Split a frame into pieces, in order.

    Raises:
        ProtocolViolation: The frame is not an AttachRequest, or holds too much; pieces before the error were yielded.
        InvalidRequest: A list in `hello` is too long.
    """
    if len(content) <= WHOLE_BYTES:
        yield content
        return
    begin = position = in_piece = 0
    size = len(content)
    if size > MESSAGE_BYTES_MAX and _next_field(content, 0, size).end != size:
        text = f"a frame of {size} bytes holds several messages; the limit is {MESSAGE_BYTES_MAX}"
        raise ProtocolViolation(text)
    for _ in range(FRAME_MESSAGES_MAX):
        if position >= size:
            break
        # Nearly every field is a message with a length of one byte or two: no call for those.
        if content[position] == _MESSAGES_TAG and position + 2 < size and content[position + 1] < 0x80:
            end = position + 2 + content[position + 1]
        elif content[position] == _MESSAGES_TAG and position + 2 < size and content[position + 2] < 0x80:
            end = position + 3 + (content[position + 1] & 0x7F | content[position + 2] << 7)
        else:
            end = _next_field(content, position, size).end
        if end - position > PIECE_BYTES:
            if begin < position:
                yield content[begin:position]
            large = _large(content, position, _next_field(content, position, size))
            if large:
                yield large
            begin, in_piece = end, 0
        else:
            in_piece += 1
            if in_piece >= PIECE_MESSAGES or end - begin >= PIECE_BYTES:
                yield content[begin:end]
                begin, in_piece = end, 0
        position = end
    if position < size:
        text = f"a frame holds more than {FRAME_MESSAGES_MAX} messages; send several"
        raise ProtocolViolation(text)
    if begin < size:
        yield content[begin:]


def _large(content: bytes, start: int, outer: _Field) -> Piece:
    """Handle a large message by its kind; return empty bytes if it is to be ignored."""
    if content[start] != _MESSAGES_TAG:
        return b""  # A field of a later protocol.
    inner, *more = _fields(content, outer.begin, outer.end, 2)
    if more:
        # Fields after it would be parsed with it, unchecked.
        raise ProtocolViolation(f"a message of more than {PIECE_BYTES} bytes says one thing, and no more")
    size = inner.end - inner.begin
    if inner.number == _COMPLETE:
        return _result(content, start, outer, inner, COMPLETE_BYTES_MAX, _COMPLETE_FIELDS_MAX)
    if inner.number == _FAIL:
        return _result(content, start, outer, inner, FAIL_BYTES_MAX, _FAIL_FIELDS_MAX)
    if inner.number == _HELLO and size <= MESSAGE_BYTES_MAX:
        _check_hello(content, inner)
        return content[start : outer.end]
    if inner.number in _KNOWN and inner.number not in _KEPT_AT_MOST_ONCE:
        text = f"message {inner.number} of WorkerMessage has {size} bytes; at most {PIECE_BYTES} are allowed"
        raise ProtocolViolation(text)
    return b""


def _result(content: bytes, start: int, outer: _Field, inner: _Field, limit: int, fields_max: int) -> Piece:
    token, count, size = "", 0, inner.end - inner.begin
    for field in _fields(content, inner.begin, inner.end, fields_max + 1):
        count += 1
        if field.number == _TOKEN and field.is_delimited and field.end - field.begin <= TOKEN_BYTES_MAX:
            token = content[field.begin : field.end].decode("utf-8", "replace")
        elif field.number == _USAGE[inner.number] and field.end - field.begin > _USAGE_BYTES_MAX:
            count += fields_max  # A map entry takes two bytes, and makes an object.
    if size <= limit and count <= fields_max:
        return content[start : outer.end]
    if not token:
        text = f"a result of {size} bytes, over the limit of {limit}, names no attempt"
        raise ProtocolViolation(text)
    return Oversized(token, size, limit, is_result=inner.number == _COMPLETE)


def _check_hello(content: bytes, hello: _Field) -> None:
    counts = dict.fromkeys(_HELLO_LISTS, 0)
    others = 0
    for field in _fields(content, hello.begin, hello.end):
        if field.number not in counts:
            others += 1
            if others > LABELS_MAX:
                raise ProtocolViolation("hello repeats fields that stand alone")
            continue
        counts[field.number] += 1
        name, limit = _HELLO_LISTS[field.number]
        if counts[field.number] > limit:
            raise InvalidRequest([FieldViolation(field=f"hello.{name}", message=f"must be at most {limit}")])


def _fields(content: bytes, position: int, end: int, count_max: int | None = None) -> Iterator[_Field]:
    """Walk the fields of a message, the first `count_max` of them."""
    while position < end and count_max != 0:
        field = _next_field(content, position, end)
        yield field
        position = field.end
        if count_max is not None:
            count_max -= 1


def _next_field(content: bytes, position: int, end: int) -> _Field:
    """Read a field's tag and find its end (https://protobuf.dev/programming-guides/encoding)."""
    tag, position = _varint(content, position, end)
    match tag & 7:
        case 0:
            _, after = _varint(content, position, end)
        case 1:
            after = position + 8
        case 2:
            length, position = _varint(content, position, end)
            after = position + length
        case 5:
            after = position + 4
        case _:
            raise ProtocolViolation(
                "a frame is no AttachRequest: it holds a group; is the worker's SDK up to date?"
            )
    if after > end:
        raise ProtocolViolation("a frame is no AttachRequest: a field goes beyond its end")
    return _Field(tag >> 3, position, after, tag & 7 == 2)


def _varint(content: bytes, position: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while position < end and shift < 70:  # ten bytes hold 64 bits
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise ProtocolViolation("a frame is no AttachRequest: a number in it does not end")
