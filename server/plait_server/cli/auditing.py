"""`plait audit`: who did what."""

from __future__ import annotations

import itertools

import click

from plait.v1 import audit_service_pb2
from plait_server.cli.connecting import Target, echo_json, json_option, server_options
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.text import complain, echo, local_time, name_of, one_line, table


@click.command("audit")
@click.argument("execution_id", metavar="[EXECUTION]", required=False, default="")
@click.option(
    "--limit", type=click.IntRange(min=0), default=50, show_default=True, help="How many; 0 lists them all."
)
@server_options
@json_option
def audit_command(*, execution_id: str, limit: int, target: Target, as_json: bool) -> int:
    """List who did what, newest first, in a namespace or to one execution.

    A principal without credentials is the address it called from, marked with a question mark.
    """
    with target.open() as client:
        entries = itertools.islice(client.audit(execution_id, page_size=min(limit, 1000)), limit or None)
        if as_json:
            for entry in entries:
                echo_json(entry)
            return ExitCode.SUCCESS
        rows = [_row(entry) for entry in entries]
    if not rows:
        complain(f"no entries in the namespace {target.namespace}")
    for line in table(("TIME", "WHO", "WHAT", "OUTCOME", "EXECUTION", "ABOUT", "DETAIL"), rows):
        echo(line)
    return ExitCode.SUCCESS


def _row(entry: audit_service_pb2.AuditEntry) -> tuple[str, ...]:
    about = entry.target
    if entry.node_path:
        about = f"{entry.node_path} {entry.attempt}"
    who = f"{entry.principal}{'' if entry.verified else '?'}" if entry.principal else entry.worker_id
    cells = (
        local_time(entry.time),
        who,
        entry.kind,
        name_of(audit_service_pb2.AuditOutcome, entry.outcome, "AUDIT_OUTCOME_"),
        entry.execution_id,
        about,
        "" if entry.detail_json == "{}" else entry.detail_json,
    )
    return tuple(map(one_line, cells))
