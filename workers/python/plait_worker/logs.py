"""What log records say of the attempt they come from (B3), and how `python -m plait_worker` writes them.

The attempt is kept in a context variable, which tasks inherit and `asyncio.to_thread` hands on; a thread that a handler
starts itself inherits it if it runs in `contextvars.copy_context()`.
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
"""The names of the fields, in the order in which they are written; the server's log has the same."""

LogFields: TypeAlias = dict[str, str | int]
"""Name -> value; none of the values is empty."""

_UNPRINTED: Final = (
    *range(0x20),
    # DEL, and the second set of control characters, some of which begin an escape sequence.
    *range(0x7F, 0xA0),
    # Line separators, and what turns the direction of writing.
    *range(0x200E, 0x2010),
    *range(0x2028, 0x202F),
    *range(0x2066, 0x206A),
)
_ESCAPES: Final = str.maketrans(
    {chr(code): chr(code).encode("unicode_escape").decode() for code in _UNPRINTED}
)
_TRACEPARENT_PARTS: Final = 4

# The namespace, and the attempt.
_attempt: ContextVar[tuple[str, Assigned] | None] = ContextVar("plait_attempt", default=None)


# The same for its task: the watchdog cannot look into the task's context.
_attempt_of_task: WeakKeyDictionary[asyncio.Task[Any], tuple[str, Assigned]] = WeakKeyDictionary()


def enter_attempt(task: asyncio.Task[Any], namespace: str, assigned: Assigned) -> None:
    """Have what is logged in an attempt's task name the attempt. Called in that task."""
    attempt = namespace, assigned
    _attempt.set(attempt)
    _attempt_of_task[task] = attempt


def running_fields(loop: asyncio.AbstractEventLoop) -> LogFields:
    """Return the fields of a line about the attempt whose task a loop runs at the moment. Open to every thread."""
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
    """Adds to each log record which attempt it comes from; for programs that set up logging themselves.

        handler = logging.StreamHandler()
        handler.addFilter(AttemptFilter())

    What handlers log, by whichever logger, then has the attributes `namespace`, `execution`, `node`, `branch`,
    `attempt`, `trace` and `span`: the span is the current one if the program uses OpenTelemetry, else the attempt's.
    Fields that a record has already, by `extra`, are left; records from elsewhere have none. It belongs on handlers:
    a filter of a logger does not see what comes from the loggers below it. It lets every record pass.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields."""
        attempt = _attempt.get()
        if attempt is not None:
            for name, value in (attempt_fields(*attempt) | _current_span_fields()).items():
                record.__dict__.setdefault(name, value)
        return True


class WorkerFormatter(logging.Formatter):
    """Formats records as text: ` execution=... node=...` follows the message, for each field that the record has.

    A message is a handler's: what would begin another line or steer a terminal is escaped. The fields come last, so
    the last `execution=` of a line is not the message's. The lines of a traceback are indented, and so begin no record.
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
    """Write what is logged in this process to stderr, from INFO on, unless the program has set up logging itself."""
    if logging.getLogger("plait_worker").hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(WorkerFormatter())
    handler.addFilter(AttemptFilter())
    root = logging.getLogger()
    root.addHandler(handler)
    if root.level == logging.WARNING:
        # Python's default; another level is the program's.
        root.setLevel(logging.INFO)


def one_line(text: str) -> str:
    """Write a text that is not ours so that it stays one line of the log, and steers no terminal."""
    return text.translate(_ESCAPES)


def _current_span_fields() -> LogFields:
    if "opentelemetry.trace" not in sys.modules:
        return {}
    from opentelemetry import trace  # noqa: PLC0415 - for programs that have imported it already.

    span = trace.get_current_span().get_span_context()
    if not span.is_valid:
        return {}
    return {"trace": trace.format_trace_id(span.trace_id), "span": trace.format_span_id(span.span_id)}
