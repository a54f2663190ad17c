"""The options of a configuration, as its dataclass declares them: name, type, range, default and text.

A configuration is a frozen dataclass. Each of its fields is an option:

- `bool`, `int`, `float`, `str` or a `Literal` of texts, alone or with `| None`, and with a `Range` in `Annotated`
  where its values are bounded; an empty text is no value for `str | None`;
- `Mapping[str, D]`, a table of entries by name: `D` is a dataclass of options, each with a default. In the file it is
  `[types."gpu.render"]`, in flags and variables `gpu.render.max_concurrency=4`. Annotated with `ForAll`, it may have an
  entry named `*` for all.

The string under a field describes it. So a new field is an option of the file, a variable and a flag, and stands in the
example, without further code.
"""

from __future__ import annotations

import ast
import dataclasses
import enum
import inspect
import math
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias, cast, get_args, get_origin

from plait_server.core.definition.nearest import quote

Value: TypeAlias = bool | int | float | str | None
"""The value of an option; None where it is not set and has no default."""

_TRUE: Final = ("true", "yes", "on", "1")
_FALSE: Final = ("false", "no", "off", "0")
_BITS_SHOWN_MAX: Final = 128
"""The digits of a larger integer would fill the message, and Python refuses to write some thousands of them."""


class InvalidValue(ValueError):
    """A value that an option cannot have; the text says which it can."""


@dataclass(frozen=True, slots=True)
class Range:
    """The numbers that an option accepts, from the first to the second."""

    min: float
    """The least."""
    max: float
    """The greatest."""


@dataclass(frozen=True, slots=True)
class ForAll:
    """Marks a table in which the name `*` stands for all."""


class Kind(enum.Enum):
    """The type of an option's values."""

    BOOL = "true or false"
    """A boolean."""
    INT = "an integer"
    """An integer."""
    FLOAT = "a number"
    """A finite number."""
    TEXT = "a text"
    """A text; one of the choices if there are any."""


