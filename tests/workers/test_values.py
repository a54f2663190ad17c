"""Tests of what may be a result, and of what is said of what may not."""

import enum
import json
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from plait_worker.values import UnfitValue, decode_value, encode_value, size_of


class Color(enum.StrEnum):
    RED = "red"


def nested(depth: int) -> object:
    value: object = 1
    for _ in range(depth):
        value = [value]
    return value


def circle() -> object:
    value: list[object] = []
    value.extend([value, value])
    return value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=20,
)


@given(JSON)
def test_json_comes_back_as_it_was(value: object) -> None:
    text = encode_value(value)
    assert decode_value(text) == value
    assert size_of(text) == len(text.encode())


def test_tuples_are_lists_and_named_strings_are_strings() -> None:
    assert encode_value({"a": (1, Color.RED)}) == '{"a":[1,"red"]}'


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (float("nan"), "$ is nan"),
        ({"a": [0, float("inf")]}, "$.a[1] is inf"),
        ({"a": {1}}, "$.a is a set, which is not JSON: return a sorted list"),
        ([b"x"], "$[0] is a bytes, which is not JSON: return text"),
        ({"when": datetime.now(UTC)}, "$.when is a datetime, which is not JSON: return .isoformat()"),
        ([Decimal(1)], "$[0] is a Decimal, which is not JSON: return str()"),
        ({"a": object()}, "$.a is a object, which is not JSON: return objects"),
        ({"a": {1: 2}}, "$.a has the key 1, which is no string"),
        ({None: 2}, "$ has the key None, which is no string"),
        (["ok", "\ud800"], "$[1] has a lone surrogate"),
        ({"a": {"\ud800": 1}}, "$.a has a key with a lone surrogate"),
        ([10**5000], "$[0] is an integer too long"),
        (nested(65), "is nested deeper than 64"),
        (circle(), "holds itself"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_mistake_is_named_with_its_path_and_the_remedy(value: object, said: str) -> None:
    with pytest.raises(UnfitValue) as caught:
        encode_value(value)
    assert said in str(caught.value)


def test_depth_of_64_is_allowed() -> None:
    assert json.loads(encode_value(nested(64))) == nested(64)


def test_size_is_that_of_the_text_in_utf8() -> None:
    assert encode_value("ü" * 10, 22) == '"' + "ü" * 10 + '"'
    with pytest.raises(UnfitValue, match=r"\$ is 24 bytes of JSON, and 22 is the limit"):
        encode_value("ü" * 11, 22)
    with pytest.raises(UnfitValue, match="more than 22 parts"):
        encode_value([1] * 23, 22)


def test_long_path_is_cut() -> None:
    with pytest.raises(UnfitValue) as caught:
        encode_value({"k" * 5000: {1}})
    assert len(str(caught.value)) < 400
