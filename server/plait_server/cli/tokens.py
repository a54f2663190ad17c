"""`plait token`: makes, lists and revokes what a server's callers show: the entries of its tokens file."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click

from plait_client.channel import DEFAULT_NAMESPACE
from plait_server.adapters.access.tokens_file import locked, new_entry, read_entries, write_entries
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.text import complain, echo
from plait_server.ports.access import Role

_UNITS_S: Final = {"m": 60, "h": 3_600, "d": 86_400}
_EXPIRES_S_MAX: Final = 100 * 365 * 86_400
_NAME_CHARS_MAX: Final = 128


def _read_expires(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})([mhd])", value)
    seconds = int(found[1]) * _UNITS_S[found[2]] if found else 0
    if not 0 < seconds <= _EXPIRES_S_MAX:
        raise click.BadParameter(f"{value!r} is no time; write a number and m, h or d, such as 90d")
    return seconds


def _check_name(_: click.Context, __: click.Parameter, value: str) -> str:
    if not 0 < len(value) <= _NAME_CHARS_MAX or not value.isprintable():
        raise click.BadParameter(f"must be 1 to {_NAME_CHARS_MAX} printable characters")
    return value


def _check_namespaces(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        if value != "*" and not re.fullmatch(r"[A-Za-z0-9_.-]{1,128}", value):
            raise click.BadParameter(f"{value!r} must match [A-Za-z0-9_.-]{{1,128}}, or be '*' for all")
    return values


def _check_certificate(_: click.Context, __: click.Parameter, value: str) -> str:
    if value and not re.fullmatch(r"[\x21-\x7e]{1,1024}", value):
        raise click.BadParameter("must be one subject alternative name, such as spiffe://example.org/ci")
    return value


def _file_option(function: Callable[..., int]) -> Callable[..., int]:
    return click.option(
        "--file",
        "path",
        type=click.Path(path_type=Path, dir_okay=False),
        envvar="PLAIT_TOKENS_FILE",
        show_envvar=True,
        required=True,
        help="The tokens file of the server: what `plait serve --tokens-file` names.",
    )(function)


@click.group("token")
def token_command() -> None:
    """Make, list and revoke tokens. A server that runs notices each change within seconds."""


@token_command.command("create")
@_file_option
@click.option("--name", required=True, callback=_check_name, help="Who it is for; audits show it.")
@click.option(
    "--role",
    "roles",
    type=click.Choice([role.value for role in Role]),
    multiple=True,
    required=True,
    help="What its holder may do; may be given often.",
)
@click.option(
    "--namespace",
    "namespaces",
    multiple=True,
    default=[DEFAULT_NAMESPACE],
    show_default=True,
    callback=_check_namespaces,
    help="Where; '*' is everywhere. May be given often.",
)
@click.option(
    "--expires", callback=_read_expires, metavar="90d", help="After which time it ends.  [default: never]"
)
@click.option(
    "--certificate",
    default="",
    callback=_check_certificate,
    metavar="NAME",
    help="Make no token: the entry is for clients whose certificate has this subject alternative name.",
)
def create_command(
    *,
    path: Path,
    name: str,
    roles: tuple[str, ...],
    namespaces: tuple[str, ...],
    expires: int | None,
    certificate: str,
) -> int:
    """Make a token, and print it: it is shown this once, and the file keeps only its hash.

    \b
    read     see executions, events, logs, workers and limits
    submit   submit graphs, and read
    operate  pause, cancel, update and delete executions, change limits, and read
    work     attach workers
    admin    everything, settings and audits included
    """  # noqa: D301 -- Click wants the character: what follows it is not wrapped.
    now_s = time.time()
    granted = frozenset(map(Role, roles))
    entry, token = new_entry(
        name=name,
        roles=dict.fromkeys(namespaces, granted),
        now_s=now_s,
        expires_s=None if expires is None else now_s + expires,
        certificate=certificate,
    )
    with locked(path):
        entries = read_entries(path) if path.exists() else []
        if certificate and any(each.certificate == certificate for each in entries):
            complain(f"plait: {path} has an entry for {certificate} already; revoke that first")
            return ExitCode.USAGE
        write_entries(path, [*entries, entry])
    if token:
        echo(token)
    complain(f"plait: {entry.id} ({name}) is in {path}" + ("; the token is not shown again" if token else ""))
    return ExitCode.SUCCESS


@token_command.command("list")
@_file_option
def list_command(*, path: Path) -> int:
    """List the entries, without their secrets, which the file does not have."""
    now_s = time.time()
    for entry in read_entries(path):
        roles = "; ".join(
            f"{namespace}: {', '.join(sorted(role.value for role in granted))}"
            for namespace, granted in entry.roles.items()
        )
        kind = f"certificate {entry.certificate}" if entry.certificate else "token"
        end = ""
        if entry.expires_s is not None:
            time_ = datetime.fromtimestamp(entry.expires_s, UTC).strftime("%Y-%m-%d %H:%M UTC")
            end = f"  expired {time_}" if entry.expires_s <= now_s else f"  expires {time_}"
        echo(f"{entry.id}  {entry.name}  {kind}  {roles}{end}")
    return ExitCode.SUCCESS


@token_command.command("revoke")
@_file_option
@click.argument("id", metavar="ID")
def revoke_command(*, path: Path, id: str) -> int:
    """Remove the entry ID, which `plait token list` shows. Open streams of its holder end within seconds."""
    with locked(path):
        entries = read_entries(path)
        kept = [entry for entry in entries if entry.id != id]
        if len(kept) == len(entries):
            complain(f"plait: {path} has no entry {id[:40]}; `plait token list --file {path}` shows them")
            return ExitCode.USAGE
        write_entries(path, kept)
    echo(f"revoked {id}")
    return ExitCode.SUCCESS
