"""The commands by name. The module of a command is imported when the command is used, not for `--help`."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Final

import click

from plait_server.cli.exit_codes import ExitCode
from plait_server.core.definition.nearest import nearest, quote

_COMMANDS: Final[Mapping[str, tuple[str, str]]] = {
    "serve": ("serving", "Run a server."),
    "config": ("serving", "Check the configuration of a server, or show its options."),
    "worker": ("processes", "Run a worker, in one process or several."),
    "submit": ("submitting", "Have a graph carried out."),
    "watch": ("watching", "Follow an execution, event by event."),
    "wait": ("waiting", "Wait for the end of an execution."),
    "get": ("showing", "Show an execution."),
    "list": ("showing", "List executions, newest first."),
    "count": ("showing", "Count executions."),
    "nodes": ("showing", "List the nodes of an execution."),
    "node": ("nodes", "Show a node: input, output, attempts, logs, failure."),
    "logs": ("logs", "Show what the handlers of an execution log."),
    "trace": ("tracing", "Draw the trace of an execution, or send it to a collector again."),
    "cancel": ("controls", "Cancel an execution."),
    "pause": ("controls", "Pause an execution."),
    "resume": ("controls", "Resume a paused execution."),
    "update": ("controls", "Change the settings of an open execution."),
    "limits": ("limits", "Show and change limits, and who holds their permits."),
    "namespaces": ("namespaces", "Show and change the settings of namespaces."),
    "export": ("exporting", "Write all that there is of an execution as JSON lines."),
    "delete": ("exporting", "Delete an ended execution."),
    "audit": ("auditing", "List who did what, newest first."),
    "validate": ("graphs", "Check graph files, without a server."),
    "plan": ("graphs", "Show what a graph would do, without a server."),
    "store": ("store", "Check, salvage or back up a store."),
    "token": ("tokens", "Make, list and revoke tokens."),
    "health": ("waiting", "Ask whether the server serves."),
    "workers": ("showing", "List the workers."),
    "sim": ("processes", "Run random graphs in simulated time, with faults."),
    "bench": ("processes", "Measure this machine, and the server on it."),
}
"""Name to module and help."""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 -- click's.
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[cmd_name]
        command: object = getattr(
            importlib.import_module(f"plait_server.cli.{module}"), f"{cmd_name}_command"
        )
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            meant = nearest(args[0], _COMMANDS)
            advice = f" Did you mean {meant}?" if meant else ""
            ctx.fail(f"No such command {quote(args[0])}.{advice}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


def _print_version(context: click.Context, _: click.Parameter, value: bool) -> None:  # noqa: FBT001 -- click's.
    if value and not context.resilient_parsing:
        click.echo(f"Plait {importlib.metadata.version('plait')}")
        context.exit()


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=(
        "The server is the one that --server or PLAIT_SERVER names, else 127.0.0.1:7480. "
        "Exit codes: 0 succeeded, 1 the execution ended in another state, 2 usage, 3 invalid graph, "
        "4 server not reachable, 5 any other error, 130 interrupted."
    ),
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version.",
)
def app() -> None:
    """Plait executes workflow graphs in parallel, and never loses what it acknowledged."""


def run(arguments: Sequence[str]) -> int:
    """Run a command line and return the exit code."""
    try:
        code: object = app.main(args=list(arguments), prog_name="plait", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return ExitCode.INTERRUPTED
    return code if isinstance(code, int) else ExitCode.SUCCESS
