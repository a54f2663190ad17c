"""Adds to log records the attempt from which they come (B3), and formats them for `python -m plait_worker`.

The attempt is kept in a context variable. Tasks inherit it, and `asyncio.to_thread` passes it on; in a thread that a
handler starts itself, it is set if the thread runs in `contextvars.copy_context()`.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from contextvars import ContextVar
from typing import Any, Final, TypeAlias
from weakref import WeakKeyDictionary

from plait_worker.session_events import Assigned

LOG_FIELDS: Final = ("namespace", "execution", "node", "branch", "attempt", "trace", "span")
"""The names of the fields, in the order in which they are written; the same as in the server's log."""

LogFields: TypeAlias = dict[str, str | int]
"""Name -> value; no value is empty."""

_UNPRINTED: Final = (
    *range(0x20),
    # DEL and the C1 control characters, some of which begin an escape sequence.
    *range(0x7F, 0xA0),
    # Line separators, and characters that change the direction of writing.
    *range(0x200E, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
)
_ESCAPES: Final = str.maketrans(
    {chr(code): chr(code).encode("unicode_escape").decode() for code in _UNPRINTED}
)
_TRACEPARENT_PARTS: Final = 4

# The namespace and the attempt of the current context.
_attempt: ContextVar[tuple[str, Assigned] | None] = ContextVar("plait_attempt", default=None)

# The same by task, for the watchdog, which cannot read the context of a task.
_attempt_of_task: WeakKeyDictionary[asyncio.Task[Any], tuple[str, Assigned]] = WeakKeyDictionary()


def enter_attempt(task: asyncio.Task[Any], namespace: str, assigned: Assigned) -> None:
    """Add the attempt to what is logged in its task from now on. Called in that task."""
    attempt = namespace, assigned
    _attempt.set(attempt)
    _attempt_of_task[task] = attempt


def running_fields(loop: asyncio.AbstractEventLoop) -> LogFields:
    """Return the fields of a line about the attempt whose task a loop is running. May be called in any thread."""
    task = asyncio.current_task(loop)
    attempt = None if task is None else _attempt_of_task.get(task)
    return {} if attempt is None else attempt_fields(*attempt)


def attempt_fields(namespace: str, assigned: Assigned) -> LogFields:
    """Return the fields of a line about an attempt; the span is the attempt's."""
    fields: LogFields = {
        "namespace": namespace,
        "execution": assigned.execution_id,
        "node": assigned.node_path,
        "branch": assigned.branch,
        "attempt": assigned.attempt,
    }
    parts = assigned.traceparent.split("-")
    if len(parts) >= _TRACEPARENT_PARTS:
        fields["trace"], fields["span"] = parts[1:3]
    return {name: value for name, value in fields.items() if value}


class AttemptFilter(logging.Filter):
    """Adds to each log record the attempt from which it comes; for programs that set up logging themselves.

        handler = logging.StreamHandler()
        handler.addFilter(AttemptFilter())

    The records of handlers, by whichever logger, then have the attributes `namespace`, `execution`, `node`, `branch`,
    `attempt`, `trace` and `span`: the current span if the program uses OpenTelemetry, else the attempt's. Attributes
    that a record already has, by `extra`, are kept; records from elsewhere get none. Add it to log handlers: the filter
    of a logger is not called for records of the loggers below it. It lets every record pass.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields."""
        attempt = _attempt.get()
        if attempt is not None:
            for name, value in (attempt_fields(*attempt) | _current_span_fields()).items():
                record.__dict__.setdefault(name, value)
        return True


class WorkerFormatter(logging.Formatter):
    """Formats records as text: the message, and ` execution=... node=...` for each field that the record has.

    Messages come from handlers, so line breaks and terminal control characters are escaped. The fields come last, so
    that the last `execution=` of a line is not the message's. The lines of a traceback are indented, so that none looks
    like a record.
    """

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Format the record's first line."""
        values = vars(record)
        fields = "".join(f" {name}={values[name]}" for name in LOG_FIELDS if name in values)
        return one_line(super().formatMessage(record) + fields)

    def format(self, record: logging.LogRecord) -> str:
        """Format the record, and its traceback if it has one."""
        first, *others = super().format(record).split("\n")
        return "\n".join([first, *(f"    {one_line(other)}" for other in others)])


def log_to_stderr() -> None:
    """Write the log of this process to stderr, from INFO on, unless the program has set up logging itself."""
    if logging.getLogger("plait_worker").hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(WorkerFormatter())
    handler.addFilter(AttemptFilter())
    root = logging.getLogger()
    root.addHandler(handler)
    if root.level == logging.WARNING:
        # Python's default; the program has set any other level.
        root.setLevel(logging.INFO)


def one_line(text: str) -> str:
    """Escape line breaks and terminal control characters in a text from elsewhere."""
    return text.translate(_ESCAPES)


def _current_span_fields() -> LogFields:
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry import trace  # noqa: PLC0415 - only if the program has imported it.

    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return {}
    return {"trace": trace.format_trace_id(span.trace_id), "span": trace.format_span_id(span.span_id)}
