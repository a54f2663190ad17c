"""JSON text as defined by RFC 8259: the only validator, and ways to join texts without parsing them.

Payloads stay text until an expression names them, so most are checked once and never parsed. What
passes here means the same to every reader: no NaN or Infinity, no number beyond a double's range, no key
twice in an object, no lone surrogate (written out or as an escape), no nesting past `VALUE_DEPTH_MAX`,
nothing that is not UTF-8.

Texts are read by the standard library's C scanner, with a hook for each object and each number with a fraction.
What the scanner does not check is checked with regular expressions that cannot backtrack.
Nothing here recurses before the depth is known to be small.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from json.encoder import encode_basestring
from typing import Final, NoReturn, TypeAlias, cast

from plait_server.core.limits import VALUE_DEPTH_MAX

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
"""A parsed JSON value. Values are shared, so nobody may change one."""

_COMMON: Final = frozenset(
    form for text in ("null", "true", "false", "{}", "[]", '""', "0", "1") for form in (text, text.encode())
)
"""Texts that need no parsing: the most common results of nodes that only have side effects."""
_STRING: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_NOT_BRACKETS: Final = re.compile(r"[^\[\]{}]++")
_ESCAPE: Final = re.compile(
    r"\\u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(?P<lone>\\u[dD][89a-fA-F]\w\w)|\\.", re.DOTALL
)
"""A surrogate pair, half of one, or any other escape."""
_LONG_INTEGER: Final = re.compile(r"\d{4301}")
"""Python reads no integer of more than 4,300 digits, because the time for that grows with their square."""
_NUMBER_BEYOND_DOUBLE: Final = re.compile(r"\d[\d.]*[eE]\+?\d{3}|\d{309}")
_BRACES_TO_BRACKETS: Final = str.maketrans("{}", "[]")


class InvalidJson(ValueError):
    """The text is not JSON as RFC 8259 defines it."""

    def __init__(self, reason: str, position: int) -> None:
        super().__init__(f"{reason} (at character {position})")
        self.reason = reason
        """What is wrong, for the user; it quotes only keys and numbers of the text."""
        self.position = position
        """Characters before the error, as exactly as it is known; bytes if the text is not UTF-8."""


def check_json(text: str | bytes, *, max_bytes: int, max_depth: int = VALUE_DEPTH_MAX) -> None:
    """Check that a text is JSON, without returning its value.

    Args:
        text: The text; bytes are read as UTF-8.
        max_bytes: The most bytes the text may have in UTF-8.
        max_depth: The most lists and objects within one another; `[]` is one deep, `1` none.

    Raises:
        InvalidJson: The text is no JSON, is too long or nests too deep.
    """
    if text in _COMMON:
        return
    size = len(text) if isinstance(text, bytes) or text.isascii() else len(_encode(text))
    if size > max_bytes:
        raise InvalidJson(f"the text has {size:,} bytes; at most {max_bytes:,} are allowed", 0)
    parse_json(text, max_depth=max_depth)


def parse_json(text: str | bytes, *, max_depth: int = VALUE_DEPTH_MAX) -> JsonValue:
    """Read a JSON text; integers of any size keep their value, other numbers become doubles.

    Raises:
        InvalidJson: The text is no JSON or nests deeper than `max_depth`.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode()
        except UnicodeDecodeError as error:
            raise InvalidJson("the text is not UTF-8", error.start) from None
    elif not text.isascii():
        _encode(text)
    if exceeds_depth(text, max_depth):
        raise InvalidJson(f"lists and objects nest deeper than {max_depth} levels", 0)
    try:
        value = cast("JsonValue", _DECODER.decode(text))
    except InvalidJson as error:
        raise _locate(error, text) from None
    except json.JSONDecodeError as error:
        raise InvalidJson(_reword(error.msg), error.pos) from None
    except ValueError:
        found = _LONG_INTEGER.search(text)
        raise InvalidJson("an integer has more than 4,300 digits", found.start() if found else 0) from None
    if "\\u" in text:
        _refuse_lone_surrogates(text)
    return value


