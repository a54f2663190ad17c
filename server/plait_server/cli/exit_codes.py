"""The exit codes of `plait`, which scripts rely on, and whether tracebacks are shown."""

from __future__ import annotations

import enum
import os


class ExitCode(enum.IntEnum):
    """An exit code."""

    SUCCESS = 0
    """The execution SUCCEEDED, or the command did what it should."""
    NOT_SUCCEEDED = 1
    """The execution ended in any other state."""
    USAGE = 2
    """The command line is wrong, or names what is not there."""
    INVALID_GRAPH = 3
    """The graph is invalid, or its file cannot be read as one."""
    UNREACHABLE = 4
    """The server could not be reached."""
    FAILED = 5
    """Anything else went wrong."""
    INTERRUPTED = 130
    """Ctrl-C, as shells have it: 128 and the number of SIGINT."""


def is_debugging() -> bool:
    """Return whether PLAIT_DEBUG=1 asks for tracebacks."""
    return os.environ.get("PLAIT_DEBUG") == "1"
