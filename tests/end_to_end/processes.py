"""Servers and workers as processes, which a test may kill."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent.parent
HANG_S = 60.0
"""No test waits for this: it is when a process that hangs is given up."""


class Process:
    """A process of this Python. Its stderr goes to a file, so that nothing waits for a reader."""

    def __init__(self, log: Path, module: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        self.log = log
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PLAIT_", "OTEL_"))}
        with log.open("ab") as stderr:
            self.popen = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                cwd=ROOT,
                env=kept | dict(env or {}),
                process_group=0,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.popen.poll() is None:
            self.popen.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(10)
        self.kill()

    @property
    def pid(self) -> int:
        return self.popen.pid

    def kill(self) -> None:
        """Kill -9."""
        self.popen.kill()
        self.popen.wait(HANG_S)
        if self.popen.stdout is not None:
            self.popen.stdout.close()

    def terminate(self) -> int:
        """Send SIGTERM and return the exit code."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(HANG_S)

    def first_line(self) -> str:
        """Read the first line that the process writes; empty if it ended without one."""
        assert self.popen.stdout is not None
        return self.popen.stdout.readline().rstrip("\n")

    def rest(self) -> str:
        """Read what else the process writes until it ends."""
        assert self.popen.stdout is not None
        return self.popen.stdout.read()

    def stderr(self) -> str:
        return self.log.read_text(errors="replace")


class Server(Process):
    """A server; ready when it is made."""

    def __init__(self, log: Path, **config: object) -> None:
        config.setdefault("listen", "127.0.0.1:0")
        config.setdefault("create", True)
        super().__init__(log, "tests.end_to_end.serve", json.dumps(config))
        line = self.first_line()
        if not line.startswith("Plait "):
            self.popen.wait(HANG_S)
            self.kill()
            raise AssertionError(f"the server did not start:\n{self.stderr()}")
        self.address = line.split()[-1]


class Worker(Process):
    """A worker; it may not be attached yet."""

    def __init__(
        self, log: Path, address: str, stage: str, *, worker_id: str = "live", namespace: str = "default"
    ) -> None:
        arguments = ["--connect", address, "--worker-id", worker_id, "--namespace", namespace]
        super().__init__(
            log,
            "plait_worker",
            "tests.end_to_end.live_worker:worker",
            *arguments,
            env={"STAGE": stage},
        )


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process (Linux)."""
    pages = Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
