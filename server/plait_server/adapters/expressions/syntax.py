"""The syntax tree of a checked expression, read from the library's serialized form.

The library's only access to the tree is `serialize()`: a `google.protobuf.Any` with a
`cel.expr.CheckedExpr` (https://github.com/google/cel-spec/blob/master/proto/cel/expr/checked.proto), in
which macros are expanded into comprehensions. Its types are not among the Python packages, and protobuf's
own reader stops at 100 levels, which fewer than 32 levels of source can exceed; so the needed
part of the wire format is read here.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

_DEPTH_MAX: Final = 200
"""The library stops at 32 levels of source, of which a macro makes four here; far below Python's 1,000
frames."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Constant:
    """A literal that is not a list, map or message."""

    value: bool | int | float | str | bytes | None
    """Its value."""
    is_unsigned: bool = False
    """Whether it is one of CEL's uint, as `1u`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identifier:
    """A variable, or a constant of the library such as a type."""

    name: str
    """Its name; dotted for constants in a package."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """`operand.field`, or `has(operand.field)`."""

    operand: Node
    """What the field is read from."""
    field: str
    """The field's name."""
    is_test: bool
    """Whether only its presence is tested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionCall:
    """An operator, function or method."""

    function: str
    """Its name; operators have names such as `_+_` and `_[_]`."""
    arguments: tuple[Node, ...]
    """The operands; the target of a method comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ListLiteral:
    """`[a, b]`."""

    elements: tuple[Node, ...]
    """Its elements."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MapLiteral:
    """`{k: v}`, or a message literal."""

    message: str
    """The type of the message; empty for a map."""
    entries: tuple[Node, ...]
    """Keys and values in turn; of a message only the values."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comprehension:
    """The loop that a macro expands to.

    `accumulator` starts as `initial`; for each item of `source`, as long as `condition` holds, it becomes
    `step`; the value is `result`.
    """

    variable: str
    """The name of the item."""
    source: Node
    """The list or map to iterate over; of a map its keys."""
    accumulator: str
    """The name of the accumulator."""
    initial: Node
    """The accumulator's first value."""
    condition: Node
    """Whether to continue; sees the item and the accumulator."""
    step: Node
    """The accumulator's next value; sees the item and the accumulator."""
    result: Node
    """The value of the whole loop; sees the accumulator."""


Node: TypeAlias = Constant | Identifier | Selection | FunctionCall | ListLiteral | MapLiteral | Comprehension


class TooDeep(Exception):
    """The tree nests deeper than any source within the bounds can."""


def read_tree(serialized: bytes) -> Node:
    """Read the tree of a serialized expression.

    Raises:
        TooDeep: The tree nests deeper than 200 levels.
    """
    any_value = _sole(serialized, 2)
    return _node(_sole(any_value, 4), 0)


def children(node: Node) -> Sequence[Node]:
    """Return the nodes directly below one, in the order of the source."""
    match node:
        case Constant() | Identifier():
            return ()
        case Selection():
            return (node.operand,)
        case FunctionCall():
            return node.arguments
        case ListLiteral():
            return node.elements
        case MapLiteral():
            return node.entries
        case Comprehension():
            return (node.source, node.initial, node.condition, node.step, node.result)


def count_nodes(node: Node) -> int:
    """Return the number of nodes of a tree."""
    return 1 + sum(count_nodes(child) for child in children(node))


def _node(data: bytes, depth: int) -> Node:
    if depth > _DEPTH_MAX:
        raise TooDeep
    for number, value in _fields(data):
        match number, value:
            case 3, bytes():
                return _constant(value)
            case 4, bytes():
                return Identifier(name=_text(value, 1))
            case 5, bytes():
                return Selection(
                    operand=_node(_sole(value, 1), depth + 1),
                    field=_text(value, 2),
                    is_test=any(found == 3 and flag for found, flag in _fields(value)),
                )
            case 6, bytes():
                arguments = (*_all(value, 1), *_all(value, 3))
                return FunctionCall(
                    function=_text(value, 2), arguments=tuple(_node(each, depth + 1) for each in arguments)
                )
            case 7, bytes():
                return ListLiteral(elements=tuple(_node(each, depth + 1) for each in _all(value, 1)))
            case 8, bytes():
                entries = (part for entry in _all(value, 2) for part in (*_all(entry, 3), *_all(entry, 4)))
                return MapLiteral(
                    message=_text(value, 1), entries=tuple(_node(part, depth + 1) for part in entries)
                )
            case 9, bytes():
                source, initial, condition, step, result = (
                    _node(_sole(value, part), depth + 1) for part in (2, 4, 5, 6, 7)
                )
                return Comprehension(
                    variable=_text(value, 1),
                    source=source,
                    accumulator=_text(value, 3),
                    initial=initial,
                    condition=condition,
                    step=step,
                    result=result,
                )
            case _:
                pass
    # An element whose fields all have their default values, such as the empty list.
    return Constant(value=None)


def _constant(data: bytes) -> Constant:
    for number, value in _fields(data):
        match number, value:
            case 2, int():
                return Constant(value=bool(value))
            case 3, int():
                return Constant(value=value - (1 << 64) if value >> 63 else value)
            case 4, int():
                return Constant(value=value, is_unsigned=True)
            case 5, bytes():
                return Constant(value=float(struct.unpack("<d", value)[0]))
            case 6, bytes():
                return Constant(value=value.decode())
            case 7, bytes():
                return Constant(value=value)
            case _:
                pass
    return Constant(value=None)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Iterate over the fields of a message; varints are returned as integers, everything else as bytes."""
    position = 0
    while position < len(data):
        key, position = _varint(data, position)
        match key & 7:
            case 0:
                value, position = _varint(data, position)
                yield key >> 3, value
            case 1:
                yield key >> 3, data[position : position + 8]
                position += 8
            case 2:
                size, position = _varint(data, position)
                yield key >> 3, data[position : position + size]
                position += size
            case _:
                yield key >> 3, data[position : position + 4]
                position += 4


def _varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:
            return value, position
        shift += 7


def _all(data: bytes, number: int) -> list[bytes]:
    return [value for found, value in _fields(data) if found == number and isinstance(value, bytes)]


def _sole(data: bytes, number: int) -> bytes:
    found = _all(data, number)
    return found[-1] if found else b""


def _text(data: bytes, number: int) -> str:
    return _sole(data, number).decode()
