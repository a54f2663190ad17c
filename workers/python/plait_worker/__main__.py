"""`python -m plait_worker package.module:worker --connect HOST:PORT`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from plait_worker.child import run_child
from plait_worker.processes import SECONDS_MAX, run_worker


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a worker with the options of the command line; return the exit code."""
    parser = argparse.ArgumentParser(prog="plait_worker", description="Runs a worker of a Plait server.")
    parser.add_argument("target", metavar="MODULE:WORKER", help="the worker, such as package.module:worker")
    parser.add_argument("--connect", metavar="HOST:PORT", required=True, help="the server")
    parser.add_argument("--processes", type=_positive, default=1, help="how many processes serve [1]")
    parser.add_argument("--namespace", help="the namespace served [the worker's own]")
    parser.add_argument("--worker-id", help="the worker's id [the worker's own]")
    parser.add_argument(
        "--drain-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="how long handlers may run on after SIGTERM [the worker's own; mostly until they end]",
    )
    # For the processes that this one starts: their number, or 0 if there is only one.
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child is not None:
        return run_child(
            options.target,
            options.connect,
            options.namespace,
            options.worker_id,
            options.child,
            options.drain_timeout,
        )
    return run_worker(
        options.target,
        options.connect,
        options.processes,
        options.namespace,
        options.worker_id,
        options.drain_timeout,
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 <= number <= SECONDS_MAX:
        raise argparse.ArgumentTypeError(f"must be within 0 to {SECONDS_MAX:,}")
    return number


if __name__ == "__main__":
    sys.exit(main())
