"""Writes a configuration as a TOML file: every option with its text, commented out, with its default."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from plait_server.configuration.options import Declared, Option, Value, number_text
from plait_server.configuration.reading import PREFIX, flag_of

_WIDTH: Final = 110


def example_of(declared: Sequence[Declared], head: str) -> str:
    """Write the example file.

    Args:
        declared: The options.
        head: What the file says at its beginning.
    """
    lines = list(_comment(head))
    for each in declared:
        if isinstance(each, Option):
            lines += ["", *_option_lines(each, f"{flag_of(each)}, {PREFIX}{each.name.upper()}")]
    for each in declared:
        if not isinstance(each, Option):
            first = each.options[0].name
            lines += [
                "",
                *_comment(each.text),
                *_comment(f"{flag_of(each)} NAME.{first}=VALUE, {PREFIX}{each.name.upper()}"),
                f"#[{each.name}.NAME]",
            ]
            for option in each.options:
                lines += _option_lines(option, "")
    return "\n".join(lines) + "\n"


def toml_value(value: Value) -> str:
    """Write a value as TOML does; empty for one that is not set."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    # A JSON string is a TOML string: the texts of options hold no control characters.
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _option_lines(option: Option, names: str) -> Iterator[str]:
    yield from _comment(option.text)
    values = ", ".join(option.choices)
    if option.range is not None:
        values = f"{number_text(option.range.min)} to {number_text(option.range.max)}"
    unset = "not set by default" if option.default is None else ""
    if facts := "; ".join(each for each in (names, values, unset) if each):
        yield from _comment(facts)
    yield f"#{option.name} = {toml_value(option.default)}".rstrip()


def _comment(text: str) -> Iterator[str]:
    for paragraph in text.split("\n"):
        yield from (f"# {line}".rstrip() for line in textwrap.wrap(paragraph, _WIDTH - 2) or [""])
