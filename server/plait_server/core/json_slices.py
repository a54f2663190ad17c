"""Checks a long JSON text in slices of a few milliseconds, so that other work is not blocked.

`json_text.check_json` reads a text in one go: a mebibyte of empty lists takes 0.2 s. This module reads token by
token and pauses in between. It takes longer in total, so it is used only for texts with many values. Both accept
the same texts; a test compares them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Final

from plait_server.core.json_text import InvalidJson, check_json
from plait_server.core.limits import VALUE_DEPTH_MAX

MARKS_AT_ONCE_MAX: Final = 25_000
"""The number of commas, brackets and escapes up to which a text is checked in one go, in about 10 ms."""
TOKENS_A_SLICE: Final = 4_000
_CHARS_A_TOKEN: Final = 30
"""Characters that the regular expression skips in the time in which the loop reads one token."""

_STRING: Final = r'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_SPACE: Final = r"[ \t\n\r]*+"
_TOKEN: Final = re.compile(rf"{_SPACE}(?:({_STRING})|([\[\]{{}},:])|([^\s\"\[\]{{}},:]++))")
_SIMPLE: Final = rf"(?:\[\]|\{{\}}|-?(?:0|[1-9][0-9]{{0,14}}+)|true|false|null|{_STRING})"
_RUN: Final = re.compile(rf"(?:{_SPACE}{_SIMPLE}{_SPACE},){{1,2000}}")
"""A run of list elements that need no further check, each with its comma."""
_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")
_REST: Final = re.compile(_SPACE)
_INTEGER_DIGITS_MAX: Final = 4_300
"""The most digits that Python reads in an integer."""


def check_json_in_slices(text: str, *, max_bytes: int, max_depth: int = VALUE_DEPTH_MAX) -> Iterator[None]:
    """Check a text as `check_json` does, yielding in between so that other work may be done.

    Raises:
        InvalidJson: The text is no JSON, is too long or nests too deep.
    """
    if not takes_long(text) or len(text) > max_bytes:
        check_json(text, max_bytes=max_bytes, max_depth=max_depth)
        return
    if not text.isascii() and len(text.encode()) > max_bytes:
        raise InvalidJson(f"the text is over the limit of {max_bytes:,} bytes", 0)
    done = 0
    for cost in _walk(text, max_depth):
        done += cost
        if done >= TOKENS_A_SLICE:
            done = 0
            yield
    if _SURROGATE.search(text):
        yield from _check_surrogates(text)


def takes_long(text: str) -> bool:
    """Whether `check_json` would take more than some 10 ms."""
    if len(text) <= MARKS_AT_ONCE_MAX:
        return False
    return text.count(",") + text.count("[") + text.count("{") + text.count("\\") > MARKS_AT_ONCE_MAX


def _walk(text: str, max_depth: int) -> Iterator[int]:
    """Read the tokens by the grammar of RFC 8259, and yield the cost of each step."""
    stack: list[set[str] | None] = []
    """The open containers: an object's keys, None for a list."""
    expected = "value"
    position = 0
    while True:
        if expected == "value" and stack and stack[-1] is None:
            run = _RUN.match(text, position)
            if run is not None:
                if len(stack) >= max_depth and re.search(r"[\[{]", _without_strings(run[0])):
                    raise InvalidJson(f"lists and objects nest deeper than {max_depth} levels", position)
                position = run.end()
                yield (run.end() - run.start()) // _CHARS_A_TOKEN
        match = _TOKEN.match(text, position)
        if match is None:
            if expected != "end" or _REST.fullmatch(text, position) is None:
                raise InvalidJson("the text is no JSON", position)
            return
        string, mark, other = match.groups()
        start, position = match.start(match.lastindex or 0), match.end()
        if mark in ("]", "}"):
            opened = "list" if mark == "]" else "object"
            if (
                not stack
                or (stack[-1] is None) != (mark == "]")
                or expected not in ("next", f"first of {opened}")
            ):
                raise InvalidJson(f"{mark} is not expected here", start)
            stack.pop()
        elif expected in ("key", "first of object"):
            keys = stack[-1]
            if not string or keys is None:
                raise InvalidJson("a key in double quotes is expected", start)
            key = json.loads(string) if "\\" in string else string[1:-1]
            if key in keys:
                raise InvalidJson(f"the key {key[:100]!r} stands twice in an object", start)
            keys.add(key)
            expected = "colon"
            yield 1
            continue
        elif expected == "colon":
            if mark != ":":
                raise InvalidJson("a colon is expected", start)
            expected = "value"
            continue
        elif expected == "next":
            if mark != ",":
                raise InvalidJson("a comma or the end of the list or object is expected", start)
            expected = "value" if stack[-1] is None else "key"
            continue
        elif expected == "end":
            raise InvalidJson("there is more than one value", start)
        elif mark in ("[", "{"):
            if len(stack) >= max_depth:
                raise InvalidJson(f"lists and objects nest deeper than {max_depth} levels", start)
            stack.append(None if mark == "[" else set())
            expected = "first of list" if mark == "[" else "first of object"
            yield 1
            continue
        elif mark or (other and not _is_scalar(other)):
            raise InvalidJson("a value is expected", start)
        expected = "next" if stack else "end"
        yield 1


def _is_scalar(text: str) -> bool:
    if text in ("true", "false", "null"):
        return True
    if _NUMBER.fullmatch(text) is None:
        return False
    if text.lstrip("-").isdigit():
        return len(text.lstrip("-")) <= _INTEGER_DIGITS_MAX
    return math.isfinite(float(text))


def _without_strings(text: str) -> str:
    return re.sub(_STRING, "", text)


def _check_surrogates(text: str) -> Iterator[None]:
    for count, match in enumerate(
        re.finditer(r"\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)|\\.", text)
    ):
        if match[1]:
            raise InvalidJson("half of a surrogate pair stands alone", match.start())
        if count % TOKENS_A_SLICE == 0:
            yield
