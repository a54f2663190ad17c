"""Where a shape is measured: a temporary folder, and the processes of a server and its workers in it."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_STOP_S: Final = 30.0
"""A server that has not ended by then never will."""
_COMMITS: Final = re.compile(r"waited p50 ([0-9.]+) s, p99 ([0-9.]+) s")


class BenchFailed(Exception):
    """The bench could not measure: a process did not start, or an execution ended as it should not."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where a shape is measured."""

    folder: Path
    """Empty at first, removed at the end."""
    is_quick: bool
    """Whether everything is to be small: to see that it works, not how fast."""

    def size(self, full: int, quick: int) -> int:
        """Return how many of something to run."""
        return quick if self.is_quick else full

    def store(self, name: str = "plait") -> Path:
        """Return the path of a store in the folder."""
        return self.folder / f"{name}.db"


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log
        self.address = read_line(process).split()[-1]

    @property
    def log(self) -> str:
        """What it has logged so far."""
        return self._log.read_text(encoding="utf-8")

    @property
    def cpu_s(self) -> float | None:
        """What it has used so far, user and system; None where there is no /proc."""
        try:
            text = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii")
        except OSError:
            return None
        # The name of the command, in parentheses, may hold spaces.
        fields = text.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def rss_bytes(self) -> int | None:
        """The most memory that it has held so far; None where there is no /proc."""
        try:
            text = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        except OSError:
            return None
        found = re.search(r"VmHWM:\s+(\d+) kB", text)
        return int(found[1]) * 1024 if found else None

    def kill(self) -> None:
        """Kill -9."""
        self._process.kill()
        self._process.wait(_STOP_S)

    def stop(self) -> Mapping[str, float]:
        """Stop it as SIGTERM does, and return what it says of its commits: `commit_p50_ms`, `commit_p99_ms`."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(_STOP_S)
        found = _COMMITS.search(self.log)
        if found is None:
            raise BenchFailed(f"the server said nothing of its commits:\n{self.log[-2_000:]}")
        return {"commit_p50_ms": float(found[1]) * 1000, "commit_p99_ms": float(found[2]) * 1000}


class Meter:
    """What a server used since the meter was made."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._cpu_s = server.cpu_s
        self._begun_s = time.perf_counter()

    @property
    def passed_s(self) -> float:
        """The time since then."""
        return time.perf_counter() - self._begun_s

    @property
    def cpu_s(self) -> float | None:
        """The server's processor time since then."""
        now_s = self._server.cpu_s
        return None if now_s is None or self._cpu_s is None else now_s - self._cpu_s


@contextlib.contextmanager
def run_server(
    site: Site, store: Path | None = None, *, environment: Mapping[str, str] | None = None
) -> Generator[Server]:
    """Start a server on a store of the site; it is killed at the exit."""
    path = site.store() if store is None else store
    log = path.with_suffix(".log")
    arguments = ["serve", "--listen", "127.0.0.1:0", "--store", str(path), "--create"]
    with run_process("plait_server", *arguments, log=log, environment=environment) as process:
        yield Server(process, log)


@contextlib.contextmanager
def run_worker(site: Site, server: Server, *, slots: int = 256, name: str = "worker") -> Generator[None]:
    """Start a worker made with the SDK: `worker` serves nodes that do nothing, `patient` all types."""
    arguments = [f"plait_server.bench.worker:{name}", "--connect", server.address]
    environment = {"PLAIT_BENCH_SLOTS": str(slots)}
    with run_process("plait_worker", *arguments, log=site.folder / "worker.log", environment=environment):
        yield


@contextlib.contextmanager
def run_process(
    module: str, *arguments: str, log: Path | None = None, environment: Mapping[str, str] | None = None
) -> Generator[subprocess.Popen[str]]:
    """Start a module of ours as a process; what it complains of goes to the log. It is killed at the exit."""
    with contextlib.ExitStack() as stack:
        stderr = stack.enter_context(log.open("a", encoding="utf-8")) if log else subprocess.DEVNULL
        process = subprocess.Popen(  # noqa: S603 # our own modules
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            # Tracing is on only where the bench asks for it.
            env={
                **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
                **(environment or {}),
            },
            # Ctrl-C is for the bench, which ends its processes itself, with whatever they have started.
            start_new_session=True,
        )
        stack.enter_context(process)
        try:
            yield process
        finally:
            # Nothing that it would do in leaving is of use: its store is thrown away, its attempts are too.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def read_line(process: subprocess.Popen[str]) -> str:
    """Read the next line that a process prints.

    Raises:
        BenchFailed: it ended without one.
    """
    assert process.stdout is not None  # it was asked for
    line = process.stdout.readline()
    if not line:
        raise BenchFailed(f"{process.args!r} ended before it was ready; start it by hand to see why")
    return line.strip()
