"""`plait store`: checks, saves and backs up the file that a server keeps everything in."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.text import complain, echo, one_line

_PATH = click.argument("path", type=click.Path(path_type=Path))
_NEW = click.argument("new", type=click.Path(path_type=Path))


@click.group("store")
def store_command() -> None:
    """Check, salvage and back up the store of a server: the file that `plait serve --store` names."""


@store_command.command("check")
@_PATH
def check_command(path: Path) -> int:
    """Show all that is damaged in the store PATH, while no server uses it.

    Exit code 0 if everything is whole, 1 if something is damaged.
    """
    # Imported here and below, for it needs the server's extra.
    from plait_server.adapters.journals.sqlite_check import check_store  # noqa: PLC0415

    check = check_store(path.absolute())
    for finding in check.findings:
        echo(one_line(finding))
    if check.damaged > len(check.findings):
        echo(f"... and {check.damaged - len(check.findings)} more")
    echo(
        f"Whole: {check.executions} executions with {check.events} events, {check.contents} contents, "
        f"{check.requests} requests."
    )
    if not check.damaged:
        echo(f"The store {path} is whole.")
        return ExitCode.SUCCESS
    echo(f"The store {path} is damaged. To go on, restore a backup, or save what is whole:")
    echo(f"  plait store salvage {path} NEW")
    return ExitCode.NOT_SUCCEEDED


@store_command.command("salvage")
@_PATH
@_NEW
def salvage_command(path: Path, new: Path) -> int:
    """Save all that is whole in the store PATH into the new store NEW, while no server uses it.

    PATH stays as it is. Exit code 0 if everything was saved, 1 if something was lost.
    """
    from plait_server.adapters.journals.sqlite_salvage import salvage_store  # noqa: PLC0415

    salvage = salvage_store(path.absolute(), new.absolute())
    for line in salvage.lost:
        echo(f"lost: {one_line(line)}")
    for line in salvage.rebuilt:
        echo(f"saved by its events, for its row is damaged: {one_line(line)}")
    if not salvage.has_key:
        echo("lost: the store's secret; a new one was made, so results of attempts from before are refused")
    echo(f"Saved: {salvage.executions} executions. To go on:")
    echo(f"  plait serve --store {new}")
    return ExitCode.NOT_SUCCEEDED if salvage.lost or not salvage.has_key else ExitCode.SUCCESS


@store_command.command("backup")
@_PATH
@_NEW
def backup_command(path: Path, new: Path) -> int:
    """Copy the store PATH to the new file NEW, while a server uses it or none does.

    The copy is a store: to restore it, stop the server and start one with --store NEW, or move NEW to where
    the store was after deleting what is there, its -wal and its .lock too.
    """
    import trio  # noqa: PLC0415

    from plait_server.adapters.journals.sqlite_backup import backup_store  # noqa: PLC0415

    def tell() -> None:
        complain(f"plait: a server uses {path}; it was asked for the backup")

    trio.run(partial(backup_store, path.absolute(), new.absolute(), on_wait=tell))
    echo(f"Copied {path} to {new} ({new.stat().st_size:,} bytes).")
    return ExitCode.SUCCESS
