"""The options that a dataclass declares: a new field is one, with its type, bounds, default and text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import pytest

from plait_server.configuration.options import (
    InvalidValue,
    Kind,
    Option,
    OptionTable,
    Range,
    Value,
    options_of,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    rate: Annotated[float | None, Range(0.001, 1_000)] = None
    """Starts a second."""
    order: Literal["FIFO", "LIFO"] = "FIFO"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    listen: str = "127.0.0.1:1"
    """The address
    to listen on.
    """
    limit: Annotated[int, Range(1, 10)] = 3
    create: bool = False
    file: str | None = None
    types: Mapping[str, Entry] = field(default_factory=dict[str, Entry])
    """Node types."""


def option(name: str) -> Option:
    found = next(each for each in options_of(Config) if each.name == name)
    assert isinstance(found, Option)
    return found


def test_each_field_is_an_option_with_the_string_below_it() -> None:
    declared = options_of(Config)
    assert [each.name for each in declared] == ["listen", "limit", "create", "file", "types"]
    assert declared[0] == Option(
        name="listen", kind=Kind.TEXT, default="127.0.0.1:1", text="The address to listen on."
    )
    assert declared[1] == Option(name="limit", kind=Kind.INT, default=3, text="", range=Range(1, 10))
    assert declared[4] == OptionTable(
        name="types",
        text="Node types.",
        make=Entry,
        options=(
            Option(
                name="rate", kind=Kind.FLOAT, default=None, text="Starts a second.", range=Range(0.001, 1_000)
            ),
            Option(name="order", kind=Kind.TEXT, default="FIFO", text="", choices=("FIFO", "LIFO")),
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class WithList:
    names: list[str] = field(default_factory=list[str])


@dataclass(frozen=True, slots=True, kw_only=True)
class WithoutDefault:
    name: str


@pytest.mark.parametrize("config", [WithList, WithoutDefault])
def test_a_field_that_cannot_be_an_option_is_an_error_of_the_program(config: type[object]) -> None:
    with pytest.raises(TypeError, match="the option name"):
        options_of(config)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("limit", " 7 ", 7),
        ("create", "YES", True),
        ("create", "0", False),
        ("listen", "[::1]:5", "[::1]:5"),
        ("file", "", None),
    ],
)
def test_texts_of_variables_and_flags_become_values(name: str, text: str, value: Value) -> None:
    assert option(name).parse(text) == value


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("limit", "11", '"11" is not an integer from 1 to 10'),
        ("limit", "1.5", '"1.5" is not an integer from 1 to 10'),
        ("limit", "9" * 5_000, "is not an integer from 1 to 10"),
        ("create", "perhaps", '"perhaps" is not true or false'),
        ("listen", "a\x1b[2Jb", r'"a\\u001b\[2Jb" is not a text'),
    ],
)
def test_a_text_that_is_no_value_is_refused_with_what_would_be(name: str, text: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        option(name).parse(text)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("limit", 0.01, "0.01 is not an integer"),
        ("listen", 5, "5 is not a text"),
        ("limit", 16**5_000, "a huge number is not an integer"),
    ],
    ids=["float", "integer", "huge"],
)
def test_a_number_of_the_file_is_shown_as_it_stands_there(name: str, value: object, message: str) -> None:
    with pytest.raises(InvalidValue, match=f"^{message}"):
        option(name).check(value)


@pytest.mark.parametrize("value", [True, "3", 2.0, float("nan"), 0, ["plait_secret"], {"a": 1}])
def test_a_value_of_another_type_in_the_file_is_refused_unquoted_if_it_is_no_scalar(value: object) -> None:
    with pytest.raises(InvalidValue, match="is not an integer from 1 to 10") as refused:
        option("limit").check(value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e400"])
def test_numbers_are_finite_and_in_range(text: str) -> None:
    rate = Option(name="rate", kind=Kind.FLOAT, default=1.0, text="", range=Range(0, 10))
    with pytest.raises(InvalidValue, match="is not a number from 0 to 10"):
        rate.parse(text)
