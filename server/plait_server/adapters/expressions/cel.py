"""The evaluator: compiles expressions and templates, evaluates plain paths itself and everything else with CEL."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from plait_server.adapters.expressions import library, messages
from plait_server.adapters.expressions.cost import WORK_MAX, estimate_work
from plait_server.adapters.expressions.lexer import depth_of_brackets
from plait_server.adapters.expressions.reading import Path, Read, find_reading, parse_plain_path, read_of
from plait_server.adapters.expressions.syntax import Node, TooDeep, count_nodes, read_tree
from plait_server.adapters.expressions.template import CelTemplate, parse_template
from plait_server.adapters.expressions.values import Shape, admit, follow, shape_of, view
from plait_server.core.json_text import JsonValue
from plait_server.core.limits import EXPRESSION_BYTES_MAX
from plait_server.ports.evaluator import (
    Expression,
    ExpressionError,
    ExpressionFacts,
    InvalidExpression,
    OffloadNeeded,
    Template,
)

_BRACKETS_MAX: Final = 32
"""The library's own limit on nesting levels, which is checked before the library sees a source."""
_SPLIT_UP: Final = "Work parts of it out in transform nodes"
_EXPRESSIONS_CACHED: Final = 4_096
"""A compiled expression takes some 10 kB."""
_TEMPLATES_CACHED: Final = 1_024
_TEMPLATE_BYTES_CACHED_MAX: Final = 16 * 1024
"""Larger documents are compiled each time, so that the cache cannot fill the memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CelExpression:
    """A compiled expression; implements the port's Expression."""

    source: str
    """The text it was compiled from."""
    facts: ExpressionFacts
    """The names it uses."""
    reads: tuple[Read, ...]
    """The paths at which it reads the variables."""
    shape: Mapping[str, Shape]
    """The part of the variables that it sees."""
    work_max: float
    """The most work that may run in place."""
    _way: Path | library.Program
    """The path, if it is nothing but a path; then CEL is not needed."""
    _tree: Node
    _functions: frozenset[str]
    _loopless_nodes: int

    def evaluate(self, variables: Mapping[str, JsonValue]) -> JsonValue:
        """Return the value; see the port."""
        way = self._way
        if isinstance(way, tuple):
            try:
                return follow(variables, way)
            except ExpressionError as error:
                raise ExpressionError(messages.at(str(error), self.source)) from None
        seen, work = self._prepare(variables)
        if work > self.work_max:
            raise OffloadNeeded(self.source)
        try:
            return library.evaluate(way, seen)
        except library.NotJson as error:
            raise ExpressionError(messages.at(str(error), self.source)) from None
        except library.LibraryError as error:
            why = messages.why_failed(str(error), self.reads, seen)
            raise ExpressionError(messages.at(why, self.source)) from None

    def work(self, variables: Mapping[str, JsonValue]) -> float:
        """Return a bound on the work of an evaluation; 0 for a plain path.

        Raises:
            ExpressionError: A variable is missing or exceeds a bound.
        """
        return 0.0 if isinstance(self._way, tuple) else self._prepare(variables)[1]

    def _prepare(self, variables: Mapping[str, JsonValue]) -> tuple[dict[str, JsonValue], float]:
        try:
            seen, size = admit(view(variables, self.shape))
            for root in self.shape:
                if root not in seen:
                    follow(variables, (root,))
        except ExpressionError as error:
            raise ExpressionError(messages.at(str(error), self.source)) from None
        return seen, estimate_work(self._tree, seen, size, self._functions, self._loopless_nodes)


class CelEvaluator:
    """Compiles expressions and templates; implements the port's Evaluator.

    Args:
        work_max: The most work that may run in place, in units of `cost`; infinite if nothing else needs the
        process.
    """

    def __init__(self, *, work_max: float = WORK_MAX) -> None:
        self._work_max = work_max
        self._compiled = functools.lru_cache(_EXPRESSIONS_CACHED)(self._compile)
        self._templates = functools.lru_cache(_TEMPLATES_CACHED)(self._compile_template)

    def compile(self, source: str) -> CelExpression:
        """Compile one expression; see the port."""
        return self._compiled(source)

    def compile_template(self, json_text: str) -> CelTemplate:
        """Compile a JSON document; see the port."""
        if len(json_text) > _TEMPLATE_BYTES_CACHED_MAX:
            return self._compile_template(json_text)
        return self._templates(json_text)

    def needs_offload(self, compiled: Expression | Template, variables: Mapping[str, JsonValue]) -> bool:
        """Return whether an evaluation must not run in this process; see the port."""
        if not isinstance(compiled, CelExpression | CelTemplate):
            raise TypeError("this evaluator can only judge what it has compiled")
        try:
            return compiled.work(variables) > self._work_max
        except ExpressionError:
            return False

    def _compile_template(self, json_text: str) -> CelTemplate:
        return parse_template(json_text, self.compile, work_max=self._work_max)

    def _compile(self, source: str) -> CelExpression:
        try:
            tree, way = _parse(source)
            reading = find_reading(tree)
        except library.LibraryError as error:
            raise InvalidExpression(messages.at(messages.why_refused(str(error), source), source)) from None
        except TooDeep:
            raise InvalidExpression(messages.at("it nests too deep", source)) from None
        except InvalidExpression as error:
            remedy = messages.quoting_remedy(source)
            raise InvalidExpression(messages.at(f"{error}{remedy}", source)) from None
        return CelExpression(
            source=source,
            facts=reading.facts,
            reads=reading.reads,
            shape=shape_of(reading.reads),
            work_max=self._work_max,
            _way=way,
            _tree=tree,
            _functions=reading.functions,
            _loopless_nodes=0 if reading.facts.comprehension else count_nodes(tree),
        )


def _parse(source: str) -> tuple[Node, Path | library.Program]:
    """Return the tree of a source, and its path if it is only a path, else its program.

    Raises:
        InvalidExpression: The source exceeds a bound.
        LibraryError: The library refused it.
        TooDeep: The tree is deeper than allowed.
    """
    tree = parse_plain_path(source)
    read = read_of(tree) if tree else None
    if tree and read:
        return tree, read.path
    program = _compile_bounded(source)
    tree = read_tree(program.serialize())
    read = read_of(tree)
    return tree, program if read is None or read.is_test else read.path


def _compile_bounded(source: str) -> library.Program:
    """Compile a source that is within the bounds.

    Raises:
        InvalidExpression: The source exceeds a bound.
        LibraryError: The library refused it.
    """
    try:
        size = len(source.encode())
    except UnicodeEncodeError:
        raise InvalidExpression("the expression holds half of a surrogate pair") from None
    if size > EXPRESSION_BYTES_MAX:
        raise InvalidExpression(
            f"the expression has {size:,} bytes; at most {EXPRESSION_BYTES_MAX:,} are allowed. {_SPLIT_UP}"
        )
    if not source.strip():
        raise InvalidExpression("the expression is empty")
    if "\0" in source:
        raise InvalidExpression("the expression holds the character U+0000; write \\u0000 in a string")
    depth = depth_of_brackets(source)
    if depth > _BRACKETS_MAX:
        raise InvalidExpression(
            f"brackets nest {depth} deep; at most {_BRACKETS_MAX} are allowed. {_SPLIT_UP}"
        )
    return library.compile_source(source)
