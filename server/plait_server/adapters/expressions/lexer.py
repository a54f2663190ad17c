"""As much of CEL's lexical grammar as finds the end of an expression and the depth of its brackets.

Strings are what matters: a bracket or `}}` in one means nothing. Everything else passes as single
characters. The pattern cannot backtrack: each alternative is decided by its first characters, and every
repetition is possessive.
"""

from __future__ import annotations

import re
from typing import Final

_TOKEN: Final = re.compile(
    r'''
      [rR][bB]?"""(?:[^"]|"(?!""))*+"""  |  [bB][rR]"""(?:[^"]|"(?!""))*+"""
    | [rR][bB]?\'\'\'(?:[^']|'(?!''))*+\'\'\'  |  [bB][rR]\'\'\'(?:[^']|'(?!''))*+\'\'\'
    | [rR][bB]?"(?!"")[^"\r\n]*+"  |  [bB][rR]"(?!"")[^"\r\n]*+"
    | [rR][bB]?'(?!'')[^'\r\n]*+'  |  [bB][rR]'(?!'')[^'\r\n]*+'
    | [bB]?"""(?:[^"\\]|\\[\s\S]|"(?!""))*+"""
    | [bB]?\'\'\'(?:[^'\\]|\\[\s\S]|'(?!''))*+\'\'\'
    | [bB]?"(?!"")(?:[^"\\\r\n]|\\.)*+"
    | [bB]?'(?!'')(?:[^'\\\r\n]|\\.)*+'
    | `[^`\r\n]*+`
    | //[^\r\n]*+
    | [A-Za-z0-9_]++
    | (?P<opening>[(\[{])
    | (?P<closing>[)\]}])
    | (?P<quote>["'`])
    | [\s\S]
    ''',
    re.VERBOSE,
)


def end_of_expression(text: str, start: int) -> int | None:
    """Return the position of the `}}` that ends the expression beginning at `start`; None if there is none."""
    depth = 0
    position = start
    while match := _TOKEN.match(text, position):
        if match["quote"]:
            return None
        if match["opening"]:
            depth += 1
        elif match["closing"]:
            if depth == 0:
                return position if text.startswith("}}", position) else None
            depth -= 1
        position = match.end()
    return None


def depth_of_brackets(source: str) -> int:
    """Return how deep parentheses, lists and maps nest, ignoring strings and comments."""
    depth = deepest = 0
    for match in _TOKEN.finditer(source):
        if match["opening"]:
            depth += 1
            deepest = max(deepest, depth)
        elif match["closing"]:
            depth -= 1
    return deepest
