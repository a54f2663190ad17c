"""Reads filters of executions, a subset of AIP-160.

    filter     = "" | expression
    expression = term { "AND" term } | term { "OR" term }
    term       = [ "NOT" ] ( "(" expression ")" | restriction )
    restriction = field operator value | "labels" ":" key
    field      = "state" | "graph_name" | "labels." key | "create_time" | "end_time"
    operator   = "=" | "!=" | "<" | "<=" | ">" | ">=", the last four for times
    key, value = word | '"' characters '"' | "'" characters "'"

AIP-160 binds OR more tightly than AND, and most languages the other way round, so AND and OR are mixed only with
parentheses. Nor is there its sequence of terms without an operator, for the same reason: few know what it means.

The parser looks at each character once and keeps its own stack; length, terms and depth are bounded.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from plait_server.core.lists.filters import (
    AllOf,
    AnyOf,
    Filter,
    GraphNameIs,
    HasLabel,
    LabelIs,
    ListOrder,
    Not,
    StateIs,
    TimeCompares,
    TimeField,
    TimeOperator,
)
from plait_server.core.run.states import ExecutionState
from plait_server.errors import FieldViolation, InvalidFilter

FILTER_CHARS_MAX: Final = 1_024
TERMS_MAX: Final = 32
DEPTH_MAX: Final = 8

FIELDS: Final = "state, graph_name, labels.KEY, create_time, end_time"
_WORD: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-./")
_OPERATORS: Final = ("!=", "<=", ">=", "=", "<", ">", ":")
_STATES: Final = {state.name: state for state in ExecutionState if state is not ExecutionState.CORRUPT}
_ORDERS: Final = {order.value: order for order in ListOrder} | {
    "": ListOrder.NEWEST_FIRST,
    "create_time asc": ListOrder.OLDEST_FIRST,
    "end_time asc": ListOrder.FIRST_ENDED_FIRST,
}


class _Token(NamedTuple):
    text: str
    position: int
    """Of its first character, from 1 on."""
    is_quoted: bool = False

    def is_word(self, text: str) -> bool:
        return self.text == text and not self.is_quoted


@dataclass(slots=True)
class _Level:
    """An expression that is being read."""

    operands: list[Filter] = field(default_factory=list["Filter"])
    connective: str = ""
    """`AND` or `OR`, once one was read."""
    is_negated: bool = False
    """Whether NOT stands before the next operand."""
    is_complete: bool = False
    """Whether the last thing read was an operand."""


def parse_filter(text: str) -> Filter | None:
    """Read a filter; None for an empty one, which matches everything.

    Raises:
        InvalidFilter: it cannot be read, or exceeds a bound.
    """
    if len(text) > FILTER_CHARS_MAX:
        raise _invalid(FILTER_CHARS_MAX + 1, f"is longer than {FILTER_CHARS_MAX} characters; shorten it")
    tokens = _split(text)
    if not tokens:
        return None
    end = _Token("", len(text) + 1)
    levels, terms, place = [_Level()], 0, 0
    while place < len(tokens):
        token, level = tokens[place], levels[-1]
        if level.is_complete:
            place += 1
            if token.is_word(")") and len(levels) > 1:
                _add(levels[-2], _close(levels.pop()))
            elif token.is_word("AND") or token.is_word("OR"):
                _connect(level, token)
            else:
                raise _invalid(token.position, f"has {_shown(token)} where AND, OR or the end must stand")
        elif token.is_word("NOT"):
            level.is_negated = not level.is_negated
            place += 1
        elif token.is_word("("):
            if len(levels) > DEPTH_MAX:
                raise _invalid(token.position, f"is nested deeper than {DEPTH_MAX}; use fewer parentheses")
            levels.append(_Level())
            place += 1
        else:
            terms += 1
            if terms > TERMS_MAX:
                raise _invalid(token.position, f"has more than {TERMS_MAX} comparisons; use fewer")
            parts = [*tokens[place : place + 3], end, end][:3]
            _add(level, _restriction(parts[0], parts[1], parts[2]))
            place += 3
    if len(levels) > 1:
        raise _invalid(end.position, "ends before a closing parenthesis; add `)`")
    if not levels[0].is_complete:
        raise _invalid(end.position, "ends where a comparison must stand, such as `state = RUNNING`")
    return _close(levels[0])


def parse_order(text: str) -> ListOrder | None:
    """Read an order; None if it is none."""
    return _ORDERS.get(" ".join(text[:FILTER_CHARS_MAX].split()))


def _split(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    place = 0
    while place < len(text):
        char = text[place]
        begin = place
        if char in " \t\r\n":
            place += 1
        elif char in "()":
            tokens.append(_Token(char, begin + 1))
            place += 1
        elif char in "\"'":
            value, place = _quoted(text, begin)
            tokens.append(_Token(value, begin + 1, is_quoted=True))
        elif operator := next((each for each in _OPERATORS if text.startswith(each, place)), ""):
            tokens.append(_Token(operator, begin + 1))
            place += len(operator)
        elif char in _WORD:
            while place < len(text) and text[place] in _WORD:
                place += 1
            word = text[begin:place]
            if word == "labels." and text[place : place + 1] in ('"', "'"):
                key, place = _quoted(text, place)
                word += key
            tokens.append(_Token(word, begin + 1))
        else:
            raise _invalid(begin + 1, f"has {char[:1]!r}; put a value with such characters in quotes")
    return tokens


def _quoted(text: str, begin: int) -> tuple[str, int]:
    """Return the value of a quoted text, and the place behind it."""
    chars: list[str] = []
    place = begin + 1
    while place < len(text):
        char = text[place]
        if char == text[begin]:
            return "".join(chars), place + 1
        if char == "\\":
            place += 1
            char = text[place : place + 1]
            if char not in ("\\", '"', "'"):
                raise _invalid(place, "has a backslash before something that is no quote and no backslash")
        chars.append(char)
        place += 1
    raise _invalid(begin + 1, "has a quote that is not closed; add the closing one")


def _connect(level: _Level, token: _Token) -> None:
    if level.connective not in ("", token.text):
        raise _invalid(token.position, "mixes AND and OR; put parentheses around what belongs together")
    level.connective = token.text
    level.is_complete = False


def _add(level: _Level, operand: Filter) -> None:
    level.operands.append(Not(operand) if level.is_negated else operand)
    level.is_negated = False
    level.is_complete = True


def _close(level: _Level) -> Filter:
    if len(level.operands) == 1:
        return level.operands[0]
    operands = tuple(level.operands)
    return AnyOf(operands) if level.connective == "OR" else AllOf(operands)


def _restriction(name: _Token, operator: _Token, value: _Token) -> Filter:
    if name.is_quoted or (not set(name.text) <= _WORD and not name.text.startswith("labels.")):
        raise _invalid(name.position, f"has {_shown(name)} where a field must stand; the fields are {FIELDS}")
    is_known = name.text in ("state", "graph_name", "labels", "create_time", "end_time")
    if not is_known and not (name.text.startswith("labels.") and name.text != "labels."):
        raise _invalid(name.position, f"has no field {_shown(name)}; the fields are {FIELDS}")
    if operator.is_quoted or operator.text not in _OPERATORS:
        raise _invalid(operator.position, f"has {_shown(operator)} where an operator must stand, such as `=`")
    if not value.is_quoted and not (value.text and set(value.text) <= _WORD):
        raise _invalid(value.position, f"has {_shown(value)} where a value must stand")
    if name.text in ("create_time", "end_time"):
        return _compare_times(TimeField(name.text), operator, value)
    if name.text == "labels":
        if operator.text != ":":
            raise _invalid(operator.position, "compares all labels; write `labels.KEY =` or `labels:KEY`")
        return HasLabel(value.text)
    if operator.text not in ("=", "!="):
        raise _invalid(operator.position, f"compares {name.text} with {operator.text}; use `=` or `!=`")
    condition = _equals(name, value)
    return Not(condition) if operator.text == "!=" else condition


def _equals(name: _Token, value: _Token) -> Filter:
    if name.text == "state":
        state = _STATES.get(value.text)
        if state is None:
            raise _invalid(
                value.position, f"has no state {_shown(value)} to filter by; those are {', '.join(_STATES)}"
            )
        return StateIs(state)
    if name.text == "graph_name":
        return GraphNameIs(value.text)
    return LabelIs(name.text.removeprefix("labels."), value.text)


def _compare_times(of: TimeField, operator: _Token, value: _Token) -> Filter:
    if operator.text == ":":
        raise _invalid(operator.position, "compares a time with `:`; use =, !=, <, <=, > or >=")
    try:
        time = dt.datetime.fromisoformat(value.text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise _invalid(
            value.position, f'has {_shown(value)} where a time must stand, such as "2026-01-31T12:00:00Z"'
        )
    is_negated = operator.text == "!="
    compares = TimeCompares(of, TimeOperator("=" if is_negated else operator.text), time.timestamp())
    return Not(compares) if is_negated else compares


def _shown(token: _Token) -> str:
    return f"`{token.text[:40]}`" if token.text else "nothing" if not token.is_quoted else "an empty text"


def _invalid(position: int, message: str) -> InvalidFilter:
    violation = FieldViolation(field="filter", message=f"{message} (at character {position})")
    return InvalidFilter([violation], position)
