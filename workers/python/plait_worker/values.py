"""JSON in and out of handlers: what may be a result, and where in a value the mistake is (RFC 8259).

Python's encoder alone is not enough: it turns the key 1 into "1" and None into "null", writes NaN, lets lone
surrogates pass and stops only at its own recursion limit. So a value is looked through first, without a path
(most are in order), and once more with a path if something is wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from decimal import Decimal
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Final, TypeAlias, cast

from plait_worker.limits import PAYLOAD_BYTES_MAX, VALUE_DEPTH_MAX

JSONValue: TypeAlias = "bool | int | float | str | list[JSONValue] | dict[str, JSONValue] | None"
"""What handlers are given, and what they may return; tuples count as lists."""

_SHOWN_CHARS_MAX: Final = 200
"""How much of a path or a key a message shows."""
_SMALLER: Final = "store it elsewhere and return its address"
_TOO_MANY: Final = f"$ has more than {{}} parts, or holds itself: {_SMALLER}"

# Made once: json.dumps makes a new encoder at each call with options.
_encode: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode


class UnfitValue(ValueError):
    """A value is no JSON, or too much of it; the message names the path inside it, and the remedy."""


class OversizeValue(UnfitValue):
    """A value is too much JSON."""


def encode_value(value: object, bytes_max: int = PAYLOAD_BYTES_MAX) -> str:
    """Write a value as JSON text, compactly.

    Raises:
        UnfitValue: if it holds NaN or an infinity, a key that is no string, a lone surrogate, an integer too
            long to write, something that is no JSON type; if it nests deeper than 64.
        OversizeValue: if it is larger than `bytes_max` in UTF-8.
    """
    if not _is_plain(value, bytes_max):
        raise UnfitValue(_explain(value, bytes_max))
    try:
        text = _encode(value)
        size = size_of(text)
    except ValueError as error:
        # A lone surrogate, or an integer longer than sys.get_int_max_str_digits().
        raise UnfitValue(_explain(value, bytes_max)) from error
    if size > bytes_max:
        raise OversizeValue(f"$ is {size} bytes of JSON, and {bytes_max} is the limit: {_SMALLER}")
    return text


def decode_value(text: str) -> JSONValue:
    """Read JSON text.

    Raises:
        ValueError: if it is not JSON, or holds an integer longer than Python reads.
    """
    return cast("JSONValue", json.loads(text))


def size_of(text: str) -> int:
    """Count the bytes of a text in UTF-8."""
    # Asking is free: CPython knows it of every string.
    return len(text) if text.isascii() else len(text.encode())


def _is_plain(value: object, parts_max: int) -> bool:
    """Whether a value has only JSON types, string keys and finite numbers, and is not too deep.

    Every part of a value takes a byte at least. Counting them ends the search in a value that holds itself.

    Raises:
        OversizeValue: if it has more parts than that.
    """
    pending = [value]
    room = parts_max
    for _ in range(VALUE_DEPTH_MAX + 1):
        room -= len(pending)
        deeper: list[object] = []
        for item in pending:
            if isinstance(item, str | int) or item is None:
                continue
            if isinstance(item, float):
                if not math.isfinite(item):
                    return False
            elif isinstance(item, dict):
                entries = cast("dict[object, object]", item)
                if not all(isinstance(key, str) for key in entries):
                    return False
                deeper.extend(entries.values())
            elif isinstance(item, list | tuple):
                deeper.extend(cast("Sequence[object]", item))
            else:
                return False
            if len(deeper) > room:
                raise OversizeValue(_TOO_MANY.format(parts_max))
        if not deeper:
            return True
        pending = deeper
    return False


def _explain(value: object, parts_max: int) -> str:
    """Return the first problem in a value, level by level, with its remedy."""
    pending: list[tuple[str, object]] = [("$", value)]
    room = parts_max
    for _ in range(VALUE_DEPTH_MAX + 1):
        deeper: list[tuple[str, object]] = []
        room -= len(pending)
        for path, item in pending:
            problem = _problem_with(item)
            if problem is not None:
                return f"{_shorten(path)} {problem}"
            deeper.extend(_children(path, item))
            if len(deeper) > room:
                return _TOO_MANY.format(parts_max)
        pending = deeper
    path = pending[0][0] if pending else "$"
    return f"$ is nested deeper than {VALUE_DEPTH_MAX}: return a flatter value; the path is {_shorten(path)}"


def _children(path: str, item: object) -> list[tuple[str, object]]:
    if isinstance(item, dict):
        entries = cast("Mapping[str, object]", item)
        return [(f"{path}.{key}", child) for key, child in entries.items()]
    if isinstance(item, list | tuple):
        return [(f"{path}[{index}]", child) for index, child in enumerate(cast("Sequence[object]", item))]
    return []


def _problem_with(item: object) -> str | None:
    if item is None or isinstance(item, bool):
        return None
    if isinstance(item, str):
        return (
            None
            if _is_unicode(item)
            else "has a lone surrogate: clean the text, or encode the bytes as base64"
        )
    if isinstance(item, int):
        return None if _is_writable(item) else "is an integer too long to write: return it as a string"
    if isinstance(item, float):
        return None if math.isfinite(item) else f"is {item}: return null or a string in its place"
    if isinstance(item, dict):
        return _problem_with_keys(cast("Mapping[object, object]", item))
    if isinstance(item, list | tuple):
        return None
    kind = type(item)
    remedy = _REMEDIES.get(kind, "return objects, lists, strings, numbers, booleans or null")
    return f"is a {kind.__name__}, which is not JSON: {remedy}"


def _problem_with_keys(entries: Mapping[object, object]) -> str | None:
    for key in entries:
        if not isinstance(key, str):
            return f"has the key {_shorten(repr(key))}, which is no string: use str keys"
        if not _is_unicode(key):
            return "has a key with a lone surrogate: clean the text"
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_writable(number: int) -> bool:
    try:
        str(number)
    except ValueError:
        return False
    return True


def _shorten(text: str) -> str:
    # Names in it may be anything, a lone surrogate too.
    clean = text.encode(errors="backslashreplace").decode()
    return clean if len(clean) <= _SHOWN_CHARS_MAX else f"{clean[:_SHOWN_CHARS_MAX]}..."


_REMEDIES: Final[Mapping[type, str]] = {
    set: "return a sorted list",
    frozenset: "return a sorted list",
    bytes: "return text, for example base64",
    bytearray: "return text, for example base64",
    date: "return .isoformat()",
    datetime: "return .isoformat()",
    Decimal: "return str(), or float() where rounding does no harm",
    CoroutineType: "await it, or declare the handler with async def",
    GeneratorType: "return a list",
    AsyncGeneratorType: "return a list",
}
