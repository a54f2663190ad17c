"""The entry of the command line, which turns every error into a line or two and an exit code.

Nothing beyond the standard library is imported here, so that a missing extra is named instead of shown as a
traceback.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Final, cast

from plait_server.cli.exit_codes import ExitCode, is_debugging

_EXTRAS: Final[Mapping[str, str]] = {
    "cel_expr_python": "cli",
    "click": "cli",
    "google.rpc": "cli",
    "opentelemetry": "cli",
    "yaml": "cli",
    "apsw": "server",
    "grpc_health": "server",
    "grpc_reflection": "server",
    "structlog": "server",
    "trio": "server",
    "trio_asyncio": "server",
}
"""Package to the extra of this distribution that brings it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `plait` and return the exit code.

    Args:
        arguments: what stands behind `plait`; None: this process's own.
    """
    # gRPC's own library writes to stderr what is not for the user; what fails is told by the calls that fail.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a line of a drawing shows a question mark, and the command goes on.
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")
    try:
        from plait_server.cli.app import run  # noqa: PLC0415 -- click may be missing.

        return run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except (Exception, BaseExceptionGroup) as error:  # The boundary: here it is told to the user, once.
        first = _first_of(error)
        if isinstance(first, KeyboardInterrupt):
            return ExitCode.INTERRUPTED
        if is_debugging() or not isinstance(first, Exception):
            raise
        return _tell(first)


def _first_of(error: BaseException) -> BaseException:
    """Return what ended a nursery out of the group in which it comes; Ctrl-C too comes in one."""
    while isinstance(error, BaseExceptionGroup):
        error = cast("BaseExceptionGroup[BaseException]", error).exceptions[0]
    return error


def _tell(error: Exception) -> int:
    if isinstance(error, ModuleNotFoundError) and (extra := _extra_of(error.name or "")):
        text = f'{error.name} is not installed; this command needs: pip install "plait[{extra}]"'
        code = ExitCode.FAILED
    else:
        from plait_server.cli.failures import explain  # noqa: PLC0415 -- Needs what may be missing.

        code, text = explain(error)
    sys.stderr.write(f"plait: {text}\n")
    return code


def _extra_of(module: str) -> str | None:
    return next((extra for name, extra in _EXTRAS.items() if f"{module}.".startswith(f"{name}.")), None)
