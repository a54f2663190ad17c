"""Graph files: a graph in YAML or JSON, made for people.

A graph file is the proto JSON mapping of plait.v1.Graph, and more lenient:

- keys may be written as in the contract (`branch_name`) or as in JSON (`branchName`);
- `input` and `locked_output` may be the value itself. The message that holds its text, as proto JSON writes it, is
  accepted too: an object whose only key is `json`, with a string of JSON;
- enums may be short and in any case: `any` for `JOIN_MODE_ANY`;
- durations may be `500ms`, `30s`, `2m`, `1h30m`, or a number of seconds.

It is stricter in one respect: an unknown key is an error, because it is probably misspelt. What the graph means,
its ids and edges, is checked by the server.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, Final, Literal, cast

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from plait.v1 import graph_pb2, payload_pb2
from plait_client.file_values import FileProblem, UnreadableError, Value, quote, read_json, read_yaml

Format = Literal["json", "yaml"]

FILE_BYTES_MAX: Final = 64 * 1024 * 1024
"""A graph message is at most 16 MiB; as indented text it may be several times as large."""
PROBLEMS_SHOWN_MAX: Final = 50
"""As many as the server reports of a graph."""
GRAPHS_DEEP_MAX: Final = 16
"""How deep graphs may be nested in a graph; the server takes no more, and protobuf could write few more."""

_INT32_MAX: Final = 2**31 - 1
_DURATION_S_MAX: Final = 315_576_000_000
"""What google.protobuf.Duration can say; the server allows far less."""
_DURATION: Final = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|us|ns|s|m|h|d))+")
_DURATION_PART: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|us|ns|s|m|h|d)")
_UNITS: Final[Mapping[str, Fraction]] = {
    "ns": Fraction(1, 10**9),
    "us": Fraction(1, 10**6),
    "ms": Fraction(1, 1000),
    "s": Fraction(1),
    "m": Fraction(60),
    "h": Fraction(3600),
    "d": Fraction(86_400),
}
_YAML_1_1_BOOLEANS: Final = ("yes", "no", "on", "off", "y", "n")
# Longer texts are neither misspelt names nor durations; reading them would only take time.
_NAME_CHARS_MAX: Final = 100
_DURATION_CHARS_MAX: Final = 100


class GraphFileError(ValueError):
    """The graph file cannot be read as a graph."""

    def __init__(self, name: str, problems: Iterable[FileProblem]) -> None:
        self.name = name
        """The file's name, or what was said of the text."""
        self.problems = tuple(problems)
        """All that is wrong, by line where lines are known; at least one."""
        shown = [str(problem) for problem in self.problems[:PROBLEMS_SHOWN_MAX]]
        if len(self.problems) > PROBLEMS_SHOWN_MAX:
            shown.append(f"and {len(self.problems) - PROBLEMS_SHOWN_MAX:,} more")
        super().__init__(f"{name}: {shown[0]}" if len(shown) == 1 else "\n  ".join([f"{name}:", *shown]))


