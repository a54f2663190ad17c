"""Expressions: values, what they name, and what the author of a graph is told when they fail."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.core.json_text import JsonValue
from plait_server.ports.evaluator import (
    Evaluator,
    ExpressionError,
    ExpressionFacts,
    InvalidExpression,
    OffloadNeeded,
)

EVALUATOR: Evaluator = CelEvaluator()

VARIABLES: dict[str, JsonValue] = {
    "input": {
        "count": 2,
        "price": 1.5,
        "name": "Ada",
        "items": [1, None, {"id": 7}],
        "by_name": {"z": 1, "a": 2},
        "big": 2**63,
        "nothing": None,
    },
    "execution": {"id": "e1", "input": {"tenant": "t"}},
    "nodes": {
        "fetch": {"output": {"rows": [10, 20]}},
        "broken": {"failure": {"code": "UNAVAILABLE"}},
        "a-b": {"output": 7},
        "in": {"output": 8},
        "never": {},
    },
}


def evaluate(source: str, variables: dict[str, JsonValue] | None = None) -> JsonValue:
    return EVALUATOR.compile(source).evaluate(VARIABLES if variables is None else variables)


@pytest.mark.parametrize(
    ("source", "value"),
    [
        ("input.count", 2),
        (" input.items[2].id ", 7),
        ('input["name"]', "Ada"),
        ("input.nothing", None),
        (".input.count", 2),
        ("execution.id", "e1"),
        ("execution.input.tenant", "t"),
        ("nodes.fetch.output.rows[1]", 20),
        ('nodes["a-b"].output', 7),
        ('nodes["in"].output + 1', 9),
        ("nodes.broken.failure.code", "UNAVAILABLE"),
        ("input.count * 2 > 3 && input.name.startsWith('A')", True),
        ("double(input.count) * input.price", 3.0),
        ("input.count == 2.0", True),
        ("input.items.filter(i, i != null)", [1, {"id": 7}]),
        ("input.items.exists(i, i == 1)", True),
        ("[3, 4].map(i, i * input.count)", [6, 8]),
        ("[1].map(x, [2].map(y, x + y))", [[3]]),
        ("has(input.name) ? input.name : 'nobody'", "Ada"),
        ("has(input.age)", False),
        ("has(nodes.fetch.output)", True),
        ("has(nodes.never.output)", False),
        ("has(nodes.unheard_of.output)", False),
        ("has(nodes.broken.failure) ? nodes.broken.failure.code : ''", "UNAVAILABLE"),
        ("has(nodes.never.output) ? nodes.never.output : [null]", [None]),
        ("'count' in input && size(input.items) == 3", True),
        ("type(input.count) == int", True),
        ("uint(3)", 3),
        ("null", None),
        ("[null, {'a': null}]", [None, {"a": None}]),
        ("{}", {}),
        ("'\\u00e9' + '\U0001f600'", "é\U0001f600"),
        ('"}}" + r"\\n"', "}}\\n"),
        ("timestamp('2009-02-13T23:31:30.000000123+02:00')", "2009-02-13T21:31:30.000000123Z"),
        ("timestamp('0001-01-01T00:00:00Z')", "0001-01-01T00:00:00Z"),
        (
            "[duration('1h2m3.5s'), duration('-1.5ms'), duration('1ns')]",
            ["3723.5s", "-0.0015s", "0.000000001s"],
        ),
        ("duration('0s')", "0s"),
        ("!!true", True),
        ("1 // a comment", 1),
    ],
)
def test_an_expression_gives_its_value(source: str, value: JsonValue) -> None:
    given = evaluate(source)
    assert given == value
    assert type(given) is type(value)


def test_integers_beyond_int64_are_handed_on_and_calculated_with_as_doubles() -> None:
    assert evaluate("input.big") == 2**63
    assert evaluate("input.big + 1.0") == float(2**63)
    assert evaluate("[input.big]") == [float(2**63)]
    huge: dict[str, JsonValue] = {"input": 10**400}
    assert evaluate("input", huge) == 10**400
    with pytest.raises(ExpressionError, match="an integer is beyond the range of a double"):
        evaluate("input > 1", huge)


def test_2_to_the_53_plus_1_stays_what_it_is() -> None:
    assert evaluate("input.n + 0", {"input": {"n": 2**53 + 1}}) == 2**53 + 1


def test_the_keys_of_a_built_object_are_sorted() -> None:
    value = evaluate('{"b": 1, "a": input.by_name}')
    assert isinstance(value, dict)
    assert list(value) == ["a", "b"]
    assert list(value["a"] if isinstance(value["a"], dict) else {}) == ["a", "z"]


def test_the_output_of_the_edge_is_there_where_it_is_given() -> None:
    assert evaluate("output.ok", {"output": {"ok": True}}) is True
    for source in ("output", "output.ok == true"):
        with pytest.raises(ExpressionError, match="output is known only in the `when` of an edge"):
            evaluate(source)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("input.count + input.price", "int and double cannot be joined by +: write double(x) for the int"),
        ("input.count + 1.5", "write double(x)"),
        ("input.name - 1", "- does not take string and int; convert them"),
        ("input.age", "input has no key 'age'; test it with has(input.age): in `input.age`"),
        ("input.age > 1", "input has no key 'age'; test it with has(input.age): in `input.age > 1`"),
        ("input.age.years > 1", "input has no key 'age'"),
        ('input["a b"]', "input has no key 'a b'; test it with \"a b\" in input"),
        ("input.by_name[input.name]", 'an object has no key "Ada"; test it'),
        ("input.items[9]", "input.items has 3 items, none of index 9; test size(input.items) first"),
        ("input.items[-1]", "input.items has 3 items, none of index -1"),
        ("input.items[9] == 1", "an index is 9, but the list has 3 items"),
        ("input.items.id", "input.items is a list and has no key 'id'"),
        ("input.name.first", "input.name is a string and has neither keys nor items"),
        ("input.name.first == 1", "no object"),
        ("input[0]", "input is an object and has no key 0"),
        ("nodes.never.output", "node 'never' has no output: it has not ended, failed, or was skipped or"),
        ("nodes.never.output + 1", "test it with has(nodes.never.output): in `nodes.never.output + 1`"),
        ("nodes.broken.output.x == 1", "node 'broken' has no output"),
        ("nodes.unheard_of.output == 1", "node 'unheard_of' has no output"),
        ('nodes["a-b"].failure', "node 'a-b' has no failure; test it with has(nodes[\"a-b\"].failure)"),
        ("nodes.fetch.failure.code == ''", "node 'fetch' has no failure"),
        ("!input.count", "! takes booleans only"),
        ("input.count && true", "&& takes booleans only; compare the value"),
        ("input.count ? 1 : 2", "? : takes booleans only"),
        ("1 / 0", "a division by zero"),
        ("1 % (input.count - 2)", "a division by zero"),
        ("9223372036854775807 + input.count", "an integer grows beyond 64 bits"),
        ("1.0 / 0.0", "the value is infinite, which JSON cannot hold"),
        ("[double('nan')]", "the value is NaN, which JSON cannot hold"),
        ("b'abc'", "the value is bytes, which JSON cannot hold; write string(x)"),
        ("{1: 2}", "the keys of an object must be strings in JSON; write string(key)"),
        ("type(1)", "the value is a type"),
        ("{'a': 1, 'a': 2}", "a map has the same key twice"),
        ("input.name.matches('(')", "invalid regular expression"),
        ("int(input.name)", "cannot convert string to int"),
    ],
)
def test_a_failed_evaluation_says_where_and_what_to_write(source: str, message: str) -> None:
    with pytest.raises(ExpressionError) as caught:
        evaluate(source)
    assert message in str(caught.value)
    assert f"in `{source}`" in str(caught.value)


def test_nothing_is_lost_of_a_string_that_is_handed_on() -> None:
    """The library would take a string up to its first U+0000."""
    variables: dict[str, JsonValue] = {"input": {"text": "a\0b"}}
    assert evaluate("input.text", variables) == "a\0b"
    with pytest.raises(ExpressionError, match=r"holds the character U\+0000, .*; hand it on by a plain path"):
        evaluate("input.text + 'x'", variables)


def test_half_of_a_surrogate_pair_does_not_reach_the_library() -> None:
    with pytest.raises(ExpressionError, match="half of a surrogate pair"):
        evaluate("input.s + 'x'", {"input": {"s": "\ud800"}})


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "the expression is empty"),
        (" \n ", "the expression is empty"),
        ("input.a +", "Syntax error: mismatched input '<EOF>' (line 1, column 10): in `input.a +`"),
        ("1 + 1.5", "int and double cannot be joined by +: write double(x)"),
        (
            "items",
            "there is no variable 'items'; expressions know input, execution, nodes, resume and, in the `when`",
        ),
        ("foo.bar", "there is no variable 'foo'"),
        ("shell('ls')", "there is no function 'shell' (line 1, column 6)"),
        ("nodes.a-b.output", "for the node whose id is 'a-b' write nodes[\"a-b\"].output"),
        ("nodes.a-b.output > nodes.c.output", 'write nodes["a-b"].output'),
        ("nodes.a-input.output", 'write nodes["a-input"].output'),
        ("nodes.1st.output", 'write nodes["1st"].output'),
        ("nodes.in.output", 'write nodes["in"].output'),
        ("nodes.a.b.output", 'for a node whose id is a.b write nodes["a.b"].output'),
        ("nodes.a", "`nodes` can only be used as nodes.<id>.output or nodes.<id>.failure"),
        ("nodes", '{"a": nodes.a.output, "b": nodes.b.output}[key]: in `nodes`'),
        ("nodes[input.x].output", "to choose among nodes by a value, put them into a map"),
        ("nodes[0].output", "with a fixed id"),
        ("nodes.map(n, n)", "with a fixed id"),
        ("has(nodes.a)", "with a fixed id"),
        ("size(nodes) > 1", "with a fixed id"),
        ("execution.labels", "execution has only id and input, not 'labels'"),
        ("[1].map(input, input)", "the loop's variable 'input' would hide the variable"),
        ("google.protobuf.Struct{}", "messages such as google.protobuf.Struct cannot be built; write a map"),
        ("google.protobuf.NullValue.NULL_VALUE", "cannot be used"),
        ("'a\0b'", "holds the character U+0000"),
        ("'\ud800'", "half of a surrogate pair"),
        ("a" * 4097, "has 4,097 bytes; at most 4,096 are allowed"),
        ("'" + "é" * 2048 + "'", "has 4,098 bytes"),
        ("(" * 33 + "1" + ")" * 33, "brackets nest 33 deep; at most 32 are allowed"),
        (
            "+".join("1" * 40),
            "nests deeper than 32 levels (a chain of operators or members counts one for each)",
        ),
    ],
    ids=range(30),
)
def test_a_refused_expression_says_why_and_what_to_write(source: str, message: str) -> None:
    with pytest.raises(InvalidExpression) as caught:
        EVALUATOR.compile(source)
    assert message in str(caught.value)


def test_a_long_expression_is_shown_shortened_and_on_one_line() -> None:
    with pytest.raises(InvalidExpression) as caught:
        EVALUATOR.compile("input.a &&\n\x1b[31m" + "input.b &&" * 100 + " zzz ?")
    shown = str(caught.value).rpartition("in `")[2]
    assert shown.startswith("input.a && ?[31minput.b")
    assert shown.endswith("zzz ?`")
    assert len(shown) < 100


@pytest.mark.parametrize(
    ("source", "facts"),
    [
        ("1 + 2", ExpressionFacts()),
        ("nodes.b.output", ExpressionFacts(roots=("nodes",), node_ids=("b",))),
        (
            "input.x > nodes.b.output.input && has(nodes['a-b'].failure) || nodes.b.output == execution",
            ExpressionFacts(roots=("input", "nodes", "execution"), node_ids=("b", "a-b")),
        ),
        (
            "input.all(x, nodes.n.output[x] == output)",
            ExpressionFacts(roots=("input", "nodes", "output"), node_ids=("n",), comprehension=True),
        ),
        ("'nodes.x.output' + \"input\"", ExpressionFacts()),
        ("{'nodes': 1}.nodes", ExpressionFacts()),
        ("nodes.map.output.filter", ExpressionFacts(roots=("nodes",), node_ids=("map",))),
        ("has(input.a)", ExpressionFacts(roots=("input",))),
        ("[input.i].map(x, x)[input.j]", ExpressionFacts(roots=("input",), comprehension=True)),
    ],
    ids=range(9),
)
def test_the_facts_are_what_the_expression_names(source: str, facts: ExpressionFacts) -> None:
    assert EVALUATOR.compile(source).facts == facts


def test_an_expression_sees_only_what_it_reads() -> None:
    """A value that would be refused stands beside the one that is read, and is not looked at."""
    variables: dict[str, JsonValue] = {
        "input": {"a": 1, "bad": "\0", "deep": _nested(100), "big": "x" * 2_000_000},
        "nodes": {"x": {"output": {"y": 2, "bad": "\0"}}, "other": {"output": "\0"}},
    }
    assert evaluate("input.a + nodes.x.output.y", variables) == 3
    assert evaluate("has(input.bad) && has(input.deep)", variables) is True


@pytest.mark.parametrize(
    "source",
    [
        "has(input.a) && input.a.b == 3",
        "input.a.b == 3 && has(input.a)",
        "input.a == {'b': 3} && input.a.b == 3",
        "input.a.b == 3 && input == {'a': {'b': 3}}",
        "has(input.a.b) && input.a.b == 3 && has(input.a.b)",
    ],
)
def test_two_reads_of_one_place_see_the_larger(source: str) -> None:
    assert evaluate(source, {"input": {"a": {"b": 3}}}) is True


def test_values_past_the_bounds_are_refused_before_the_library_sees_them() -> None:
    long: list[JsonValue] = [0] * 100_001
    cases: list[tuple[JsonValue, str]] = [
        (_nested(65), "a value nests deeper than 64 levels"),
        ("x" * (1024 * 1024 + 1), "the expression looks at more than 1 MiB of text; name less of it"),
        (long, "the expression looks at more than 100,000 values"),
    ]
    for value, message in cases:
        with pytest.raises(ExpressionError, match=message):
            evaluate("input == 1", {"input": value})
        assert evaluate("input", {"input": value}) is value
    assert evaluate("input == 1", {"input": _nested(64)}) is False


def test_a_result_deeper_than_the_bound_is_refused() -> None:
    with pytest.raises(ExpressionError, match="the value nests deeper than 64 levels"):
        evaluate("[[input]]", {"input": _nested(63)})


@pytest.mark.parametrize(
    ("source", "size", "expected"),
    [
        ("input", 50_000, False),
        ("size(input)", 10_000, False),
        ("size(input)", 50_000, True),
        ("input.map(x, x)", 100, False),
        ("input.map(x, x)", 2_000, True),
        ("input.all(x, x >= 0)", 500, False),
        ("input.all(x, x >= 0)", 5_000, True),
        ("input.all(x, input.all(y, x + y >= 0))", 30, False),
        ("input.all(x, input.all(y, x + y >= 0))", 300, True),
        ("[input]" + ".map(x, x + x)" * 20 + ".size()", 3, True),
        ("input + input + input", 20_000, True),
    ],
)
def test_what_is_not_known_to_be_cheap_is_not_evaluated_in_place(
    source: str, size: int, expected: bool
) -> None:
    variables: dict[str, JsonValue] = {"input": list(range(size))}
    compiled = EVALUATOR.compile(source)
    assert EVALUATOR.needs_offload(compiled, variables) is expected
    if expected:
        with pytest.raises(OffloadNeeded):
            compiled.evaluate(variables)
    else:
        compiled.evaluate(variables)


def test_what_fails_needs_no_offload() -> None:
    assert not EVALUATOR.needs_offload(EVALUATOR.compile("input.map(x, x)"), {})


def test_compiled_expressions_are_shared() -> None:
    assert EVALUATOR.compile("input.x + 41") is EVALUATOR.compile("input.x + 41")


NULLS = """
from plait_server.adapters.expressions.cel import CelEvaluator
evaluator = CelEvaluator()
for source in ("null", "[null, null]", "{'a': null}", "input.map(x, x)", "[1].map(x, null)"):
    expression = evaluator.compile(source)
    for _ in range(20_000):
        expression.evaluate({"input": [None, {"a": None}]})
