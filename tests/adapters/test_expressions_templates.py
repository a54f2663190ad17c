"""Templates: JSON documents in whose strings expressions stand."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_server.adapters.expressions.cel import CelEvaluator
from plait_server.adapters.expressions.inline import InlineOffload
from plait_server.core.json_text import JsonValue, dump_json, parse_json
from plait_server.ports.evaluator import (
    Evaluator,
    ExpressionError,
    ExpressionFacts,
    InvalidExpression,
    OffloadNeeded,
    Work,
)

EVALUATOR: Evaluator = CelEvaluator()

VARIABLES: dict[str, JsonValue] = {
    "input": {"n": 2, "s": 'say "hi"\n', "l": [1, None], "o": {"b": 1, "a": 2.5}, "t": True, "z": None},
    "nodes": {"a-b": {"output": "x"}},
}


def render(document: str, variables: dict[str, JsonValue] | None = None) -> str:
    return EVALUATOR.compile_template(document).render(VARIABLES if variables is None else variables)


@pytest.mark.parametrize(
    ("document", "text"),
    [
        ('"{{ input.n }}"', "2"),
        ('"{{input.n}}"', "2"),
        ('"{{ \\n input.n + 1 \\t }}"', "3"),
        ('"{{ input.s }}"', '"say \\"hi\\"\\n"'),
        ('"{{ input.l }}"', "[1,null]"),
        ('"{{ input.o }}"', '{"b":1,"a":2.5}'),
        ('"{{ input.z }}"', "null"),
        ('" {{ input.n }}"', '" 2"'),
        ('"{{ input.n }} "', '"2 "'),
        ('"{{ input.n }}{{ input.n }}"', '"22"'),
        (
            '"s={{ input.s }} l={{ input.l }} o={{input.o}} t={{input.t}} z={{input.z}}"',
            '"s=say \\"hi\\"\\n l=[1,null] o={\\"b\\":1,\\"a\\":2.5} t=true z=null"',
        ),
        ('{"a": ["{{ input.n }}", {"b": "{{ input.t }}"}]}', '{"a": [2, {"b": true}]}'),
        ('"{{ {\\"a\\":{\\"b\\":1}} }}"', '{"a":{"b":1}}'),
        ('"{{{\\"a\\":{\\"b\\":1}}}}"', '{"a":{"b":1}}'),
        ('"{{ \\"}}\\" }}"', '"}}"'),
        ("\"{{ '}}' + r'\\\\d}}' }}\"", '"}}\\\\d}}"'),
        ("\"{{ '''}}'}}''' }}!\"", '"}}\'}}!"'),
        ('"{{ \\"{{\\" }}"', '"{{"'),
        ('"{{ \\"{{\\" }} name }}"', '"{{ name }}"'),
        ('"}} {not one} }"', '"}} {not one} }"'),
        ('"\\u007b{ input.n }\\u007d"', "2"),
        ('"{{ nodes[\\"a-b\\"].output }}"', '"x"'),
        ('"{{ input.n // }} is no end\\n }}"', "2"),
        ('{"{{ input.n }}": 1}', '{"{{ input.n }}": 1}'),
        ('{"{{ input.n }}" : "{{ input.n }}"}', '{"{{ input.n }}" : 2}'),
    ],
    ids=range(25),
)
def test_a_document_is_filled_in(document: str, text: str) -> None:
    assert render(document) == text
    parse_json(text)


def test_what_stands_around_expressions_stays_as_it_was_written() -> None:
    document = '{ "id": 12345678901234567890, "x": "{{ input.n }}",\n "rate": 1.10, "e": [1E5, "\\u00e9"] }'
    assert render(document) == document.replace('"{{ input.n }}"', "2")


@pytest.mark.parametrize(
    "document", ["null", ' {"a": [1.10, "x }}"]} ', '{"{{ x }}": 1}', '"\\u007bx"', '"{ {"']
)
def test_a_document_without_expressions_is_constant(document: str) -> None:
    template = EVALUATOR.compile_template(document)
    assert template.is_constant
    assert template.facts == ExpressionFacts()
    assert template.render({}) == document


def test_the_facts_are_those_of_all_expressions() -> None:
    template = EVALUATOR.compile_template(
        '["{{ nodes.b.output }}", "{{ input.x }} {{ nodes.a.output.map(x, x) }}", "{{ nodes.b.failure }}"]'
    )
    assert not template.is_constant
    assert template.facts == ExpressionFacts(
        roots=("nodes", "input"), node_ids=("b", "a"), comprehension=True
    )


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "the document is refused: the text is no JSON"),
        ('{"a": 1, "a": 2}', 'the key "a" stands twice in one object (at character 9)'),
        ("[NaN]", "NaN is no JSON"),
        ("[" * 65 + "]" * 65, "nest deeper than 64 levels"),
        ('"{{ input.n"', "no }} ends the expression that begins with '{{ input.n'; where {{ itself is meant"),
        ('"{{ input.n }"', 'write {{ "{{" }}'),
        ('"{{ \'}} "', "no }} ends the expression"),
        ('"{{ ) }} "', "no }} ends the expression"),
        ('"{{ input.n // }}"', "no }} ends the expression"),
        ('"{{ }}"', "the expression is empty"),
        ('"{{ input. }}"', "Syntax error"),
        ('["ok", "{{ nodes.a-b.output }}"]', 'write nodes["a-b"].output'),
        ('"{{ ' + "1" * 5000 + ' }}"', "has 5,000 bytes"),
        ("[" + ",".join(['"{{ input.n }}{{ input.n }}"'] * 1001) + "]", "more than 1,000 expressions"),
    ],
    ids=range(14),
)
def test_a_refused_document_says_why(document: str, message: str) -> None:
    with pytest.raises(InvalidExpression) as caught:
        EVALUATOR.compile_template(document)
    assert message in str(caught.value)


def test_a_thousand_expressions_are_allowed_however_they_stand() -> None:
    documents = ["[" + ",".join(['"{{ input.n }}"'] * 1000) + "]", '"' + "{{ input.n }}," * 1000 + '"']
    for document in documents:
        assert render(document).count("2") == 1000
    with pytest.raises(InvalidExpression, match="more than 1,000 expressions"):
        EVALUATOR.compile_template("[" + ",".join(['"{{ input.n }}"'] * 1001) + "]")


def test_a_failing_expression_in_a_document_is_named() -> None:
    with pytest.raises(ExpressionError, match=r"input has no key 'age'; .*: in `input.age`"):
        render('{"a": "{{ input.n }}", "b": "years: {{ input.age }}"}')


def test_a_document_that_grows_too_large_is_refused() -> None:
    variables: dict[str, JsonValue] = {"input": "x" * 1024 * 1024}
    assert len(render('["{{ input }}", "{{ input }}"]', variables)) > 2 * 1024 * 1024
    with pytest.raises(ExpressionError, match="grows beyond 16 MiB"):
        render("[" + ",".join(['"{{ input }}"'] * 17) + "]", variables)


def test_a_document_that_nests_too_deep_when_filled_in_is_refused() -> None:
    value: JsonValue = []
    for _ in range(63):
        value = [value]
    assert render('"{{ input }}"', {"input": value}) == "[" * 64 + "]" * 64
    with pytest.raises(ExpressionError, match="nests deeper than 64 levels"):
        render('{"a": "{{ input }}"}', {"input": value})


def test_expressions_that_are_cheap_alone_may_not_be_so_together() -> None:
    variables: dict[str, JsonValue] = {"input": list(range(300))}
    one, many = (
        EVALUATOR.compile_template(
            "[" + ",".join([f'"{{{{ input.map(x, x + {n}) }}}}"' for n in range(count)]) + "]"
        )
        for count in (1, 20)
    )
    assert not EVALUATOR.needs_offload(one, variables)
    one.render(variables)
    assert EVALUATOR.needs_offload(many, variables)
    with pytest.raises(OffloadNeeded):
        many.render(variables)


async def test_what_is_not_cheap_is_done_by_the_offload() -> None:
    variables: dict[str, JsonValue] = {"input": list(range(1000))}
    with pytest.raises(OffloadNeeded):
        EVALUATOR.compile("input.map(x, x + 1)").evaluate(variables)
    async with InlineOffload().turn("default", "x") as helper:
        assert not helper.is_over
        text = await helper.run(Work.EVALUATE, "input.map(x, x + 1)", variables)
        assert json.loads(text) == list(range(1, 1001))
        text = await helper.run(Work.RENDER, '{"n": "{{ input.map(x, x).size() }}"}', variables)
        assert text == '{"n": 1000}'


letters = st.characters(codec="utf-8", exclude_characters="{}\0")
json_values: st.SearchStrategy[JsonValue] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(letters),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(letters), inner),
    max_leaves=15,
)


@given(json_values)
def test_any_document_without_braces_is_constant(document: JsonValue) -> None:
    text = dump_json(document)
    template = EVALUATOR.compile_template(text)
    assert template.is_constant
    assert template.render({}) == text


@given(json_values, st.text(letters), st.text(letters))
def test_any_value_is_inserted_with_its_type_alone_and_as_text_in_a_mix(
    value: JsonValue, before: str, after: str
) -> None:
    document: JsonValue = {"alone": ["{{ input.v }}"], "mixed": f"-{before}{{{{ input.v }}}}{after}"}
    rendered = parse_json(render(dump_json(document), {"input": {"v": value}}))
    inserted = value if isinstance(value, str) else dump_json(value)
    assert rendered == {"alone": [value], "mixed": f"-{before}{inserted}{after}"}


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30))
def test_any_text_can_be_written_as_a_string_literal_in_an_expression(text: str) -> None:
    """JSON's escapes are CEL's too, but for the slash and pairs of surrogates, which need no escape."""
    literal = dump_json(text)
    assert parse_json(render(dump_json(f"{{{{ {literal} }}}}"))) == text
    assert parse_json(render(dump_json(f"<{{{{ {literal} }}}}>"))) == f"<{text}>"


@given(st.text("{}\"'\\ r/a+.\n", max_size=40))
def test_any_string_is_compiled_or_refused(text: str) -> None:
    try:
        template = EVALUATOR.compile_template(dump_json(text))
    except InvalidExpression:
        assert "{{" in text
    else:
        assert template.is_constant or "{{" in text
