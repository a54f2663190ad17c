"""Rewords the library's errors for the author of a graph: what is wrong, where, and how to fix it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from plait_server.adapters.expressions.reading import Read, known_variables
from plait_server.adapters.expressions.values import follow
from plait_server.core.json_text import JsonValue
from plait_server.ports.evaluator import ExpressionError

NO_MEMORY: Final = "it needs more memory than it may have; let a worker compute it"
"""The message for an evaluation that ran out of memory."""
_SHOWN_CHARS_MAX: Final = 80
_SAID_CHARS_MAX: Final = 300

_FIRST_ERROR: Final = re.compile(r"ERROR: <input>:(-?\d+):(-?\d+): ([^\n]*)")
_CODE: Final = re.compile(r"^[A-Z_]+: | \[[A-Z_]+\]$")
_EXPECTING: Final = re.compile(r" expecting \{.*")
_UNDECLARED: Final = re.compile(r"undeclared reference to '([^']*)'")
_OVERLOAD: Final = re.compile(
    r"(?:found no matching overload for '([^']*)' applied to '|No matching overloads found : )(.*)"
)
_ODD_NODE_ID: Final = re.compile(r"\bnodes\.([A-Za-z0-9_-]+)\.(output|failure)\b")
_KEYWORDS: Final = frozenset({"in", "true", "false", "null"})
_SHOWN_OPERATORS: Final = {"_?_:_": "? :", "<jump_condition>": "? :", "_[_]": "[ ]"}
_MISSING_KEY: Final = re.compile(r"Key not found in map : (.*)", re.DOTALL)
_INDEX: Final = re.compile(r"Index error: index=(-?\d+) size=(\d+)")

_TOO_DEEP: Final = (
    "it nests deeper than 32 levels (a chain of operators or members counts one for each); work parts of it "
    "out in transform nodes"
)
_REPHRASED: Final = (
    ("recursion limit exceeded", _TOO_DEEP),
    ("Exceeded max recursion depth", _TOO_DEEP),
    ("Iteration budget exceeded", "its loops take more than 10,000 rounds; let a worker compute it"),
    ("bad_alloc", NO_MEMORY),
    ("duplicate key in map", "a map has the same key twice"),
    ("Applying SELECT to non-message type", "what a name is read from is no object; test the value before"),
    ("divide by zero", "a division by zero; test the divisor before"),
    ("modulus by zero", "a division by zero; test the divisor before"),
    ("integer overflow", "an integer grows beyond 64 bits; write double(x) for one of the operands"),
)


def at(problem: str, source: str) -> str:
    """Return a problem with the expression, shortened, appended."""
    text = " ".join("".join(char if char.isprintable() or char.isspace() else "?" for char in source).split())
    if len(text) > _SHOWN_CHARS_MAX:
        text = f"{text[: _SHOWN_CHARS_MAX - 20]} ... {text[-15:]}"
    return f"{problem}: in `{text}`"


def why_refused(said: str, source: str) -> str:
    """Explain why the library does not compile an expression.

    Args:
        said: The library's error.
        source: The expression.
    """
    rephrased = _rephrase(said)
    if rephrased:
        return rephrased
    remedy = quoting_remedy(source)
    error = _FIRST_ERROR.search(said)
    message = _EXPECTING.sub("", error[3] if error else _CODE.sub("", said))
    place = f" (line {error[1]}, column {error[2]})" if error and int(error[2]) > 0 else ""
    if undeclared := _UNDECLARED.search(message):
        name = undeclared[1].partition(".")[0]
        shown = name[:_SHOWN_CHARS_MAX]
        if re.search(rf"\b{re.escape(name)}\s*\(", source):
            message = f"there is no function {shown!r}"
        else:
            message = f"there is no variable {shown!r}; {known_variables()}"
    elif overload := _OVERLOAD.search(message):
        message = _why_no_overload(overload[1], overload[2])
    return f"{message[:_SAID_CHARS_MAX]}{place}{remedy}"


def quoting_remedy(source: str) -> str:
    """Return how to write a node id that is not a CEL identifier; empty if that is not the problem."""
    for found in _ODD_NODE_ID.finditer(source):
        node_id, member = found.groups()
        if not node_id.isidentifier() or node_id in _KEYWORDS:
            return f'; for the node whose id is {node_id!r} write nodes["{node_id}"].{member}'
    return ""


def why_failed(said: str, reads: Sequence[Read], variables: dict[str, JsonValue]) -> str:
    """Explain why the library returned no value.

    Args:
        said: The library's error.
        reads: The paths that the expression reads.
        variables: The variables that the expression saw.
    """
    if missing := _MISSING_KEY.search(said):
        return _why_missing(missing[1], reads, variables)
    if index := _INDEX.search(said):
        return f"an index is {index[1]}, but the list has {index[2]} items; test size() first"
    if overload := _OVERLOAD.search(_CODE.sub("", said)):
        return _why_no_overload(overload[1], overload[2])
    return _rephrase(said) or _CODE.sub("", _CODE.sub("", said))[:_SAID_CHARS_MAX]


def _rephrase(said: str) -> str | None:
    return next((words for sign, words in _REPHRASED if sign in said), None)


def _why_missing(key: str, reads: Sequence[Read], variables: dict[str, JsonValue]) -> str:
    """Name the path that lacks the key: the first one read that does, else just the key."""
    for read in reads:
        path = read.path[:-1] if read.is_test else read.path
        for index in range(len(path)):
            try:
                follow(variables, path[: index + 1])
            except ExpressionError as error:
                if _shows(key, path[index]):
                    return str(error)
                break
    return f"an object has no key {key[:_SHOWN_CHARS_MAX]}; test it with has(...) or `key in object`"


def _shows(key: str, step: str | int) -> bool:
    return key == (f'"{step}"' if isinstance(step, str) else str(step))


def _why_no_overload(operator: str | None, applied: str) -> str:
    """Explain which types an operator or function does not accept."""
    name, _, types = (operator, "", applied.rstrip("'")) if operator else applied.partition("(")
    name = name or ""
    kinds = [_kind(kind) for kind in types.strip("()' ").split(",") if kind.strip()]
    shown = _SHOWN_OPERATORS.get(name) or name.strip("_@")
    if {"int", "double"} <= set(kinds) and shown in {"+", "-", "*", "/"}:
        return (
            f"int and double cannot be joined by {shown}: write double(x) for the int, as in "
            "double(input.count) * 1.5"
        )
    if shown in {"!", "&&", "||", "? :"} and not kinds:
        return f"{shown} takes booleans only; compare the value, as in x == true"
    if not kinds:
        return f"{shown} does not take such operands; convert them, as with string(x), int(x) or double(x)"
    return (
        f"{shown} does not take {' and '.join(kinds)}; convert them, as with string(x), int(x) or double(x)"
    )


def _kind(name: str) -> str:
    return name.strip().replace("int64", "int").replace("uint64", "uint").replace("null_type", "null")