print("alive")
"""


def test_nulls_do_not_end_the_process() -> None:
    """The library gives away references to None; Python before 3.12 aborts when they run out."""
    process = subprocess.run([sys.executable, "-c", NULLS], capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout) == (0, "alive\n"), process.stderr[-500:]


json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_characters="\0")),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.text(st.characters(codec="utf-8", exclude_characters="\0")), inner, max_size=5)
    ),
    max_leaves=20,
)


@given(json_values)
def test_any_value_comes_back_from_the_library_as_it_went_in(value: JsonValue) -> None:
    again = evaluate("[input, nodes.n.output][0]", {"input": value, "nodes": {"n": {"output": 1}}})
    assert again == value
    assert type(again) is type(value)


@given(
    json_values,
    st.sampled_from(["input.a", "input['b'][0]", "input[0].a", "nodes.n.output.a", "execution.id"]),
)
def test_a_plain_path_fails_exactly_where_the_library_fails(value: JsonValue, path: str) -> None:
    variables: dict[str, JsonValue] = {
        "input": value,
        "nodes": {"n": {"output": value}},
        "execution": {"id": "e"},
    }

    def outcome(source: str) -> JsonValue:
        try:
            return [evaluate(source, variables)]
        except ExpressionError:
            return None

    plain, through = outcome(path), outcome(f"[{path}]")
    assert through == (None if plain is None else [plain])


def _nested(depth: int) -> JsonValue:
    value: JsonValue = []
    for _ in range(depth - 1):
        value = [value]
    return value
