"""`plait serve`, and `plait config`, which checks what it would be given."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias

import click

from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.text import complain, count, echo, one_line
from plait_server.config import MEMORY_STORE, OTHER_VARIABLES, ServerConfig
from plait_server.configuration.example import example_of, toml_value
from plait_server.configuration.options import Declared, Kind, Option, options_of
from plait_server.configuration.reading import (
    FILE_BYTES_MAX,
    PREFIX,
    PROBLEMS_MAX,
    Effective,
    Problem,
    Reading,
    flag_of,
    path_text,
)
from plait_server.errors import PlaitError

CONFIG_VARIABLE: Final = "PLAIT_CONFIG"
EXAMPLE_HEAD: Final = """\
The options of `plait serve`, with their defaults. Start a server with one of:
  plait serve --config plait.toml
  PLAIT_CONFIG=plait.toml plait serve
A flag wins over a variable, that over this file, that over the default. `plait config check` shows what holds.
Written by `plait config show-defaults`."""

_DECLARED: Final = options_of(ServerConfig)
_FLAG: Final = re.compile(
    rf"--({'|'.join(declared.name.replace('_', '-') for declared in _DECLARED)})(?![\w-])"
)
_PROTECTION: Final = frozenset({"tls_cert", "tls_key", "tokens_file"})
_NOUNS: Final = {"tls_cert": "certificate", "tls_key": "key", "tls_client_ca": "client CA"}
_Check: TypeAlias = tuple[str, Callable[[], object]]
"""The option that is checked, and what raises the problem."""


def _option_of(declared: Declared) -> Callable[[Callable[..., int]], Callable[..., int]]:
    """Return the decorator that adds an option's flag. Its value is the texts that were given."""
    flag = flag_of(declared)
    if isinstance(declared, Option) and declared.kind is Kind.BOOL:
        negative = f"--no-{flag.removeprefix('--')}"
        return click.option(f"{flag}/{negative}", declared.name, default=None, help=declared.text)
    if isinstance(declared, Option):
        shown = f"  [default: {declared.default}]" if declared.default not in {None, ""} else ""
        meaning = "|".join(declared.choices) or declared.kind.name
        return click.option(
            flag, declared.name, multiple=True, metavar=meaning, help=f"{declared.text}{shown}"
        )
    meaning = f"NAME.{declared.options[0].name}=VALUE"
    others = ", ".join(option.name for option in declared.options)
    text = f"{declared.text} Options: {others}; may be given often."
    return click.option(flag, declared.name, multiple=True, metavar=meaning, help=text)