_KINDS: Final[Mapping[object, Kind]] = {
    bool: Kind.BOOL,
    int: Kind.INT,
    float: Kind.FLOAT,
    str: Kind.TEXT,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option."""

    name: str
    """The name of the field."""
    kind: Kind
    """The type of its values."""
    default: Value
    """The value if none is given."""
    text: str
    """What it does."""
    range: Range | None = None
    """The range of a number, if it is bounded."""
    choices: tuple[str, ...] = ()
    """The texts that it accepts; empty: any."""

    def describe(self) -> str:
        """Describe the values that the option accepts: `an integer from 1 to 100`."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if self.range is None:
            return self.kind.value
        return f"{self.kind.value} from {number_text(self.range.min)} to {number_text(self.range.max)}"

    def check(self, value: object) -> Value:
        """Return a value of the file as one of this option.

        Raises:
            InvalidValue: The option does not accept it.
        """
        match self.kind:
            case Kind.BOOL:
                is_right = isinstance(value, bool)
            case Kind.INT:
                is_right = isinstance(value, int) and not isinstance(value, bool)
            case Kind.FLOAT:
                is_right = isinstance(value, int | float) and not isinstance(value, bool)
            case Kind.TEXT:
                is_right = isinstance(value, str)
            case _:
                typing.assert_never(self.kind)
        if not is_right:
            raise self._refuse(value)
        if self.kind is Kind.TEXT:
            return self._choose(cast("str", value))
        if self.kind is Kind.BOOL:
            return cast("bool", value)
        number = cast("int | float", value)
        bounds = self.range or Range(-math.inf, math.inf)
        if not bounds.min <= number <= bounds.max or not math.isfinite(number):
            raise self._refuse(value)
        return float(number) if self.kind is Kind.FLOAT else number

    def parse(self, text: str) -> Value:
        """Return a text of a variable or a flag as a value of this option.

        Raises:
            InvalidValue: The option does not accept it.
        """
        stripped = text.strip()
        match self.kind:
            case Kind.BOOL:
                if stripped.lower() in _TRUE:
                    return True
                if stripped.lower() in _FALSE:
                    return False
                raise self._refuse(text)
            case Kind.INT | Kind.FLOAT:
                convert = int if self.kind is Kind.INT else float
                try:
                    number = self.check(convert(stripped))
                except ValueError:  # InvalidValue, too: the message quotes the text as it was written.
                    raise self._refuse(text) from None
                return number
            case Kind.TEXT:
                return self.check(text)

    def _choose(self, value: str) -> str | None:
        if not value and self.default is None:
            return None
        if not self.choices:
            if not value.isprintable():
                raise self._refuse(value)
            return value
        for choice in self.choices:
            if choice.casefold() == value.strip().casefold():
                return choice
        raise self._refuse(value)

    def _refuse(self, value: object) -> InvalidValue:
        return InvalidValue(f"{_shown(value)} is not {self.describe()}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionTable:
    """A table of entries by name."""

    name: str
    """The name of the field."""
    text: str
    """What it does."""
    make: type[object]
    """The dataclass of an entry."""
    options: tuple[Option, ...]
    """The options of an entry."""
    has_all: bool = False
    """Whether `*` is a name, which stands for all."""


Declared: TypeAlias = Option | OptionTable


def options_of(config: type[object]) -> tuple[Declared, ...]:
    """Return the options that a dataclass declares, in the order of its fields.

    Raises:
        TypeError: A field is of a type that no option can have, or has no default.
    """
    hints = typing.get_type_hints(config, include_extras=True)
    texts = _texts_of(config)
    return tuple(
        _declared(each.name, hints[each.name], _default_of(each), texts.get(each.name, ""))
        for each in dataclasses.fields(cast("type[_Dataclass]", config))
    )


def number_text(number: float) -> str:
    """Write a number as messages do: `1,000`, `0.5`."""
    return f"{int(number):,}" if number == int(number) else f"{number:,g}"


class _Dataclass(typing.Protocol):
    __dataclass_fields__: typing.ClassVar[dict[str, dataclasses.Field[object]]]


def _default_of(each: dataclasses.Field[object]) -> object:
    if each.default is not dataclasses.MISSING:
        return each.default
    if each.default_factory is not dataclasses.MISSING:
        return each.default_factory()
    raise TypeError(f"the option {each.name} has no default")


def _declared(name: str, hint: object, default: object, text: str) -> Declared:
    bounds: Range | None = None
    has_all = False
    if get_origin(hint) is typing.Annotated:
        hint, *marks = get_args(hint)
        bounds = next((mark for mark in marks if isinstance(mark, Range)), None)
        has_all = any(isinstance(mark, ForAll) for mark in marks)
    if get_origin(hint) in {types.UnionType, typing.Union}:
        hint = next(each for each in get_args(hint) if each is not types.NoneType)
    if get_origin(hint) is Literal:
        choices = tuple(str(each) for each in get_args(hint))
        return Option(name=name, kind=Kind.TEXT, default=cast("str", default), text=text, choices=choices)
    if get_origin(hint) is not None and issubclass(cast("type[object]", get_origin(hint)), Mapping):
        _, entry = get_args(hint)
        options = options_of(entry)
        if all(isinstance(option, Option) for option in options):
            chosen = cast("tuple[Option, ...]", options)
            return OptionTable(name=name, text=text, make=entry, options=chosen, has_all=has_all)
    if hint not in _KINDS:
        raise TypeError(f"the option {name} has a type that no option can have: {hint}")
    return Option(name=name, kind=_KINDS[hint], default=cast("Value", default), text=text, range=bounds)


def _texts_of(config: type[object]) -> dict[str, str]:
    """Return the strings that stand under the fields of a class, each as one line."""
    [definition] = ast.parse(inspect.cleandoc(inspect.getsource(config))).body
    assert isinstance(definition, ast.ClassDef)  # the source of a class
    texts: dict[str, str] = {}
    name = ""
    for statement in definition.body:
        match statement:
            case ast.AnnAssign(target=ast.Name(id=field)):
                name = field
            case ast.Expr(value=ast.Constant(value=str(text))) if name:
                texts[name] = " ".join(text.split())
                name = ""
            case _:
                name = ""
    return texts


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, int | float):
        is_huge = isinstance(value, int) and value.bit_length() > _BITS_SHOWN_MAX
        return "a huge number" if is_huge else str(value)
    # Not quoted: it may hold what was meant for somewhere else.
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "a table"
    return "a date or time"