def load_graph(path_or_text: str | os.PathLike[str]) -> graph_pb2.Graph:
    """Read a graph from a file, or from text.

    Args:
        path_or_text: A path; a `str` that holds a line feed or begins with `{` is the text itself. A file
            whose name ends in `.json`, and text that begins with `{`, is JSON, all else YAML, which needs
            PyYAML.

    Raises:
        GraphFileError: The file cannot be read, or is no graph.
    """
    if isinstance(path_or_text, str) and ("\n" in path_or_text or path_or_text.lstrip().startswith("{")):
        return parse_graph(path_or_text)
    path = Path(path_or_text)
    try:
        with path.open("rb") as file:
            content = file.read(FILE_BYTES_MAX + 1)
        if len(content) > FILE_BYTES_MAX:
            raise UnreadableError(f"the file has more than {FILE_BYTES_MAX:,} bytes")
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise GraphFileError(str(path), [FileProblem(path="", message="the file is not UTF-8")]) from None
    except (OSError, UnreadableError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise GraphFileError(str(path), [FileProblem(path="", message=reason)]) from error
    return parse_graph(text, file_format="json" if path.suffix.lower() == ".json" else None, name=str(path))


def payload_text(value: object) -> str | None:
    """Return the text in the JSON mapping of a `plait.v1.Payload`; None if a value is none."""
    if not isinstance(value, dict):
        return None
    members = cast("dict[str, object]", value)
    text = members.get("json")
    if len(members) != 1 or not isinstance(text, str):
        return None
    try:
        json.loads(text)
    except ValueError:
        return None
    return text


def parse_graph(text: str, *, file_format: Format | None = None, name: str = "graph") -> graph_pb2.Graph:
    """Read a graph from text.

    Args:
        text: The text.
        file_format: What it is; by default JSON if it begins with `{`, else YAML.
        name: What errors call it.

    Raises:
        GraphFileError: It is no graph.
    """
    problems: list[FileProblem] = []
    is_json = file_format == "json" or (file_format is None and text.lstrip().startswith("{"))
    graph = graph_pb2.Graph()
    try:
        value = read_json(text, problems) if is_json else read_yaml(text, problems)
        _Mapper(problems).message(graph, value, "")
    except UnreadableError as error:
        problems.append(FileProblem(path="", message=str(error), line=error.line))
    if problems:
        # Sorting keeps the order of those that have no line.
        raise GraphFileError(name, sorted(problems, key=lambda problem: problem.line))
    return graph


class _Mapper:
    """Fills messages with values, and records what does not fit."""

    def __init__(self, problems: list[FileProblem]) -> None:
        self._problems = problems
        self._depth = 0
        """How many graphs are around the one that is filled."""
        self._fields: dict[str, Mapping[str, FieldDescriptor]] = {}

    def message(self, message: Message, value: Value, path: str) -> None:
        """Fill a message with an object."""
        if not isinstance(value.content, dict):
            self._expect("an object", value, path)
            return
        descriptor = cast("Descriptor", message.DESCRIPTOR)
        fields = self._fields_of(descriptor)
        given: dict[str, str] = {}
        for key, item in value.content.items():
            inner = f"{path}.{key}" if path else key
            field = fields.get(key)
            if field is None:
                self._unknown_key(descriptor, key, item, path)
                continue
            # Null is an absent value in proto JSON, but `transform:` with nothing behind it is a transform.
            is_mark = item.text == "" and _is_marker(field)
            if item.content is None and not _takes_null(field) and not is_mark:
                continue
            group = field.containing_oneof.name if field.containing_oneof is not None else field.name
            if group in given:
                self._report(
                    inner, item, f"only one of `{given[group]}` and `{key}` can be given; remove one"
                )
                continue
            given[group] = key
            self._field(message, field, item, inner)

    def _field(self, message: Message, field: FieldDescriptor, value: Value, path: str) -> None:
        if _is_map(field):
            self._map(message, field, value, path)
        elif field.is_repeated:
            self._list(message, field, value, path)
        elif field.message_type is not None:
            inner = cast("Message", getattr(message, field.name))
            inner.SetInParent()
            self._singular(inner, value, path)
        else:
            scalar = self._scalar(field, value, path)
            if scalar is not None:
                setattr(message, field.name, scalar)

    def _list(self, message: Message, field: FieldDescriptor, value: Value, path: str) -> None:
        if not isinstance(value.content, list):
            self._expect("a list", value, path)
            return
        # The element type depends on the field, which static types cannot express.
        items: Any = getattr(message, field.name)
        for place, item in enumerate(value.content):
            inner = f"{path}[{place}]"
            if item.content is None:
                self._report(inner, item, "the list has an empty item; remove it")
            elif field.message_type is not None:
                self._singular(cast("Message", items.add()), item, inner)
            else:
                scalar = self._scalar(field, item, inner)
                if scalar is not None:
                    items.append(scalar)

    def _map(self, message: Message, field: FieldDescriptor, value: Value, path: str) -> None:
        if not isinstance(value.content, dict):
            self._expect("an object", value, path)
            return
        members = cast("dict[str, str]", getattr(message, field.name))
        for key, item in value.content.items():
            text = self._text(item, f"{path}.{key}")
            if text is not None and self._is_utf8(key, item, path):
                members[key] = text

    def _singular(self, message: Message, value: Value, path: str) -> None:
        match message:
            case payload_pb2.Payload():
                self._payload(message, value, path)
            case Duration():
                self._duration(message, value, path)
            case graph_pb2.Graph() if self._depth == GRAPHS_DEEP_MAX:
                self._report(
                    path, value, f"graphs are nested more than {GRAPHS_DEEP_MAX} deep; nest them less"
                )
            case _:
                is_graph = isinstance(message, graph_pb2.Graph)
                self._depth += is_graph
                self.message(message, Value({}, value.line) if value.content is None else value, path)
                self._depth -= is_graph

    def _payload(self, message: payload_pb2.Payload, value: Value, path: str) -> None:
        plain = value.plain()
        text = payload_text(plain)
        if text is None:
            text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"))
        if self._is_utf8(text, value, path):
            message.json = text

    def _duration(self, message: Duration, value: Value, path: str) -> None:
        seconds = _seconds(value)
        if seconds is None:
            self._expect("a duration such as 30s, 500ms, 2m or 1h, or a number of seconds", value, path)
        elif seconds < 0:
            self._report(path, value, "a duration cannot be negative")
        elif seconds > _DURATION_S_MAX:
            self._report(path, value, f"a duration is at most {_DURATION_S_MAX:,} seconds")
        else:
            nanos = round(seconds * 10**9)
            message.seconds, message.nanos = divmod(nanos, 10**9)

    def _scalar(self, field: FieldDescriptor, value: Value, path: str) -> str | bool | int | float | None:
        match field.type:
            case FieldDescriptor.TYPE_STRING:
                return self._text(value, path)
            case FieldDescriptor.TYPE_BOOL:
                return self._boolean(value, path)
            case FieldDescriptor.TYPE_ENUM:
                return self._enum(field, value, path)
            case FieldDescriptor.TYPE_DOUBLE:
                return self._double(value, path)
            case _:
                return self._int32(value, path)

    def _text(self, value: Value, path: str) -> str | None:
        text = value.content if isinstance(value.content, str) else value.text
        if text is None or value.content is None:
            hint = f'"{str(value.content).lower()}"' if isinstance(value.content, bool | int) else ""
            self._expect(f"a text{f'; write {hint}' if hint else ''}", value, path)
            return None
        return text if self._is_utf8(text, value, path) else None

    def _boolean(self, value: Value, path: str) -> bool | None:
        if isinstance(value.content, bool):
            return value.content
        if value.text is not None and value.text.lower() in _YAML_1_1_BOOLEANS:
            self._report(path, value, f"{quote(value.text)} is a text in YAML 1.2; write true or false")
        else:
            self._expect("true or false", value, path)
        return None

    def _int32(self, value: Value, path: str) -> int | None:
        number = value.content
        if isinstance(number, float) and number.is_integer():
            number = int(number)
        if isinstance(number, bool) or not isinstance(number, int):
            self._expect("a whole number", value, path)
            return None
        if not -_INT32_MAX - 1 <= number <= _INT32_MAX:
            self._report(path, value, "the number does not fit into 32 bits")
            return None
        return number

    def _double(self, value: Value, path: str) -> float | None:
        if isinstance(value.content, bool) or not isinstance(value.content, int | float):
            self._expect("a number", value, path)
            return None
        try:
            return float(value.content)
        except OverflowError:
            self._report(path, value, "the number is beyond the range of a double")
            return None

    def _enum(self, field: FieldDescriptor, value: Value, path: str) -> int | None:
        enum_type: Any = field.enum_type
        numbers: dict[str, int] = {member.name: member.number for member in enum_type.values}
        # The first value is PREFIX_UNSPECIFIED; the prefix is what all names begin with.
        prefix = enum_type.values[0].name.removesuffix("UNSPECIFIED")
        short = {name.removeprefix(prefix): number for name, number in numbers.items()}
        word = value.content
        if isinstance(word, int) and not isinstance(word, bool) and word in numbers.values():
            return word
        if isinstance(word, str):
            number = (short | numbers).get(word.strip().upper().replace("-", "_"))
            if number is not None:
                return number
            meant = _nearest(word.upper(), short)
            names = ", ".join(name for name in short if name != "UNSPECIFIED")
            question = f" did you mean {meant}?" if meant else ""
            self._report(path, value, f"there is no {quote(word)} here;{question} there are {names}")
            return None
        self._expect(f"one of {', '.join(name for name in short if name != 'UNSPECIFIED')}", value, path)
        return None

    def _is_utf8(self, text: str, value: Value, path: str) -> bool:
        try:
            text.encode()
        except UnicodeEncodeError:
            self._report(path, value, "half of a surrogate pair stands alone; remove it")
            return False
        return True

    def _unknown_key(self, descriptor: Descriptor, key: str, value: Value, path: str) -> None:
        names = [field.name for field in descriptor.fields]
        meant = _nearest(key, self._fields_of(descriptor))
        remedy = f"did you mean {quote(meant)}?" if meant else f"here may stand {', '.join(names)}"
        self._report(path, value, f"unknown key {quote(key)}; {remedy}")

    def _expect(self, what: str, value: Value, path: str) -> None:
        self._report(path, value, f"expected {what}, found {_describe(value)}")

    def _report(self, path: str, value: Value, message: str) -> None:
        self._problems.append(FileProblem(path=path, message=message, line=value.line))

    def _fields_of(self, descriptor: Descriptor) -> Mapping[str, FieldDescriptor]:
        fields = self._fields.get(descriptor.full_name)
        if fields is None:
            fields = {field.name: field for field in descriptor.fields} | {
                field.json_name: field for field in descriptor.fields
            }
            self._fields[descriptor.full_name] = fields
        return fields


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _takes_null(field: FieldDescriptor) -> bool:
    return field.message_type is payload_pb2.Payload.DESCRIPTOR


def _is_marker(field: FieldDescriptor) -> bool:
    """Return whether the presence of a field is all it says: a message without fields."""
    return field.message_type is not None and not field.message_type.fields


def _seconds(value: Value) -> Fraction | None:
    match value.content:
        case bool():
            return None
        case int() | float():
            return Fraction(value.content)
        case str(text):
            stripped = text.strip().removeprefix("-")
            if len(stripped) > _DURATION_CHARS_MAX or not _DURATION.fullmatch(stripped):
                return None
            total = sum(
                (Fraction(number) * _UNITS[unit] for number, unit in _DURATION_PART.findall(stripped)),
                Fraction(),
            )
            return -total if text.strip().startswith("-") else total
        case _:
            return None


def _nearest(name: str, names: Iterable[str]) -> str | None:
    found = difflib.get_close_matches(name[:_NAME_CHARS_MAX], list(names), n=1)
    return found[0] if found else None


def _describe(value: Value) -> str:
    match value.content:
        case None:
            return "nothing"
        case bool():
            return "true" if value.content else "false"
        case int() | float():
            return f"the number {quote(value.text or str(value.content))}".replace('"', "")
        case str(text):
            return f"the text {quote(text)}"
        case list():
            return "a list"
        case dict():
            return "an object"
