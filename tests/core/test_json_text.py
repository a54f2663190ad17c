"""The validator of JSON text: what RFC 8259 allows, and where it refuses the rest."""

import json
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_server.core.json_text import (
    InvalidJson,
    JsonValue,
    check_json,
    dump_json,
    exceeds_depth,
    parse_json,
    splice_array,
    splice_object,
)

texts = st.text(st.characters(codec="utf-8"))
scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts
values: st.SearchStrategy[JsonValue] = st.recursive(
    scalars,
    lambda inner: st.lists(inner) | st.dictionaries(texts, inner),
    max_leaves=30,
)

REFUSED: list[tuple[str | bytes, str, int]] = [
    ("", "expecting value", 0),
    ("nul", "expecting value", 0),
    # Python 3.13 says more of it, and where the comma stands.
    ("[1,]", *(("illegal trailing comma", 2) if sys.version_info >= (3, 13) else ("expecting value", 3))),
    ("[1]x", "extra data", 3),
    ("01", "extra data", 1),
    ("'a'", "expecting value", 0),
    ("\ufeff1", "expecting value", 0),
    ("\u0663", "expecting value", 0),
    ('"\x00"', "invalid control character", 1),
    ("NaN", "NaN is no JSON; write null or a string", 0),
    ('["NaN", NaN]', "NaN is no JSON", 8),
    ("[1,-Infinity]", "-Infinity is no JSON", 3),
    ("1e999", 'the number "1e999" is beyond the range of a double', 0),
    ('["1e999", 1e999]', "beyond the range of a double", 10),
    ('{"a":1,"b":{"a":1,"a":2}}', 'the key "a" stands twice', 18),
    ('{"a":1,"\\u0061":2}', 'the key "a" stands twice', 7),
    ('["a", {"b": ["b"], "b": 1}]', 'the key "b" stands twice', 19),
    ('"\\ud800"', "half of a surrogate pair", 1),
    ('"\\udc00\\ud800"', "half of a surrogate pair", 1),
    ('"\\ud83d\\ude00 \\ud800\\ud800\\udc00"', "half of a surrogate pair", 14),
    ('"\ud800"', "half of a surrogate pair", 1),
    ('"\\ud800', "invalid", 2),
    (b'"\xff"', "not UTF-8", 1),
    ("1" * 4301, "more than 4,300 digits", 0),
    ("[1, " + "1" * 9000 + "]", "more than 4,300 digits", 4),
    ("[" * 65 + "]" * 65, "nest deeper than 64 levels", 0),
    ('{"a":' * 65 + "1" + "}" * 65, "nest deeper than 64 levels", 0),
    ('[{"a":' * 33 + "1" + "}]" * 33, "nest deeper than 64 levels", 0),
    ("[" * 200_000, "nest deeper than 64 levels", 0),
    ('{"a":' * 200_000, "nest deeper than 64 levels", 0),
    ("]" * 200_000, "expecting value", 0),
    ('"' * 200_001, "extra data", 2),
    ('{"a":' + "[" * 60, "expecting value", 65),
]


