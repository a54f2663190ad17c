"""JSON checked in slices: what is accepted is what `check_json` accepts, and no slice is long."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_server.core import json_slices
from plait_server.core.json_slices import TOKENS_A_SLICE, check_json_in_slices
from plait_server.core.json_text import InvalidJson, check_json
from plait_server.core.limits import MIB

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=30,
)
PIECES = st.sampled_from(
    [
        *("[", "]", "{", "}", ",", ":", " ", "\n", "[]", "{}", "null", "true", "1", "-", "0", "01", "1.", "1.5"),
        *("-0", "1e5", "1e999", "1" * 310, "1" * 4400, "NaN", '"a"', '"a":', '"\\u0061":', '"', "\\", '"\\ud800"'),
        *('"\\ud83d\\ude00"', '"\\x"', '"\\u12"', '"\t"', "\u00a0", '"\u00e9"', "1,", "[1,"),
        *('{"a":1', ',"a":2}', "[[]]"),
    ]
)  # fmt: skip


@pytest.fixture(autouse=True)
def always_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_slices, "MARKS_AT_ONCE_MAX", -1)


def is_accepted_at_once(text: str, max_depth: int = 64) -> bool:
    try:
        check_json(text, max_bytes=MIB, max_depth=max_depth)
    except InvalidJson:
        return False
    return True


def is_accepted_in_slices(text: str, max_depth: int = 64) -> bool:
    try:
        for _ in check_json_in_slices(text, max_bytes=MIB, max_depth=max_depth):
            pass
    except InvalidJson:
        return False
    return True


@given(VALUES, st.sampled_from([None, 1]), st.booleans())
def test_every_value_is_accepted(value: object, indent: int | None, is_ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=is_ascii)
    assert is_accepted_in_slices(text) == is_accepted_at_once(text)


@given(st.lists(PIECES, max_size=8).map("".join), st.sampled_from([1, 2, 64]))
def test_the_two_checks_agree(text: str, max_depth: int) -> None:
    for each in (text, f"[{text}]", f'{{"k":{text}}}', f"[1,{text},2]"):
        assert is_accepted_in_slices(each, max_depth) == is_accepted_at_once(each, max_depth), each


@given(VALUES, st.data())
def test_the_two_checks_agree_on_what_was_damaged(value: object, data: st.DataObject) -> None:
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    at = data.draw(st.integers(0, len(text)))
    damaged = text[:at] + data.draw(PIECES) + text[at + data.draw(st.integers(0, 2)) :]
    assert is_accepted_in_slices(damaged) == is_accepted_at_once(damaged), damaged


@pytest.mark.parametrize("depth", [63, 64, 65])
def test_depth_is_bounded(depth: int) -> None:
    lists = "[" * depth + "]" * depth
    run = "[" * (depth - 1) + "[],1" + "]" * (depth - 1)
    for text in (lists, run, '{"a":' * depth + "1" + "}" * depth):
        assert is_accepted_in_slices(text) == (depth <= 64)


@pytest.mark.parametrize(
    "element", ["[]", "{}", "1", '"abc"', "1.5", '{"a":1}', "[[1,2],[]]", '"\\u00e9"', '"\\ud83d\\ude00"']
)
def test_a_long_list_comes_in_many_slices(element: str) -> None:
    count = MIB // 4 // (len(element) + 1)
    text = "[" + ",".join([element] * count) + "]"
    slices = sum(1 for _ in check_json_in_slices(text, max_bytes=MIB))
    assert slices >= MIB // 4 // (30 * TOKENS_A_SLICE)


def test_a_text_too_long_is_refused() -> None:
    assert not is_accepted_in_slices("[" + "1," * MIB + "1]")
    assert not is_accepted_in_slices("[" + '"\u00e9",' * (MIB // 4) + "1]")