def exceeds_depth(text: str, max_depth: int) -> bool:
    """Return whether lists and objects of a JSON text nest deeper than `max_depth`.

    For a text that is not JSON the answer may be either, but it comes quickly and without recursion.
    """
    if text.count("[") + text.count("{") <= max_depth:
        return False
    brackets = _NOT_BRACKETS.sub("", _STRING.sub("", text)).translate(_BRACES_TO_BRACKETS)
    for _ in range(max_depth):
        if not brackets:
            return False
        # Removes the innermost pairs, which is exactly one level.
        brackets = brackets.replace("[]", "")
    return "[]" in brackets or brackets.count("[") > max_depth


def dump_json(value: JsonValue) -> str:
    """Write a value as compact JSON text, keys in their order.

    Raises:
        InvalidJson: The value holds NaN, Infinity or an integer of more than 4,300 digits.
    """
    try:
        return _ENCODER.encode(value)
    except ValueError:
        raise InvalidJson("the value holds NaN, Infinity or too long an integer; JSON has none", 0) from None


def splice_object(pairs: Iterable[tuple[str, str]]) -> str:
    """Build an object's text from keys and the JSON texts of their values, which are trusted and not parsed.

    The keys must differ; they are written in the order given.
    """
    return "{" + ",".join([f"{encode_basestring(key)}:{text}" for key, text in pairs]) + "}"


def splice_array(texts: Iterable[str]) -> str:
    """Build a list's text from the JSON texts of its items, which are trusted and not parsed."""
    return "[" + ",".join(texts) + "]"


class _DuplicateKey(InvalidJson):
    def __init__(self, key: str) -> None:
        super().__init__(f"the key {_shorten(key)} stands twice in one object", 0)
        self.key = key


def _object_of(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise _DuplicateKey(key)
            seen.add(key)
    return value


def _double_of(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise InvalidJson(f"the number {_shorten(text)} is beyond the range of a double", 0)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise InvalidJson(f"{name} is no JSON; write null or a string", 0)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_object_of, parse_float=_double_of, parse_constant=_refuse_constant
)
_ENCODER: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False
)


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise InvalidJson("half of a surrogate pair stands alone", error.start) from None


def _refuse_lone_surrogates(text: str) -> None:
    """Check the escapes of a text that is otherwise JSON, so that backslashes occur only in strings."""
    for escape in _ESCAPE.finditer(text):
        if escape["lone"]:
            raise InvalidJson("half of a surrogate pair stands alone", escape.start())


def _locate(error: InvalidJson, text: str) -> InvalidJson:
    """Find the position of what a hook of the scanner refused; the hook itself does not know it."""
    if isinstance(error, _DuplicateKey):
        return InvalidJson(error.reason, _position_of_duplicate(text))
    if error.reason.startswith("the number"):
        found = _NUMBER_BEYOND_DOUBLE.search(_STRING.sub(_blank, text))
    else:
        found = re.search(r"-?Infinity|NaN", _STRING.sub(_blank, text))
    return InvalidJson(error.reason, found.start() if found else 0)


def _position_of_duplicate(text: str) -> int:
    """Return the position of the first duplicate key; the text is JSON up to there."""
    open_objects: list[set[str] | None] = []
    for token in re.finditer(rf"{_STRING.pattern}(\s*:)?|[\[\]{{}}]", text, re.DOTALL):
        match token[0]:
            case "{":
                open_objects.append(set())
            case "[":
                open_objects.append(None)
            case "}" | "]":
                open_objects.pop()
            case _:
                keys = open_objects[-1] if open_objects and token[1] else None
                if keys is not None:
                    key = cast("str", json.loads(token[0].rstrip(": \t\r\n")))
                    if key in keys:
                        return token.start()
                    keys.add(key)
    return 0


def _blank(string: re.Match[str]) -> str:
    return " " * len(string[0])


def _reword(message: str) -> str:
    return f"the text is no JSON: {message[:1].lower()}{message[1:].removesuffix(' at')}"


def _shorten(text: str) -> str:
    shown = text if len(text) <= 40 else f"{text[:40]}..."
    return json.dumps(shown, ensure_ascii=True)
