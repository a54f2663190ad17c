"""`plait limits`: how many attempts run at once and how often they start, and who holds the permits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import click

from plait.v1 import limit_service_pb2, namespace_service_pb2
from plait_client import Client, InvalidArgument
from plait_server.cli.connecting import INT32, Target, echo_json, json_option, server_options
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.text import complain, echo, name_of, one_line, table

Pb = limit_service_pb2

HOLDERS_SHOWN: Final = 3
"""More would not fit into a line; --json has up to 100."""
_KINDS: Final[Mapping[str, Pb.LimitKind]] = {
    "server": Pb.LIMIT_KIND_SERVER,
    "namespace": Pb.LIMIT_KIND_NAMESPACE,
    "type": Pb.LIMIT_KIND_TYPE,
    "key": Pb.LIMIT_KIND_KEY,
}


class _ListingGroup(click.Group):
    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        is_other = bool(args) and args[0] in {*self.commands, "-h", "--help"}
        return super().parse_args(ctx, args if is_other else ["list", *args])


@click.group("limits", cls=_ListingGroup)
def limits_command() -> None:
    """Show and change the limits on attempts: of the server, of namespaces, node types and concurrency keys.

    `plait limits` alone is `plait limits list`.
    """


def _everywhere_option(text: str) -> Callable[[Callable[..., int]], Callable[..., int]]:
    return click.option("--all-namespaces", "everywhere", is_flag=True, help=text)


@limits_command.command("list")
@click.option("--kind", type=click.Choice(list(_KINDS)), help="Only those of a kind.")
@_everywhere_option("Those of all namespaces, with all who hold permits.")
@server_options
@json_option
def list_command(*, kind: str | None, everywhere: bool, target: Target, as_json: bool) -> int:
    """List the limits that hold in the namespace, and who holds their permits."""
    with target.open() as client:
        wanted = _KINDS[kind] if kind is not None else Pb.LIMIT_KIND_UNSPECIFIED
        found = list(client.list_limits(wanted, everywhere=everywhere, page_size=1_000))
    for each in found if as_json else ():
        echo_json(each)
    if not as_json:
        _show(found)
    return ExitCode.SUCCESS


@limits_command.command("set")
@click.argument("kind", type=click.Choice(list(_KINDS)))
@click.argument("name", required=False, default="")
@click.option("--max", "most", type=INT32, help="Attempts at once.")
@click.option("--rate", type=float, help="Starts a second, of a node type.")
@click.option("--burst", type=INT32, default=0, help="Starts at once after a pause; else those of a second.")
@_everywhere_option("For a node type in all namespaces together.")
@server_options
@json_option
def set_command(
    *,
    kind: str,
    name: str,
    most: int | None,
    rate: float | None,
    burst: int,
    everywhere: bool,
    target: Target,
    as_json: bool,
) -> int:
    """Set a limit as a whole: at once, durably, and over the server's configuration.

    KIND is server, namespace, type or key. NAME is the node type or the concurrency key; the limits of the server and
    of the namespace that --namespace names have none.
    """
    with target.open() as client:
        try:
            limit = client.set_limit(
                _KINDS[kind], name, max_concurrency=most, rate=rate, burst=burst, everywhere=everywhere
            )
        except InvalidArgument as error:
            return _complain_of(error)
        others = [] if as_json else _others(client, kind, name, everywhere=everywhere)
    if as_json:
        echo_json(limit)
    else:
        _show([limit, *others])
        _explain(others)
    return ExitCode.SUCCESS


@limits_command.command("remove")
@click.argument("kind", type=click.Choice(list(_KINDS)))
@click.argument("name", required=False, default="")
@_everywhere_option("For a node type in all namespaces together.")
@server_options
def remove_command(*, kind: str, name: str, everywhere: bool, target: Target) -> int:
    """Remove a limit that was set, so that the configuration or the default holds again."""
    with target.open() as client:
        try:
            left = client.remove_limit(_KINDS[kind], name, everywhere=everywhere)
        except InvalidArgument as error:
            return _complain_of(error)
        others = _others(client, kind, name, everywhere=everywhere)
    if left is not None:
        _show([left, *others])
    elif others:
        echo("removed")
        _show(others)
    else:
        echo("removed; there is no limit now")
    _explain(others)
    return ExitCode.SUCCESS


def _others(client: Client, kind: str, name: str, *, everywhere: bool) -> list[Pb.Limit]:
    """Return the server-wide limit of a node type that holds beside that of the namespace; of other kinds nothing."""
    if kind != "type" or everywhere:
        return []
    found = client.list_limits(Pb.LIMIT_KIND_TYPE, page_size=1_000)
    return [each for each in found if each.name == name and not each.namespace]


def _explain(others: list[Pb.Limit]) -> None:
    if others:
        complain("the limit of all namespaces together holds as well; --all-namespaces changes it")


def _complain_of(error: InvalidArgument) -> ExitCode:
    for violation in error.violations:
        option = {"max_concurrency": "--max", "rate": "--rate", "burst": "--burst"}.get(violation.field)
        complain(f"{option or violation.field}: {violation.message}")
    return ExitCode.USAGE


def _show(limits: list[Pb.Limit]) -> None:
    heads = ("KIND", "NAMESPACE", "NAME", "VALUE", "SOURCE", "IN USE", "WAITING", "HELD BY")
    for line in table(heads, list(map(_row, limits))):
        echo(line)


def _row(limit: Pb.Limit) -> tuple[str, ...]:
    is_servers = limit.kind in {Pb.LIMIT_KIND_SERVER, Pb.LIMIT_KIND_TYPE} and not limit.namespace
    cells = (
        name_of(Pb.LimitKind, limit.kind, "LIMIT_KIND_").lower(),
        "(all)" if is_servers else limit.namespace,
        limit.name or "-",
        _value(limit),
        name_of(namespace_service_pb2.SettingSource, limit.source, "SETTING_SOURCE_"),
        f"{limit.in_use:,}",
        f"{limit.waiting:,}",
        _holders(limit),
    )
    return tuple(map(one_line, cells))


def _value(limit: Pb.Limit) -> str:
    parts: list[str] = []
    if limit.HasField("max_concurrency"):
        parts.append(f"{limit.max_concurrency:,}")
    if limit.HasField("rate"):
        parts.append(f"{limit.rate:,g}/s, burst {limit.burst:,}")
    return ", ".join(parts)


def _holders(limit: Pb.Limit) -> str:
    shown = [f"{each.execution_id} {each.node_path}" for each in limit.holders[:HOLDERS_SHOWN]]
    more = limit.in_use - len(shown)
    return ", ".join([*shown, f"{more:,} more"] if shown and more > 0 else shown)