def _config_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add `--config` and a flag for each option of the server."""
    for declared in reversed(_DECLARED):
        function = _option_of(declared)(function)
    return click.option(
        "--config",
        "file",
        envvar=CONFIG_VARIABLE,
        show_envvar=True,
        metavar="FILE",
        type=click.Path(path_type=Path),
        help="A TOML file with these options; `plait config show-defaults` writes an example.",
    )(function)


def _read(file: Path | None, flags: Mapping[str, bool | Sequence[str] | None]) -> Reading:
    reading = Reading(_DECLARED)
    if file is not None:
        try:
            with file.open("rb") as stream:
                reading.read_file(str(file), stream.read(FILE_BYTES_MAX + 1))
        except OSError as error:
            reading.problems.append(Problem(source=str(file), text=f"cannot be read: {error.strerror}"))
    reading.read_variables(os.environ, OTHER_VARIABLES)
    given = {
        name: [str(value).lower()] if isinstance(value, bool) else value for name, value in flags.items()
    }
    reading.read_flags({name: texts for name, texts in given.items() if texts})
    return reading


def _config_of(reading: Reading, *, reads_files: bool = False) -> ServerConfig | None:
    """Return the configuration; None if it is wrong, which the user has been told."""
    problems = [str(problem) for problem in reading.problems]
    # The types are checked; what was refused has its default.
    config = ServerConfig(**reading.values())  # type: ignore[arg-type]
    sources = {each.path[0]: each.source for each in reading.effective()}
    for name, check in (*_checks(config, reading), *(_checks_of_files(config) if reads_files else ())):
        try:
            check()
        except PlaitError as error:
            problems.append(f"{sources[name]}: {_in_terms_of(sources[name], str(error))}")
    if not problems:
        return config
    complain(f"plait: {count(len(problems), 'problem')} in the configuration:")
    for line in problems[:PROBLEMS_MAX]:
        complain(f"  {one_line(line)}")
    if len(problems) > PROBLEMS_MAX:
        complain(f"  and {len(problems) - PROBLEMS_MAX:,} more")
    return None


def _checks(config: ServerConfig, reading: Reading) -> Iterator[_Check]:
    """Yield what compares options with each other, unless one of them is wrong itself."""
    tls = [name for name in ("tls_cert", "tls_key", "tls_client_ca") if getattr(config, name)]
    if tls and not reading.refused & {*_PROTECTION, "tls_client_ca"}:
        yield tls[0], config.check_tls
    if not reading.refused & {*_PROTECTION, "listen", "insecure"}:
        yield "listen", config.check_address


def _in_terms_of(source: str, message: str) -> str:
    """Name the options of a message about a file as the file does, by their keys; elsewhere flags will do."""
    variables = {f"{PREFIX}{declared.name.upper()}" for declared in _DECLARED}
    if source.startswith("--") or source == "default" or source in variables:
        return message
    return _FLAG.sub(lambda flag: flag[1].replace("-", "_"), message.replace("pass --", "set --"))


def _checks_of_files(config: ServerConfig) -> Iterator[_Check]:
    """Yield the name of an option and what reads the files that it names."""
    # Imported here, for they need the server's extra.
    from plait_server.adapters.access.tls_files import ServerTls, TlsFiles, read_part  # noqa: PLC0415
    from plait_server.adapters.access.tokens_file import read_entries  # noqa: PLC0415
    from plait_server.adapters.journals.sqlite_file import require_store  # noqa: PLC0415

    parts = {
        name: Path(text)
        for name in ("tls_cert", "tls_key", "tls_client_ca")
        if (text := getattr(config, name))
    }
    for name, path in parts.items():
        yield name, partial(read_part, path, _NOUNS[name])
    if config.tls_cert and config.tls_key and all(os.access(path, os.R_OK) for path in parts.values()):
        client_ca = Path(config.tls_client_ca) if config.tls_client_ca else None
        files = TlsFiles(certificate=Path(config.tls_cert), key=Path(config.tls_key), client_ca=client_ca)
        yield "tls_cert", lambda: ServerTls(files)
    if config.tokens_file:
        yield "tokens_file", lambda: read_entries(Path(config.tokens_file))
    if not config.may_create:
        remedy = "pass --create to make one, or name the store that there is"
        yield "store", lambda: require_store(Path(config.store), remedy=remedy)


@click.command("serve")
@_config_options
def serve_command(*, file: Path | None, **flags: bool | Sequence[str] | None) -> int:
    """Run a server until SIGTERM or Ctrl-C. Executions that are open then go on when it is started again.

    Each option can also stand in the environment (--server-limit as PLAIT_SERVER_LIMIT) and in a file
    (as server_limit). A flag wins over the environment, that over the file.
    """
    config = _config_of(_read(file, flags))
    if config is None:
        return ExitCode.USAGE
    # Imported here, so that `plait config` works where the extra `server` is not installed.
    from plait_server.bootstrap import serve  # noqa: PLC0415

    kept = (
        "memory: all is lost when the server stops"
        if config.store == MEMORY_STORE
        else f"{config.store} (SQLite)"
    )
    is_first = True

    def announce(line: str) -> None:
        nonlocal is_first
        _tell(line)
        if is_first:
            is_first = False
            address = _reachable(line.rpartition(" ")[2])
            _tell(f"  store   {kept}")
            _tell(f"  worker  plait worker MODULE:WORKER --connect {address}")
            _tell(f"  submit  plait submit GRAPH.yaml --watch --server {address}")
            needed = [
                *(["PLAIT_TLS_CA (the CA of its certificate)"] if config.tls_cert else []),
                *(["PLAIT_TOKEN_FILE (see `plait token create`)"] if config.tokens_file else []),
            ]
            if needed:
                _tell(f"  with    {' and '.join(needed)}")

    return ExitCode.FAILED if serve(config, announce) else ExitCode.SUCCESS


def _reachable(address: str) -> str:
    """Return an address at which this machine reaches a server; one that listens everywhere is at `localhost`."""
    scheme, separator, target = address.rpartition("//")
    host, _, port = target.rpartition(":")
    return f"{scheme}{separator}localhost:{port}" if host in {"0.0.0.0", "[::]"} else address  # noqa: S104


def _tell(line: str) -> None:
    """Write a line to stdout, if somebody still reads it: the server goes on without."""
    try:
        echo(line)
    except OSError:
        # What is left in the buffer would fail again at the end of the process, and change its exit code.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


@click.group("config")
def config_command() -> None:
    """Check the configuration of a server, or show its options."""


@config_command.command("check")
@_config_options
@click.option("--no-files", is_flag=True, help="Do not read the files that the options name.")
def check_command(*, file: Path | None, no_files: bool, **flags: bool | Sequence[str] | None) -> int:
    """Show the value of each option and where it is set, or all problems.

    The options are those of `plait serve`. The exit code is 2 if there are problems.
    """
    reading = _read(file, flags)
    if _config_of(reading, reads_files=not no_files) is None:
        return ExitCode.USAGE
    rows = [(path_text(each.path), _shown(each), each.source) for each in reading.effective()]
    widths = [max(len(row[place]) for row in rows) for place in (0, 1)]
    for name, value, source in rows:
        echo(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}")
    return ExitCode.SUCCESS


@config_command.command("show-defaults")
def show_defaults_command() -> int:
    """Write an example of the configuration file: every option with its default, commented out."""
    echo(example_of(_DECLARED, EXAMPLE_HEAD).rstrip("\n"))
    return ExitCode.SUCCESS


def _shown(each: Effective) -> str:
    return toml_value(each.value) or "(not set)"
