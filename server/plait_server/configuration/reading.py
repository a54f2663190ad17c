"""Reads the options of a configuration: a flag wins over a variable, that over the file, that over the default.

Each option of a table's entry is one of its own: a variable may set `types.render.rate` and the file
`types.render.max_concurrency`. All problems are found together. No message quotes a value of an unknown option: it may
be a secret that stands in the wrong place.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, cast

from plait_server.configuration.options import Declared, InvalidValue, Option, OptionTable, Value
from plait_server.core.definition.nearest import nearest, quote
from plait_server.core.limits import ID_PATTERN

PREFIX: Final = "PLAIT_"
"""What the names of variables begin with."""
FILE_BYTES_MAX: Final = 2**20
"""A hundred times the example, with room for thousands of tables."""
PROBLEMS_MAX: Final = 50
"""The problems that are listed; more are counted."""

Path = tuple[str, ...]
"""`("store",)` for an option, `("types", "render", "rate")` for one of a table's entry."""

# What Docker's links and Kubernetes define for a service that is called `plait`.
# PLAIT_PORT alone may be an option that somebody hoped for, so its value is looked at.
_SERVICE_LINK: Final = re.compile(
    r"PLAIT_(?:\w+_)?(?:SERVICE_(?:HOST|PORT(?:_\w+)?)=|PORT=(?:tcp|udp|sctp)://|PORT_\d+_(?:TCP|UDP|SCTP))"
)
_NAME: Final = re.compile(ID_PATTERN)
_BARE: Final = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with a configuration."""

    source: str
    """Where it stands: `plait.toml, line 3`, `PLAIT_STORE`, `--store`."""
    text: str
    """What is wrong, and what to do."""

    def __str__(self) -> str:
        """Write it as one line."""
        return f"{self.source}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effective:
    """The value of an option, and its source."""

    path: Path
    """The option."""
    value: Value
    """Its value."""
    source: str
    """Where it was set, as in `Problem`; `default` if nowhere."""


@dataclass(slots=True)
class Reading:
    """What was read from the sources. Later sources win: read the file first, then variables, then flags."""

    declared: Sequence[Declared]
    """The options that there are."""
    problems: list[Problem] = field(default_factory=list[Problem])
    """What is wrong so far."""
    refused: set[str] = field(default_factory=set[str])
    """The options, and tables, that have a value which was refused."""
    _given: dict[Path, tuple[Value, str]] = field(default_factory=dict[Path, tuple[Value, str]])

    def read_file(self, name: str, content: bytes) -> None:
        """Read a TOML file.

        Args:
            name: The file's name, for messages.
            content: The file's content.
        """
        if len(content) > FILE_BYTES_MAX:
            self.problems.append(Problem(source=name, text=f"is larger than {FILE_BYTES_MAX:,} bytes"))
            return
        try:
            text = content.decode()
            document = tomllib.loads(text)
        except UnicodeDecodeError as error:
            self.problems.append(Problem(source=name, text=f"is not UTF-8 at byte {error.start:,}"))
            return
        except RecursionError:
            self.problems.append(Problem(source=name, text="is not TOML: it is nested too deeply"))
            return
        except ValueError as error:
            # A number of thousands of digits raises one that is no TOMLDecodeError.
            reason = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "a number is too long"
            self.problems.append(Problem(source=name, text=f"is not TOML: {reason}"))
            return
        lines = _lines_of(text)
        for key, value in document.items():
            self._read_key(name, lines, key, value)

    def read_variables(self, variables: Mapping[str, str], others: Sequence[str]) -> None:
        """Read environment variables: those that begin with `PLAIT_` and are not empty.

        Args:
            variables: The environment.
            others: The names of variables that mean something else.
        """
        names = {PREFIX + each.name.upper(): each for each in self.declared}
        for name in sorted(variables):
            if not name.startswith(PREFIX) or not variables[name] or name in others:
                continue
            if name in names:
                self._read_text(name, names[name], [variables[name]])
            elif not _SERVICE_LINK.match(f"{name}={variables[name]}"):
                # Without the prefix, which would make any two look alike.
                short = (each.removeprefix(PREFIX) for each in (*names, *others))
                near = nearest(name.removeprefix(PREFIX), short)
                hint = (
                    f"did you mean {PREFIX}{near}?"
                    if near
                    else "`plait config show-defaults` lists the options"
                )
                self.problems.append(Problem(source=name, text=f"there is no such variable; {hint}"))

    def read_flags(self, flags: Mapping[str, Sequence[str]]) -> None:
        """Read flags.

        Args:
            flags: The texts given for each option, by its name.
        """
        for each in self.declared:
            if texts := flags.get(each.name):
                self._read_text(flag_of(each), each, texts)

    def effective(self) -> Iterator[Effective]:
        """Yield the value of each option with its source, in the order of their declaration."""
        for each in self.declared:
            if isinstance(each, Option):
                yield self._effective((each.name,), each)
                continue
            for name in self._names(each):
                for option in each.options:
                    yield self._effective((each.name, name, option.name), option)

    def values(self) -> dict[str, object]:
        """Return the arguments of the configuration's dataclass."""
        arguments: dict[str, object] = {}
        for each in self.declared:
            if isinstance(each, Option):
                arguments[each.name] = self._effective((each.name,), each).value
                continue
            arguments[each.name] = {
                name: each.make(
                    **{
                        option.name: self._effective((each.name, name, option.name), option).value
                        for option in each.options
                    }
                )
                for name in self._names(each)
            }
        return arguments

    def _names(self, table: OptionTable) -> Sequence[str]:
        return list(dict.fromkeys(path[1] for path in self._given if path[0] == table.name))

    def _effective(self, path: Path, option: Option) -> Effective:
        value, source = self._given.get(path, (option.default, "default"))
        return Effective(path=path, value=value, source=source)

    def _read_key(self, file: str, lines: Mapping[Path, int], key: str, value: object) -> None:
        source = _place(file, lines, (key,))
        declared = _find(self.declared, key)
        match declared:
            case None:
                self._unknown(source, key, self.declared)
            case Option():
                self._set((key,), declared, value, source)
            case OptionTable():
                if not isinstance(value, dict):
                    text = f"{key} is a table of entries by name; write [{key}.NAME] and its options below"
                    self.problems.append(Problem(source=source, text=text))
                    return
                for name, entry in cast("dict[str, object]", value).items():
                    self._read_entry(file, lines, declared, name, entry)

    def _read_entry(
        self, file: str, lines: Mapping[Path, int], table: OptionTable, name: str, entry: object
    ) -> None:
        source = _place(file, lines, (table.name, name))
        if not isinstance(entry, dict) or not self._check_name(source, table, name):
            if not isinstance(entry, dict):
                text = (
                    f"{table.name}.{quote(name)} is no table; write [{table.name}.{quote(name)}] and options"
                )
                self.problems.append(Problem(source=source, text=text))
            return
        for key, value in cast("dict[str, object]", entry).items():
            path = (table.name, name, key)
            source = _place(file, lines, path)
            option = _find(table.options, key)
            if isinstance(option, Option):
                self._set(path, option, value, source)
            else:
                self._unknown(source, key, table.options, f"[{table.name}.{quote(name)}]")

    def _read_text(self, source: str, declared: Declared, texts: Sequence[str]) -> None:
        if isinstance(declared, Option):
            self._parse((declared.name,), declared, texts[-1], source)
            return
        for part in (each.strip() for text in texts for each in text.split(",")):
            key, equals, text = part.partition("=")
            name, _, last = key.strip().rpartition(".")
            if not equals or not name:
                example = f"NAME.{declared.options[0].name}=VALUE, separated by commas"
                self.problems.append(Problem(source=source, text=f"{quote(part)} is not {example}"))
            elif self._check_name(source, declared, name):
                option = _find(declared.options, last)
                if isinstance(option, Option):
                    self._parse((declared.name, name, last), option, text, source)
                else:
                    self._unknown(source, last, declared.options, f"an entry of {declared.name}")

    def _check_name(self, source: str, table: OptionTable, name: str) -> bool:
        if _NAME.fullmatch(name) or (table.has_all and name == "*"):
            return True
        or_all = ", or be * for all" if table.has_all else ""
        text = f"{quote(name)} in {table.name} is no name; it must match {ID_PATTERN}{or_all}"
        self.problems.append(Problem(source=source, text=text))
        return False

    def _parse(self, path: Path, option: Option, text: str, source: str) -> None:
        try:
            self._given[path] = option.parse(text), source
        except InvalidValue as error:
            self.refused.add(path[0])
            self.problems.append(Problem(source=source, text=f"{path_text(path)}: {error}"))

    def _set(self, path: Path, option: Option, value: object, source: str) -> None:
        try:
            self._given[path] = option.check(value), source
        except InvalidValue as error:
            self.refused.add(path[0])
            self.problems.append(Problem(source=source, text=f"{path_text(path)}: {error}"))

    def _unknown(self, source: str, name: str, among: Sequence[Declared], where: str = "") -> None:
        near = nearest(name, [each.name for each in among])
        hint = f"did you mean {near}?" if near else "`plait config show-defaults` lists the options"
        inside = f" in {where}" if where else ""
        self.problems.append(Problem(source=source, text=f"there is no option {quote(name)}{inside}; {hint}"))


