"""Reads YAML and JSON into values with line numbers, so that both formats mean the same.

YAML is read by the core schema of YAML 1.2, which is JSON's: `yes`, `no`, `on`, `off`, dates and `1_000` are
texts, keys are texts whatever they look like, no key stands twice, and there are no tags and no merge keys.
The text of a plain scalar is kept beside its value, so that `handle: true` can mean the handle of that name.

YAML comes as the parser's events, one by one, onto a stack kept here: nothing recurses before the depth is
known, and aliases, whose values are shared, count as if they were written out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, cast

if TYPE_CHECKING:
    import yaml

DEPTH_MAX: Final = 140
"""The server takes values 64 deep, in graphs 16 deep in one another, each of which adds four levels."""
ALIASED_VALUES_MAX: Final = 100_000
"""Values that aliases may stand for in all: a page of aliases of aliases could stand for billions."""

QUOTED_CHARS_MAX: Final = 80
"""Enough to recognize a text by."""

Content: TypeAlias = "bool | int | float | str | list[Value] | dict[str, Value] | None"
Plain: TypeAlias = "bool | int | float | str | list[Plain] | dict[str, Plain] | None"
"""A JSON value without lines."""

_INTEGER: Final = re.compile(r"[-+]?[0-9]+")
_OCTAL: Final = re.compile(r"0o[0-7]+")
_HEXADECIMAL: Final = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT: Final = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE: Final = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_STRING_TAG: Final = "tag:yaml.org,2002:str"


@dataclass(slots=True)
class Value:
    """A value and where it stands."""

    content: Content
    line: int = 0
    """From 1; 0 in JSON, whose reader does not say."""
    text: str | None = None
    """How a plain YAML scalar is written; None for all else."""
    size: int = 1
    """How many values it is, itself included, aliases written out."""

    def plain(self) -> Plain:
        """Return the value as JSON's own types."""
        match self.content:
            case list(items):
                return [item.plain() for item in items]
            case dict(members):
                return {key: item.plain() for key, item in members.items()}
            case scalar:
                return scalar


@dataclass(frozen=True, slots=True, kw_only=True)
class FileProblem:
    """One thing wrong with a file."""

    path: str
    """Path of the value, such as `nodes[3].retry`; empty when it is about the file as a whole."""
    message: str
    """What is wrong and what to do."""
    line: int = 0
    """From 1; 0 when it is not known."""

    def __str__(self) -> str:
        places = [*([self.path] if self.path else []), *([f"line {self.line}"] if self.line else [])]
        return ": ".join([*([", ".join(places)] if places else []), self.message])


class UnreadableError(ValueError):
    """The text cannot be read as JSON or YAML at all."""

    def __init__(self, message: str, line: int = 0) -> None:
        super().__init__(message)
        self.line = line
        """From 1; 0 when it is not known."""


def quote(text: str) -> str:
    """Put a text of the file in quotes, a long one cut, an unprintable one escaped."""
    cut = text if len(text) <= QUOTED_CHARS_MAX else f"{text[:QUOTED_CHARS_MAX]}…"
    return json.dumps(cut, ensure_ascii=not cut.isprintable())


def read_json(text: str, problems: list[FileProblem]) -> Value:
    """Read JSON; keys that stand twice in an object are added to `problems`, the first is kept.

    Raises:
        UnreadableError: The text is no JSON, or nests too deep.
    """
    decoder = json.JSONDecoder(
        object_pairs_hook=_Members, parse_float=_finite, parse_constant=_refuse_constant
    )
    try:
        return _from_json(decoder.decode(text), "", 0, problems)
    except json.JSONDecodeError as error:
        message = f"this is no JSON: {error.msg[:1].lower()}{error.msg[1:]}, column {error.colno}"
        raise UnreadableError(message, error.lineno) from None
    except RecursionError:
        raise _too_deep(0) from None
    except UnreadableError:
        raise
    except ValueError as error:
        # Of an integer of more than 4,300 digits.
        raise UnreadableError(str(error)) from None


class _Members(list[tuple[str, object]]):
    """An object as the decoder finds it."""


def _from_json(found: object, path: str, depth: int, problems: list[FileProblem]) -> Value:
    if depth > DEPTH_MAX:
        raise _too_deep(0)
    if isinstance(found, _Members):
        members: dict[str, Value] = {}
        for key, item in found:
            inner = f"{path}.{key}" if path else key
            if key in members:
                problems.append(FileProblem(path=inner, message="the key stands twice; remove one"))
            else:
                members[key] = _from_json(item, inner, depth + 1, problems)
        return Value(members)
    if isinstance(found, list):
        items = cast("list[object]", found)
        return Value(
            [_from_json(item, f"{path}[{place}]", depth + 1, problems) for place, item in enumerate(items)]
        )
    return Value(cast("bool | int | float | str | None", found))


