"""`plait namespaces`: the settings of namespaces, and how many executions run and wait in them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import click
from google.protobuf import duration_pb2

from plait.v1 import namespace_service_pb2
from plait_client import InvalidArgument
from plait_server.cli.connecting import INT32, Target, echo_json, json_option, server_options
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.text import complain, echo, name_of, table

Pb = namespace_service_pb2

_UNITS_S: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_NAMES: Final = ("running_max", "queue_max", "order", "queue_timeout", "weight", "retention")
_ORDERS: Final[Mapping[str, Pb.QueueOrder]] = {
    "fifo": Pb.QUEUE_ORDER_FIFO,
    "lifo": Pb.QUEUE_ORDER_LIFO,
    "priority": Pb.QUEUE_ORDER_PRIORITY,
}


def _read_duration(_: click.Context, __: click.Parameter, value: str | None) -> duration_pb2.Duration | None:
    if value is None:
        return None
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", value)
    if found is None:
        raise click.BadParameter(f"{value!r} is no time; write a number and s, m, h or d, such as 90s")
    return duration_pb2.Duration(seconds=int(found[1]) * _UNITS_S[found[2]])


@click.group("namespaces")
def namespaces_command() -> None:
    """Show and change the settings of namespaces."""


@namespaces_command.command("list")
@server_options
@json_option
def list_command(*, target: Target, as_json: bool) -> int:
    """List the namespaces that have settings of their own, or executions."""
    with target.open() as client:
        found = list(client.list_namespaces(page_size=1_000))
    for each in found if as_json else ():
        echo_json(each)
    if not as_json:
        rows = [
            (
                each.name,
                f"{each.running_count:,} of {each.settings.running_max:,}",
                f"{each.queued_count:,} of {each.settings.queue_max:,}",
                f"{each.settings.weight}",
            )
            for each in found
        ]
        for line in table(("NAMESPACE", "RUNNING", "WAITING", "WEIGHT"), rows):
            echo(line)
    return ExitCode.SUCCESS


@namespaces_command.command("get")
@server_options
@json_option
def get_command(*, target: Target, as_json: bool) -> int:
    """Show the settings of the namespace, and where each comes from."""
    with target.open() as client:
        _show(client.get_namespace(), as_json=as_json)
    return ExitCode.SUCCESS


@namespaces_command.command("update")
@click.option("--running-max", type=INT32, help="Executions that run at once.")
@click.option("--queue-max", type=INT32, help="Executions that wait to begin; 0 lets none wait.")
@click.option(
    "--order",
    type=click.Choice(list(_ORDERS), case_sensitive=False),
    help="Which of those that wait begins first.",
)
@click.option(
    "--queue-timeout",
    metavar="TIME",
    callback=_read_duration,
    help="The time from the submission in which an execution has to begin, such as 10m; 0s is no limit.",
)
@click.option("--weight", type=INT32, help="The share of the turns in which namespaces get permits.")
@click.option(
    "--retention",
    metavar="TIME",
    callback=_read_duration,
    help="The time for which an ended execution is kept, such as 7d.",
)
@click.option(
    "--reset",
    multiple=True,
    type=click.Choice([name.replace("_", "-") for name in _NAMES]),
    help="A setting that goes back to the server's configuration; may be given often.",
)
@click.option("--etag", default="", help="Changes nothing if the settings are not those of this mark.")
@server_options
@json_option
def update_command(  # noqa: PLR0913 -- one for each option
    *,
    running_max: int | None,
    queue_max: int | None,
    order: str | None,
    queue_timeout: duration_pb2.Duration | None,
    weight: int | None,
    retention: duration_pb2.Duration | None,
    reset: tuple[str, ...],
    etag: str,
    target: Target,
    as_json: bool,
) -> int:
    """Change settings of the namespace: at once, durably, and over the server's configuration."""
    settings = Pb.NamespaceSettings(
        running_max=running_max,
        queue_max=queue_max,
        order=_ORDERS[order] if order is not None else None,
        queue_timeout=queue_timeout,
        weight=weight,
        retention=retention,
    )
    names = [name.replace("-", "_") for name in reset]
    if not settings.ListFields() and not names:
        raise click.UsageError("nothing to change; give a setting, or one to --reset")
    with target.open() as client:
        try:
            changed = client.update_namespace(settings, reset=names, etag=etag)
        except InvalidArgument as error:
            for violation in error.violations:
                complain(f"{violation.field}: {violation.message}")
            return ExitCode.USAGE
    _show(changed, as_json=as_json)
    return ExitCode.SUCCESS


def _show(namespace: Pb.Namespace, *, as_json: bool) -> None:
    if as_json:
        echo_json(namespace)
        return
    echo(f"{namespace.name}: {namespace.running_count:,} running, {namespace.queued_count:,} waiting")
    rows = [
        (
            name,
            _value(namespace.settings, name),
            name_of(Pb.SettingSource, namespace.sources[name], "SETTING_SOURCE_"),
        )
        for name in _NAMES
    ]
    for line in table(("SETTING", "VALUE", "SOURCE"), rows):
        echo(line)
    echo(f"etag {namespace.etag}")


def _value(settings: Pb.NamespaceSettings, name: str) -> str:
    match name:
        case "order":
            return name_of(Pb.QueueOrder, settings.order, "QUEUE_ORDER_")
        case "queue_timeout":
            return _time(settings.queue_timeout.seconds) if settings.queue_timeout.seconds else "none"
        case "retention":
            return _time(settings.retention.seconds)
        case _:
            return f"{getattr(settings, name):,}"


def _time(seconds: int) -> str:
    for unit, unit_s in reversed(_UNITS_S.items()):
        if seconds % unit_s == 0:
            return f"{seconds // unit_s:,}{unit}"
    return f"{seconds:,}s"
