"""Options, client and output of the commands that talk to a server."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import click
from google.protobuf import json_format
from google.protobuf.message import Message

from plait_client import Client, PlaitError, ResourceExhausted
from plait_client.access import Access, check_address
from plait_client.channel import DEFAULT_ADDRESS, DEFAULT_NAMESPACE
from plait_server.cli.text import complain, duration, echo, one_line

CONNECT_S: Final = 2.0
"""How long to look for a server. One that was reached may take longer to answer."""

SERVER_VARIABLE: Final = "PLAIT_SERVER"
NAMESPACE_VARIABLE: Final = "PLAIT_NAMESPACE"
INT32: Final = click.IntRange(-(2**31), 2**31 - 1)
"""A number that a field can hold; the server says which of them it takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """The server and namespace that a command is about."""

    server: str
    """HOST:PORT, or https://HOST:PORT."""
    namespace: str
    """The namespace."""
    access: Access
    """What was named of a token and of TLS; the rest stands in the environment."""

    def open_beside(self) -> Client:
        """Make a client for what runs beside a command; it tells the user nothing, and gives up soon."""
        return Client(
            self.server, namespace=self.namespace, access=self.access, connect_s=CONNECT_S, retry_s=CONNECT_S
        )

    def open(self) -> Client:
        """Make a client. It tells the user when the server is lost, and when it is back."""
        try:
            return Client(
                self.server,
                namespace=self.namespace,
                access=self.access,
                connect_s=CONNECT_S,
                on_lost=tell_lost,
                on_back=lambda after_s: complain(f"plait: back after {duration(after_s)}"),
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None

    def command(self, text: str) -> str:
        """Write a command that finds the same execution, with the options that it takes."""
        options = [
            *([f"--server {self.server}"] if _was_typed("server") else []),
            *([f"--namespace {self.namespace}"] if _was_typed("namespace") else []),
            *([f"--token-file {self.access.token_file}"] if self.access.token_file else []),
            *([f"--tls-ca {self.access.tls_ca}"] if self.access.tls_ca else []),
        ]
        return " ".join([f"`plait {text}", *options]) + "`"


def tell_lost(error: PlaitError) -> None:
    """Tell the user that the server was lost, or refuses calls for a time, and is tried again."""
    if isinstance(error, ResourceExhausted):
        after_s = error.retry_after.total_seconds() if error.retry_after is not None else 0.0
        complain(f"plait: {one_line(error.message)} Trying again in {duration(after_s)} ...")
        return
    reason = f" ({one_line(error.reason)})" if error.reason else ""
    complain(f"plait: connection lost{reason}, trying again ...")


def _was_typed(name: str) -> bool:
    source = click.get_current_context().get_parameter_source(name)
    return source is click.core.ParameterSource.COMMANDLINE


def _check_server(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return check_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def server_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add `--server`, `--namespace` and those of its access; the function is given them as its `target`."""

    @functools.wraps(function)
    def with_target(
        *, server: str, namespace: str, token_file: str | None, tls_ca: str | None, **options: object
    ) -> int:
        access = Access(token_file=token_file, tls_ca=tls_ca)
        return function(target=Target(server=server, namespace=namespace, access=access), **options)

    server = click.option(
        "--server",
        envvar=SERVER_VARIABLE,
        default=DEFAULT_ADDRESS,
        show_default=True,
        show_envvar=True,
        metavar="HOST:PORT",
        callback=_check_server,
        help="The server; https://HOST:PORT for one with TLS.",
    )
    namespace = click.option(
        "--namespace",
        envvar=NAMESPACE_VARIABLE,
        default=DEFAULT_NAMESPACE,
        show_default=True,
        show_envvar=True,
        help="The namespace.",
    )
    return server(namespace(access_options(with_target)))


def access_options(function: Callable[..., int]) -> Callable[..., int]:
    """Add `--token-file` and `--tls-ca`."""
    token_file = click.option(
        "--token-file",
        metavar="PATH",
        help="A file with a token.  [default: PLAIT_TOKEN, or PLAIT_TOKEN_FILE]",
    )
    tls_ca = click.option(
        "--tls-ca", metavar="PEM", help="The CAs of the server's certificate.  [default: PLAIT_TLS_CA]"
    )
    return token_file(tls_ca(function))


def json_option(function: Callable[..., int]) -> Callable[..., int]:
    """Add `--json`; the function is given `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Write JSON, a message a line.")(function)


def echo_json(message: Message) -> None:
    """Write a message in the proto JSON mapping, as one line."""
    echo(json_format.MessageToJson(message, indent=None))
