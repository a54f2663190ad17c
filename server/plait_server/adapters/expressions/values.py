"""The variables as an expression sees them: only the parts that it reads, within the library's safe bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from plait_server.adapters.expressions.reading import Path, Read, path_text
from plait_server.core.json_text import JsonValue
from plait_server.core.limits import MIB, VALUE_DEPTH_MAX
from plait_server.ports.evaluator import ExpressionError

VISIBLE_BYTES_MAX: Final = 1 * MIB
"""The most text that an expression may read. Plain paths pass on more, because they do not examine it."""
VISIBLE_VALUES_MAX: Final = 100_000
"""Counting and converting this many takes 40 ms, the longest acceptable delay; loops end at 10,000 rounds
anyway.
"""
_LESS: Final = "name less of it, hand it on by a plain path such as input.items, or let a worker compute it"
_INT64_MIN: Final = -(1 << 63)
_INT64_MAX: Final = (1 << 63) - 1

Shape: TypeAlias = "dict[str, Shape] | bool"
"""The visible part of a value: some keys of an object; else all of it (True), or only its presence
(False).
"""


@dataclass(slots=True, kw_only=True)
class Size:
    """The size of a value."""

    values: int = 0
    """Scalars, lists and objects in it, including itself."""
    text_bytes: int = 0
    """The bytes of its strings and keys."""

    def add(self, other: Size) -> None:
        """Add the size of another value."""
        self.values += other.values
        self.text_bytes += other.text_bytes


def shape_of(reads: Sequence[Read]) -> Mapping[str, Shape]:
    """Return the parts of each variable that must be visible so that every read has its usual result."""
    root: dict[str, Shape] = {}
    for read in reads:
        keys = read.path
        # A list is visible as a whole, so that its indexes stay the same.
        whole = next((index for index, key in enumerate(keys) if not isinstance(key, str)), len(keys))
        shape: dict[str, Shape] = root
        for key in keys[: whole - 1]:
            inner = shape.setdefault(str(key), {})
            if inner is False:
                inner = shape[str(key)] = {}
            if inner is True:
                break
            shape = inner
        else:
            last = str(keys[whole - 1])
            if whole == len(keys) and read.is_test:
                shape.setdefault(last, False)
            else:
                shape[last] = True
    return root


def view(variables: Mapping[str, JsonValue], shape: Mapping[str, Shape]) -> dict[str, JsonValue]:
    """Return the visible part of the variables.

    A node without an entry looks like one without output and failure. A missing variable is left out.
    """
    seen: dict[str, JsonValue] = {}
    for name, inner in shape.items():
        if name == "nodes" and isinstance(inner, dict):
            nodes = variables.get("nodes")
            known = nodes if isinstance(nodes, dict) else {}
            seen["nodes"] = {node: _seen_of(known.get(node, {}), part) for node, part in inner.items()}
        elif name in variables:
            seen[name] = _seen_of(variables[name], inner)
    return seen


def _seen_of(value: JsonValue, shape: Shape) -> JsonValue:
    if shape is False:
        return True
    if shape is True or not isinstance(value, dict):
        return value
    return {key: _seen_of(value[key], inner) for key, inner in shape.items() if key in value}


def admit(seen: dict[str, JsonValue]) -> tuple[dict[str, JsonValue], Size]:
    """Check that a view is within the bounds, and convert its integers beyond int64 to doubles.

    Raises:
        ExpressionError: The view is too large, nests too deep or has a value that the library cannot process.
    """
    size = Size()
    admitted: dict[str, JsonValue] = {}
    for name, value in seen.items():
        admitted[name] = _admit(value, size, 0)
    return admitted, size


def _admit(value: JsonValue, size: Size, depth: int) -> JsonValue:
    """Count a value and check it; copies only where a value below had to be replaced."""
    size.values += 1
    if isinstance(value, str):
        _count_text(value, size)
        return value
    if isinstance(value, int):
        return value if _INT64_MIN <= value <= _INT64_MAX else _double(value)
    if isinstance(value, list | dict):
        if depth >= VALUE_DEPTH_MAX:
            raise ExpressionError(f"a value nests deeper than {VALUE_DEPTH_MAX} levels")
        # Early, so that a value that is far too large is not visited to its end.
        if size.values + len(value) > VISIBLE_VALUES_MAX:
            raise ExpressionError(f"the expression looks at more than {VISIBLE_VALUES_MAX:,} values; {_LESS}")
    if isinstance(value, list):
        items = [_admit(item, size, depth + 1) for item in value]
        same = all(new is old for new, old in zip(items, value, strict=True))
        return value if same else items
    if isinstance(value, dict):
        for key in value:
            _count_text(key, size)
        members = {key: _admit(member, size, depth + 1) for key, member in value.items()}
        same = all(members[key] is value[key] for key in members)
        return value if same else members
    return value


def _count_text(text: str, size: Size) -> None:
    if text.isascii():
        size.text_bytes += len(text)
    else:
        try:
            size.text_bytes += len(text.encode())
        except UnicodeEncodeError:
            raise ExpressionError("a string holds half of a surrogate pair") from None
    if size.text_bytes > VISIBLE_BYTES_MAX:
        raise ExpressionError(
            f"the expression looks at more than {VISIBLE_BYTES_MAX // MIB} MiB of text; {_LESS}"
        )
    if "\0" in text:
        raise ExpressionError(
            "a string that the expression works on holds the character U+0000, which CEL cannot take; "
            "hand it on by a plain path such as input.text"
        )


def _double(value: int) -> float:
    try:
        return float(value)
    except OverflowError:
        raise ExpressionError("an integer is beyond the range of a double") from None


def follow(variables: Mapping[str, JsonValue], path: Path) -> JsonValue:
    """Return the value at a path, as CEL would.

    Raises:
        ExpressionError: There is no value; the text tells at which step, and how to fix it.
    """
    root = path[0]
    if root not in variables:
        if root != "nodes":
            raise ExpressionError(absent(path, 0))
        value: JsonValue = {}
    else:
        value = variables[str(root)]
    for index in range(1, len(path)):
        key = path[index]
        if isinstance(value, dict) and isinstance(key, str):
            if key in value:
                value = value[key]
            elif root == "nodes" and index == 1:
                value = {}
            else:
                raise ExpressionError(absent(path, index))
        elif isinstance(value, list) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            raise ExpressionError(_unreadable(value, path, index))
    return value


def absent(path: Path, index: int) -> str:
    """Return the error that the key at an index of a path is missing."""
    match path:
        case ("output", *_) if index == 0:
            return "output is known only in the `when` of an edge"
        case (root, *_) if index == 0:
            return f"{root} has no value here"
        case ("nodes", node, "output", *_) if index == 2:
            return (
                f"node {node!r} has no output: it has not ended, failed, or was skipped or cancelled; "
                f"test it with has({path_text(path[:3])})"
            )
        case ("nodes", node, "failure", *_) if index == 2:
            return f"node {node!r} has no failure; test it with has({path_text(path[:3])})"
        case _:
            whole, parent = path_text(path[: index + 1]), path_text(path[:index])
            key = path[index]
            test = (
                f"has({whole})"
                if whole.startswith(f"{parent}.")
                else f"{whole[len(parent) + 1 : -1]} in {parent}"
            )
            return f"{parent} has no key {key!r}; test it with {test}"


def _unreadable(value: JsonValue, path: Path, index: int) -> str:
    parent, key = path_text(path[:index]), path[index]
    if isinstance(value, list):
        if isinstance(key, int):
            return f"{parent} has {len(value)} items, none of index {key}; test size({parent}) first"
        return f"{parent} is a list and has no key {key!r}; write an index such as {parent}[0]"
    if isinstance(value, dict):
        return f"{parent} is an object and has no key {key!r}; its keys are strings"
    return f"{parent} is {kind_name(value)} and has neither keys nor items"


def kind_name(value: JsonValue) -> str:
    """Name the JSON type of a value."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case dict():
            return "an object"