@pytest.mark.parametrize(("text", "reason", "position"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_no_json_is_refused_with_reason_and_position(
    text: str | bytes, reason: str, position: int
) -> None:
    with pytest.raises(InvalidJson) as caught:
        check_json(text, max_bytes=1_000_000_000)
    assert reason in caught.value.reason
    assert caught.value.position == position
    with pytest.raises(InvalidJson, match=r"at character \d+"):
        parse_json(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("null", None),
        (" {} ", {}),
        (b'{"a": [1, 2.5, "\xc3\xa9"]}', {"a": [1, 2.5, "é"]}),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\\\ud800"', "\\ud800"),
        ('"\\u0000"', "\0"),
        ("-0", 0),
        ("9007199254740993", 9_007_199_254_740_993),
        ("1" * 4300, int("1" * 4300)),
        ('"' + "[" * 200 + '"', "[" * 200),
    ],
)
def test_what_is_json_is_read(text: str | bytes, value: JsonValue) -> None:
    check_json(text, max_bytes=10_000)
    assert parse_json(text) == value


def test_sixty_four_levels_are_allowed_however_many_lists_stand_beside_each_other() -> None:
    deep = "[" * 63 + "]" * 63
    check_json(f"[{deep},{deep},{deep}]", max_bytes=10_000)
    with pytest.raises(InvalidJson, match="nest deeper than 2 levels"):
        check_json("[[1],[[1]]]", max_bytes=100, max_depth=2)


def test_brackets_in_strings_are_no_depth() -> None:
    assert not exceeds_depth('["' + "[" * 100 + '\\"' + "[" * 100 + '"]', 64)


def test_the_limit_counts_bytes_of_utf8() -> None:
    check_json('"éé"', max_bytes=6)
    with pytest.raises(InvalidJson, match="the text has 6 bytes; at most 5 are allowed"):
        check_json('"éé"', max_bytes=5)
    with pytest.raises(InvalidJson, match="the text has 6 bytes"):
        check_json('"éé"'.encode(), max_bytes=5)


def test_a_long_key_is_shown_shortened() -> None:
    key = "k" * 1000
    with pytest.raises(InvalidJson) as caught:
        parse_json(f'{{"{key}":1,"{key}":2}}')
    assert len(caught.value.reason) < 100


@given(values)
def test_what_is_written_is_read_back(value: JsonValue) -> None:
    text = dump_json(value)
    assert parse_json(text) == value
    assert parse_json(text.encode()) == value
    check_json(text, max_bytes=len(text.encode()))


@given(values)
def test_any_writer_s_text_is_read(value: JsonValue) -> None:
    for text in (json.dumps(value), json.dumps(value, indent=2, ensure_ascii=False)):
        assert parse_json(text) == value


@given(values, st.integers(0, 6))
def test_depth_is_judged_as_recursion_would(value: JsonValue, limit: int) -> None:
    def depth(part: JsonValue) -> int:
        children = part if isinstance(part, list) else part.values() if isinstance(part, dict) else None
        return 0 if children is None else 1 + max((depth(child) for child in children), default=0)

    assert exceeds_depth(dump_json(value), limit) == (depth(value) > limit)


@given(st.text() | st.text('[]{}",:\\u0dD8c1e.-+ntfNI \n'))
def test_any_text_is_read_or_refused_and_nothing_else_happens(text: str) -> None:
    try:
        value = parse_json(text)
    except InvalidJson:
        return
    assert json.loads(text) == value
    text.encode()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), [-float("inf")], [10**5000]])
def test_what_json_cannot_hold_is_not_written(value: JsonValue) -> None:
    with pytest.raises(InvalidJson, match="JSON has none"):
        dump_json(value)


def test_writing_is_compact_and_keeps_letters() -> None:
    assert dump_json({"b": [1, "é\n"], "a": None}) == '{"b":[1,"é\\n"],"a":null}'


@given(st.dictionaries(texts, values))
def test_splicing_gives_the_same_value_as_building(members: dict[str, JsonValue]) -> None:
    object_text = splice_object((key, dump_json(value)) for key, value in members.items())
    assert parse_json(object_text) == members
    array_text = splice_array(dump_json(value) for value in members.values())
    assert parse_json(array_text) == list(members.values())


def test_splicing_keeps_texts_as_they_are() -> None:
    assert splice_object([('a"b', "1.10"), ("c", "[ ]")]) == '{"a\\"b":1.10,"c":[ ]}'
    assert splice_object([]) == "{}"
    assert splice_array(["1e5", "{ }"]) == "[1e5,{ }]"


def test_the_digits_limit_is_python_s_own() -> None:
    """`_LONG_INTEGER` finds where; if Python's limit moves, so must it."""
    assert sys.get_int_max_str_digits() == 4300
