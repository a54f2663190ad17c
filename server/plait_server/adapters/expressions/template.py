"""Templates: JSON documents in whose strings `{{ CEL }}` stands for a value.

The document is never rebuilt: the text around its templated strings is kept as written, so numbers keep their
digits and keys their order, and rendering is one join.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol, TypeAlias, cast

from plait_server.adapters.expressions.lexer import end_of_expression
from plait_server.adapters.expressions.reading import Read
from plait_server.adapters.expressions.values import Shape, shape_of
from plait_server.core.json_text import InvalidJson, JsonValue, check_json, dump_json, exceeds_depth
from plait_server.core.limits import GRAPH_MESSAGE_BYTES_MAX, JOINED_INPUT_BYTES_MAX, MIB, VALUE_DEPTH_MAX
from plait_server.ports.evaluator import (
    Expression,
    ExpressionError,
    ExpressionFacts,
    InvalidExpression,
    OffloadNeeded,
)

EXPRESSIONS_MAX: Final = 1_000
"""Expressions in one document: each may take milliseconds."""

_STRING: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"(?P<key>[ \t\r\n]*+:)?')
_MAY_OPEN: Final = re.compile(r"\{\{|\\u007[bB]")
_SHOWN_CHARS_MAX: Final = 60


class Judged(Expression, Protocol):
    """An expression whose reads and cost are known before it is evaluated."""

    @property
    def reads(self) -> tuple[Read, ...]:
        """The paths at which it reads the variables."""
        ...

    def work(self, variables: Mapping[str, JsonValue]) -> float:
        """Return a bound on the work; see `cost`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A string that is one expression: its value, with its type."""

    expression: Judged
    """The expression."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """A string of text and expressions."""

    parts: tuple[str | Judged, ...]
    """The decoded text, without JSON escapes."""


Slot: TypeAlias = "str | Value | Mixture"
"""A part of a document: JSON text to copy, or something to fill in."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CelTemplate:
    """A compiled document; implements the port's Template."""

    source: str
    """The text it was compiled from."""
    facts: ExpressionFacts
    """The names that its expressions use."""
    slots: tuple[Slot, ...]
    """The document in order."""
    expressions: tuple[Judged, ...]
    """All its expressions, in order."""
    shape: Mapping[str, Shape]
    """The part of the variables that its expressions see."""
    work_max: float
    """The most work that may run in place, for all expressions together."""

    @property
    def is_constant(self) -> bool:
        """Whether it has no expressions."""
        return not self.expressions

    def render(self, variables: Mapping[str, JsonValue]) -> str:
        """Return the document's JSON text; see the port."""
        if not self.expressions:
            return self.source
        if len(self.expressions) > 1 and self.work(variables) > self.work_max:
            raise OffloadNeeded(self.source[:_SHOWN_CHARS_MAX])
        pieces: list[str] = []
        chars = 0
        for slot in self.slots:
            piece = slot if isinstance(slot, str) else _fill(slot, variables)
            chars += len(piece)
            if chars > JOINED_INPUT_BYTES_MAX:
                raise ExpressionError(
                    f"the document, filled in, grows beyond {JOINED_INPUT_BYTES_MAX // MIB} MiB; name less"
                )
            pieces.append(piece)
        text = "".join(pieces)
        if exceeds_depth(text, VALUE_DEPTH_MAX):
            raise ExpressionError(f"the document, filled in, nests deeper than {VALUE_DEPTH_MAX} levels")
        return text

    def work(self, variables: Mapping[str, JsonValue]) -> float:
        """Return a bound on the work of all its expressions.

        Raises:
            ExpressionError: A variable is missing or exceeds a bound.
        """
        return sum(expression.work(variables) for expression in self.expressions)


def parse_template(
    json_text: str, compile_expression: Callable[[str], Judged], *, work_max: float
) -> CelTemplate:
    """Compile a JSON document.

    Raises:
        InvalidExpression: The document is not JSON, one of its expressions is refused, or it has too many.
    """
    try:
        check_json(json_text, max_bytes=GRAPH_MESSAGE_BYTES_MAX)
    except InvalidJson as error:
        raise InvalidExpression(f"the document is refused: {error}") from None
    slots = list(_slots(json_text, compile_expression)) if _MAY_OPEN.search(json_text) else [json_text]
    expressions = tuple(itertools.chain.from_iterable(_expressions_in(slot) for slot in slots))
    return CelTemplate(
        source=json_text,
        facts=_join_facts([expression.facts for expression in expressions]),
        slots=tuple(slots),
        expressions=expressions,
        shape=shape_of([read for expression in expressions for read in expression.reads]),
        work_max=work_max,
    )


def _slots(json_text: str, compile_expression: Callable[[str], Judged]) -> list[Slot]:
    """Split a valid document into text and the parts to fill in."""
    slots: list[Slot] = []
    position = 0
    left = EXPRESSIONS_MAX
    for token in _STRING.finditer(json_text):
        if token["key"] or not _MAY_OPEN.search(token[0]):
            continue
        parts = _parts(cast("str", json.loads(token[0])), compile_expression, left)
        expressions = [part for part in parts if not isinstance(part, str)]
        if not expressions:
            continue
        left -= len(expressions)
        slots.append(json_text[position : token.start()])
        slots.append(Value(expression=expressions[0]) if len(parts) == 1 else Mixture(parts=tuple(parts)))
        position = token.end()
    slots.append(json_text[position:])
    return slots


def _parts(text: str, compile_expression: Callable[[str], Judged], count_max: int) -> list[str | Judged]:
    """Split a string into text and at most `count_max` compiled expressions."""
    parts: list[str | Judged] = []
    position = count = 0
    while (opening := text.find("{{", position)) >= 0:
        end = end_of_expression(text, opening + 2)
        if end is None:
            shown = text[opening : opening + _SHOWN_CHARS_MAX]
            raise InvalidExpression(
                f"no }}}} ends the expression that begins with {shown!r}; where {{{{ itself is meant, write "
                '{{ "{{" }}'
            )
        count += 1
        if count > count_max:
            raise InvalidExpression(
                f"the document holds more than {EXPRESSIONS_MAX:,} expressions; use several transform nodes"
            )
        if opening > position:
            parts.append(text[position:opening])
        parts.append(compile_expression(text[opening + 2 : end].strip()))
        position = end + 2
    if position < len(text):
        parts.append(text[position:])
    return parts


def _fill(slot: Value | Mixture, variables: Mapping[str, JsonValue]) -> str:
    if isinstance(slot, Value):
        return dump_json(slot.expression.evaluate(variables))
    texts: list[str] = []
    for part in slot.parts:
        if isinstance(part, str):
            texts.append(part)
        else:
            value = part.evaluate(variables)
            texts.append(value if isinstance(value, str) else dump_json(value))
    return dump_json("".join(texts))


def _expressions_in(slot: Slot) -> tuple[Judged, ...]:
    match slot:
        case str():
            return ()
        case Value(expression=expression):
            return (expression,)
        case Mixture(parts=parts):
            return tuple(part for part in parts if not isinstance(part, str))


def _join_facts(facts: list[ExpressionFacts]) -> ExpressionFacts:
    return ExpressionFacts(
        roots=tuple(dict.fromkeys(root for each in facts for root in each.roots)),
        node_ids=tuple(dict.fromkeys(node for each in facts for node in each.node_ids)),
        comprehension=any(each.comprehension for each in facts),
    )
