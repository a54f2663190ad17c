"""An upper bound on the cost of an evaluation, computed before it starts.

The library is fast on most expressions and extremely slow on others: `map` copies its list in every round,
nested loops multiply, `[x].map(x, x + x)` doubles in every round, and `contains` and regular expressions take
the product of text and pattern. None of this can be interrupted, because the library holds the interpreter's
lock. So the tree is walked once with the sizes of the values in place of the values: each node gets a bound on
the size of its value (`Extent`), and adds a bound on its work. An evaluation below `WORK_MAX` takes
milliseconds and runs in place; all others run in a process that can be killed. The bound may be far too high,
but never too low.

A unit of work is about 50 ns, and of memory some 100 bytes at most. The weights were measured on the
library: `map` over 1,000 integers 15 ms, over 9,000 3.6 s; `contains` with 500 kB and 250 kB 0.66 s; a
regular expression of 1,800 states over 500 kB 2.6 s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final, NamedTuple

from plait_server.adapters.expressions.reading import Path, read_of
from plait_server.adapters.expressions.syntax import (
    Comprehension,
    Constant,
    FunctionCall,
    Identifier,
    ListLiteral,
    MapLiteral,
    Node,
    Selection,
)
from plait_server.adapters.expressions.values import Size, follow
from plait_server.core.json_text import JsonValue
from plait_server.ports.evaluator import ExpressionError

WORK_MAX: Final = 100_000.0
"""The most work in place: about 5 ms, compared with the 60 ms that a helper process takes to start."""

_BYTES_A_UNIT: Final = 512
"""Text is copied and compared at 10 bytes a nanosecond."""
_READ_VALUE: Final = 3.0
_WRITE_VALUE: Final = 25.0
"""Converting values in and out: 0.15 and 1.2 us each."""
_NODE: Final = 2.0
_ROUND: Final = 3.0
_ROUND_SKIP: Final = 0.05
"""A round of a loop: 0.15 us, and 2 ns for each item of the list."""
_COPY: Final = 0.3
"""For each item gathered so far, at each round: half of them on average, at 30 ns and more."""
_CONTAINS: Final = 1e-4
"""For each byte of the text times each byte of the search string."""
_MATCH: Final = 0.06
"""For each byte of the text times each state of the regular expression."""
_STATE: Final = 3.0
"""Compiling one state of a regular expression."""
_STATES_MAX: Final = 100_000
"""RE2 refuses larger ones, because of its 8 MB budget."""
_ROUNDS_MAX: Final = 10_000
"""The library aborts an evaluation after this many rounds."""
_REPETITION: Final = re.compile(r"\{(\d+)?,?(\d+)?\}")
_PRODUCTS: Final = frozenset({"contains", "matches"})
_BOOLEAN: Final = frozenset(
    {"!_", "_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_", "_&&_", "_||_", "@not_strictly_false"}
)


class Extent(NamedTuple):
    """A bound on the size of a value; a plain tuple, because every evaluation makes one for every node."""

    values: float
    """Values in it, including itself."""
    text_bytes: float = 0.0
    """Bytes of text in it."""
    length: float = 1.0
    """Items or keys directly in it."""
    item_values: float = 0.0
    """Values in its largest item; 0 if no better bound than the whole is known."""
    item_text_bytes: float = 0.0
    """Bytes of text in the item that has the most."""
    text: str | None = None
    """The value itself if it is a known string."""

    @property
    def units(self) -> float:
        """The cost of copying it or comparing it with something of the same size."""
        return self.values + self.text_bytes / _BYTES_A_UNIT

    def item(self) -> Extent:
        """Return a bound on any value directly in it."""
        values = self.item_values or self.values
        text_bytes = self.item_text_bytes if self.item_values else self.text_bytes
        return Extent(values, text_bytes, values)


_SCALAR: Final = Extent(1.0, 40.0)
"""A number, boolean, time or null; as text at most 40 bytes long."""


def estimate_work(
    tree: Node, variables: Mapping[str, JsonValue], size: Size, functions: frozenset[str], nodes: int
) -> float:
    """Return a bound on the work of an evaluation.

    Args:
        tree: The expression.
        variables: The variables that it sees.
        size: Their size.
        functions: The functions that it calls.
        nodes: The number of nodes of its tree if it has no loop; else 0.
    """
    reading = size.values * _READ_VALUE + size.text_bytes / _BYTES_A_UNIT
    # Without a loop each leaf counts once: no value is larger than all leaves together, and each node goes
    # through its operands a few times at most.
    if nodes and not functions & _PRODUCTS:
        quick = reading + nodes * nodes * (_WRITE_VALUE + size.values + size.text_bytes / _BYTES_A_UNIT)
        if quick <= WORK_MAX:
            return quick
    if reading > WORK_MAX:
        return reading
    estimator = _Estimator(variables)
    result = estimator.extent(tree, {})
    writing = _WRITE_VALUE * result.values + result.text_bytes / _BYTES_A_UNIT
    return reading + estimator.work + writing


class _Estimator:
    def __init__(self, variables: Mapping[str, JsonValue]) -> None:
        self._variables = variables
        self._extents: dict[Path, Extent] = {}
        self.work = 0.0
        """The work of the nodes visited so far."""

    def extent(self, node: Node, scope: Mapping[str, Extent]) -> Extent:
        """Bound the value of a node, and add its work; `scope` has the variables of the loops around it."""
        self.work += _NODE
        read = read_of(node, tuple(scope))
        if read is not None and not read.is_test:
            return self._extent_of_path(read.path)
        match node:
            case Constant(value=str() as text):
                return Extent(1.0, float(len(text.encode())), text=text)
            case Constant(value=bytes() as data):
                return Extent(1.0, float(len(data)))
            case Constant():
                return _SCALAR
            case Identifier(name=name):
                return scope.get(name, _SCALAR)
            case Selection(operand=operand, is_test=is_test):
                inner = self.extent(operand, scope)
                return _SCALAR if is_test else inner.item()
            case ListLiteral(elements=parts):
                return _container([self.extent(part, scope) for part in parts], len(parts))
            case MapLiteral(entries=parts):
                return _container([self.extent(part, scope) for part in parts], len(parts) / 2)
            case FunctionCall():
                return self._call(node, [self.extent(part, scope) for part in node.arguments])
            case Comprehension():
                return self._loop(node, scope)

    def _extent_of_path(self, path: Path) -> Extent:
        if path not in self._extents:
            try:
                self._extents[path] = _extent_of(follow(self._variables, path))
            except ExpressionError:
                self._extents[path] = _SCALAR
        return self._extents[path]

    def _call(self, node: FunctionCall, operands: list[Extent]) -> Extent:
        match node.function, operands:
            case "_[_]", [container, _]:
                return container.item()
            case "_?_:_", [_, left, right]:
                return _larger(left, right)
            case "_+_", [left, right]:
                self.work += left.units + right.units
                return _sum(left, right)
            case "dyn", [operand]:
                return operand
            case "contains", [text, part]:
                self.work += _CONTAINS * text.text_bytes * part.text_bytes
                return _SCALAR
            case "matches", [text, pattern]:
                states = _states(pattern)
                self.work += _MATCH * (text.text_bytes + 1) * states + _STATE * states
                return _SCALAR
            case name, [left, right] if name in _BOOLEAN:
                self.work += min(left.units, right.units)
                return _SCALAR
            case name, _ if name in _BOOLEAN:
                return _SCALAR
            case _:
                # size, in, conversions, methods of times and strings: linear in what they are given, or less.
                units = sum(operand.units for operand in operands)
                self.work += units
                return Extent(1.0, 40.0 + sum(operand.text_bytes for operand in operands))

    def _loop(self, node: Comprehension, scope: Mapping[str, Extent]) -> Extent:
        source = self.extent(node.source, scope)
        initial = self.extent(node.initial, scope)
        rounds = min(source.length, _ROUNDS_MAX)
        before = self.work
        # The accumulator as nothing: what a round gives then is what it adds.
        inside = {**scope, node.variable: source.item(), node.accumulator: Extent(0.0, 0.0, 0.0)}
        self.extent(node.condition, inside)
        added = self.extent(node.step, inside)
        body = self.work - before
        gathers = isinstance(node.initial, ListLiteral)
        if gathers:
            final = Extent(
                initial.values + rounds * added.values,
                initial.text_bytes + rounds * added.text_bytes,
                initial.length + rounds * added.length,
                added.item_values,
                added.item_text_bytes,
            )
        else:
            final = _SCALAR
        a_round = body + _ROUND + _ROUND_SKIP * source.length + (_COPY * final.length if gathers else 0.0)
        self.work = before + rounds * a_round
        return self.extent(node.result, {**inside, node.accumulator: final})


def _extent_of(value: JsonValue) -> Extent:
    match value:
        case str():
            return Extent(1.0, float(_bytes_of(value)), text=value)
        case list():
            sizes = [_size_of(item) for item in value]
            return _from_sizes(sizes, 0)
        case dict():
            keys = sum(_bytes_of(key) for key in value)
            # A loop goes through the keys, so they count as items too.
            longest = max((_bytes_of(key) for key in value), default=0)
            sizes = [_size_of(item) for item in value.values()]
            return _from_sizes([*sizes, (1, longest)] if sizes else [], keys)._replace(
                length=float(len(value))
            )
        case _:
            return _SCALAR


def _from_sizes(sizes: list[tuple[int, int]], own_text: int) -> Extent:
    return Extent(
        1.0 + sum(values for values, _ in sizes),
        float(own_text + sum(text for _, text in sizes)),
        float(len(sizes)),
        float(max((values for values, _ in sizes), default=1)),
        float(max((text for _, text in sizes), default=0)),
    )


def _size_of(value: JsonValue) -> tuple[int, int]:
    values = text = 0
    rest: list[JsonValue] = [value]
    while rest:
        part = rest.pop()
        values += 1
        if isinstance(part, str):
            text += _bytes_of(part)
        elif isinstance(part, list):
            rest.extend(part)
        elif isinstance(part, dict):
            text += sum(_bytes_of(key) for key in part)
            rest.extend(part.values())
    return values, text


def _bytes_of(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _container(parts: list[Extent], length: float) -> Extent:
    return Extent(
        1.0 + sum(part.values for part in parts),
        sum(part.text_bytes for part in parts),
        float(length),
        max((part.values for part in parts), default=1.0),
        max((part.text_bytes for part in parts), default=0.0),
    )


def _sum(left: Extent, right: Extent) -> Extent:
    items = _larger(left.item(), right.item())
    return Extent(
        left.values + right.values,
        left.text_bytes + right.text_bytes,
        left.length + right.length,
        items.values,
        items.text_bytes,
    )


def _larger(left: Extent, right: Extent) -> Extent:
    items = max(left.item().values, right.item().values), max(left.item().text_bytes, right.item().text_bytes)
    return Extent(
        max(left.values, right.values),
        max(left.text_bytes, right.text_bytes),
        max(left.length, right.length),
        *items,
    )


def _states(pattern: Extent) -> float:
    if pattern.text is None:
        return float(_STATES_MAX)
    states = float(len(pattern.text.encode()) + 1)
    for repetition in _REPETITION.finditer(pattern.text):
        states *= max(1.0, *(float(count) for count in repetition.groups() if count))
        if states > _STATES_MAX:
            return float(_STATES_MAX)
    return states
