"""A real server, a real worker and the real command line, as processes."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
TIMEOUT_S = 60.0
"""No test waits for this: it is when a hanging process is given up."""


def plait(
    *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "plait_server", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=_environment(env),
        timeout=TIMEOUT_S,
        check=False,
    )


@contextmanager
def process(*arguments: str, env: Mapping[str, str] | None = None) -> Generator[subprocess.Popen[str]]:
    """Run a command beside the test; it is told to end, and has to."""
    with subprocess.Popen(
        [sys.executable, "-m", "plait_server", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env=_environment(env),
        process_group=0,
    ) as running:
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                running.kill()
                raise


@contextmanager
def server(store: str, listen: str = "127.0.0.1:0") -> Generator[str]:
    """Run a server; gives its address."""
    with process("serve", "--listen", listen, "--store", store, "--create") as running:
        yield first_line(running).split()[-1]


@contextmanager
def worker(
    address: str, target: str = "tests.cli.live_worker:worker", *, id: str = "live"
) -> Generator[None]:
    """Run a worker; it may not be attached yet."""
    with process("worker", target, "--connect", address, "--id", id):
        yield


def first_line(running: subprocess.Popen[str]) -> str:
    """Read the first line that a process writes."""
    assert running.stdout is not None
    return running.stdout.readline().rstrip("\n")


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("PLAIT_", "OTEL_", "TRACE"))
    }
    return kept | dict(more or {})
