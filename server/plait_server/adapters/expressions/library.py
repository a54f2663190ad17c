"""The only module that calls cel-expr-python, Google's C++ implementation of CEL.

Observed behavior of version 0.1.3, which this module and `values` avoid or work around:

- An evaluation error is returned as a value of type ERROR, not raised; `plain_value()` returns its text.
- `value()` and `plain_value()` of a null, or of anything with a null in it, release a reference to None
  that was never acquired: before Python 3.12 the process aborts after some thousand of them (none_dealloc). So
  the type is checked first, containers are opened one level at a time, and the value of a null is never read.
- Strings end at their first NUL; one with a lone surrogate crashes the process (a null pointer).
- An int beyond int64 becomes a uint, one beyond uint64 an error. Values nested some 10,000 deep crash the
  process.
- The whole of each variable that an expression names is converted, at 0.15 us a value.
- It refuses more than 32 levels of source, a chain of operators or members counting as one each, and at
  10,000 rounds of loops an evaluation. Neither bounds the memory: 26 nested doublings of a list take
  gigabytes.
- Maps have no order, and it differs from process to process: keys are sorted on the way back. `map` and
  `filter` over an object return their items in an undefined order.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Final, Protocol, cast

from cel_expr_python import cel

from plait_server.core.json_text import JsonValue
from plait_server.core.limits import VALUE_DEPTH_MAX

VARIABLES: Final = ("input", "execution", "nodes", "resume", "output")
"""The variables an expression can name."""

_SCALARS: Final = frozenset({"BOOL", "INT", "UINT", "STRING"})
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(h|ms|m|us|ns|s)")
_UNIT_S: Final = {
    "h": Decimal(3600),
    "m": Decimal(60),
    "s": Decimal(1),
    "ms": Decimal("1e-3"),
    "us": Decimal("1e-6"),
    "ns": Decimal("1e-9"),
}


class Program(Protocol):
    """A compiled expression; it may be evaluated any number of times."""

    def eval(self, *, data: Mapping[str, JsonValue]) -> _Value:
        """Evaluate; the library's method."""
        ...

    def serialize(self) -> bytes:
        """Return the checked tree in protobuf's binary form; the library's method."""
        ...


class LibraryError(Exception):
    """The library refused or failed; the text is the library's."""


class NotJson(Exception):
    """The value of an expression has no JSON form; the text explains why and how to fix it."""


def compile_source(source: str) -> Program:
    """Compile and check an expression.

    Raises:
        LibraryError: The library refused it.
    """
    try:
        return _environment().compile(source)
    except (RuntimeError, MemoryError) as error:
        raise LibraryError(str(error)) from None


def evaluate(program: Program, variables: Mapping[str, JsonValue]) -> JsonValue:
    """Evaluate with variables that `values` has admitted, and return the value as JSON.

    Raises:
        LibraryError: The evaluation failed.
        NotJson: The value has no JSON form.
    """
    try:
        value = program.eval(data=variables)
        return _to_json(value, 0)
    except (RuntimeError, MemoryError) as error:
        raise LibraryError(str(error) or "std::bad_alloc") from None


# The parts of the library's types that are used; its own stubs have `Any` for the content of a value.


class _Type(Protocol):
    def name(self) -> str: ...


class _Value(Protocol):
    def type(self) -> _Type: ...

    def value(self) -> object: ...

    def plain_value(self) -> object: ...


class _Environment(Protocol):
    def compile(self, expression: str) -> Program: ...


@functools.cache
def _environment() -> _Environment:
    return cast("_Environment", cel.NewEnv(variables=dict.fromkeys(VARIABLES, cel.Type.DYN)))


def _to_json(value: _Value, depth: int) -> JsonValue:
    kind = value.type().name()
    if kind in _SCALARS:
        return cast("bool | int | str", value.plain_value())
    if kind == "NULL":
        return None
    if kind == "DOUBLE":
        number = cast("float", value.plain_value())
        if not math.isfinite(number):
            raise NotJson(f"the value is {_name_of(number)}, which JSON cannot hold; test the operands first")
        return number
    if kind == "ERROR":
        raise LibraryError(str(value.plain_value()))
    if depth >= VALUE_DEPTH_MAX and kind.startswith(("LIST", "MAP")):
        raise NotJson(f"the value nests deeper than {VALUE_DEPTH_MAX} levels")
    if kind.startswith("LIST"):
        return [_to_json(item, depth + 1) for item in cast("list[_Value]", value.value())]
    if kind.startswith("MAP"):
        items = cast("dict[object, _Value]", value.value())
        if not all(isinstance(key, str) for key in items):
            raise NotJson("the keys of an object must be strings in JSON; write string(key)")
        keys = sorted(cast("dict[str, _Value]", items))
        return {key: _to_json(items[key], depth + 1) for key in keys}
    # Their Python forms know no nanoseconds; the library's own text does.
    if kind == "TIMESTAMP":
        year, dash, rest = repr(value).partition("-")
        return f"{year.zfill(4)}{dash}{rest}"
    if kind == "DURATION":
        return _duration_in_json(repr(value))
    if kind == "BYTES":
        raise NotJson("the value is bytes, which JSON cannot hold; write string(x) for UTF-8 text")
    raise NotJson(f"the value is a {kind.lower()}, which JSON cannot hold")


def _duration_in_json(text: str) -> str:
    """Write `1h2m3.5s` as proto JSON does: `3723.5s`."""
    seconds = sum((Decimal(part[1]) * _UNIT_S[part[2]] for part in _DURATION_PART.finditer(text)), Decimal())
    whole, _, fraction = f"{seconds:.9f}".partition(".")
    fraction = fraction.rstrip("0")
    sign = "-" if text.startswith("-") else ""
    return f"{sign}{whole}{'.' if fraction else ''}{fraction}s"


def _name_of(number: float) -> str:
    return "NaN" if math.isnan(number) else "infinite"
