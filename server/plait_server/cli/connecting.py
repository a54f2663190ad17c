"""Options, client and output of the commands that talk to a server."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import click
from google.protobuf import json_format
from google.protobuf.message import Message

from plait_client import Client
from plait_client.channel import DEFAULT_ADDRESS, DEFAULT_NAMESPACE, check_address
from plait_server.cli.text import echo

CONNECT_S: Final = 2.0
"""How long to look for a server. One that was reached may take longer to answer."""

SERVER_VARIABLE: Final = "PLAIT_SERVER"
NAMESPACE_VARIABLE: Final = "PLAIT_NAMESPACE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server and namespace that a command is about."""

    server: str
    """HOST:PORT."""
    namespace: str
    """The namespace."""

    def open(self) -> Client:
        """Make a client."""
        return Client(self.server, namespace=self.namespace, connect_s=CONNECT_S)

    def command(self, text: str) -> str:
        """Write a command that finds the same execution, with the options that it takes."""
        options = [
            *([f"--server {self.server}"] if _was_typed("server") else []),
            *([f"--namespace {self.namespace}"] if _was_typed("namespace") else []),
        ]
        return " ".join([f"`plait {text}", *options]) + "`"


def _was_typed(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def _check_server(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return check_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def server_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add `--server` and `--namespace`; the function is given them as its `target`."""

    @functools.wraps(function)
    def with_target(*, server: str, namespace: str, **options: object) -> int:
        return function(target=Target(server=server, namespace=namespace), **options)

    server = click.option(
        "--server",
        envvar=SERVER_VARIABLE,
        default=DEFAULT_ADDRESS,
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT",
        callback=_check_server,
        help="The server.",
    )
    namespace = click.option(
        "--namespace",
        envvar=NAMESPACE_VARIABLE,
        default=DEFAULT_NAMESPACE,
        show_default=True,
        show_envvar=True,
        help="The namespace.",
    )
    return server(namespace(with_target))


def json_option(function: Callable[..., int]) -> Callable[..., int]:
    """Add `--json`; the function is given `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, a message a line.")(function)


def echo_json(message: Message) -> None:
    """Write a message in the proto JSON mapping, as one line."""
    echo(json_format.MessageToJson(message, indent=None))