def flag_of(declared: Declared) -> str:
    """Return the flag of an option: `--server-limit`."""
    return f"--{declared.name.replace('_', '-')}"


def path_text(path: Path) -> str:
    """Write the path of an option as the file has it: `types."gpu.render".rate`."""
    return ".".join(part if _BARE.fullmatch(part) else quote(part) for part in path)


def _find(declared: Sequence[Declared], name: str) -> Declared | None:
    return next((each for each in declared if each.name == name), None)


def _place(file: str, lines: Mapping[Path, int], path: Path) -> str:
    # What stands in an inline table is found by the line of the table.
    for length in range(len(path), 0, -1):
        if line := lines.get(path[:length]):
            return f"{file}, line {line}"
    return file


def _lines_of(text: str) -> dict[Path, int]:
    """Return the number of the line in which each key and each table of a valid document begins.

    `tomllib` does not tell. Lines that are no key and no header by themselves are skipped, so a line within a text of
    several lines may be taken for a key; that only moves a number in a message.
    """
    found: dict[Path, int] = {}
    table: Path = ()
    for number, line in enumerate(text.split("\n"), start=1):
        stripped = line.strip()
        is_header = stripped.startswith("[")
        source = stripped if is_header else f"{stripped.partition('=')[0]} = 0"
        if not stripped or (not is_header and "=" not in stripped):
            continue
        try:
            path = _only_path(tomllib.loads(source))
        except tomllib.TOMLDecodeError:
            continue
        if is_header:
            table = path
        for length in range(1, len(path) + 1):
            found.setdefault(path[:length] if is_header else table + path[:length], number)
    return found


def _only_path(document: Mapping[str, object]) -> Path:
    path: list[str] = []
    inner: Mapping[str, object] = document
    while inner:
        [(key, value)] = inner.items()
        path.append(key)
        inner = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    return tuple(path)
