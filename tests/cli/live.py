"""A real server and a real worker as processes, and the real command line, as a process or in this one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from plait_server.cli.entry import main

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
        env=_environment(os.environ, env),
        timeout=TIMEOUT_S,
        check=False,
    )


def call(
    *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end in this process, as `plait` does in one of its own: to start that takes 0.3 s."""
    streams = sys.stdin, sys.stdout, sys.stderr
    before = dict(os.environ)
    written = io.BytesIO(), io.BytesIO()
    out, err = (io.TextIOWrapper(each, encoding="utf-8", write_through=True) for each in written)
    os.environ.clear()
    os.environ.update(_environment(before, env))
    sys.stdin, sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8"),
        out,
        err,
    )
    try:
        code = main(list(arguments))
    finally:
        sys.stdin, sys.stdout, sys.stderr = streams
        os.environ.clear()
        os.environ.update(before)
    stdout, stderr = (each.getvalue().decode() for each in written)
    return subprocess.CompletedProcess(arguments, code, stdout, stderr)


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
        env=_environment(os.environ, env),
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
    """Run a server; yields its address."""
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


def _environment(before: Mapping[str, str], more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {
        name: value for name, value in before.items() if not name.startswith(("PLAIT_", "OTEL_", "TRACE"))
    }
    return kept | dict(more or {})
