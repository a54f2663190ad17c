"""`plait worker`, `sim` and `bench`: commands that run until they are done or told to stop."""

from __future__ import annotations

import os
from typing import Final

import click

from plait_client.access import check_address
from plait_client.channel import DEFAULT_ADDRESS, DEFAULT_NAMESPACE
from plait_server.cli.connecting import NAMESPACE_VARIABLE, SERVER_VARIABLE, access_options
from plait_server.cli.exit_codes import ExitCode

_WORKER_REFUSED: Final = 3
"""The exit code of the SDK's own command if the server refuses the worker."""
_DRAIN_S_MAX: Final = 1_000_000_000
"""The longest that the SDK's own command takes."""


def _check_connect(_: click.Context, __: click.Parameter, value: str) -> str:
    try:
        return check_address(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command("worker")
@click.argument("target", metavar="MODULE:WORKER")
@click.option(
    "--connect",
    envvar=SERVER_VARIABLE,
    default=DEFAULT_ADDRESS,
    show_default=True,
    show_envvar=True,
    metavar="HOST:PORT",
    callback=_check_connect,
    help="The server; https://HOST:PORT for one with TLS.",
)
@click.option(
    "--processes",
    type=click.IntRange(1, 1000),
    default=1,
    show_default=True,
    help="How many processes serve.",
)
@click.option(
    "--namespace",
    envvar=NAMESPACE_VARIABLE,
    help=f"The namespace.  [default: the worker's own, mostly {DEFAULT_NAMESPACE}]",
)
@click.option(
    "--id", "worker_id", help="The worker's id.  [default: the worker's own, mostly the machine's name]"
)
@click.option(
    "--drain-timeout",
    type=click.IntRange(0, _DRAIN_S_MAX),
    metavar="SECONDS",
    help="How long handlers may run on after SIGTERM; what has not ended then is handed back, and run again "
    "elsewhere.  [default: the worker's own, mostly until they end]",
)
@access_options
def worker_command(
    *,
    target: str,
    connect: str,
    processes: int,
    namespace: str | None,
    worker_id: str | None,
    drain_timeout: int | None,
    token_file: str | None,
    tls_ca: str | None,
) -> int:
    """Run the worker WORKER of the Python module MODULE, which the current folder may hold.

    It attaches to the server, and again whenever it loses it, until SIGTERM or Ctrl-C: then it takes
    nothing new, and ends when what runs has finished, however long that takes, unless --drain-timeout bounds it.
    The second signal ends it at once.
    """
    from plait_worker.processes import run_worker  # noqa: PLC0415 -- Nothing of it is needed for the others.

    # The processes that it starts take theirs from the environment.
    if token_file is not None:
        os.environ.pop("PLAIT_TOKEN", None)
        os.environ["PLAIT_TOKEN_FILE"] = token_file
    if tls_ca is not None:
        os.environ["PLAIT_TLS_CA"] = tls_ca
    code = run_worker(target, connect, processes, namespace, worker_id, drain_timeout)
    return ExitCode.FAILED if code == _WORKER_REFUSED else code


@click.command("sim")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="The first seed.")
@click.option("--count", type=click.IntRange(min=1), default=100, show_default=True, help="How many seeds.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON.")
def sim_command(*, seed: int, count: int, as_json: bool) -> int:
    """Run random graphs on the whole server in simulated time, with faults, and check the rules.

    The same seed does the same for ever; a seed that fails is named.
    """
    from plait_server.testing.sim import run  # noqa: PLC0415 -- Needs the server's extra.

    return run(seed, count, json=as_json)


@click.command("bench")
@click.argument("shapes", nargs=-1, metavar="[SHAPE]...")
@click.option("--quick", is_flag=True, help="One small round of each: to see that it works, not how fast.")
@click.option("--json", "as_json", is_flag=True, help="Write JSON, a line a shape.")
def bench_command(*, shapes: tuple[str, ...], quick: bool, as_json: bool) -> int:
    """Measure what this machine can do, and what the server makes of it.

    Each shape runs on a server of its own, in turn with its ceilings: the echo of messages and the round
    trip of a call over bare gRPC, and a durable commit of SQLite. All together take about ten minutes.

    \b
    F    fan-outs: F-1000, F-10000, F-100000
    N    two fan-outs of 1,000 at a time without end; the commit's p50 and p99
    E    F-1000 with simple workers: E-frames (a frame a message), E-workers (32 of 2 slots)
    C    a chain of 200 nodes
    L    one node, one at a time
    T    diamonds, 64 at a time
    P    parallel start: five branches of 200 ms; how far apart ten nodes start
    FF   fail-fast: a node that fails after 100 ms beside one of 1,000 ms
    W    1,000 watchers of 1,000 nodes
    B    10,000 executions waiting, against none
    R    a start with 10,000 open executions
    Q    lists and counts with 1,000,000 executions kept
    S    F-1000, C, L and T with all spans sent, against none
    H    T with 100,000 executions kept, against an empty store

    The exit code is 0 if every figure with a bound keeps it.
    """  # noqa: D301 -- Click wants the character: what follows it is not wrapped.
    from plait_server.bench.run import UnknownShape, run  # noqa: PLC0415 -- Needs the server's extra.

    try:
        return run(shapes, json=as_json, quick=quick)
    except UnknownShape as error:
        raise click.BadParameter(str(error), param_hint="SHAPE") from None
