"""Errors as a line or two for the user: the cause, then the remedy."""

from __future__ import annotations

import grpc

from plait_client import errors as client_errors
from plait_client.graph_file import GraphFileError
from plait_server import errors as server_errors
from plait_server.adapters.otlp.settings import InvalidSetting
from plait_server.cli.exit_codes import ExitCode
from plait_server.cli.text import one_line
from plait_server.ports.span_sender import SendFailed

_BY_CALLER = (
    client_errors.NotFound,
    client_errors.InvalidArgument,
    client_errors.AlreadyExists,
    client_errors.OutOfRange,
)


def explain(error: Exception) -> tuple[ExitCode, str]:
    """Return the exit code and the text for an error that ended a command."""
    match error:
        case client_errors.PlaitError():
            return _code_of(error), "\n  ".join(_lines_of(error))
        case GraphFileError():
            return ExitCode.INVALID_GRAPH, str(error)
        case server_errors.PlaitError():
            return ExitCode.FAILED, str(error)
        case InvalidSetting():
            return ExitCode.USAGE, one_line(str(error))
        case SendFailed():
            return ExitCode.FAILED, one_line(str(error))
        case OSError():
            name = f"{error.filename}: " if error.filename else ""
            return ExitCode.FAILED, f"{name}{error.strerror or error}"
        case _:
            text = f"{type(error).__name__}: {one_line(str(error), 500)}"
            return ExitCode.FAILED, f"{text}\nThis is a bug: please report it with what PLAIT_DEBUG=1 shows."


def _code_of(error: client_errors.PlaitError) -> ExitCode:
    if error.reason == "INVALID_GRAPH":
        return ExitCode.INVALID_GRAPH
    if error.code is grpc.StatusCode.UNAVAILABLE:
        return ExitCode.UNREACHABLE
    return ExitCode.USAGE if isinstance(error, _BY_CALLER) else ExitCode.FAILED


def _lines_of(error: client_errors.PlaitError) -> list[str]:
    if len(error.violations) > 1:
        return [
            "the request is refused:",
            *(one_line(f"{violation.field}: {violation.message}") for violation in error.violations),
        ]
    lines = [one_line(error.message)]
    if error.retry_after is not None:
        lines.append(f"try again in {error.retry_after.total_seconds():g} s")
    return lines
