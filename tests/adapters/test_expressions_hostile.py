"""Expressions written to do harm: each is refused, evaluated at once, or sent where it can be killed.

All run in this very process: if one ended it, there would be no report.
"""

import random

import pytest

from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.core.json_text import JsonValue
from plait_server.ports.evaluator import Evaluator, ExpressionError, InvalidExpression, OffloadNeeded

EVALUATOR: Evaluator = CelEvaluator()

_random = random.Random(1)
_input: dict[str, JsonValue] = {
    "s": "x" * 10,
    "a": 1,
    "many_a": "a" * 40,
    "long": "a" * 500_000,
    "needle": "a" * 300_000 + "b",
    "noise": "".join(_random.choice("ab") for _ in range(300_000)),
    "pattern": "(a|b)*a(a|b){900}c",
    "list": list(range(1000)),
    "map": {str(number): number for number in range(5000)},
    "objects": [{"a": number, "b": ["x", "x", "x"]} for number in range(2000)],
}
VARIABLES: dict[str, JsonValue] = {"input": _input, "nodes": {}}

REFUSED = {
    "parentheses": "(" * 1000 + "1" + ")" * 1000,
    "parentheses within limits of length": "(" * 100 + "1" + ")" * 100,
    "lists": "[" * 2000 + "]" * 2000,
    "maps": '{"a":' * 200 + "1" + "}" * 200,
    "indexes in indexes": "input[" * 500 + "0" + "]" * 500,
    "calls in calls": "size(" * 500 + "'a'" + ")" * 500,
    "loops in loops": "[1].exists(a," * 100 + "true" + ")" * 100,
    "loops after loops": "[1]" + ".map(a,a)" * 400,
    "doublings": "[input.s]" + ".map(x,x+x)" * 60,
    "a long sum": "+".join(["1"] * 2000),
    "a long sum of strings": "+".join(["'a'"] * 1000),
    "comparisons": "1<" * 2000 + "1",
    "questions": "true?1:" * 500 + "1",
    "questions without answers": "true?" * 500 + "1" + ":1" * 500,
    "members": "input" + ".a" * 2000,
    "indexes": "input" + "[0]" * 1300,
    "methods": "'a'" + ".size()" * 500,
    "memberships": "1 in " * 700 + "[1]",
    "too long": "'" + "a" * 5000 + "'",
    "spaces": " " * 4000,
    "closing brackets": ")" * 4000,
    "braces": "}" * 4000,
    "quotes": '"' * 4001,
    "backslashes": "'" + "\\" * 4001,
    "an open string": "'abc",
    "an open triple string": "'''abc",
    "a bad escape": "'\\q'",
    "a lone surrogate": "'\\ud800'",
    "a NUL": "'a\0b'",
    "a byte order mark": "\ufeff1",
    "a long number": "1" * 4000,
    "a long hexadecimal number": "0x" + "f" * 4000,
    "a long name": "a" * 4000,
    "many errors": "a+" * 1900 + "a",
    "unknown characters": "@" * 4000,
    "Python": "__import__('os').system('id')",
    "a format string": "'%s'.format([1])",
    "a message": "google.protobuf.Any{type_url: 'x'}",
    "a large message": "google.protobuf.Struct{fields: {'a': google.protobuf.Value{string_value: 'x'}}}",
    "an enum": "google.protobuf.NullValue.NULL_VALUE",
    "the accumulator": "[1].map(x, @result)",
    "the old accumulator": "[1].map(__result__, 1)",
    "a macro with too many arguments": "input.list.map(x, y, z, x)",
    "a macro of another library": "cel.bind(x, 1, x)",
    "optional syntax": "input.?a",
    "all nodes": "nodes",
    "a computed node": "nodes[input.s].output",
    "a reserved word": "for",
}

FAILING = {
    "dunder": "input.__class__",
    "dunder of a string": "input.s.__class__.x == 1",
    "a timestamp too far": "timestamp('9999-12-31T23:59:59Z') + duration('1h')",
    "a duration too long": "duration('9999999999999h')",
    "a path as a time zone": "timestamp(0).getHours('../../etc/passwd')",
    "a long time zone": "timestamp(0).getHours('" + "A" * 3900 + "')",
    "a long integer in a string": "int('" + "9" * 3000 + "')",
    "a long double in a string": "double('" + "9" * 3000 + "')",
    "an infinite literal": "1e999999",
    "the least integer divided": "(-9223372036854775807 - 1) / -1",
    "the least integer negated": "-(-9223372036854775807 - 1)",
    "an integer out of range": "int(1e300)",
    "a negative uint": "uint(-1)",
    "a broken regular expression": "'a'.matches('(')",
    "a list as a string": "string(input.list)",
    "a type": "type(type(1))",
    "invalid UTF-8": "string(b'\\xff')",
    "a map with doubles for keys": "{1.5: 1}",
    "a map with null for a key": "{null: 1}",
    "a key twice": "{'a': 1, 'a': 2}",
    "too much text": "[input.long, input.needle, input.noise, input.long]",
    "a whole that is too much": "input == input",
}