def _finite(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise UnreadableError(f"the number {quote(text)} is beyond the range of a double")
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise UnreadableError(f"{name} is no JSON; write null or a text")


def _too_deep(line: int) -> UnreadableError:
    return UnreadableError(f"lists and objects nest deeper than {DEPTH_MAX} levels", line)


def read_yaml(text: str, problems: list[FileProblem]) -> Value:
    """Read one YAML document; keys that stand twice are added to `problems`, the first is kept.

    Raises:
        UnreadableError: The text is no YAML, goes beyond what JSON can say, nests too deep, or has aliases
            for too much; or PyYAML is not installed.
    """
    try:
        import yaml  # noqa: PLC0415 -- An extra: JSON is read without it.
    except ImportError:
        message = 'reading YAML needs PyYAML: pip install "plait[cli]"; JSON needs nothing'
        raise UnreadableError(message) from None
    # libyaml's parser is twenty times as fast; wheels have it, builds from source may not.
    loader = cast("type[yaml.SafeLoader]", getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        return _YamlReader(problems).read(yaml.parse(text, Loader=loader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        message = f"this is no YAML: {error.problem or error.context}"
        raise UnreadableError(message, mark.line + 1 if mark else 0) from None
    except yaml.YAMLError as error:
        raise UnreadableError(f"this is no YAML: {str(error).splitlines()[0]}") from None


@dataclass(slots=True)
class _Open:
    """A list or object that has begun."""

    value: Value
    path: str
    anchor: str | None
    key: str | None = None
    """Of an object: the key whose value comes next."""
    is_twice: bool = False
    """Whether that key stood before, so that its value is dropped."""


class _YamlReader:
    """Makes values of the parser's events."""

    def __init__(self, problems: list[FileProblem]) -> None:
        self._problems = problems
        self._open: list[_Open] = []
        self._anchors: dict[str, Value] = {}
        self._aliased = 0
        self._root: Value | None = None

    def read(self, events: Iterator[yaml.Event]) -> Value:
        import yaml  # noqa: PLC0415 -- As above.

        for event in events:
            line = event.start_mark.line + 1 if event.start_mark else 0
            match event:
                case yaml.ScalarEvent():
                    self._scalar(event, line)
                case yaml.AliasEvent():
                    self._alias(event.anchor or "", line)
                case yaml.SequenceStartEvent():
                    self._begin(Value([], line), event.anchor, event.tag)
                case yaml.MappingStartEvent():
                    self._begin(Value({}, line), event.anchor, event.tag)
                case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                    self._end()
                case yaml.DocumentStartEvent() if self._root is not None:
                    raise UnreadableError("a second document begins here; a file holds one graph", line)
                case _:
                    pass
        return self._root or Value(None)

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> None:
        # `!` says that it is a text, which the parsers call implicit all the same.
        is_plain = event.implicit[0] and event.tag is None
        if self._expects_key():
            if event.value == "<<" and is_plain:
                raise UnreadableError("YAML 1.2 has no merge keys (`<<`); write the keys out", line)
            self._key(event.value, line)
            return
        if event.tag not in (None, "!", _STRING_TAG):
            raise UnreadableError(f"the tag {quote(str(event.tag))} is not supported; remove it", line)
        value = Value(event.value, line)
        if is_plain:
            value = Value(_resolve(event.value, line), line, event.value)
        if event.anchor:
            self._anchors[event.anchor] = value
        self._add(value)

    def _alias(self, name: str, line: int) -> None:
        value = self._anchors.get(name)
        if value is None:
            raise UnreadableError(f"no value before this one is anchored as {quote(name)}", line)
        if self._expects_key():
            raise UnreadableError("an alias cannot be a key; write the key out", line)
        self._aliased += value.size
        if self._aliased > ALIASED_VALUES_MAX:
            message = f"the aliases stand for more than {ALIASED_VALUES_MAX:,} values; write fewer"
            raise UnreadableError(message, line)
        self._add(value)

    def _begin(self, value: Value, anchor: str | None, tag: str | None) -> None:
        if tag not in (None, "!"):
            raise UnreadableError(f"the tag {quote(str(tag))} is not supported; remove it", value.line)
        if self._expects_key():
            raise UnreadableError("a list or object cannot be a key", value.line)
        if len(self._open) >= DEPTH_MAX:
            raise _too_deep(value.line)
        self._open.append(_Open(value=value, path=self._path(), anchor=anchor))

    def _end(self) -> None:
        ended = self._open.pop()
        if ended.anchor:
            self._anchors[ended.anchor] = ended.value
        self._add(ended.value)

    def _expects_key(self) -> bool:
        if not self._open:
            return False
        top = self._open[-1]
        return top.key is None and isinstance(top.value.content, dict)

    def _key(self, key: str, line: int) -> None:
        top = self._open[-1]
        members = cast("dict[str, Value]", top.value.content)
        top.key = key
        top.is_twice = key in members
        if top.is_twice:
            message = f"the key stands twice, first in line {members[key].line}; remove one"
            self._problems.append(FileProblem(path=self._path(), message=message, line=line))

    def _add(self, value: Value) -> None:
        if not self._open:
            self._root = value
            return
        top = self._open[-1]
        match top.value.content:
            case list(items):
                items.append(value)
            case dict(members):
                if not top.is_twice:
                    members[cast("str", top.key)] = value
                top.key = None
            case _:
                pass
        top.value.size += value.size

    def _path(self) -> str:
        """Return the path of the value that comes next."""
        if not self._open:
            return ""
        top = self._open[-1]
        if isinstance(top.value.content, list):
            return f"{top.path}[{len(top.value.content)}]"
        return f"{top.path}.{top.key}" if top.path else str(top.key)


def _resolve(text: str, line: int) -> bool | int | float | str | None:
    """Return the value of a plain scalar by the core schema (YAML 1.2.2, section 10.3.2)."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789":
        return text
    try:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
            return int(text, 0)
    except ValueError:
        raise UnreadableError("an integer has more than 4,300 digits", line) from None
    if _NOT_FINITE.fullmatch(text):
        raise UnreadableError(f"JSON has no {quote(text)}; write null, or a text in quotes", line)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if math.isinf(value):
            raise UnreadableError(f"the number {quote(text)} is beyond the range of a double", line)
        return value
    return text