QUICK = {
    "nested quantifiers": ("input.many_a.matches('(a+)+$')", True),
    "nested quantifiers that fail": ("(input.many_a + 'b').matches('(a+)+$')", False),
    "minuses": ("-" * 4000 + "1", 1),
    "negations": ("!" * 4000 + "true", True),
    "conjunctions": ("&&".join(["true"] * 650), True),
    "disjunctions": ("||".join(["false"] * 450), False),
    "deep parentheses": ("(" * 28 + "1" + ")" * 28, 1),
    "deep loops": ("[1].exists(a," * 28 + "true" + ")" * 28, True),
    "a long list": ("size([" + "1," * 2000 + "1])", 2001),
    "a large map": ("size({" + ",".join(f"'{n}':1" for n in range(400)) + "})", 400),
    "right to left": ("'\u202e' + 'a'", "\u202ea"),
    "a NUL by escape": ("'\\x00a' == 'a'", False),
    "a comment": ("1 // )))", 1),
    "line ends": ("1\r\n+\r\n1", 2),
}

OFFLOADED = {
    "map over a long list": "input.list.map(x, x)",
    "map of objects": "input.objects.map(o, o.b)",
    "a loop in a loop": "input.list.all(x, input.list.all(y, x + y >= 0))",
    "loops three deep": "input.list.all(x, input.list.all(y, input.list.all(z, x + y + z >= 0)))",
    "a search at each round": "input.list.all(x, x in input.list)",
    "a loop over a large map": "input.map.all(k, input.map[k] >= 0)",
    "doubling a string": "[input.s]" + ".map(x, x + x)" * 20 + "[0].size()",
    "doubling a list": "[[1]]" + ".map(x, x + x)" * 26 + "[0].size()",
    "doubling inward": "[input.list].exists(a, "
    + "".join(f"[{a}+{a}].exists({b}, " for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "i == []"
    + ")" * 9,
    "contains with a long needle": "input.long.contains(input.needle)",
    "a regular expression of many states": "input.noise.matches('(a|b)*a(a|b){900}c')",
    "a regular expression from outside": "input.noise.matches(input.pattern)",
    "data as a regular expression": "'a'.matches(input.noise)",
    "a computed regular expression": "'a'.matches(input.s + '{1000}')",
    "a regular expression too large": "'a'.matches('(a{0,100}){0,100}b')",
    "a large result": "[input.objects]",
}


@pytest.mark.parametrize("source", REFUSED.values(), ids=REFUSED)
def test_a_hostile_source_is_refused_with_a_short_reason(source: str) -> None:
    with pytest.raises(InvalidExpression) as caught:
        EVALUATOR.compile(source)
    assert 10 < len(str(caught.value)) < 500
    _is_for_users(str(caught.value))


@pytest.mark.parametrize("source", FAILING.values(), ids=FAILING)
def test_a_hostile_evaluation_fails_with_a_short_reason(source: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        EVALUATOR.compile(source).evaluate(VARIABLES)
    assert 10 < len(str(caught.value)) < 500
    _is_for_users(str(caught.value))


@pytest.mark.parametrize(("source", "value"), QUICK.values(), ids=QUICK)
def test_what_only_looks_hostile_is_evaluated_in_place(source: str, value: JsonValue) -> None:
    assert EVALUATOR.compile(source).evaluate(VARIABLES) == value


@pytest.mark.parametrize("source", OFFLOADED.values(), ids=OFFLOADED)
def test_what_may_take_long_is_not_evaluated_in_place(source: str) -> None:
    expression = EVALUATOR.compile(source)
    assert EVALUATOR.needs_offload(expression, VARIABLES)
    with pytest.raises(OffloadNeeded):
        expression.evaluate(VARIABLES)


def _is_for_users(message: str) -> None:
    """No status code of the C++ library, no trace of Python."""
    for foreign in (
        "INVALID_ARGUMENT",
        "UNKNOWN",
        "INTERNAL",
        "OUT_OF_RANGE",
        "NOT_FOUND",
        "<input>",
        "Error:",
        "std::",
    ):
        assert foreign not in message
    assert "\n" not in message
